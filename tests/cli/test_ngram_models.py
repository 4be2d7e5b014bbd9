"""Every command with a model that has an n-gram model beside its network, or no network."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import charlm
from charlm.cli import main
from charlm.engine.checkpoint import Checkpoint, save_checkpoint
from charlm.engine.mixture import open_predictor
from charlm.engine.runs import Run
from charlm.engine.scorer import ModelScorer, score_text
from charlm.engine.training_text import store_training_text
from tests.conftest import VERSE, make_mixture, make_ngram_model

MODELS = {"mixture": make_mixture(), "ngram": make_ngram_model()}


@pytest.fixture(params=MODELS)
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    """A model with counts, as the run `tiny`; the other one is the run `other`."""
    for name, model in MODELS.items():
        run = "tiny" if name == request.param else "other"
        save_checkpoint(Path("checkpoints", run, "model.safetensors"), model)
    Path("lines.txt").write_text("To be, or not\nxyzzy %\nHAMLET:\n", encoding="utf-8")
    return MODELS[request.param]


def run(*args: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, [*args], input=stdin, catch_exceptions=False)


def output(*args: str, stdin: str = "") -> str:
    done = run(*args, stdin=stdin)
    assert done.exit_code == 0, done.output
    return done.stdout


SAMPLE_OPTIONS = [
    "--temp 0.5 --top-k 5",
    "--top-p 0.9 --typical 0.9 --min-p 0.01 --repeat-penalty 1.3",
    "--greedy",
    "--count 3 --lines 2",
    "--prime HAM --stop T --ban be --json",
    "--items 3 --unique --max-chars 30",
    "--beam 3 --json",
    "--allow-unk --temp 5",
    "--mix other:0.5",
    "--mix other:0.5 --beam 2 --lines 1",
]


@pytest.mark.parametrize("options", SAMPLE_OPTIONS)
def test_texts_are_generated(checkpoint: Checkpoint, options: str) -> None:
    command = ["sample", "-m", "tiny", "-n", "40", *([] if "beam" in options else ["--seed", "1"]), *options.split()]
    first = output(*command)
    assert first.strip()
    assert output(*command) == first


def test_the_greedy_text_has_the_most_probable_tokens(checkpoint: Checkpoint) -> None:
    predictor, text = open_predictor(checkpoint), "To"
    for _ in range(20):
        probs = predictor.read([predictor.tokenizer.encode("\n" + text)]).probs()[0]
        text += predictor.tokenizer.tokens[1 + probs[1:].argmax()]
    assert output("sample", "-m", "tiny", "--prime", "To", "--temp", "0", "-n", "20").rstrip("\n") == text.rstrip("\n")


def test_a_text_does_not_repeat_the_training_text(checkpoint: Checkpoint) -> None:
    Path("verse.txt").write_text(VERSE, encoding="utf-8")
    text = output(*["sample", "-m", "tiny", "--novel", "6", "--corpus", "verse.txt", "-n", "100", "--seed", "2"])
    assert not any(text[begin : begin + 6] in VERSE for begin in range(len(text) - 6))


@pytest.mark.parametrize(("text", "novel"), [("-n 60", "--novel 6"), ("--items 9", "--new")])
def test_a_mixture_does_not_repeat_the_training_text_of_any_model(
    checkpoint: Checkpoint, text: str, novel: str
) -> None:
    command = ["sample", "-m", "tiny", "--mix", "other:0.5", "--seed", "2", *text.split()]
    known = output(*command)
    for name, training_text in {"tiny": "Zebras\n", "other": known}.items():
        store_training_text(Run(Path("checkpoints", name)), [[training_text]])
    new = output(*command, *novel.split())
    if novel == "--new":
        assert not set(new.splitlines()) & set(known.splitlines())
    else:
        assert not any(new[begin : begin + 6] in known for begin in range(len(new) - 6))


def test_the_next_tokens_are_those_of_the_model(checkpoint: Checkpoint) -> None:
    found = {
        entry["token"]: entry["probability"]
        for entry in json.loads(output("next", "-m", "tiny", "--prime", "To b", "--json", "--top", "99"))
    }
    predictor = open_predictor(checkpoint)
    probs = predictor.read([predictor.tokenizer.encode("\nTo b")]).probs()[0]
    np.testing.assert_allclose([found[token] for token in predictor.tokenizer.tokens], probs, atol=1e-6)
    mixed = json.loads(output("next", "-m", "tiny", "--mix", "other:0.25", "--prime", "To b", "--json", "--top", "1"))
    other = {
        entry["token"]: entry["probability"]
        for entry in json.loads(output("next", "-m", "other", "--prime", "To b", "--json", "--top", "99"))
    }
    (best,) = mixed
    assert best["probability"] == pytest.approx(0.75 * found[best["token"]] + 0.25 * other[best["token"]], abs=1e-5)


SCORE_OPTIONS = [
    "--format bits-per-char,tokens,unknowns,text",
    "--total",
    "--total --json",
    "--total --by-line",
    "--per-token",
    "--per-word",
    "--color",
    "--vs other",
    "--mix other:0.3",
    "--total --mix other:0.3",
    "-m other",
    "--context To",
    "--threads 2",
]


@pytest.mark.parametrize("options", SCORE_OPTIONS)
def test_lines_are_scored(checkpoint: Checkpoint, options: str) -> None:
    assert output("score", "-m", "tiny", "lines.txt", *options.split())


def test_pairs_are_compared(checkpoint: Checkpoint) -> None:
    assert output("score", "-m", "tiny", "--pairs", stdin="To be\txq zv\n").strip()


def test_scores_are_those_of_the_predictor(checkpoint: Checkpoint) -> None:
    predictor = open_predictor(checkpoint)
    lines = Path("lines.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    rows = output("score", "-m", "tiny", "lines.txt").splitlines()
    for line, row in zip(lines, rows, strict=True):
        (scores,) = ModelScorer(predictor).score_lines([line])
        assert float(row.split("\t")[0]) == pytest.approx(scores.score.bits_per_char, abs=1e-3)
    total = json.loads(output("score", "-m", "tiny", "--total", "--json", "lines.txt"))
    assert total["nats_per_token"] == pytest.approx(score_text(predictor, "".join(lines)).nats_per_token, rel=1e-5)


def test_info_says_what_the_counts_are(checkpoint: Checkpoint) -> None:
    assert checkpoint.counts is not None
    ngram = checkpoint.counts.ngram
    facts = json.loads(output("info", "tiny", "--json"))
    assert facts["ngram"]["order"] == 4
    assert facts["ngram"]["ngrams"] == ngram.num_ngrams
    assert facts["ngram"]["bytes"] == sum(array.nbytes for array in ngram.to_tensors().values())
    has_network = bool(checkpoint.tensors)
    assert facts["ngram"].get("weight") == (0.4 if has_network else None)
    assert (facts["parameters"] > 0) == has_network
    rows = [row.split("\t") for row in output("info", "tiny").splitlines()]
    assert ["ngram", "order", "4"] in rows
    assert ("hidden_size" in [row[1] for row in rows]) == has_network
    assert ("parameters" in [row[0] for row in rows]) == has_network


def test_info_shows_the_losses_of_the_parts(checkpoint: Checkpoint) -> None:
    metrics = {"val_nats": 1.4, "val_nats_network": 1.46, "val_nats_ngram": 1.52}
    save_checkpoint(Path("model.safetensors"), replace(checkpoint, metadata={"metrics": metrics}))
    rows = [row.split("\t") for row in output("info", "model.safetensors").splitlines()]
    assert [row[1:] for row in rows if row[0] == "metrics"] == [[name, f"{nats:g}"] for name, nats in metrics.items()]


def test_vectors_need_a_network() -> None:
    save_checkpoint(Path("model.safetensors"), MODELS["ngram"])
    for command in (["export"], ["nearest", "T"], ["similar", "T", "b"], ["analogy", "T", "b", "e"]):
        done = run("vectors", *command, "-m", "model.safetensors")
        assert done.exit_code == 1
        assert done.stderr == (
            "Error: model.safetensors: has no vectors, because it has n-grams and no network; name another model\n"
        )
    save_checkpoint(Path("model.safetensors"), MODELS["mixture"])
    assert output("vectors", "nearest", "T", "-m", "model.safetensors")


def test_python_uses_the_whole_model(checkpoint: Checkpoint) -> None:
    model = charlm.load("tiny")
    predictor = open_predictor(checkpoint)
    assert ("lstm 1 x 12" in repr(model)) == bool(checkpoint.tensors)
    assert "n-grams of order 4" in repr(model)
    assert model.score("To be\n").nll_nats == pytest.approx(score_text(predictor, "To be\n").nll_nats)
    best, *_ = model.next_tokens("To b")
    probs = predictor.read([predictor.tokenizer.encode("\nTo b")]).probs()[0]
    assert best.probability == pytest.approx(probs.max(), rel=1e-5)
    assert model.generate("To", length=20, seed=1)
    surprisals = model.surprisals("To be")
    assert np.isfinite(surprisals.entropy).all()
    np.testing.assert_allclose(surprisals.bits, model.surprisals("To be", unit="character").bits, atol=1e-5)
    assert list(model.items(2, seed=1))


def test_an_error_about_a_mixture_is_one_line(checkpoint: Checkpoint) -> None:
    for command in ("sample", "next"):
        for mix, message in (
            ("other", "must be a model, a colon and a weight"),
            ("nobody:0.5", "no model file"),
            ("other:0.7", ""),
        ):
            done = run(command, "-m", "tiny", "--mix", mix, "--mix", "other:0.5")
            assert done.exit_code in (1, 2)
            assert (message or "at most 1 is possible") in done.stderr
