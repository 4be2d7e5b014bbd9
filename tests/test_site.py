"""The documentation site: the pages and their order, links between them, and the checks of the built site."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_PICTURE_BYTES = 50_000


@pytest.fixture(scope="module")
def navigation() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        yield importlib.import_module("navigation")


@pytest.fixture(scope="module")
def site(navigation: ModuleType) -> ModuleType:
    return importlib.import_module("build_site")


def test_every_page_of_docs_is_in_one_section(navigation: ModuleType) -> None:
    pages = [page for section in navigation.read_sections() for page in section.pages]
    assert len(pages) == len(set(pages))
    assert set((ROOT / "docs").rglob("*.md")) <= set(pages)


def test_every_page_begins_with_a_title_and_a_sentence(navigation: ModuleType) -> None:
    sections = [section for section in navigation.read_sections() if section.title not in ("", "Project")]
    described = [navigation.describe(page) for section in sections for page in section.pages]
    assert [title for title, sentence in described if not sentence.endswith(".")] == []


def test_a_new_guide_is_found_without_being_listed(navigation: ModuleType, tmp_path: Path) -> None:
    guides = tmp_path / "docs" / "guides"
    guides.mkdir(parents=True)
    for name in ("first", "new", "last"):
        (guides / f"{name}.md").touch()
    (tmp_path / "docs" / "navigation.toml").write_text(
        '[[section]]\ntitle = "Guides"\npages = ["docs/guides/first.md", "docs/guides/*.md", "docs/guides/last.md"]\n',
        encoding="utf-8",
    )
    (section,) = navigation.read_sections(tmp_path)
    assert [page.stem for page in section.pages] == ["first", "new", "last"]


def test_a_listed_page_must_exist(navigation: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    text = '[[section]]\ntitle = "Guides"\npages = ["docs/missing.md"]\n'
    (tmp_path / "docs" / "navigation.toml").write_text(text, encoding="utf-8")
    with pytest.raises(navigation.NavigationError, match=r"docs/missing\.md: no such page"):
        navigation.read_sections(tmp_path)


def test_a_description_is_the_first_sentence_without_links(navigation: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- note -->\n# Title\n\nTrain [a\nmodel](x.md). More.\n\nEnd.\n", encoding="utf-8")
    assert navigation.describe(page) == ("Title", "Train a model.")
    page.write_text("# Title\n\n## Section\n", encoding="utf-8")
    with pytest.raises(navigation.NavigationError, match="must begin with a title and a sentence"):
        navigation.describe(page)


def test_all_pages_can_be_staged_with_their_links(navigation: ModuleType, site: ModuleType, tmp_path: Path) -> None:
    pages = [page for section in navigation.read_sections() for page in section.pages]
    site.stage(pages, tmp_path)
    assert "(guides/lists.md)" in (tmp_path / "index.md").read_text(encoding="utf-8")
    assert "(../recipe.md#lists-of-items)" in (tmp_path / "guides" / "lists.md").read_text(encoding="utf-8")
    assert "(../benchmarks/results/" not in (tmp_path / "engine.md").read_text(encoding="utf-8")


def test_a_link_to_a_file_that_is_no_page_is_an_error(site: ModuleType, tmp_path: Path) -> None:
    page = ROOT / "docs" / "python.md"
    with pytest.raises(site.SiteError, match=r"docs/python\.md: .* is not a page of the site"):
        site.stage([page], tmp_path)


def test_links_in_code_are_not_changed(site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "ROOT", tmp_path)
    text = "a [page](CHANGELOG.md)\n\n```text\n[not](a-link.md)\n```\n"
    pages = [tmp_path / "README.md", tmp_path / "CHANGELOG.md"]
    for page in pages:
        page.write_text(text, encoding="utf-8")
    site.stage(pages, tmp_path / "out")
    assert (tmp_path / "out" / "index.md").read_text(encoding="utf-8") == text


def test_broken_links_and_foreign_files_of_web_pages_are_found(site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text('<h1 id="there">x</h1><a href="https://example.org">out</a>', encoding="utf-8")
    (tmp_path / "page.html").write_text(
        '<script src="https://example.org/a.js"></script><img src="missing.png"><a href="other.html#there">good</a>'
        '<a href="other.html#gone">bad</a><a href="#nowhere">bad</a><a href="gone.html">bad</a>',
        encoding="utf-8",
    )
    assert list(site.check_links(tmp_path)) == [
        "page.html: loads https://example.org/a.js from another computer",
        "page.html: missing.png: no such file",
        "page.html: other.html#gone: no such heading",
        "page.html: #nowhere: no such heading",
        "page.html: gone.html: no such file",
    ]


def test_an_existing_folder_is_not_replaced(site: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(site.SiteError, match="exists already"):
        site.build(tmp_path)


@pytest.fixture(scope="module")
def pictures(navigation: ModuleType) -> ModuleType:
    return importlib.import_module("pictures")


def test_all_pictures_are_there_and_small(pictures: ModuleType) -> None:
    sizes = {path.name: path.stat().st_size for path in pictures.PICTURES.iterdir()}
    assert set(sizes) == set(pictures.DRAWINGS)
    assert max(sizes.values()) < MAX_PICTURE_BYTES


def test_every_picture_is_shown_and_described_in_the_readme(pictures: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"!\[.{20,}\]\(docs/pictures/(.+?)\)", text)) == set(pictures.DRAWINGS)


def test_the_heat_map_is_that_of_the_included_model(pictures: ModuleType, tmp_path: Path) -> None:
    pictures.draw_heatmap(tmp_path / "heatmap.svg")
    fresh, kept = ((path / "heatmap.svg").read_text(encoding="utf-8") for path in (tmp_path, pictures.PICTURES))
    ElementTree.fromstring(kept)
    assert re.findall(">(.)</text>", fresh) == re.findall(">(.)</text>", kept), "run `make pictures`"
    different = set(fresh.splitlines()) ^ set(kept.splitlines())
    assert len(different) <= 2, "run `make pictures`"  # on another processor, one character may have the next colour
