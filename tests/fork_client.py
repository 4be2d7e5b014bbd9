"""Client of `fork_server`. As a program, it runs a command line there: `fork_client.py SOCKET ARGUMENTS`.

It imports little, so that it starts in some hundredths of a second.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

PYTORCH_COMMANDS = {"train", "lesson"}

WITH_PYTORCH = ".pytorch"
"""End of the name of the socket for commands that need PyTorch."""


def send(address: str, request: Mapping[str, Any], streams: Sequence[int | None]) -> socket.socket:
    """Ask a server to run a command line.

    Args:
        address: Socket of the server for commands that do not need PyTorch; that for the others is beside it.
        request: `arguments`, `folder` and `environment`; optional limits are described in `fork_server`.
        streams: File descriptors of standard input, output and error; None for a stream that is closed.

    Returns:
        The connection, from which two lines can be read: the process's number, and later its exit code.
    """
    connection = socket.socket(socket.AF_UNIX)
    needs_pytorch = not PYTORCH_COMMANDS.isdisjoint(request["arguments"])
    connection.connect(address + WITH_PYTORCH * needs_pytorch)
    is_open = [stream is not None for stream in streams]
    message = json.dumps({**request, "is_open": is_open}).encode() + b"\n"
    sent = socket.send_fds(connection, [message], [stream for stream in streams if stream is not None])
    connection.sendall(message[sent:])
    return connection


def main(address: str, *arguments: str) -> int:
    """Run a command line with the streams, the folder and the environment of this process; return its exit code."""
    request = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with send(address, request, (0, 1, 2)) as connection, connection.makefile() as lines:
        _, code = map(int, lines)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
