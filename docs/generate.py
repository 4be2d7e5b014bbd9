"""Generate the parts of the Markdown pages that depend only on the code or on the included model.

A generated part is a code block between two HTML comments:

    <!-- generated: SOURCE -->
    <!-- end -->

SOURCE is one of:

- `columns`: a table of the columns of `charlm score --format`.
- `api`: the reference of the Python API, from the docstrings.
- `pages SECTION`: a list of the pages of a section of `navigation.toml`, each with its first sentence.
- `commands`: a table of the commands.
- `help NAME`: the full help of a command, such as `help sample` or `help vectors nearest`.
- `console`: each line of the code block that begins with `$ ` is run. Its output replaces the lines below it.
- anything else: a shell command. The code block shows the command and its output. The output of `charlm lesson NAME` is
  not compared by `--check`: the tests of the lessons do this.

Commands of a page run in a temporary folder of their own that has `charlm` on its PATH, the included model as
`checkpoints/shakespeare` and the files of `INPUTS`.

    python docs/generate.py PAGES                                   rewrite the pages
    python docs/generate.py --check PAGES                           print a diff and exit with 1 if one is out of date
"""

import difflib
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

INPUTS = {
    "lines.txt": "To be, or not to be\nto be to be to be\nqzx jkv wqf\n",
    "pairs.tsv": "The king is dead\tThe king are dead\nI was a queen\tI were a queen\nthou art\tthou is\n",
    "mix.txt": "The king is in the garden.\nDie Frau ist nicht in dem Haus.\nI have not seen the letter.\n"
    "Der Hund und die Kinder sind noch nicht da.\n",
    "german.txt": "Am Morgen ging der alte Mann in den Garten und sah nach den Rosen.\n"
    "Die Sonne schien, aber der Wind war noch kalt.\n"
    "Seine Frau rief ihn zum Essen, doch er wollte nicht in das Haus.\n"
    "Ich habe den Brief gelesen, sagte sie, und ich weiß nicht, was ich tun soll.\n"
    "Wir haben die ganze Nacht gewartet und niemand ist gekommen.\n"
    "Er nahm das Buch aus dem Schrank und legte es auf den Tisch.\n"
    "Die Kinder spielten auf der Straße, bis es dunkel wurde.\n"
    "Es war nichts zu hören, nur das Wasser unter der Brücke.\n"
    "Wenn du heute noch kommen willst, musst du dich beeilen.\n"
    "Sie lachte und gab dem Hund ein Stück Brot.\n",
    "crawl.txt": "Er hat den Brief nicht gelesen.\nblorf znarg quib\nDie Kinder kommen aus dem Haus.\n"
    ">>> 0x7f %% $$ qz\nWir haben niemand auf der Straße gehört.\n",
    "scene.txt": "MYRADINE:\nWhere is my lord Ozrimont? He was not in the garden.\n\n"
    "ANSELM:\nOzrimont is gone to the sea, my lady Myradine.\n\n"
    "MYRADINE:\nTo the sea? Then Ozrimont hath broken his word.\n\n"
    "ANSELM:\nNay, Myradine, Ozrimont was sent by the king.\n\n"
    "MYRADINE:\nThe king, the king! O Anselm, call Ozrimont back.\n\n"
    "ANSELM:\nI will call him, Myradine; but Ozrimont is far.\n",
    "reviews.csv": 'id,text,stars\n1,"A good play, my lord.",5\n2,"He said ""no"" and\nwent away.",2\n3,asdf jkl,1\n',
}
"""Input files of the examples, by name."""

BLOCK = re.compile(r"^<!-- generated: (?P<source>[^\n]+) -->\n(?P<body>.*?)^<!-- end -->$", re.DOTALL | re.MULTILINE)
MARKER = re.compile(r"^<!-- (?:generated: .+|end) -->$", re.MULTILINE)

COLUMNS = 80
"""Width of help texts and of other output that adapts to the terminal."""

TOLERANCE = 2e-3
"""Relative difference up to which two numbers are equal in a check: processors differ in the last digits."""

NUMBER = re.compile(r"(\d+\.\d+)")

LESSON = re.compile(r"charlm lesson \w+")
"""Source of a part that takes up to a minute."""

COMMAND_NOT_FOUND = 127
"""Exit code of a shell."""

Shell = Callable[[str], str]
"""Runs a shell command and returns what a terminal would show: stdout and stderr."""


class GenerateError(Exception):
    """A page has a damaged marker, or a command of a page fails."""


@contextmanager
def example_shell(command: Sequence[str] = (sys.executable, "-m", "charlm")) -> Iterator[Shell]:
    """Make the folder of the examples, and yield a function that runs shell commands in it.

    `command` is what the program `charlm` in this folder runs.
    """
    with tempfile.TemporaryDirectory() as scratch:
        programs, folder = Path(scratch, "bin"), Path(scratch, "work")
        programs.mkdir()
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "shakespeare").symlink_to(ROOT / "checkpoints" / "shakespeare")
        for name, text in INPUTS.items():
            folder.joinpath(name).write_text(text, encoding="utf-8")
        program = programs / "charlm"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
            "XDG_CACHE_HOME": str(Path(scratch, "cache")),
            "COLUMNS": str(COLUMNS),
            "NO_COLOR": "1",
        }

        def run(command: str) -> str:
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                check=False,
            )
            if "Traceback (most recent call last)" in done.stdout or done.returncode == COMMAND_NOT_FOUND:
                raise GenerateError(f"{command}: exit code {done.returncode}\n{done.stdout}")
            return done.stdout

        yield run


def regenerate(page: str, run: Shell, path: Path = ROOT / "README.md", *, with_lessons: bool = True) -> str:
    """Return the text of a page with all of its generated parts written anew; `path` is its file.

    Without `with_lessons`, the outputs of lessons are kept as they are.

    Raises:
        GenerateError: If a marker has no partner, or a command fails.
    """
    if len(MARKER.findall(page)) != 2 * len(BLOCK.findall(page)):
        raise GenerateError("each line `<!-- generated: SOURCE -->` needs a line `<!-- end -->` below it")

    def replacement(block: re.Match[str]) -> str:
        source = block["source"]
        if LESSON.match(source) and not with_lessons:
            return block[0]
        return f"<!-- generated: {source} -->\n{_part(source, block['body'], run, path)}<!-- end -->"

    return BLOCK.sub(replacement, page)


def _part(source: str, body: str, run: Shell, path: Path) -> str:
    """Return the code block, table, list or sections that belong to a source."""
    generator, _, argument = source.partition(" ")
    if source == "api":
        from api_page import api_page

        return f"\n{api_page()}"
    if generator == "pages":
        return f"\n{_list_of_pages(argument, path)}\n"
    if source == "commands":
        from charlm.cli import COMMANDS

        page = os.path.relpath(ROOT / "docs" / "commands.md", path.parent)
        rows = [f"| [charlm {name}]({page}#charlm-{name}) | {summary} |\n" for name, summary in COMMANDS.items()]
        return f"\n| command | purpose |\n|---|---|\n{''.join(rows)}\n"
    if source == "columns":
        from charlm.cli.score_columns import COLUMNS, describe

        rows = [f"| `{name}` | {description} |\n" for name, description in describe(list(COLUMNS.values()))]
        return f"\n| column | content |\n|---|---|\n{''.join(rows)}\n"
    if generator == "help":
        return f"```text\n{run(f'charlm {argument} --help')}```\n"
    commands = [line[2:] for line in body.splitlines() if line.startswith("$ ")] if source == "console" else [source]
    session = [f"$ {command}\n{run(command)}".rstrip("\n") + "\n" for command in commands]
    return f"```console\n{''.join(session)}```\n"


def _list_of_pages(title: str, path: Path) -> str:
    """Return a list of the pages of a section, with links from the page `path`, which is left out."""
    from navigation import describe, read_sections

    (pages,) = (section.pages for section in read_sections() if section.title == title)
    lines = []
    for page in (page for page in pages if page != path):
        name, sentence = describe(page)
        lines.append(f"- [{name}]({os.path.relpath(page, path.parent)}): {sentence}\n")
    return "".join(lines)


def equal(page: str, fresh: str) -> bool:
    """Return whether two texts are equal apart from the last digits of numbers."""
    ours, theirs = NUMBER.split(page), NUMBER.split(fresh)
    return ours[::2] == theirs[::2] and all(
        math.isclose(float(one), float(other), rel_tol=TOLERANCE)
        for one, other in zip(ours[1::2], theirs[1::2], strict=True)
    )


def difference(path: Path, page: str, fresh: str) -> str:
    """Return the difference between a page and its new text, for people."""
    old, new = page.splitlines(keepends=True), fresh.splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, new, str(path), f"{path} (generated)"))


def main(arguments: Sequence[str]) -> int:
    """Rewrite pages, or compare them with `--check`; return the exit code."""
    stale = False
    for path in (Path(argument) for argument in arguments if argument != "--check"):
        page = path.read_text(encoding="utf-8")
        try:
            with example_shell() as run:
                fresh = regenerate(page, run, path.resolve(), with_lessons="--check" not in arguments)
        except GenerateError as error:
            sys.stderr.write(f"Error: {path}: {error}\n")
            return 1
        if "--check" not in arguments:
            path.write_text(fresh, encoding="utf-8")
        elif not equal(page, fresh):
            sys.stdout.write(difference(path, page, fresh))
            stale = True
    return int(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
