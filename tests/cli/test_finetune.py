import json
import shutil
from pathlib import Path

import click.testing
import numpy as np
import pytest
import torch

from charlm.cli import main
from charlm.config import ModelConfig
from charlm.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charlm.text.tokenizer import WordTokenizer
from charlm.training.finetune import LEARNING_RATE_FACTOR
from charlm.training.network import LanguageModel
from tests.conftest import VERSE, make_checkpoint
from tests.training.test_distributed import finish, start_ranks

NEW_TEXT = "Où est la forêt? (Là-bas.)\n" * 20
QUICK = ["--steps", "6", "--batch-size", "2", "--seq-len", "8", "--threads", "1", "--precision", "fp32"]
STILL = ["--lr", "1e-30"]
"""A rate at which no weight moves."""


def run(*arguments: object, stdin: str = "", code: int = 0) -> click.testing.Result:
    """The command line in this very process, which training leaves as it found it."""
    done = click.testing.CliRunner().invoke(main, list(map(str, arguments)), input=stdin)
    torch.set_flush_denormal(False)
    assert done.exit_code == code, done.output
    return done


def log_of(name: str) -> list[dict[str, float | None]]:
    return [json.loads(line) for line in Path("checkpoints", name, "log.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture
def new_text() -> Path:
    path = Path("new.txt")
    path.write_text(NEW_TEXT, encoding="utf-8")
    return path


@pytest.fixture
def word_model() -> Path:
    """A small untrained model of the words of `VERSE`, as the run `words`."""
    tokenizer = WordTokenizer.from_text([VERSE.lower()], lowercase=True)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=8, embedding_dim=8, tie_weights=True)
    path = Path("checkpoints/words/model.safetensors")
    save_checkpoint(
        path, Checkpoint(config=config, tokenizer=tokenizer, tensors=LanguageModel(config).to_tensors(), metadata={})
    )
    return path


def test_a_new_run_begins_with_the_model_and_says_what_it_adds(model_file: Path, new_text: Path) -> None:
    before = model_file.read_bytes()
    done = run("train", new_text, "--from", "tiny", *QUICK, *STILL)
    assert done.stdout == "checkpoints/new/model.safetensors\n"
    start, grown = load_checkpoint(model_file), load_checkpoint(Path(done.stdout.strip()))
    known = len(set(VERSE))
    said = f"Note: pretrained model tiny: {known} characters known, 5 added, 18.52% of the text: '(' ')' 'à' 'ê' 'ù'\n"
    assert said in done.stderr
    assert grown.config.hidden_size == start.config.hidden_size
    for place, token in enumerate(start.tokenizer.tokens):
        assert grown.tokenizer.tokens[place] == token
        for name in ("embedding.weight", "decoder.weight", "decoder.bias"):
            np.testing.assert_allclose(grown.tensors[name][place], start.tensors[name][place], rtol=1e-6, atol=1e-25)
    told = grown.metadata["from"]
    assert (told["model"], told["tokens_added"]) == ("checkpoints/tiny/model.safetensors", 5)
    assert told["sha256"] in run("info", "-m", "new", "--json").stdout
    assert told["model"] in run("info", "-m", "new").stdout
    assert model_file.read_bytes() == before
    assert "none added" in run("train", "new.txt", "--from", "checkpoints/new", *QUICK, *STILL).stderr


def test_the_model_is_measured_first_and_kept_if_no_update_makes_it_better(model_file: Path, new_text: Path) -> None:
    done = run("train", new_text, "--from", model_file, "--name", "worse", *QUICK, "--lr", "30", "--warmup", "0")
    saved = load_checkpoint(Path("checkpoints/worse/model.safetensors"))
    first, *later = [entry["val_nats"] for entry in log_of("worse") if entry["val_nats"] is not None]
    assert first is not None
    assert all(nats is not None and nats > first for nats in later)
    assert saved.metadata["metrics"]["step"] == 0
    assert saved.metadata["metrics"]["val_nats"] == first
    assert log_of("worse")[0]["train_nats"] is None
    assert f"before      {first:.4f} nats" in done.stderr
    assert "Warning: nothing was learned: no update lowered the validation loss" in done.stderr
    assert "or --lr below 30\n" in done.stderr
    assert "charlm sample" not in done.stderr
    better = run("train", new_text, "--from", model_file, "--name", "better", *QUICK)
    assert "Warning" not in better.stderr
    assert "charlm sample -m better" in better.stderr


def test_the_rate_is_a_share_of_a_fresh_one_unless_it_is_given(model_file: Path, new_text: Path) -> None:
    run("train", new_text, "--from", "tiny", *QUICK)
    run("train", new_text, *QUICK, "--hidden", "8")
    tuned, fresh = (load_checkpoint(Path("checkpoints", name, "model.safetensors")) for name in ("new", "new-2"))
    assert (
        tuned.metadata["training"]["learning_rate"]
        == LEARNING_RATE_FACTOR * fresh.metadata["training"]["learning_rate"]
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["--from", "tiny", "--hidden", "16"],
            2,
            "--hidden 16 contradicts 12, the value of checkpoints/tiny/",
        ),
        (["--from", "tiny", "--cell", "gru"], 2, "--cell gru contradicts lstm"),
        (["--from", "tiny", "--tie"], 2, "--tie on contradicts off"),
        (["--from", "tiny", "--tokenizer", "word"], 2, "--tokenizer word contradicts char"),
        (["--from", "tiny", "--split", "whitespace"], 2, "--split applies to words only, and"),
        (["--from", "tiny", "--lowercase"], 2, "--lowercase on contradicts off"),
        (["--from", "tiny", "--normalize", "NFC"], 2, "--normalize NFC contradicts none"),
        (["--from", "tiny", "--glove", "new.txt"], 2, "--glove and --from both provide embeddings"),
        (["--from", "words", "--split", "whitespace"], 2, "--split whitespace contradicts words"),
        (["--from", "words", "--no-lowercase"], 2, "--lowercase off contradicts on"),
        (["--from", "words", "--vocab-size", "9"], 2, "tokens, which are all kept: set it to at least that"),
        (["--from", "nobody"], 1, "nobody: no model file or run found; runs in ./checkpoints: tiny, words"),
        (["--from", "new.txt"], 1, "new.txt: not a model file"),
        (["--from", "tiny", "--resume"], 2, "are for a new run"),
        (
            ["--from", "tiny", "--name", "tiny", "--force"],
            1,
            "this run contains the model of --from",
        ),
    ],
)
def test_what_contradicts_the_model_is_named_in_one_line(
    arguments: list[str], code: int, message: str, model_file: Path, word_model: Path, new_text: Path
) -> None:
    before = {path: path.read_bytes() for path in (model_file, word_model)}
    done = run("train", new_text, *arguments, *QUICK, code=code)
    errors = [line for line in done.stderr.splitlines() if line and not line.startswith(("Usage", "Try"))]
    assert len(errors) == 1
    assert message in errors[0]
    assert before == {path: path.read_bytes() for path in before}
    assert sorted(path.name for path in Path("checkpoints").iterdir()) == ["tiny", "words"]


def test_equal_settings_are_no_contradiction_and_six_characters_from_a_pipe_are_enough(model_file: Path) -> None:
    same = ["--hidden", "12", "--cell", "lstm", "--layers", "1", "--no-tie", "--tokenizer", "char"]
    done = run("train", "-", "--from", "tiny", *same, "--dropout", "0.1", *QUICK, stdin="é€\x1bßé€")
    assert r"4 added" in done.stderr
    assert r"'\x1b'" in done.stderr
    tokens = load_checkpoint(Path(done.stdout.strip())).tokenizer.tokens
    assert set("é€\x1bß") < set(tokens)


def test_words_are_added_within_their_bounds(word_model: Path) -> None:
    Path("new.txt").write_text("Alpha beta Alpha gamma beta Alpha delta to be\n" * 2, encoding="utf-8")
    known = load_checkpoint(word_model).tokenizer.vocab_size
    for bound, added in (
        ([], 4),
        (["--vocab-size", known + 2], 2),
        (["--min-count", 4], 2),
        (["--vocab-size", known], 0),
    ):
        done = run("train", "new.txt", "--from", "words", *bound, *QUICK, *STILL)
        grown = load_checkpoint(Path(done.stdout.strip()))
        assert list(grown.tokenizer.tokens[known:]) == ["alpha", "beta", "gamma", "delta"][:added]
        assert grown.config.tie_weights
        assert ("none added" in done.stderr) == (added == 0)


class StopsAfter:
    """Stands in for `charlm.cli.signals.StopSignals`: as if SIGINT came when it is asked for the nth time."""

    def __init__(self, asked: int) -> None:
        self._left = asked

    def __enter__(self) -> "StopsAfter":
        return self

    def __exit__(self, *error: object) -> None:
        return None

    @property
    def number(self) -> int:
        self._left -= 1
        return 2 if self._left < 0 else 0


@pytest.mark.parametrize("asked", [0, 2, 40], ids=["in the first validation", "right after it", "on the way"])
def test_a_resumed_run_is_the_uninterrupted_one_and_needs_its_model_no_more(
    asked: int, model_file: Path, new_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [new_text, "--from", "tiny", *QUICK, "--steps", "60", "--dropout", "0.2"]
    with monkeypatch.context() as patch:
        patch.setattr("charlm.cli.signals.StopSignals", lambda: StopsAfter(asked))
        run("train", *settings, "--name", "broken", code=130)
    run("train", *settings, "--name", "whole")
    shutil.rmtree(model_file.parent)
    run("train", "--resume", "broken")
    whole, broken = (load_checkpoint(Path("checkpoints", name, "model.safetensors")) for name in ("whole", "broken"))
    assert whole.metadata["from"] == broken.metadata["from"]
    assert whole.metadata["metrics"]["val_nats"] == broken.metadata["metrics"]["val_nats"]
    for name, tensor in whole.tensors.items():
        assert tensor.tobytes() == broken.tensors[name].tobytes()
    assert [entry["step"] for entry in log_of("whole")] == [entry["step"] for entry in log_of("broken")]


def test_without_a_text_to_validate_on_the_last_model_counts(model_file: Path, new_text: Path) -> None:
    run("train", new_text, "--from", "tiny", "--val-fraction", "0", *QUICK)
    assert load_checkpoint(Path("checkpoints/new/model.safetensors")).metadata["metrics"]["step"] == 6


@pytest.mark.torture
def test_several_processes_begin_with_the_same_model(model_file: Path, new_text: Path) -> None:
    (out, err), other = finish(start_ranks(2, ["-m", "charlm", "train", "new.txt", "--from", "tiny", *QUICK]))
    assert out == "checkpoints/new/model.safetensors\n"
    assert "added" in err
    assert other == ("", "")
    _, plain = make_checkpoint()
    assert load_checkpoint(Path(out.strip())).config.vocab_size == plain.config.vocab_size + 5
