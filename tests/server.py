"""Process that runs `charlm` command lines in forked child processes, without the seconds that imports take."""

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SERVER = """
import gc, importlib, json, os, resource, signal, sys, traceback
import matplotlib.figure, torch
import charlm.training.resumption, charlm.training.trainer, charlm.cli.progress, charlm.cli.score_views
from charlm.cli import COMMANDS, main
for name in COMMANDS:
    importlib.import_module(f"charlm.cli.{name}")
torch.set_num_threads(1)
gc.freeze()

def redirect(number, path):
    if path == "closed":
        return os.close(number)
    if path == "no reader":
        reader, opened = os.pipe()
        os.close(reader)
    else:
        opened = os.open(path, os.O_RDWR | os.O_APPEND if number else os.O_RDONLY)
    os.dup2(opened, number)
    os.close(opened)

for line in sys.stdin.buffer:
    request = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        signal.alarm(request["timeout"])
        names, modes = ("stdin", "stdout", "stderr"), "rww"
        for number, path in enumerate(request["streams"]):
            redirect(number, path)
            closed = path == "closed"
            setattr(sys, names[number], None if closed else open(number, modes[number], closefd=False))
        if request["max_file_bytes"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["max_file_bytes"],) * 2)
        if request["user"]:
            os.setgroups([])
            os.setgid(request["user"])
            os.setuid(request["user"])
        sys.argv = ["charlm", *request["arguments"]]
        code = 0
        try:
            main(request["arguments"], prog_name="charlm")
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # the end of an interpreter that has imported PyTorch takes a second
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

ENVIRONMENT = dict(os.environ)
"""Environment before any test changes it."""

CLOSED = "closed"
"""Stream that is closed when the process starts."""

NO_READER = "no reader"
"""Pipe whose reader has ended."""


@dataclass(frozen=True)
class Done:
    """Result of a command line."""

    returncode: int
    stdout: str
    stderr: str


@contextlib.contextmanager
def pipe(text: str) -> Iterator[str]:
    """Write a text to a named pipe, and yield the name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pipe")
        os.mkfifo(path)

        def write() -> None:
            with contextlib.suppress(BrokenPipeError), path.open("w", encoding="utf-8", newline="") as file:
                file.write(text)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        yield str(path)
        writer.join()


class Server:
    """Process that runs command lines in child processes, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-X", "utf8", "-W", "error", "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )

    def run(
        self,
        arguments: str | Sequence[str],
        *,
        stdin: str = "/dev/null",
        stdout: str | None = None,
        stderr: str | None = None,
        environment: Mapping[str, str | None] | None = None,
        max_file_bytes: int = 0,
        user: int = 0,
        timeout: float = 120,
    ) -> Done:
        """Run a command line in the working folder.

        Args:
            arguments: The command line without `charlm`; a string is split at spaces.
            stdin: File, `CLOSED` or `NO_READER`.
            stdout: As `stdin`; None for a new file, whose content is returned.
            stderr: As `stdout`.
            environment: Additional environment variables; None to unset one.
            max_file_bytes: Maximum size of all files, as with `ulimit -f`. Standard output is a file of this size.
            user: Number of the user who runs the command.
            timeout: Maximum duration in seconds. A signal ends a command that takes longer.
        """
        variables = {**os.environ, **(environment or {})}
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            out.truncate(max_file_bytes)
            request = {
                "arguments": arguments.split() if isinstance(arguments, str) else arguments,
                "folder": str(Path.cwd()),
                "streams": [stdin, stdout or out.name, stderr or err.name],
                "environment": {name: value for name, value in variables.items() if value is not None},
                "max_file_bytes": max_file_bytes,
                "user": user,
                "timeout": math.ceil(timeout),
            }
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            return Done(code, *(Path(file.name).read_text("utf-8", "surrogateescape") for file in (out, err)))

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)
