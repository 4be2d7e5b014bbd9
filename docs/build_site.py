"""Build the documentation site: the Markdown pages of the repository as web pages.

    python docs/build_site.py            build the site in build/site
    python docs/build_site.py FOLDER     build it in another folder, which must not exist

The pages are copied to a folder in which those of `docs/` come first, with their links adapted. `zensical` makes the
web pages from them, and a warning of it is an error. Then every link of the web pages is checked. A page must not load
anything from another computer.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from navigation import ROOT, NavigationError, Section, read_sections

DEFAULT_OUTPUT = ROOT / "build" / "site"
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
CODE_BLOCK = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
PICTURES = {".svg", ".png"}
LOADING_ATTRIBUTES = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "srcset")}
"""Elements with the attribute that makes a browser load a file. A link with `rel="canonical"` does not."""


class SiteError(Exception):
    """A link is broken, or the generator failed."""


def site_path(path: Path) -> Path:
    """Return the place of a file of the repository within the site: files of `docs/` are at the top."""
    relative = path.relative_to(ROOT)
    if relative == Path("README.md"):
        return Path("index.md")
    return relative.relative_to("docs") if relative.parts[0] == "docs" else relative


def stage(pages: Sequence[Path], folder: Path) -> None:
    """Copy pages and the pictures that they show to a folder, and adapt their links.

    Raises:
        SiteError: If a link leads to a file that is neither a page of the site nor a picture.
    """
    for page in pages:
        target = folder / site_path(page)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = page.read_text(encoding="utf-8")
        parts, code = CODE_BLOCK.split(text), [*CODE_BLOCK.findall(text), ""]
        adapted = (
            _adapt_links(part, page, set(pages), folder) + block for part, block in zip(parts, code, strict=True)
        )
        target.write_text("".join(adapted), encoding="utf-8")


def _adapt_links(text: str, page: Path, pages: set[Path], folder: Path) -> str:
    """Return a part of a page with its links changed to the places of the site; copy the pictures."""

    def adapt(link: re.Match[str]) -> str:
        address = link[2]
        if urlsplit(address).scheme:
            return link[0]
        target = Path(os.path.normpath(page.parent / address))
        if target.suffix in PICTURES and target.is_file():
            place = folder / site_path(target)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, place)
        elif target not in pages:
            raise SiteError(f"{page.relative_to(ROOT)}: {address} is not a page of the site; see docs/navigation.toml")
        return f"{link[1]}{os.path.relpath(site_path(target), site_path(page).parent)}{link[3]}"

    return LINK.sub(adapt, text)


def write_configuration(sections: Sequence[Section], work: Path) -> Path:
    """Write the settings of the generator: those of `docs/zensical.toml`, the folders and the navigation."""
    groups = ", ".join(
        f"{{ {json.dumps(section.title)} = {json.dumps([str(site_path(page)) for page in section.pages])} }}"
        for section in sections
        if section.title and section.pages
    )
    settings = (ROOT / "docs" / "zensical.toml").read_text(encoding="utf-8")
    path = work / "zensical.toml"
    path.write_text(
        settings.replace("[project]\n", f'[project]\ndocs_dir = "pages"\nsite_dir = "site"\nnav = [{groups}]\n', 1),
        encoding="utf-8",
    )
    return path


class _Page(HTMLParser):
    """Addresses and anchors of a web page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the addresses and anchors of an element."""
        values = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := values.get(name))}
        for name, value in attrs:
            if not value:
                continue
            if (tag, name) in LOADING_ATTRIBUTES and values.get("rel") not in ("canonical", "prev", "next"):
                self.loaded.append(value)
            if (tag, name) == ("a", "href") or (tag, name) in LOADING_ATTRIBUTES:
                self.links.append(value)


def check_links(site: Path) -> Iterator[str]:
    """Yield what is wrong with the links of a site: missing files and anchors, and files from other computers."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        yield from (f"{name}: loads {address} from another computer" for address in page.loaded if "//" in address)
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{name}: {address}: no such file"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{name}: {address}: no such heading"


def _generate(configuration: Path) -> None:
    """Run the generator."""
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(configuration)],
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise SiteError(f"zensical failed:\n{done.stdout}{done.stderr}")


def build(output: Path) -> int:
    """Build the site in a new folder; return the number of pages.

    Raises:
        SiteError: If the folder exists, the generator warns or fails, or a link is broken.
    """
    if output.exists():
        raise SiteError(f"{output}: exists already; name another folder")
    sections = read_sections()
    pages = [page for section in sections for page in section.pages]
    with tempfile.TemporaryDirectory() as scratch:
        stage(pages, Path(scratch, "pages"))
        _generate(write_configuration(sections, Path(scratch)))
        shutil.move(Path(scratch, "site"), output)
    if broken := list(check_links(output)):
        raise SiteError("\n".join(broken))
    return len(pages)


def main(arguments: Sequence[str]) -> int:
    """Build the site; return the exit code."""
    output = Path(*arguments or (DEFAULT_OUTPUT,)).resolve()
    if not arguments:
        shutil.rmtree(DEFAULT_OUTPUT, ignore_errors=True)
    try:
        number = build(output)
    except (SiteError, NavigationError) as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    sys.stdout.write(f"{number} pages: {output / 'index.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
