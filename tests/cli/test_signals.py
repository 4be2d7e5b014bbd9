"""Ctrl-C and SIGTERM before there is anything to save: an end at once, and nothing left behind."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import VERSE

SLOW_TO_ENCODE = """
import sys, time
from charlm.text import corpus
from charlm.text.characters import CharTokenizer
from charlm.cli import main
corpus.MAX_CHARS_IN_MEMORY = 100
encode = CharTokenizer.encode
def slowly(self, text):
    print("encodes", flush=True)
    time.sleep(60)
    return encode(self, text)
CharTokenizer.encode = slowly
main(sys.argv[1:])
"""


def ended(running: "subprocess.Popen[str]", number: signal.Signals) -> str:
    """Send a signal to a process that is at it; returns what it says on stderr."""
    running.send_signal(number)
    try:
        _, err = running.communicate(timeout=20)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 128 + number
    return err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_corpus_half_encoded_leaves_nothing_behind(number: signal.Signals) -> None:
    Path("verse.txt").write_text(VERSE, encoding="utf-8")
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_ENCODE, "train", "verse.txt", "--cache", "cache"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "encodes\n"
    assert list(Path("cache").iterdir())
    assert "Traceback" not in ended(running, number)
    assert not list(Path("cache").iterdir())
    assert not Path("checkpoints").exists()
