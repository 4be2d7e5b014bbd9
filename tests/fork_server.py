"""Server that runs `charlm` command lines in forked child processes, without the seconds that imports take.

`fork_server.py LIGHT OTHER` serves two listening Unix sockets (file descriptors) until standard input ends. The
second one is for commands that need PyTorch: a process that has imported it needs 11 ms to fork, and another one needs
4 ms. A client sends a line of JSON together with the file descriptors of the streams; see `fork_client`. It receives
the number of the process at once, and the exit code when the process has ended. Commands of several clients run at the
same time.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import resource
import select
import signal
import socket
import sys
import traceback
from typing import Any

from charlm.cli import main


def load(*packages: str) -> None:
    """Import all modules of packages, for all processes that are forked from now on."""
    for package in packages:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(module.name)
    gc.freeze()


def load_pytorch() -> None:
    """Import PyTorch and what uses it."""
    load("charlm.training", "charlm.lessons")
    import torch

    torch.set_num_threads(1)


def serve(listener: socket.socket) -> None:
    """Run the command lines of clients until standard input ends."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([0, wake, listener], [], [])
        if 0 in ready:
            return
        if listener in ready:
            connection, _ = listener.accept()
            pid = os.fork()
            if pid == 0:
                run(connection)
            running[pid] = connection
            tell(connection, pid)
        if wake in ready:
            os.read(wake, 1024)
            for pid in list(running):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    with running.pop(pid) as connection:
                        tell(connection, os.waitstatus_to_exitcode(status))


def tell(connection: socket.socket, number: int) -> None:
    """Send a number to a client, which may have ended."""
    with contextlib.suppress(OSError):
        connection.sendall(b"%d\n" % number)


def run(connection: socket.socket) -> None:
    """Run the command line of a client in this process, and end the process."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not message.endswith(b"\n"):
        message += connection.recv(1 << 20)
    request = json.loads(message)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    use(streams, request["is_open"])
    limit(request)
    sys.argv = ["charlm", *request["arguments"]]
    code: Any = 0
    try:
        main(request["arguments"], prog_name="charlm")
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def use(streams: list[int], is_open: list[bool]) -> None:
    """Make file descriptors the standard streams, and close all others."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if is_open[number]:
            os.dup2(streams.pop(0), number)
        else:
            os.close(number)
        stream = open(number, mode, closefd=False) if is_open[number] else None  # noqa: SIM115 - it stays open
        setattr(sys, name, stream)
    os.closerange(3, 256)


def limit(request: dict[str, Any]) -> None:
    """Apply the limits of a request: `timeout` in seconds, `max_file_bytes`, and the number of a `user`."""
    signal.alarm(request.get("timeout", 0))
    if size := request.get("max_file_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    if user := request.get("user"):
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)


if __name__ == "__main__":
    importlib.import_module("matplotlib.figure")
    load("charlm.text", "charlm.engine", "charlm.cli")
    assert "torch" not in sys.modules
    light, other = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    served, unused = light, other
    if (child := os.fork()) == 0:
        load_pytorch()
        served, unused = other, light
    unused.close()
    with served:
        serve(served)
    if child:
        os.waitpid(child, 0)
    os._exit(0)  # the end of an interpreter that has imported PyTorch takes a second
