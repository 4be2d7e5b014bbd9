"""Every lesson with `quick`: its printed text and its figures; and the data of the lessons on digits."""

import gzip
import importlib
import math
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from charlm.config import CELLS
from charlm.errors import CorpusError
from charlm.lessons import LESSONS, LessonOptions, Say, digit_data, review_data
from charlm.lessons.digit_data import load_digits
from charlm.lessons.drawn_digits import draw_digits
from charlm.lessons.review_data import load_reviews
from charlm.training.batches import pad_front

COLUMNS = 80
PROSE_LENGTH = 40
ROOT = Path(__file__).resolve().parents[2]
Output = tuple[list[str], dict[str, Any]]
"""Printed lines and figures of a lesson."""


def run_lesson(name: str, statuses: list[str] | None = None, **options: Any) -> Output:
    lines: list[str] = []
    say = Say(lambda text: lines.extend(text.split("\n")), ([] if statuses is None else statuses).append)
    module = importlib.import_module(f"charlm.lessons.{name}")
    return lines, module.run(say, LessonOptions(quick=True, **options))


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Output]:
    """Run each lesson once, with `quick` and in a folder of its own."""

    @cache
    def run(name: str) -> Output:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path_factory.mktemp(name))
            statuses: list[str] = []
            lines, figures = run_lesson(name, statuses)
            if "file" in figures:
                figures = {**figures, "written": Path(figures["file"]).read_text(encoding="utf-8")}
        return lines, {**figures, "statuses": statuses}

    return run


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_fits_80_columns_and_tells_what_to_look_at(name: str, lesson: Callable[[str], Output]) -> None:
    lines, _ = lesson(name)
    assert [line for line in lines if len(line) > COLUMNS] == []
    assert any(line.startswith("Look at") or " Look at " in line for line in lines)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("series", r"batch [\d,]+ of [\d,]+"),
        ("digits", r"epoch \d+ of \d+, batch \d+ of \d+"),
        ("skipgram", r"step [\d,]+ of [\d,]+"),
        ("reviews", r"epoch \d+ of \d+: validation accuracy [\d.]+%"),
        ("shakespeare", r"training: \d+%, [\d.]+ nats per character"),
    ],
)
def test_a_long_lesson_says_how_far_it_is(name: str, status: str, lesson: Callable[[str], Output]) -> None:
    _, figures = lesson(name)
    assert len([text for text in figures["statuses"] if re.fullmatch(status, text)]) > 1


@pytest.mark.parametrize("name", LESSONS)
def test_the_page_of_a_lesson_has_its_text(name: str, lesson: Callable[[str], Output]) -> None:
    """Compare the lines that are in the code as they are printed; others contain numbers, which may differ."""
    code = Path(importlib.import_module(f"charlm.lessons.{name}").__file__ or "").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "lessons" / f"{name}.md").read_text(encoding="utf-8")
    prose = {line for line in lesson(name)[0] if line in code and len(line) > PROSE_LENGTH}
    assert prose
    assert prose - set(page.splitlines()) == set(), "run `make docs`"


def test_the_pages_of_the_lessons_are_in_the_order_of_the_course() -> None:
    sections = tomllib.loads((ROOT / "docs" / "navigation.toml").read_text(encoding="utf-8"))["section"]
    (pages,) = (section["pages"] for section in sections if section["title"] == "Lessons")
    assert [Path(page).stem for page in pages[1:]] == list(LESSONS)


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_code_has_40_to_120_lines(name: str) -> None:
    source = Path(importlib.import_module(f"charlm.lessons.{name}").__file__ or "")
    assert 40 <= len(source.read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize(
    ("name", "equation"),
    [
        ("cell", "Y1 = tanh(Y0 Wy + X1 Wx + b)"),
        ("unroll", "state[b]      = outputs[b, lengths[b] - 1]"),
        ("lstm", "i = sigmoid(x Wi + h Ui + bi)"),
        ("embed", "one_hot(id) W = W[id]"),
        ("loss", "p[v] = exp(z[v]) / sum of exp(z[w])"),
        ("hello", "ln 6 = 1.79"),
        ("series", "w(t) = t sin(t) / 3 + 2 sin(5 t)"),
        ("batchnorm", "y = a (x - m) / sqrt(v + 1e-5) + b"),
        ("reviews", "logits = W [e(1), e(2), ..., e(40)] + b"),
        ("skipgram", "P(v) = sigmoid(s(v) - ln(K q(v)))"),
    ],
)
def test_equation_is_printed_before_the_numbers(name: str, equation: str, lesson: Callable[[str], Output]) -> None:
    lines, _ = lesson(name)
    place = next(index for index, line in enumerate(lines) if equation in line)
    numbers = next(index for index, line in enumerate(lines) if index != place and re.search(r"\d\.\d\d", line))
    assert place < numbers


def test_cell_computed_by_hand_equals_both_networks(lesson: Callable[[str], Output]) -> None:
    _, figures = lesson("cell")
    assert set(figures["difference"]) == {"library", "engine"}
    assert max(figures["difference"].values()) < 1e-6
    assert np.shape(figures["y0"]) == np.shape(figures["y1"]) == (4, 5)


def test_unroll_ignores_padding(lesson: Callable[[str], Output]) -> None:
    _, figures = lesson("unroll")
    assert figures["greatest_past_the_end"] == 0
    assert figures["state_is_last_output"] is True
    assert figures["shapes"] == {"inputs": [4, 2, 3], "outputs": [4, 2, 5], "state": [1, 4, 5]}


def test_shapes_and_number_of_weights(lesson: Callable[[str], Output]) -> None:
    _, figures = lesson("shapes")
    state = [1, 3, 2]
    assert figures["shapes"] == {
        "one step, h": [[1, 1, 4], [1, 1, 2], [1, 1, 2]],
        "five steps, hello": [[1, 5, 4], [1, 5, 2], [1, 1, 2]],
        "three words": [[3, 5, 4], [3, 5, 2], state],
        "lstm": [[3, 5, 2], state, state],
        "gru": [[3, 5, 2], state],
        "rnn": [[3, 5, 2], state],
        "last output only": [3, 2],
        "classifier": [3, 3],
    }
    assert figures["parameters_one_bias"] == [14, 10, 10]
    assert figures["parameters"] == 34


def test_stack_in_two_parts_equals_one_pass(lesson: Callable[[str], Output]) -> None:
    _, figures = lesson("stack")
    assert figures["difference"] < 1e-6
    assert figures["state_difference"] < 1e-6
    assert figures["without_state"] > 1e-2
    assert figures["backward_difference"] < 1e-6
    assert figures["backward_ends_at_first"] is True


def test_lstm_by_hand_equals_torch_and_has_long_gradients(lesson: Callable[[str], Output]) -> None:
    _, figures = lesson("lstm")
    assert figures["difference"] < 1e-6
    far = {name: column[figures["distances"].index(100)] for name, column in figures["gradients"].items()}
    assert far["rnn"] < 1e-9
    assert far["lstm 0"] < 1e-9
    assert far["lstm 1"] > 1e4 * far["rnn"]
    assert 0.01 < far["lstm 2"] < 100


def test_embed_pads_and_cuts_at_the_start(lesson: Callable[[str], Output]) -> None:
    _, figures = lesson("embed")
    assert figures["padded"] == [[1, 2, 4, 2, 3], [0, 0, 0, 1, 2], [0, 4, 5, 2, 1], [1, 2, 3, 4, 5]]
    assert figures["look_up_is_product"] is True
    assert figures["padding"]["masked"] < 1e-6 < 1e-2 < figures["padding"]["read"]


def test_pad_front_with_another_padding_id_and_without_sequences() -> None:
    assert pad_front([[], [7], [1, 2, 3]], 2, pad_id=9).tolist() == [[9, 9], [9, 7], [2, 3]]
    assert pad_front([], 3).shape == (0, 3)


def test_losses_equal_known_values(lesson: Callable[[str], Output]) -> None:
    _, figures = lesson("loss")
    assert list(figures["losses"].values()) == pytest.approx(
        [0.596759, 0.513015, 0.371101, 1.31326, 0.646595], abs=5e-6
    )
    assert figures["by_hand"] == pytest.approx(0.596759, abs=5e-7)
    assert figures["weighted"]["0 1 0"] == pytest.approx(math.log(math.exp(0.6) + math.exp(0.2)) - 0.2)


@pytest.mark.parametrize("seed", range(20))
def test_hello_learns_the_word_with_every_seed(seed: int) -> None:
    _, figures = run_lesson("hello", seed=seed)
    assert figures["predicted"] == "ihello"
    assert figures["steps"] < 50


def test_series_forecasts_have_small_errors(lesson: Callable[[str], Output]) -> None:
    _, figures = lesson("series")
    assert figures["mse"]["1 layer"] < 2  # the wave has a variance of 18
    assert figures["mse"]["3 layers"] < 1
    assert len(figures["times"]) == len(figures["wave"]) == 20
    for name, values in figures["own"].items():  # each forecast is the next input
        assert len(values) == 20
        assert abs(values[0] - figures["wave"][-1]) < 4, name


def test_series_continues_with_its_own_forecasts() -> None:
    series = importlib.import_module("charlm.lessons.series")
    window = torch.arange(20.0).reshape(1, 20, 1)
    assert series.continue_alone(lambda values: (values + 1, None), window) == [float(n) for n in range(20, 40)]


@pytest.mark.slow
def test_full_series_lesson_reaches_the_error_limit() -> None:
    module = importlib.import_module("charlm.lessons.series")
    figures = module.run(Say(lambda text: None), LessonOptions())
    assert figures["mse"]["1 layer"] < 0.09


@pytest.mark.parametrize("cell", CELLS)
def test_digits_are_learnt_with_every_cell(cell: str, lesson: Callable[[str], Output]) -> None:
    _, figures = lesson("digits") if cell == "lstm" else run_lesson("digits", cell=cell)
    assert figures["cell"] == cell
    assert figures["data"] == "drawn digits"
    assert figures["accuracy"][-1] > 0.5  # chance is 0.1
    assert figures["loss_nats"][-1] < figures["loss_nats"][0]


def test_batchnorm_trains_faster(lesson: Callable[[str], Output]) -> None:
    _, figures = lesson("batchnorm")
    assert figures["normalised"][0] > figures["plain"][0]
    assert len(figures["plain"]) == len(figures["normalised"])


def test_skipgram_finds_words_of_family_and_writes_glove_format(lesson: Callable[[str], Output]) -> None:
    _, figures = lesson("skipgram")
    assert figures["toy"]["draws_from_full"][1000] < 0.1
    assert figures["toy"]["full_from_softmax"][10_000] < 0.001
    assert {"mother", "son", "brother", "daughter", "husband", "sister", "wife"} & set(figures["neighbours"]["father"])
    rows = [line.split(" ") for line in figures["written"].splitlines()]
    assert rows[0][0] == "the"
    assert {len(row) for row in rows} == {51}
    assert np.isfinite(np.array([row[1:] for row in rows], dtype=float)).all()


def test_reviews_improve_with_more_labels_and_with_a_language_model(lesson: Callable[[str], Output]) -> None:
    _, figures = lesson("reviews")
    final = {name: curve["validation"][-1] for name, curve in figures["accuracy"].items()}
    assert (figures["train"], figures["few"], figures["validation"]) == (1600, 200, 400)
    assert final["embedding and LSTM, 1,600 labels"] > final["embedding and LSTM, 200 labels"] + 0.05
    assert final["LSTM of the language model, 200 labels"] > final["embedding and LSTM, 200 labels"] + 0.05
    assert figures["accuracy"]["embedding, flattened, 200 labels"]["training"][-1] > 0.95
    assert figures["language_model_nats"][-1] < figures["language_model_nats"][0]


def test_speeches_are_labelled_by_the_case_of_their_second_line() -> None:
    script = (
        "\nIAGO:\nThe Moor is of\na free nature\nand open.\n\nMOOR:\nO cruel dame\nThat hides\n\n"
        "CASSIO:\nAy, my lord,\nAnd so\nFarewell.\n\nMOOR:\nNo.\n"
    )
    labelled, others = review_data.label_speeches(script, seed=1)
    (prose, verse) = labelled.samples
    assert (prose.label, prose.text) == ("prose", "the moor is of a free nature")
    assert (verse.label, verse.text) in {("verse", "o cruel dame that hides"), ("verse", "ay, my lord, and so")}
    assert {"and open.", "farewell.", "no."} <= set(others)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Return a folder with a file per class, of 150 texts each."""
    for label in ("good", "bad"):
        (tmp_path / f"{label}.txt").write_text("".join(f"A {label} film, number {n}.\n" for n in range(150)))
    return tmp_path


def test_validation_texts_are_not_in_the_text_without_labels(films: Path) -> None:
    reviews = load_reviews(LessonOptions(data=films), None, 1000)
    assert reviews.labels == ("bad", "good")
    assert (len(reviews.train), len(reviews.few), len(reviews.validation)) == (240, 200, 60)
    assert reviews.tokenizer.decode(reviews.ids).count("\n") == 240


def test_reviews_learn_from_a_folder_with_vectors_from_a_file(
    films: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    vectors = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    vectors.write_text("good 1 0 0\nbad -1 0 0\nfilm 0 1 0\n", encoding="utf-8")
    lines, figures = run_lesson("reviews", data=films, glove=vectors)
    assert figures["accuracy"]["word vectors, flattened, 200 labels"]["validation"][-1] == 1
    assert any(line.startswith(f"{vectors}: 3 of ") for line in lines)


def test_reviews_need_two_hundred_texts_to_learn_from(tmp_path: Path) -> None:
    for label in ("good", "bad"):
        (tmp_path / f"{label}.txt").write_text("A film.\n" * 100)
    with pytest.raises(CorpusError, match=r": 160 texts to learn from, after a fifth .*; the lesson needs 200"):
        load_reviews(LessonOptions(data=tmp_path), None, 1000)


def test_shakespeare_scores_the_real_line_best(lesson: Callable[[str], Output]) -> None:
    lines, figures = lesson("shakespeare")
    bits = figures["bits_per_char"]
    assert bits["as it is"] < bits["words shuffled"]
    assert bits["as it is"] < bits["letters shuffled"]
    assert sum(line.startswith("After") for line in lines) == 3
    assert set(figures["samples"]) == {"0.2", "0.8", "1.2"}


@pytest.mark.parametrize("name", [name for name, entry in LESSONS.items() if "plot" in entry.takes])
def test_picture_is_drawn_from_the_figures(name: str, lesson: Callable[[str], Output]) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    importlib.import_module(f"charlm.lessons.{name}").draw(figure, lesson(name)[1])
    assert all(axes.lines and axes.get_title() for axes in figure.axes)


def test_drawn_digits_are_repeatable_images_of_all_ten_digits() -> None:
    images, labels = draw_digits(200, seed=3)
    assert images.shape == (200, 28, 28)
    assert images.dtype == np.float32
    assert 0 <= images.min() < images.max() <= 1
    assert set(labels) == set(range(10))
    assert np.array_equal(images, draw_digits(200, seed=3)[0])


def idx(array: npt.NDArray[np.uint8]) -> bytes:
    """Return an array in idx format."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Return a folder with small files in MNIST's format, two of them compressed."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 20)):
        images = rng.integers(256, size=(count, 28, 28), dtype=np.uint8)
        labels = rng.integers(10, size=count, dtype=np.uint8)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


def test_mnist_is_read_from_plain_and_compressed_files(mnist: Path) -> None:
    digits = load_digits(LessonOptions(data=mnist))
    assert digits.name == "MNIST"
    assert (digits.images.shape, digits.test_images.shape) == ((30, 28, 28), (20, 28, 28))
    assert (digits.labels.shape, digits.test_labels.shape) == ((30,), (20,))
    assert float(digits.images.max()) == 1
    pixels = gzip.decompress((mnist / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    assert np.array_equal(np.round(digits.test_images.numpy().ravel() * 255), np.frombuffer(pixels, np.uint8))


def test_missing_mnist_file_is_named(mnist: Path) -> None:
    (mnist / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(CorpusError, match=r"t10k-labels-idx1-ubyte not found, neither plain nor \.gz"):
        load_digits(LessonOptions(data=mnist))


def test_a_folder_that_the_system_rejects_is_an_error() -> None:
    with pytest.raises(CorpusError, match=r"^data x+/train-images-idx3-ubyte: cannot be read \(File name too long\)$"):
        load_digits(LessonOptions(data=Path("x" * 300)))


def test_a_compressed_mnist_file_is_read_up_to_a_limit(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digit_data, "MAX_IDX_BYTES", 20_000)
    with pytest.raises(CorpusError, match=r"train-images-idx3-ubyte\.gz: cannot be read, or is damaged"):
        load_digits(LessonOptions(data=mnist))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train-labels-idx1-ubyte", b"no idx"),
        ("train-labels-idx1-ubyte", b""),
        ("train-labels-idx1-ubyte", b"\0\0\x08"),
        ("train-labels-idx1-ubyte", idx(np.zeros(30, np.uint8))[:-1]),
        ("train-labels-idx1-ubyte", idx(np.zeros(29, np.uint8))),
        ("train-labels-idx1-ubyte", idx(np.full(30, 10, np.uint8))),
        ("t10k-images-idx3-ubyte.gz", b"no gzip"),
        ("t10k-images-idx3-ubyte.gz", gzip.compress(idx(np.zeros((20, 28, 28), np.uint8)))[:-9]),
    ],
    ids=["not idx", "empty", "truncated header", "truncated", "too few", "label 10", "not gzip", "truncated gzip"],
)
def test_damaged_mnist_file_is_an_error(mnist: Path, name: str, content: bytes) -> None:
    (mnist / name).write_bytes(content)
    with pytest.raises(CorpusError, match=r"MNIST|damaged|idx"):
        load_digits(LessonOptions(data=mnist))
