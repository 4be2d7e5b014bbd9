import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from charlm.cli import main
from charlm.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import make_checkpoint

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


@pytest.mark.parametrize("command", [["info"], ["info", "--json"], ["next", "--top", "99"], ["next", "--json"]])
def test_control_sequences_in_a_model_file_are_escaped(command: list[str], hostile_file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "charlm", *command, "-m", str(hostile_file)],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("utf-8")
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
