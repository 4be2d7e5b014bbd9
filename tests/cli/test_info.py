import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from charlm.cli import main
from charlm.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import make_checkpoint

STORY = {"charlm": "0.1.0", "corpus": {"name": "x\x1b[2J\x9b31m", "sources": ["a", "b"], "characters": 12345}}


@pytest.fixture
def strange() -> Path:
    """A model that has a terminal's commands among its tokens, in its story and in its file's name."""
    _, plain = make_checkpoint("abc\x1b\x07\u202e\udcff")
    path = Path("strange\x1b]0;title\x07.safetensors")
    save_checkpoint(
        path, Checkpoint(config=plain.config, tokenizer=plain.tokenizer, tensors=plain.tensors, metadata=STORY)
    )
    return path


def test_info_says_what_the_file_says(model_file: Path) -> None:
    out = CliRunner().invoke(main, ["info", "--json"]).stdout
    facts = json.loads(out)
    loaded = load_checkpoint(model_file)
    assert facts["file"] == "checkpoints/tiny/model.safetensors"
    assert facts["model"]["hidden_size"] == 12
    assert facts["parameters"] == sum(tensor.size for tensor in loaded.tensors.values())
    assert CharTokenizer(facts["tokenizer"]["chars"]).tokens == loaded.tokenizer.tokens


@pytest.mark.usefixtures("model_file")
def test_the_model_may_stand_alone_or_behind_m() -> None:
    ways = (["checkpoints/tiny/model.safetensors"], ["tiny"], ["-m", "tiny"])
    whole, plain, short = (CliRunner().invoke(main, ["info", *way]) for way in ways)
    assert whole.exit_code == 0
    assert whole.stdout == plain.stdout == short.stdout
    twice = CliRunner().invoke(main, ["info", "tiny", "-m", "tiny"])
    assert twice.exit_code == 2
    assert "name one model" in twice.stderr


@pytest.mark.parametrize("command", [["info"], ["info", "--json"], ["next", "--top", "99"], ["next", "--json"]])
def test_no_command_of_a_stranger_reaches_the_terminal(command: list[str], strange: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "charlm", *command, "-m", str(strange)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("utf-8")
    assert all(char.isprintable() or char in "\n\t" for char in text)
    if command == ["info"]:
        assert r"strange\x1b]0;title\x07.safetensors" in text.replace("\n", "")
        assert r"x\x1b[2J\x9b31m" in text
        assert "12,345" in text


def test_the_name_of_a_file_in_an_error_is_harmless_too() -> None:
    path = Path("bad\x1b[2J.safetensors")
    path.write_bytes(b"none")
    done = CliRunner().invoke(main, ["info", "-m", str(path)])
    assert done.stderr == "Error: bad\\x1b[2J.safetensors: not a model file, or cut short\n"
