"""Process that runs `charlm` command lines in forked child processes, without the seconds that imports take."""

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tests.fork_client import WITH_PYTORCH, send

ROOT = Path(__file__).resolve().parent.parent

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


@dataclass(frozen=True)
class Running:
    """Process that runs a command line.

    Attributes:
        pid: Its number.
        lines: Receives the exit code at the end, negative for a signal.
        files: Files of its standard output and error.
    """

    pid: int
    lines: TextIO
    files: tuple[Path, Path]

    def wait(self) -> Done:
        """Wait for the end, and return the result."""
        code = int(self.lines.readline())
        return Done(code, *(file.read_text("utf-8", "surrogateescape") for file in self.files))


class Server:
    """Process that runs command lines in child processes, through `fork_server`."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._address = str(Path(self._folder.name, "socket"))
        with socket.socket(socket.AF_UNIX) as light, socket.socket(socket.AF_UNIX) as other:
            for listener, end in ((light, ""), (other, WITH_PYTORCH)):
                listener.bind(self._address + end)
                listener.listen()
            numbers = light.fileno(), other.fileno()
            command = [sys.executable, "-X", "utf8", "-W", "error", "-m", "tests.fork_server", *map(str, numbers)]
            paths = [str(ROOT), *filter(None, [ENVIRONMENT.get("PYTHONPATH")])]
            environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=numbers, env=environment)

    @property
    def program(self) -> list[str]:
        """The program that behaves as `charlm`, with its first argument."""
        return [sys.executable, "-IS", str(Path(__file__).with_name("fork_client.py")), self._address]

    def run(self, arguments: str | Sequence[str], **options: Any) -> Done:
        """Run a command line in the working folder, with the options of `start`."""
        with self.start(arguments, **options) as running:
            return running.wait()

    def run_on_terminal(self, arguments: str | Sequence[str]) -> str:
        """Run a command line with a terminal as standard output, and return what it writes there."""
        ours, theirs = os.openpty()
        with self.start(arguments, stdout=os.ttyname(theirs)) as running:
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # the end of a pseudo-terminal
                while block := os.read(ours, 1 << 16):
                    shown += block
            os.close(ours)
            done = running.wait()
        assert done.returncode == 0, done.stderr
        return shown.decode()

    @contextlib.contextmanager
    def start(
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
    ) -> Iterator["Running"]:
        """Start a command line in the working folder.

        Args:
            arguments: The command line without `charlm`; a string is split at spaces.
            stdin: File, or `CLOSED`.
            stdout: File, `CLOSED` or `NO_READER`; None for a new file, whose content is returned.
            stderr: As `stdout`.
            environment: Additional environment variables; None to unset one.
            max_file_bytes: Maximum size of all files, as with `ulimit -f`. Standard output is a file of this size.
            user: Number of the user who runs the command.
            timeout: Maximum duration in seconds. A signal ends a command that takes longer.
        """
        variables = {**os.environ, **(environment or {})}
        request = {
            "arguments": arguments.split() if isinstance(arguments, str) else arguments,
            "folder": str(Path.cwd()),
            "environment": {name: value for name, value in variables.items() if value is not None},
            "max_file_bytes": max_file_bytes,
            "user": user,
            "timeout": math.ceil(timeout),
        }
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            out.truncate(max_file_bytes)
            with contextlib.ExitStack() as stack:
                streams = [stack.enter_context(opened(stdin, os.O_RDONLY))]
                for path in (stdout or out.name, stderr or err.name):
                    streams.append(stack.enter_context(opened(path, os.O_RDWR | os.O_APPEND)))
                connection = send(self._address, request, streams)
            with connection, connection.makefile() as lines:
                running = Running(int(lines.readline()), lines, (Path(out.name), Path(err.name)))
                try:
                    yield running
                except BaseException:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(running.pid, signal.SIGKILL)
                    raise

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)
        self._folder.cleanup()


@contextlib.contextmanager
def opened(path: str, flags: int) -> Iterator[int | None]:
    """Open a stream, and yield its file descriptor; None for `CLOSED`."""
    if path == CLOSED:
        yield None
        return
    if path == NO_READER:
        reader, stream = os.pipe()
        os.close(reader)
    else:
        stream = os.open(path, flags | os.O_NOCTTY)
    try:
        yield stream
    finally:
        os.close(stream)
