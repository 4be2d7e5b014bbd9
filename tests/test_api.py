import doctest
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import charlm
from charlm import api, errors
from charlm.engine import scores, surprisals
from charlm.engine.checkpoint import Checkpoint, save_checkpoint
from charlm.engine.runs import INCLUDED_MODELS, Run
from charlm.engine.training_text import store_training_text
from charlm.errors import CheckpointError, ConfigError
from tests.conftest import VERSE, Charlm, make_checkpoint

SETTINGS = {"steps": 20, "hidden_size": 8, "batch_size": 2, "seq_len": 8, "threads": 1, "precision": "fp32"}


@pytest.fixture
def model(model_file: Path) -> charlm.Model:
    return charlm.load(model_file)


@pytest.fixture
def _plain_floats() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("_plain_floats")
def test_the_examples_in_the_docstrings_run() -> None:
    for module, min_examples in ((api, 13), (surprisals, 4), (errors, 3), (scores, 3)):
        failed, tried = doctest.testmod(module, extraglobs={"charlm": charlm})
        assert tried >= min_examples
        assert failed == 0


def test_every_public_name_exists_and_has_an_example() -> None:
    for name in charlm.__all__:
        assert "Example:" in getattr(charlm, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = charlm.nothing


def test_import_is_light_and_using_a_model_never_imports_torch(model_file: Path) -> None:
    code = (
        "import sys, charlm\n"
        "assert not {'numpy', 'torch', 'click'} & set(sys.modules)\n"
        f"model = charlm.load({str(model_file)!r})\n"
        "model.generate(length=5), model.score('To be'), model.surprisals('To be', unit='word'), model.next_tokens()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_generated_text_equals_that_of_the_command(model: charlm.Model, model_file: Path, charlm: Charlm) -> None:
    text = model.generate("To be", length=40, temperature=0.7, seed=3, top_k=5)
    assert text == "".join(model.generate("To be", length=40, temperature=0.7, seed=3, top_k=5, stream=True))
    arguments = ("--prime", "To be", "-n", 40, "--temp", 0.7, "--seed", 3, "--top-k", 5)
    printed = charlm("sample", "-m", model_file, *map(str, arguments)).stdout
    assert printed == f"To be{text}" + "\n" * (not text.endswith("\n"))


def test_settings_of_generate_are_checked(model: charlm.Model) -> None:
    with pytest.raises(ConfigError, match="temperature -1"):
        model.generate(temperature=-1)
    with pytest.raises(ConfigError, match="omit beam and count"):
        model.generate(beam=3)
    with pytest.raises(TypeError, match="top_q"):
        model.generate(top_q=0.5)
    assert model.generate(length=100, seed=1, stop=["e"]).count("e") == 0
    assert model.generate(length=100, seed=1, stop="e") == model.generate(length=100, seed=1, stop=["e"])
    with pytest.raises(ConfigError, match="length -1 has no end"):
        model.generate(length=-1)
    assert model.next_tokens(top=-1) == []


@pytest.mark.parametrize("novel", [-1, 0, 1001])
def test_the_length_of_new_runs_is_checked(novel: int, model_file: Path) -> None:
    store_training_text(Run(model_file.parent), [[VERSE]])
    with pytest.raises(ConfigError, match="must be from 1 to 1000"):
        charlm.load(model_file).generate(length=5, novel=novel)


def test_surprisals_of_every_unit_sum_to_the_score(model: charlm.Model) -> None:
    text = "  To be, or 語 not\n\nto be \n"
    bits = model.score(text).nll_nats / math.log(2)
    for unit in ("token", "character", "word"):
        parts = model.surprisals(text, unit=unit)
        assert "".join(part.text for part in parts) == text
        assert sum(part.bits for part in parts) == pytest.approx(bits, rel=1e-6)
        assert [part.text.strip() for part in parts if part.unknown] == ["語"]
    assert [part.text for part in model.surprisals(text, unit="word")] == [
        "  To", " be,", " or", " 語", " not", "\n\nto", " be", " \n",
    ]  # fmt: skip
    assert model.surprisals("") == []
    assert model.surprisals("").bits.shape == model.surprisals("").start.shape == (0,)
    with pytest.raises(ConfigError, match="unit sentence: must be one of"):
        model.surprisals(text, unit="sentence")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty"):
        model.score("")


def test_surprisals_are_available_as_arrays(model: charlm.Model) -> None:
    text = "  To be, or 語 not\n"
    words = model.surprisals(text, unit="word")
    np.testing.assert_array_equal(words.bits, [word.bits for word in words])
    np.testing.assert_array_equal(words.unknown, [word.unknown for word in words])
    assert [text[start:] for start in words.start] == [
        "".join(word.text for word in words[index:]) for index in range(len(words))
    ]
    assert np.isnan(words.entropy).all()
    tokens = model.surprisals(text)
    for index in (0, 5):  # the entropy of the prediction before the token
        probabilities = np.array([token.probability for token in model.next_tokens(text[:index], top=1000)])
        assert tokens.entropy[index] == pytest.approx(-(probabilities * np.log2(probabilities)).sum(), rel=1e-4)


def test_next_tokens_are_probabilities_in_falling_order(model: charlm.Model) -> None:
    every = model.next_tokens("To b", top=1000)
    assert len(every) == len(model.tokens)
    assert sum(token.probability for token in every) == pytest.approx(1)
    assert [token.probability for token in every] == sorted((token.probability for token in every), reverse=True)
    assert model.next_tokens("To b", top=3) == every[:3]


def test_load_finds_runs_files_and_the_model_that_comes_with_charlm(model_file: Path) -> None:
    for spec in (None, "tiny", model_file, model_file.parent):
        assert charlm.load(spec).path.samefile(model_file)
    packaged = charlm.load("shakespeare")
    assert packaged.path.parent == INCLUDED_MODELS / "shakespeare"
    assert packaged.metadata["corpus"]["sources"] == ["shakespeare"]
    own = Path("checkpoints/shakespeare/model.safetensors")
    save_checkpoint(own, make_checkpoint()[1])
    assert charlm.load("shakespeare").path.samefile(own)
    with pytest.raises(CheckpointError, match="nobody: no model file or run found"):
        charlm.load("nobody")
    Path("text.txt").write_text("To be")
    with pytest.raises(CheckpointError, match="not a model file"):
        charlm.load("text.txt")


def test_without_a_run_the_model_that_comes_with_charlm_is_loaded() -> None:
    assert charlm.load().path.parent == INCLUDED_MODELS / "shakespeare"


@pytest.mark.usefixtures("_plain_floats")
def test_training_from_python_makes_the_model_of_the_command(charlm: Charlm) -> None:
    Path("verse.txt").write_text(VERSE * 3, encoding="utf-8")
    seen: list[int] = []
    run = api.train("verse.txt", name="python", report=lambda progress: seen.append(progress.step), **SETTINGS)
    assert (run.name, run.metrics["step"], seen[-1]) == ("python", 20, 20)
    assert run.log[-1]["val_nats"] == run.metrics["val_nats"]
    flags = [
        "--steps",
        "20",
        "--hidden",
        "8",
        "--batch-size",
        "2",
        "--seq-len",
        "8",
        "--threads",
        "1",
        "--precision",
        "fp32",
    ]
    assert charlm("train", "verse.txt", "--name", "command", *flags, "-q").returncode == 0
    command = api.load("command")
    assert run.model.score(VERSE) == command.score(VERSE)
    tuned = api.train(Path("verse.txt"), name="tuned", pretrained="python", steps=2, threads=1, report=None)
    assert tuned.model.metadata["from"]["model"] == "checkpoints/python/model.safetensors"


def test_settings_of_train_are_checked() -> None:
    with pytest.raises(TypeError, match="no setting 'stepps'"):
        charlm.train("hello", stepps=3)
    with pytest.raises(ConfigError, match="num_layers 0"):
        charlm.train("hello", num_layers=0)


def test_words_of_a_word_model_have_whole_words(tmp_path: Path) -> None:
    from charlm.config import ModelConfig
    from charlm.text.tokenizer import WordTokenizer
    from charlm.training.network import LanguageModel

    tokenizer = WordTokenizer.from_text([VERSE])
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=8, embedding_dim=8)
    path = tmp_path / "words.safetensors"
    save_checkpoint(
        path, Checkpoint(config=config, tokenizer=tokenizer, tensors=LanguageModel(config).to_tensors(), metadata={})
    )
    word_model = charlm.load(path)
    text = "to be,or Not to zebra: that\n"
    for unit in ("token", "character", "word"):
        parts = word_model.surprisals(text, unit=unit)
        assert "".join(part.text for part in parts) == text
        assert sum(part.bits for part in parts) == pytest.approx(word_model.score(text).nll_nats / math.log(2))
    words = word_model.surprisals("To be, or not to be: that is the question:\n", unit="word")
    assert [word.text.strip() for word in words][:4] == ["To", "be,", "or", "not"]
    assert np.isfinite([word.bits for word in words]).all()


@pytest.mark.usefixtures("_plain_floats")
def test_the_examples_in_the_guide_run() -> None:
    guide = INCLUDED_MODELS.parent / "docs" / "python.md"
    failed, tried = doctest.testfile(str(guide), module_relative=False)
    assert tried > 15
    assert failed == 0
