import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from charlm.config import TokenizerConfig
from charlm.engine import training_text
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.training_text import load_training_text
from charlm.errors import ConfigError, CorpusError, RunError
from charlm.text.corpus import CorpusReader
from charlm.text.tokenizer import CharTokenizer, Tokenizer
from charlm.training.callbacks import Callbacks
from charlm.training.dataset import Dataset, TextSources, build_vocabulary, read_dataset
from charlm.training.request import Hardware, Request, TextOptions, open_machine, request_from_settings
from charlm.training.resumption import prepare_resumed
from charlm.training.setup import prepare_new, run
from tests.conftest import VERSE

TINY = {"steps": 6, "hidden_size": 8, "batch_size": 2, "seq_len": 8, "precision": "fp32"}
ONE_THREAD = Hardware(device="cpu", threads=1)
WORDS = TokenizerConfig(tokenizer="word", min_count=1)


@pytest.fixture(autouse=True)
def _process_state() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


@pytest.fixture
def verse() -> str:
    Path("verse.txt").write_text(VERSE, encoding="utf-8")
    return "verse.txt"


def request(corpus: str, **changes: object) -> Request:
    return Request(**{"corpus": [corpus], "settings": TINY, "hardware": ONE_THREAD, **changes})  # type: ignore[arg-type]


def dataset_of(text: str, config: TokenizerConfig, *, validation: str = "", base: Tokenizer | None = None) -> Dataset:
    Path("train.txt").write_text(text, encoding="utf-8")
    Path("valid.txt").write_text(validation, encoding="utf-8")
    with CorpusReader(["train.txt"]) as corpus, CorpusReader(["valid.txt"]) as held_out:
        sources = TextSources(corpus=corpus, validation=held_out if validation else None, cache=Path("cache"))
        return read_dataset(sources, config, base=base)


def test_run_trains_from_start_to_end(verse: str) -> None:
    steps: list[int] = []
    made, progress = run(
        request(verse, name="mine", command="test"), Callbacks(report=lambda now: steps.append(now.step))
    )
    checkpoint = load_checkpoint(made.model)
    assert (made.path, progress.step, steps[0]) == (Path("checkpoints/mine"), 6, 1)
    assert checkpoint.metadata["command"] == "test"
    assert checkpoint.metadata["corpus"]["sources"] == [verse]
    assert checkpoint.metadata["training"]["steps"] == 6


def test_a_dry_run_plans_and_creates_nothing(verse: str) -> None:
    announced: list[str] = []
    with prepare_new(request(verse), announced.append, dry_run=True) as training:
        assert announced == ["reading the text", "starting PyTorch", "timing some updates to choose the settings"]
        assert training.plan is not None
        assert training.plan.given == TINY.keys()
        assert training.model_config.hidden_size == 8
    assert not Path("checkpoints").exists()


def test_the_run_is_locked_until_the_context_ends(verse: str) -> None:
    with prepare_new(request(verse, name="mine")) as training:
        assert training.run.is_locked()
    assert not training.run.is_locked()


def test_the_same_request_makes_the_same_initial_model(verse: str) -> None:
    weights = []
    for name in ("one", "two"):
        with prepare_new(request(verse, name=name)) as training:
            weights.append(training.make_model().to_tensors())
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_errors_come_before_the_text_is_read() -> None:
    Path("empty.txt").touch()
    with pytest.raises(ConfigError, match="hidden_size 0"):
        run(request("empty.txt", settings={"hidden_size": 0}))
    with pytest.raises(ConfigError, match="validation and val_fraction") as raised:
        run(request("empty.txt", validation=["empty.txt"], settings={"val_fraction": 0.2}))
    assert {"validation", "val_fraction"} <= set(raised.value.fields)
    Path("checkpoints/taken").mkdir(parents=True)
    Path("checkpoints/taken/log.jsonl").touch()
    with pytest.raises(RunError, match="taken"):
        run(request("empty.txt", name="taken"))
    with pytest.raises(CorpusError, match="empty"):
        run(request("empty.txt"))


def test_a_default_name_is_numbered_if_it_is_taken(verse: str) -> None:
    names = [run(request(verse, default_name="lesson"))[0].name for _ in range(2)]
    assert names == ["lesson", "lesson-2"]


def test_a_finished_run_is_not_resumed(verse: str) -> None:
    run(request(verse, name="mine"))
    with pytest.raises(RunError, match="complete"), prepare_resumed(request(verse), "mine"):
        pass


def test_flat_settings_are_sorted_into_a_request() -> None:
    made = request_from_settings(
        {
            "steps": 3,
            "glove": "v.txt",
            "force": True,
            "encoding": "latin-1",
            "cache": "c",
            "threads": 1,
            "device": "cpu",
        },
        corpus=("a.txt",),
    )
    assert made.settings == {"steps": 3}
    assert (made.glove, made.force, made.corpus) == (Path("v.txt"), True, ("a.txt",))
    assert made.text == TextOptions(encoding="latin-1", cache=Path("c"))
    assert (made.hardware.device, made.hardware.threads) == ("cpu", 1)
    for unknown in ("stepps", "vocab_size"):  # the vocabulary size follows from the text
        with pytest.raises(TypeError, match=unknown):
            request_from_settings({unknown: 3})


def test_opening_the_machine_sets_what_pytorch_reads_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "own")
    with open_machine(ONE_THREAD) as machine:
        assert (machine.device.type, machine.workers.count) == ("cpu", 1)
        assert torch.get_num_threads() == 1
    assert os.environ["GOMP_SPINCOUNT"] == "4000"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == "own"


def test_a_text_of_characters_is_split_at_its_end() -> None:
    text = "To be or not to be. " * 50
    data = dataset_of(text, TokenizerConfig())
    assert data.val_fraction == 0.1
    assert data.tokenizer.decode(np.concatenate([data.train_ids, data.val_ids])) == text
    assert len(data.val_ids) == 100
    assert data.chars_per_token == 1


@pytest.mark.parametrize("config", [TokenizerConfig(), WORDS])
def test_a_carriage_return_before_a_newline_is_no_token_but_a_character(config: TokenizerConfig) -> None:
    text = (VERSE * 4).replace("\n", "\r\n")
    unix, dos = dataset_of(VERSE * 4, config), dataset_of(text, config)
    assert dos.tokenizer.to_dict() == unix.tokenizer.to_dict()
    ids = [np.concatenate([dataset.train_ids, dataset.val_ids]) for dataset in (unix, dos)]
    np.testing.assert_array_equal(*ids)
    validated = dos.tokenizer.decode(dos.val_ids).replace("\n", "\r\n")
    assert text.endswith(validated)
    assert dos.chars_per_token == len(validated) / len(dos.val_ids)


@pytest.mark.parametrize("config", [TokenizerConfig(), WORDS])
def test_folded_text_is_measured_by_the_characters_of_the_original(config: TokenizerConfig) -> None:
    text = "E\u0301T\u00c9 OU HIVER\n\ufb01n\n" * 60
    folding = {"lowercase": True, "normalize": "NFC"}
    data = dataset_of(text, replace(config, **folding), validation="")  # type: ignore[arg-type]
    ids = np.concatenate([data.train_ids, data.val_ids])
    assert data.tokenizer.decode(ids) == "\u00e9t\u00e9 ou hiver\n\ufb01n\n" * 60
    validated = data.tokenizer.decode(data.val_ids)
    num_chars = sum(len(line) + 1 + (line.startswith("\u00e9")) for line in validated.splitlines())
    assert data.chars_per_token == num_chars / len(data.val_ids)


def test_only_frequent_characters_are_known() -> None:
    data = dataset_of("to be or not to be\n" * 30 + "日\n", TokenizerConfig(min_count=2, max_vocab=8))
    assert len(data.tokenizer.tokens) == 8
    assert "日" not in data.tokenizer.tokens
    assert data.tokenizer.unknown_in("日") == ["日"]


def test_a_limited_vocabulary_is_extended_by_the_most_frequent_characters() -> None:
    base = CharTokenizer.from_pieces(["abc\n"])
    extended = build_vocabulary(TokenizerConfig(max_vocab=8), ["vxyyzzzzwww"], base)
    assert extended.tokens[1:] == ("\n", "a", "b", "c", "z", "w", "y")


def test_a_separate_validation_text_leaves_the_corpus_whole() -> None:
    data = dataset_of("abcabc" * 60, TokenizerConfig(), validation="abd")
    assert len(data.train_ids) == 360
    assert data.val_fraction == 0
    assert data.tokenizer.decode(data.val_ids) == "ab\ufffd"
    assert data.notes() == ["1 of 3 tokens of the validation text are unknown (33.33%)"]


def test_the_vocabulary_of_words_comes_from_the_training_text_alone() -> None:
    data = dataset_of("one two\n" * 60, WORDS, validation="one six\n")
    assert "six" not in data.tokenizer.tokens
    assert data.tokenizer.decode(data.val_ids) == "one <unk>\n"
    assert data.chars_per_token == 8 / 3


def test_a_base_vocabulary_keeps_its_ids() -> None:
    base = CharTokenizer("xyz")
    tokenizer = build_vocabulary(TokenizerConfig(), ["zebra"], base)
    assert list(tokenizer.tokens[1:]) == ["x", "y", "z", "a", "b", "e", "r"]


@pytest.mark.parametrize(("text", "config"), [("aaaa" * 30, TokenizerConfig()), ("one\n" * 60, WORDS)])
def test_a_text_with_one_distinct_token_is_refused(text: str, config: TokenizerConfig) -> None:
    with pytest.raises(CorpusError, match=r"train\.txt: only one distinct (character|word)"):
        dataset_of(text, config)


def stop_early() -> Callbacks:
    """Callbacks that stop a training after its first update."""
    reports: list[object] = []
    return Callbacks(report=reports.append, stop=lambda: bool(reports))


def test_a_training_text_that_cannot_be_stored_is_a_note(verse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(training_text, "atomic_write", full)
        with prepare_new(request(verse, name="mine")) as training:
            training.train(stop_early())
    *_, text_note = training.notes
    assert text_note.startswith("checkpoints/mine/text.gz: cannot be written (No space left on device)")
    assert training.run.model.exists()
    with prepare_resumed(Request(hardware=ONE_THREAD), "mine") as resumed:  # stores what is missing
        assert load_training_text(resumed.run.model, {}) == VERSE
    resumed.run.text.write_bytes(b"kept")
    with prepare_resumed(Request(hardware=ONE_THREAD), "mine"):
        assert resumed.run.text.read_bytes() == b"kept"


def test_a_changed_text_is_added_to_the_stored_one(verse: str) -> None:
    with prepare_new(request(verse, name="mine")) as training:
        training.train(stop_early())
    Path(verse).write_text(VERSE.upper(), encoding="utf-8")
    with prepare_resumed(Request(hardware=ONE_THREAD, force=True), "mine") as resumed:
        assert load_training_text(resumed.run.model, {}) == VERSE.upper() + VERSE
