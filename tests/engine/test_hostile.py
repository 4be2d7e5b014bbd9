"""Damaged files and random command lines must not cause tracebacks, hangs or large memory use."""

import contextlib
import gzip
import io
import json
import resource
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import charlm
from charlm.cli import COMMANDS, main
from charlm.engine.checkpoint import load_checkpoint, save_checkpoint
from charlm.engine.classifier_file import load_classifier
from charlm.errors import CharlmError, CheckpointError
from charlm.text.corpus import CorpusReader
from charlm.text.glove import embed_vocabulary
from charlm.text.tokenizer import CharTokenizer, WordTokenizer, tokenizer_from_dict
from charlm.text.vector_files import VectorFile
from charlm.training.network import LanguageModel
from charlm.training.request import Hardware, Request
from charlm.training.resumption import prepare_resumed
from charlm.training.trainer import Trainer
from tests.conftest import GATE, VERSE, make_mixture, make_ngram_model
from tests.engine.test_spelling import word_checkpoint

Tally = Callable[[str], None]

FEW, MANY = 150, 10_000
cases = pytest.mark.parametrize("cases", [FEW, pytest.param(MANY, marks=pytest.mark.torture)])

MAX_MEGABYTES = 400
"""Maximum growth of memory over all cases of a test, in MiB. The files have some kilobytes."""

MAX_CPU_SECONDS = 20
"""Maximum CPU time of a case in seconds. Elapsed time would depend on the load of the machine."""

HOSTILE_BYTES = [
    b"\0",
    b"\xff" * 8,
    b"-1",
    b"1e999",
    b"NaN",
    b"[" * 50,
    b'{"',
    b'"',
    b"\\ud800",
    b"\x1b[2J",
    b"99999999999",
]


def flip_bit(data: bytearray, place: int, size: int, rng: np.random.Generator) -> None:
    if place < len(data):
        data[place] ^= 1 << int(rng.integers(8))


def overwrite_randomly(data: bytearray, place: int, size: int, rng: np.random.Generator) -> None:
    data[place : place + size] = rng.bytes(size)


def delete_bytes(data: bytearray, place: int, size: int, rng: np.random.Generator) -> None:
    del data[place : place + size]


def insert_hostile_bytes(data: bytearray, place: int, size: int, rng: np.random.Generator) -> None:
    data[place:place] = HOSTILE_BYTES[int(rng.integers(len(HOSTILE_BYTES)))]


def repeat_bytes(data: bytearray, place: int, size: int, rng: np.random.Generator) -> None:
    data[place:place] = data[place // 2 : place // 2 + size]


def change_digit(data: bytearray, place: int, size: int, rng: np.random.Generator) -> None:
    """Change a digit among the first 4,000 bytes, where the numbers of headers are."""
    digits = [index for index in range(min(len(data), 4000)) if 48 <= data[index] < 58]
    if digits:
        data[digits[int(rng.integers(len(digits)))]] = 48 + int(rng.integers(10))


def truncate_rarely(data: bytearray, place: int, size: int, rng: np.random.Generator) -> None:
    if rng.random() < 0.2:
        del data[place:]


MUTATIONS = (
    flip_bit,
    overwrite_randomly,
    delete_bytes,
    insert_hostile_bytes,
    repeat_bytes,
    change_digit,
    truncate_rarely,
)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Return data with one to four mutations, half of them in the first 3,000 bytes, where headers are."""
    mutated = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        length = len(mutated)
        place = int(rng.integers(length + 1 if rng.random() < 0.5 else min(length, 3000) + 1))
        size = int(rng.integers(1, 20))
        MUTATIONS[int(rng.integers(len(MUTATIONS)))](mutated, place, size, rng)
    return bytes(mutated)


@contextlib.contextmanager
def limited_resources() -> Iterator[Callable[[], None]]:
    """Check the growth of memory at the end, and yield a function that checks the CPU time of a case after it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    last = [time.process_time()]

    def check_time() -> None:
        assert time.process_time() - last[0] < MAX_CPU_SECONDS
        last[0] = time.process_time()

    yield check_time
    unit = 2**20 if sys.platform == "darwin" else 2**10
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit < MAX_MEGABYTES


def run_without_traceback(*args: str | Path, stdin: bytes = b"") -> str:
    """Run a command line, which may succeed or report an error, and return its output."""
    done = CliRunner().invoke(main, [*map(str, args)], input=stdin, catch_exceptions=False)
    assert done.exit_code in {0, 1, 2}, args
    assert "Traceback" not in done.output
    return done.output


def assert_printable(output: str) -> None:
    assert all(char.isprintable() or char == "\n" for char in output.replace("\t", ""))


@cases
def test_damaged_model_files_are_refused_or_work(
    cases: int, model_file: Path, rng: np.random.Generator, tally: Tally
) -> None:
    words = word_checkpoint(WordTokenizer.from_text([VERSE], min_count=2))
    kinds = [model_file.read_bytes()]
    for checkpoint in (words, make_mixture(order=3), make_mixture(order=3, gate=GATE), make_ngram_model(order=3)):
        save_checkpoint(model_file, checkpoint)
        kinds.append(model_file.read_bytes())
    refused = 0
    with limited_resources() as check_time:
        for case in range(cases):
            model_file.write_bytes(mutate(kinds[case % len(kinds)], rng))
            try:
                load_checkpoint(model_file)
            except CheckpointError:
                refused += 1
                message = run_without_traceback("info")
                assert_printable(message)
                assert len(message) < 1000
            else:
                for command in (["info"], ["info", "--json"], ["next", "--prime", "T"]):
                    assert_printable(run_without_traceback(*command))
                run_without_traceback("sample", "-n", "4", "--seed", "1")
                run_without_traceback("score", stdin=b"To be or xyzzy\n")
            check_time()
    assert refused > 0.3 * cases
    tally(f"{cases:,} damaged model files, {refused:,} were refused; the others worked")


@cases
def test_damaged_classifiers_are_refused_or_work(cases: int, rng: np.random.Generator, tally: Tally) -> None:
    samples = [("good", "a fine film"), ("bad", "a dull film")] * 10
    path = charlm.train_classifier(samples, epochs=1, threads=1, hidden_size=4, embedding_dim=4).path
    content, refused = path.read_bytes(), 0
    with limited_resources() as check_time:
        for _ in range(cases):
            path.write_bytes(mutate(content, rng))
            try:
                load_classifier(path)
            except CheckpointError:
                refused += 1
                message = run_without_traceback("info", path)
                assert_printable(message)
                assert len(message) < 1000
            else:
                assert_printable(run_without_traceback("info", path))
                run_without_traceback("classify", "predict", "-m", path, "--all", stdin=b"a fine film\n\n")
            check_time()
    assert refused > 0.3 * cases
    tally(f"{cases:,} damaged classifiers, {refused:,} were refused; the others worked")


@cases
def test_damaged_training_states_are_refused_or_resumed(cases: int, rng: np.random.Generator, tally: Tally) -> None:
    Path("verse.txt").write_text(VERSE, encoding="utf-8")
    settings = ["--hidden", "4", "--embed", "4", "--steps", "3", "--seq-len", "8", "--batch-size", "2"]
    run_without_traceback("train", "verse.txt", *settings)
    last = Path("checkpoints/verse/last.safetensors")
    whole = last.read_bytes().replace(b'\\"finished\\": true', b'\\"finished\\": false')
    length = int.from_bytes(whole[:8], "little") + 1
    whole = length.to_bytes(8, "little") + whole[8:]
    last.write_bytes(whole)
    resume_training()
    with limited_resources() as check_time:
        for _ in range(cases):
            last.write_bytes(mutate(whole, rng))
            with contextlib.suppress(CharlmError):
                resume_training()
            check_time()
    tally(f"{cases:,} damaged training states given to --resume")


def resume_training() -> None:
    """Do everything that `train --resume` does before the first update."""
    request = Request(force=True, hardware=Hardware(device="cpu"))
    with prepare_resumed(request, "verse") as training, torch.random.fork_rng():
        model = LanguageModel(training.model_config)
        trainer = Trainer(model, training.dataset, training.train_config, run=training.run, metadata=training.metadata)
        assert training.saved is not None
        trainer.resume(training.saved)


@cases
def test_damaged_texts_are_refused_or_scored(
    cases: int, model_file: Path, rng: np.random.Generator, tally: Tally
) -> None:
    assert model_file.exists()
    text = (VERSE[:300] + "größer, 日本語 🙂\r\n\x85\u2028").encode()
    plain, packed = Path("some.txt"), Path("some.gz")
    with limited_resources() as check_time:
        for case in range(cases):
            path, whole = ((plain, text), (packed, gzip.compress(text, mtime=0)))[case % 2]
            path.write_bytes(mutate(whole, rng))
            encoding = ("utf-8", "utf-16", "latin-1", "shift_jis", "utf-7", "idna", "utf-8-sig")[case % 7]
            with contextlib.suppress(CharlmError), CorpusReader([str(path)], encoding=encoding) as texts:
                tokenizer = CharTokenizer.from_pieces(texts.pieces())
                assert all(tokenizer.decode(tokenizer.encode(piece)) == piece for piece in texts.pieces())
            run_without_traceback("score", path, "--encoding", encoding)
            run_without_traceback("score", "--total", path)
            check_time()
    tally(f"{cases:,} damaged texts: plain and gzip, in seven encodings")


@cases
def test_damaged_word_vectors_are_refused_or_used(
    cases: int, model_file: Path, rng: np.random.Generator, tally: Tally
) -> None:
    assert model_file.exists()
    words = ["the", "to", "be", "New York", "größer", "."]
    lines = [f"{word} {' '.join(f'{number:.4f}' for number in rng.normal(size=5))}\n" for word in words]
    text = "".join(lines).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("vectors.txt", text)
    files = {
        "plain.txt": text,
        "header.txt": b"6 5\n" + text,
        "packed.gz": gzip.compress(text, mtime=0),
        "packed.zip": packed.getvalue(),
    }
    with limited_resources() as check_time:
        for case in range(cases):
            name = list(files)[case % len(files)]
            Path(name).write_bytes(mutate(files[name], rng))
            with contextlib.suppress(CharlmError):
                embedding, _ = embed_vocabulary(VectorFile(Path(name)), ["<unk>", *words], np.ones(7, np.int64), seed=0)
                assert np.isfinite(embedding).all()
            assert_printable(run_without_traceback("vectors", "nearest", "be", "--file", name))
            check_time()
    tally(f"{cases:,} damaged files of word vectors: plain, with a header, gzip and zip")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
HEADERS = st.dictionaries(st.sampled_from(["kind", "chars", "tokens", "words", "split"]), JSON) | st.builds(
    lambda chars, more: {"kind": "char", "chars": chars, **more},
    st.text(st.characters()),
    st.dictionaries(st.text(max_size=5), JSON, max_size=2),
)


def check_tokenizer_header(header: dict[str, object]) -> None:
    """Check that a header is refused, or that its tokenizer works."""
    try:
        tokenizer = tokenizer_from_dict(header)
    except CheckpointError:
        return
    ids = np.arange(1, tokenizer.vocab_size)
    np.testing.assert_array_equal(tokenizer.encode(tokenizer.decode(ids)), ids)
    assert tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict()))).tokens == tokenizer.tokens


WORDS = """-m --model tiny -n 3 --temp 0 --top-k --top-p --count --seed 7 --json -q --prime - --total --errors
--encoding utf-8 --threads --help -h --name --minutes 0 nan inf -1 1e400 verse.txt --version --top --"""
ARGUMENTS = st.lists(
    st.sampled_from([*COMMANDS, *WORDS.split(), "", "a\0b"]) | st.text(st.characters(), max_size=10), max_size=7
)


def check_command_line(arguments: list[str]) -> None:
    """Check that a command line succeeds or reports an error.

    Trainings, lessons and long samples are avoided, because they take too much time.
    """
    if arguments[:1] in (["train"], ["lesson"], ["python"]):
        arguments = [arguments[0], "absent", *arguments[1:]]
    if arguments[:1] == ["sample"]:
        arguments = [*arguments, "-n", "3"]
    if "--help" not in arguments:
        arguments = [argument for argument in arguments if argument not in {"shakespeare", "python"}]
    assert_printable(run_without_traceback(*arguments, stdin=b"To be\n"))


def fuzz(check: Callable[..., None], strategy: st.SearchStrategy[object], cases: int) -> None:
    """Call a function with random arguments."""
    run = given(strategy)(check)
    settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))(run)()


@cases
def test_random_tokenizer_headers_are_refused_or_used(cases: int, tally: Tally) -> None:
    fuzz(check_tokenizer_header, HEADERS, cases)
    tally(f"{cases:,} random tokenizer headers")


@cases
def test_random_command_lines_report_errors(cases: int, model_file: Path, tally: Tally) -> None:
    assert model_file.exists()
    Path("verse.txt").write_text(VERSE, encoding="utf-8")
    with limited_resources():
        fuzz(check_command_line, ARGUMENTS, cases)
    tally(f"{cases:,} random command lines")


@given(st.binary(max_size=100))
@example(b"\x1f\x8b\x08")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_are_read_as_text_or_refused(data: bytes) -> None:
    for name in ("any.txt", "any.gz", "any.safetensors"):
        Path(name).write_bytes(data)
        with contextlib.suppress(CharlmError), CorpusReader([name]) as texts:
            list(texts.pieces())
    with pytest.raises(CheckpointError):
        load_checkpoint(Path("any.safetensors"))
