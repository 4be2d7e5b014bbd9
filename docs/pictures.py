"""Draw the pictures of the README and of the guides, in `docs/pictures/`.

    python docs/pictures.py         all pictures; two short trainings take about a minute, and one needs chromium
    python docs/pictures.py NAME    one of them, such as heatmap.svg

Seeds are fixed, so that the same program draws the same picture.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"

LINES = (
    "O Romeo, Romeo! wherefore art thou Romeo?",
    "O Romeo, Romeo! wherefore is my telephone?",
    "Shall I compare thee to a summer's day?",
    "Shall day a summer's thee I compare to?",
)
"""Lines of the heat map, each scored by itself."""

CHAR_WIDTH, LINE_HEIGHT, FONT_SIZE, MARGIN = 15, 34, 24, 16
"""Sizes in the heat map, in pixels."""

NUM_CHARS = 200_000
TRAINING = ["--steps", "600", "--layers", "1", "--batch-size", "16", "--seq-len", "64", "--lr", "0.01", "--no-ngram"]
UNITS = (16, 64)
"""Length of the training text and settings of the two trainings whose losses are drawn."""

PAGE_FIELDS = {"prompt": "JULIET:", "seed": "5", "length": "180"}
PAGE_WIDTH, PAGE_HEIGHT = 900, 900
"""Text that is typed into the exported page, and the size in pixels of its upper part, which is shown."""


def draw_heatmap(path: Path) -> None:
    """Draw lines of text whose characters have the colours of `charlm score --html`, with a legend."""
    import charlm
    from charlm.cli.heatmap import LABELS, PAGE_COLOURS, level_of

    model = charlm.load("shakespeare")
    width = 2 * MARGIN + CHAR_WIDTH * max(map(len, LINES))
    cells: list[str] = []
    for row, line in enumerate(LINES):
        for column, part in enumerate(model.surprisals(line, unit="character")):
            left, top = MARGIN + column * CHAR_WIDTH, MARGIN + row * LINE_HEIGHT
            cells += _box(left, top, CHAR_WIDTH, part.text, PAGE_COLOURS, level_of(part.bits))
    top = 2 * MARGIN + len(LINES) * LINE_HEIGHT
    cells += _box(MARGIN, top, 140, "bits per character:", PAGE_COLOURS, 0, "legend")
    left = MARGIN + 150
    for level, label in enumerate(LABELS):
        box_width = 24 + 8 * len(label)
        cells += _box(left, top, box_width, label, PAGE_COLOURS, level, "legend")
        left += box_width + 4
    height = top + LINE_HEIGHT + MARGIN
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        "<title>Surprisal of each character of four lines</title>\n"
        f"<style>text {{ font: {FONT_SIZE}px monospace; text-anchor: middle; fill: #111 }} .dark {{ fill: #fff }}\n"
        ".legend { font: 16px sans-serif }</style>\n"
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(cells) + "\n</svg>\n",
        encoding="utf-8",
    )


def _box(left: int, top: int, width: int, text: str, colours: Sequence[str], level: int, kind: str = "") -> list[str]:
    """Return a coloured box with a text in its middle; the text of the two highest levels is white."""
    names = " ".join([kind] * bool(kind) + ["dark"] * (level >= len(colours) - 2))
    parts = []
    if level:
        parts.append(f'<rect x="{left}" y="{top}" width="{width}" height="{LINE_HEIGHT - 4}" fill="{colours[level]}"/>')
    if not text.isspace():
        style = f' class="{names}"' if names else ""
        middle, base = left + width / 2, top + (LINE_HEIGHT - 4) // 2 + (8 if not kind else 6)
        parts.append(f'<text x="{middle:g}" y="{base}"{style}>{escape(text)}</text>')
    return parts


def draw_losses(path: Path) -> None:
    """Draw the loss curves of two trainings with `charlm plot`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "plays.txt").write_text(_charlm(folder, "corpus", "shakespeare")[:NUM_CHARS], encoding="utf-8")
        names = [f"{number}-units" for number in UNITS]
        for name, number in zip(names, UNITS, strict=True):
            _charlm(folder, "train", "plays.txt", *TRAINING, "--hidden", str(number), "--name", name, "-q")
        _charlm(folder, "plot", *names, "--x", "steps", "-o", str(path))
    _shrink(path, PAGE_HEIGHT)


def draw_page(path: Path) -> None:
    """Take a picture of the page that `charlm export` writes, in Chromium, after it has written some text."""
    sys.path.insert(0, str(ROOT))
    from tests.chromium import Browser

    with tempfile.TemporaryDirectory() as folder:
        _charlm(folder, "export", "-m", "shakespeare", "page.html")
        browser = Browser()
        browser.open(Path(folder, "page.html"))
        for name, value in PAGE_FIELDS.items():
            field = f"document.getElementById({name!r})"
            browser.run(f"{field}.value = {value!r}; {field}.dispatchEvent(new Event('input'))")
        browser.run("document.getElementById('start').click()")
        while browser.run("document.getElementById('start').disabled"):
            time.sleep(0.1)
        browser.screenshot(path, width=PAGE_WIDTH, height=PAGE_HEIGHT)
        browser.close()
    _shrink(path, PAGE_HEIGHT)


def _shrink(path: Path, max_height: int) -> None:
    """Cut a picture off below a height, and store it with 64 colours."""
    from PIL import Image

    with Image.open(path) as picture:
        part = picture.convert("RGB").crop((0, 0, picture.width, min(picture.height, max_height)))
    part.quantize(64).save(path, optimize=True)


def _charlm(folder: str, *arguments: str) -> str:
    """Run a command in a folder, and return its output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "charlm", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, encoding="utf-8"
    ).stdout


DRAWINGS: dict[str, Callable[[Path], None]] = {
    "heatmap.svg": draw_heatmap,
    "losses.png": draw_losses,
    "page.png": draw_page,
}
"""Function of each picture, by file name."""


def main(arguments: Sequence[str]) -> int:
    """Draw pictures; return the exit code."""
    PICTURES.mkdir(exist_ok=True)
    for name in arguments or DRAWINGS:
        DRAWINGS[name](PICTURES / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
