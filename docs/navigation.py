"""Sections and pages of the documentation, from `navigation.toml`."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
FIRST_SENTENCE = re.compile(r"`?[\w-]")
SENTENCE_END = re.compile(r"(?<=[.!?])\s")


class NavigationError(Exception):
    """A page is missing, or lacks a title or a first sentence."""


@dataclass(frozen=True)
class Section:
    """Some pages of the documentation under one title.

    Attributes:
        title: Title of the section; empty for pages that only other pages link to.
        pages: The Markdown files.
    """

    title: str
    pages: tuple[Path, ...]


def read_sections(root: Path = ROOT) -> list[Section]:
    """Return the sections in their order. A pattern stands for all pages that are not listed elsewhere.

    Raises:
        NavigationError: If a listed page does not exist.
    """
    entries = tomllib.loads((root / "docs" / "navigation.toml").read_text(encoding="utf-8"))["section"]
    listed = {name for entry in entries for name in entry["pages"] if "*" not in name}
    if missing := sorted(name for name in listed if not (root / name).is_file()):
        raise NavigationError(f"docs/navigation.toml: {missing[0]}: no such page")

    def expand(name: str) -> list[Path]:
        if "*" not in name:
            return [root / name]
        return [page for page in sorted(root.glob(name)) if str(page.relative_to(root)) not in listed]

    return [
        Section(entry["title"], tuple(page for name in entry["pages"] for page in expand(name))) for entry in entries
    ]


def describe(page: Path) -> tuple[str, str]:
    """Return the title and the first sentence of a page, both as plain text without links.

    Raises:
        NavigationError: If it does not begin with a title and a paragraph.
    """
    blocks = COMMENT.sub("", page.read_text(encoding="utf-8")).split("\n\n")
    title, first = blocks[0].strip(), blocks[1].strip() if len(blocks) > 1 else ""
    if not title.startswith("# ") or not FIRST_SENTENCE.match(first):
        raise NavigationError(f"{page.name}: must begin with a title and a sentence that says what the page is about")
    return title[2:], LINK.sub(r"\1", SENTENCE_END.split(" ".join(first.split()))[0])
