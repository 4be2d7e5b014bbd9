"""House style that a machine can check; ruff checks complexity and numbers of parameters."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import charlm

ROOT = Path(charlm.__file__).parents[1]
SOURCES = sorted(path for folder in ("charlm", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py"))
PROSE = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "checkpoints/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "corpora").glob("*.md")),
    *SOURCES,
]

MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 480
"""About 400; the table of all settings has a few more."""

UNUSUAL = re.compile(
    r"\bso many\b|\b(nats|bits|bytes|tokens) a (character|char|token|word|line|byte|second)\b|\bwhat is left open\b"
    r"|\bas it comes\b",
    re.IGNORECASE,
)
"""Phrases that are no technical English: write "bits per character", "number of", "not given"."""

QUESTION = re.compile(r"(What|Where|How|Whether)\b")


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines from `def` on, without the parameters and the docstring."""
    first, *rest = function.body
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    start = rest[0] if has_docstring and rest else first
    return (function.end_lineno or 0) - start.lineno + 1


def test_the_files_are_there() -> None:
    assert len(SOURCES) > 70
    assert all(path.is_file() for path in PROSE)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_and_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    assert {found.name: lines_of(found) for found in functions(path) if lines_of(found) > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_uses_technical_english(path: Path) -> None:
    found = [line for line in path.read_text(encoding="utf-8").splitlines() if UNUSUAL.search(line)]
    assert found == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_state_instead_of_asking(path: Path) -> None:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    docs = [ast.get_docstring(node) or "" for node in ast.walk(parsed(path)) if isinstance(node, kinds)]
    assert [doc.splitlines()[0] for doc in docs if QUESTION.match(doc)] == []
