"""Tests of SIGINT and SIGTERM before training has started: the command ends immediately and leaves no files."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import VERSE

SLOW_ENCODING = """
import sys, time
from charlm.text import corpus
from charlm.text.characters import CharTokenizer
from charlm.cli import main
corpus.MAX_CHARS_IN_MEMORY = 100
encode = CharTokenizer.encode
def slow_encode(self, text):
    print("encoding", flush=True)
    time.sleep(60)
    return encode(self, text)
CharTokenizer.encode = slow_encode
main(sys.argv[1:])
"""
"""Runs a command line in which encoding a text takes a minute."""


def interrupt(running: "subprocess.Popen[str]", number: signal.Signals) -> str:
    """Send a signal to a running command, check its exit code, and return its stderr."""
    running.send_signal(number)
    try:
        _, err = running.communicate(timeout=20)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 128 + number
    return err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_encoding_leaves_no_files(number: signal.Signals) -> None:
    Path("verse.txt").write_text(VERSE, encoding="utf-8")
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW_ENCODING, "train", "verse.txt", "--cache", "cache"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "encoding\n"
    assert list(Path("cache").iterdir())
    assert "Traceback" not in interrupt(running, number)
    assert not list(Path("cache").iterdir())
    assert not Path("checkpoints").exists()
