"""Models that read folded text: characters in lower case or in a normal form, without the rare ones."""

import json
import unicodedata
from pathlib import Path

import pytest

import charlm
from charlm.engine.checkpoint import load_checkpoint
from tests.cli.test_finetune import QUICK, run

TEXT = unicodedata.normalize("NFD", "Un \u00c9t\u00e9 \u00e0 Nice.\nO\u00f9 est la For\u00eat?\n" * 15) + "\u65e5\n"
FOLDING = ["--lowercase", "--normalize", "NFC", "--min-count", "2", "--items", "none"]


@pytest.fixture
def folded() -> Path:
    """A small model of folded characters, as the run `text`."""
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    return Path(run("train", "text.txt", *FOLDING, *QUICK, "--hidden", "8").stdout.strip())


def test_the_folding_is_a_part_of_the_model_and_scores_count_the_original(folded: Path) -> None:
    tokenizer = load_checkpoint(folded).tokenizer
    assert tokenizer.unknown_in(TEXT) == ["\u65e5"]
    assert "\u00ea" in tokenizer.tokens
    assert not any(token.isupper() for token in tokenizer.tokens)
    total = json.loads(run("score", "--total", "--json", "text.txt").stdout)
    assert (total["characters"], total["bytes"]) == (len(TEXT), len(TEXT.encode()))
    assert total["tokens"] == len(unicodedata.normalize("NFC", TEXT))
    assert total["unknown_tokens"] == 1
    known = json.loads(run("score", "--total", "--json", stdin=TEXT[:-2]).stdout)
    assert known["bits_per_char"] * len(TEXT[:-2]) == pytest.approx(known["bits_per_token"] * known["tokens"])


def test_tokens_have_the_text_of_the_original(folded: Path) -> None:
    line = unicodedata.normalize("NFD", "Un \u00c9t\u00e9")
    parts = charlm.load(folded).surprisals(line)
    assert [part.text for part in parts] == ["U", "n", " ", "E\u0301", "t", "e\u0301"]
    folded_parts = charlm.load(folded).surprisals("un \u00e9t\u00e9")
    assert [part.bits for part in parts] == [part.bits for part in folded_parts]


def test_prompts_are_folded(folded: Path) -> None:
    prompts = ("Un E\u0301t", "un \u00e9t")
    upper, lower = (run("sample", "--json", "-n", 9, "--seed", 1, "--prime", prompt).stdout for prompt in prompts)
    assert json.loads(upper)["text"] == json.loads(lower)["text"]
    assert json.loads(upper)["prompt"] == prompts[0]
    assert run("next", "--prime", prompts[0]).stdout == run("next", "--prime", prompts[1]).stdout


def test_copies_are_found_in_every_case_and_normal_form(folded: Path) -> None:
    facts = json.loads(run("novelty", "--json", stdin="o\u00f9 EST la for\u00eat").stdout)
    assert facts["longest_copied_run"] == len("o\u00f9 est la for\u00eat")
    assert facts["copied_share"]["8"] == 1


def test_fine_tuning_takes_the_folding_over(folded: Path) -> None:
    Path("new.txt").write_text("LA FORE\u0302T \u00e7a va\n" * 20, encoding="utf-8")
    run("train", "new.txt", "--from", "text", "--name", "new", "--items", "none", *QUICK)
    before, after = (
        load_checkpoint(folded).tokenizer,
        load_checkpoint(Path("checkpoints/new/model.safetensors")).tokenizer,
    )
    assert after.folding == before.folding
    assert set(after.tokens) - set(before.tokens) == {"\u00e7", "v"}
