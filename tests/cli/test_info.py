import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from charlm.cli import main
from charlm.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charlm.engine.gate import Gate
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import Charlm, make_checkpoint, make_mixture, make_ngram_model

METADATA = {"charlm": "0.1.0", "corpus": {"name": "x\x1b[2J\x9b31m", "sources": ["a", "b"], "characters": 12345}}


@pytest.fixture
def hostile_file() -> Path:
    """Model file with terminal control sequences in its tokens, its metadata and its name."""
    _, plain = make_checkpoint("abc\x1b\x07\u202e\udcff")
    path = Path("strange\x1b]0;title\x07.safetensors")
    save_checkpoint(
        path, Checkpoint(config=plain.config, tokenizer=plain.tokenizer, tensors=plain.tensors, metadata=METADATA)
    )
    return path


def test_info_prints_the_content_of_the_file(model_file: Path) -> None:
    out = CliRunner().invoke(main, ["info", "--json"]).stdout
    facts = json.loads(out)
    loaded = load_checkpoint(model_file)
    assert facts["file"] == "checkpoints/tiny/model.safetensors"
    assert facts["model"]["hidden_size"] == 12
    assert facts["parameters"] == sum(tensor.size for tensor in loaded.tensors.values())
    assert CharTokenizer(facts["tokenizer"]["chars"]).tokens == loaded.tokenizer.tokens


def test_large_numbers_have_all_digits_before_the_point() -> None:
    _, plain = make_checkpoint("abc")
    metadata = {"metrics": {"tokens_per_second": 482329.71, "seconds": 123.456789}}
    save_checkpoint(Path("fast.safetensors"), replace(plain, metadata=metadata))
    out = CliRunner().invoke(main, ["info", "fast.safetensors"]).stdout
    assert "metrics\ttokens_per_second\t482,330\n" in out
    assert "metrics\tseconds\t123.46\n" in out


def test_info_mentions_a_gate() -> None:
    mixture, coefficients = make_mixture(), [[0.5, 1, -1, 0], [-2.0, 0, 0, 3]]
    assert mixture.counts is not None
    for gate in (None, Gate(coefficients)):
        save_checkpoint(Path("mixed.safetensors"), replace(mixture, counts=replace(mixture.counts, gate=gate)))
        out = CliRunner().invoke(main, ["info", "mixed.safetensors"]).stdout
        fact = "ngram\tgate\tweights depend on the predictions; weight is their mean\n"
        assert (fact in out) == (gate is not None)
        facts = json.loads(CliRunner().invoke(main, ["info", "mixed.safetensors", "--json"]).stdout)["ngram"]
        assert facts["weight"] == 0.4
        assert facts.get("gate") == (coefficients if gate else None)


@pytest.mark.usefixtures("model_file")
def test_model_is_given_as_argument_or_as_option() -> None:
    by_file, by_name, by_option = (
        CliRunner().invoke(main, ["info", *arguments])
        for arguments in (["checkpoints/tiny/model.safetensors"], ["tiny"], ["-m", "tiny"])
    )
    assert by_file.exit_code == 0
    assert by_file.stdout == by_name.stdout == by_option.stdout
    both = CliRunner().invoke(main, ["info", "tiny", "-m", "tiny"])
    assert both.exit_code == 2
    assert "name only one model" in both.stderr


def test_info_in_a_pipe_has_one_unchanged_line_per_fact() -> None:
    _, plain = make_checkpoint()
    command = "charlm train " + "long-name.txt " * 30 + "end"
    metadata = {"command": command, "corpus": {"name": "x", "characters": 12345}}
    save_checkpoint(Path("a.safetensors"), replace(plain, metadata=metadata))
    lines = CliRunner().invoke(main, ["info", "a.safetensors"]).stdout.splitlines()
    assert f"command\t\t{command}" in lines
    assert "corpus\tcharacters\t12,345" in lines
    assert {line.count("\t") for line in lines} == {2}
    assert not any(line != line.strip() or "  " in line for line in lines)


@pytest.mark.parametrize(
    "command", [["info"], ["info", "--json"], ["info", "--card"], ["next", "--top", "99"], ["next", "--json"]]
)
def test_control_sequences_in_a_model_file_are_escaped(command: list[str], hostile_file: Path, charlm: Charlm) -> None:
    done = charlm(*command, "-m", hostile_file)
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert all(char.isprintable() or char in "\n\t" for char in text)
    if command == ["info"]:
        assert r"strange\x1b]0;title\x07.safetensors" in text.replace("\n", "")
        assert r"x\x1b[2J\x9b31m" in text
        assert "12,345" in text


def test_control_sequences_in_a_file_name_are_escaped_in_errors() -> None:
    path = Path("bad\x1b[2J.safetensors")
    path.write_bytes(b"none")
    done = CliRunner().invoke(main, ["info", "-m", str(path)])
    assert done.stderr == "Error: bad\\x1b[2J.safetensors: not a model file, or truncated\n"


def test_numbers_that_json_does_not_have_are_null() -> None:
    _, plain = make_checkpoint()
    metadata = {"metrics": {"val_nats": math.inf, "history": [math.nan, -math.inf, 1.5], "epoch": 2}}
    save_checkpoint(
        Path("odd.safetensors"),
        Checkpoint(config=plain.config, tokenizer=plain.tokenizer, tensors=plain.tensors, metadata=metadata),
    )
    done = CliRunner().invoke(main, ["info", "odd.safetensors", "--json"], catch_exceptions=False)
    facts = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert facts["metrics"] == {"val_nats": None, "history": [None, None, 1.5], "epoch": 2}
    assert CliRunner().invoke(main, ["info", "odd.safetensors"], catch_exceptions=False).exit_code == 0


TRAINING = {"metrics": {"val_nats": 1.25, "val_bits_per_char": 1.8034}, "training": {"val_fraction": 0.1}}


def described(name: str, **metadata: object) -> Path:
    """Write a model file with metadata."""
    path = Path(name)
    save_checkpoint(path, replace(make_checkpoint(num_layers=2)[1], metadata={**METADATA, **TRAINING, **metadata}))
    return path


def test_a_card_says_what_the_model_is_and_how_good_it_is() -> None:
    described("poems.safetensors", command="charlm train poems.txt", corpus={"name": "poems", "characters": 99})
    card = CliRunner().invoke(main, ["info", "poems.safetensors", "--card"], catch_exceptions=False).stdout
    assert card.startswith("---\nlibrary_name: charlm\npipeline_tag: text-generation\ntags: [")
    for line in (
        "# poems",
        "- name: `poems`",
        "- characters: `99`",
        "- command: `charlm train poems.txt`",
        "Validation text: 10% of the training text, from its end.",
        "| cross-entropy, nats per token | 1.2500 |",
        "| cross-entropy, bits per character | 1.8034 |",
        "    charlm sample -m poems.safetensors",
    ):
        assert f"\n{line}\n" in card
    parameters = json.loads(CliRunner().invoke(main, ["info", "poems.safetensors", "--json"]).stdout)["parameters"]
    assert f"2 LSTM layers of 12 units, {parameters:,} parameters" in card


def test_a_card_names_both_parts_and_the_adaptive_loss() -> None:
    metrics = {"val_nats": 1.25, "val_nats_network": 1.5, "val_nats_ngram": 1.75, "val_nats_adaptive": 1.125}
    for model, parts in ((make_mixture(), True), (make_ngram_model(), False)):
        metadata = {"metrics": metrics, "training": {"val_fraction": 0.1}}
        save_checkpoint(Path("a.safetensors"), replace(model, metadata=metadata))
        card = CliRunner().invoke(main, ["info", "a.safetensors", "--card"], catch_exceptions=False).stdout
        assert "| cross-entropy with --adapt, nats per token | 1.1250 |" in card
        assert ("| cross-entropy of the network alone, nats per token | 1.5000 |" in card) == parts
        assert ("| cross-entropy of the n-grams alone, nats per token | 1.7500 |" in card) == parts
        assert model.counts is not None
        assert f" {model.counts.ngram.num_ngrams:,} n-grams up to order {model.counts.ngram.order}" in card
        assert '"ngram"' in card


def test_json_includes_the_card() -> None:
    described("items.safetensors", items={"kind": "line"})
    facts = json.loads(CliRunner().invoke(main, ["info", "items.safetensors", "--json"]).stdout)
    assert facts["origin"] == "file"
    card = facts["card"]
    assert card["evaluation_text"] == "10% of the items of the training list"
    assert [row["value"] for row in card["evaluation"]] == [1.25, 1.8034]
    both = CliRunner().invoke(main, ["info", "items.safetensors", "--json", "--card"])
    assert both.exit_code == 2


def test_a_card_names_a_validation_text_and_no_loss_without_one() -> None:
    described("a.safetensors", validation={"name": "other"}, training={})
    assert "Validation text: other." in CliRunner().invoke(main, ["info", "a.safetensors", "--card"]).stdout
    described("b.safetensors", training={"val_fraction": 0.0})
    assert "Evaluation" not in CliRunner().invoke(main, ["info", "b.safetensors", "--card"]).stdout


def test_names_in_a_card_are_no_markup() -> None:
    described("<b>*x*.safetensors", corpus={"name": "`a` <script>", "sources": ["a|b"]})
    card = CliRunner().invoke(main, ["info", "<b>*x*.safetensors", "--card"]).stdout
    assert "\n# \\<b\\>\\*x\\*\n" in card
    assert "\n- name: `'a' <script>`\n" in card
    assert "\n    charlm sample -m '<b>*x*.safetensors'\n" in card


def test_the_origin_of_a_model_is_shown(model_file: Path) -> None:
    def origin(name: str) -> str:
        facts: dict[str, str] = json.loads(CliRunner().invoke(main, ["info", name, "--json"]).stdout)
        return facts["origin"]

    assert origin("tiny") == origin(str(model_file.relative_to(Path.cwd()))) == "run in ./checkpoints"
    assert origin("shakespeare") == "included with charlm"
    model_file.rename("copy.safetensors")
    assert origin("copy.safetensors") == "file"
