"""One-line messages for failures of the system: files, memory, and packages that cannot be loaded."""

import re
import sys

from charlm.memory import GIB, memory_limit
from charlm.training.launch import PYTORCH_MISSING

MEMORY_PHRASES = (
    "allocate memory",
    "out of memory",
    "failed to map segment",
    "unable to allocate",
)
"""Phrases in the messages of libraries that lack memory."""

LOADING_NEEDS = "training needs 1 GiB or more, and other commands need 0.4 GiB"
"""Address space that programs and libraries need (measured)."""


def describe_failure(error: Exception) -> str | None:
    """Return one line for a failure of the system, or None if the error is a defect of the program.

    Args:
        error: Exception that a command has raised.
    """
    if isinstance(error, ImportError):
        return _describe_import(error)
    if isinstance(error, SystemError) and "without setting an exception" in str(error):  # Python itself lacks memory
        return _describe_memory("a library cannot be loaded", LOADING_NEEDS)
    if _lacks_memory(error):
        return _describe_memory(_short(error), "use smaller settings or a shorter text")
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename is not None else ""
        return f"{place}{(error.strerror or str(error)).lower()}"
    return None


def _describe_import(error: ImportError) -> str | None:
    root: BaseException = error
    while root.__cause__ is not None:  # NumPy hides the reason behind a page of advice
        root = root.__cause__
    if _lacks_memory(root):
        return _describe_memory(f"a library cannot be loaded: {_short(root)}", LOADING_NEEDS)
    package = (error.name or "").partition(".")[0]
    if package == "charlm" or package in sys.stdlib_module_names:
        return None
    if isinstance(error, ModuleNotFoundError) and package == "torch":
        return PYTORCH_MISSING
    if isinstance(error, ModuleNotFoundError):
        return f"the package {package} is missing: pip install {package}"
    return f"a library cannot be loaded: {_short(root)}"


def _lacks_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(phrase in str(error).lower() for phrase in MEMORY_PHRASES)


def _describe_memory(reason: str, advice: str) -> str:
    """Return a message about missing memory, with the limit of this process."""
    limit = memory_limit()
    return f"not enough memory{f' ({reason})' if reason else ''}{'' if limit is None else f': {limit}'}; {advice}"


def _short(error: BaseException) -> str:
    """Return the part of a library's message that helps a user: its first line, or the amount of memory."""
    text = str(error).strip().partition("\n")[0]
    amount = re.search(r"tried to allocate ([\d.]+) (\w+)", text, re.IGNORECASE)
    if amount is None:
        return text
    size = f"{int(amount[1]) / GIB:,.1f} GiB" if amount[2] == "bytes" else f"{amount[1]} {amount[2]}"
    return f"PyTorch tried to allocate {size}"
