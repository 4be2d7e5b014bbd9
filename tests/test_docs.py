"""Checks that the Markdown pages agree with the code."""

import doctest
import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import click
import pytest

import charlm
from charlm.cli import COMMANDS, main
from charlm.cli.score_columns import COLUMNS
from tests.server import Server

ROOT = Path(__file__).resolve().parent.parent
GENERATE = ROOT / "docs" / "generate.py"
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
ALL_PAGES = [*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md"))]
RESULT_LINK = re.compile(r"\[([^\]]*\d[^\]]*)\]\(((?:\.\./)*benchmarks/results/[^)#\s]+)\)")
NUMBER = re.compile(r"\d+\.\d+")
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
generate = runpy.run_path(str(GENERATE))


def run_generate(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(GENERATE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=300)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_generated_parts_of_a_page_are_up_to_date(page: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(GENERATE.parent)
    text = page.read_text(encoding="utf-8")
    with generate["example_shell"](server.program) as run:
        fresh = generate["regenerate"](text, run, page, with_lessons=False)
    assert generate["equal"](text, fresh), f"run `make docs`\n{generate['difference'](page, text, fresh)}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_commands_shows_every_command(name: str) -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert f"\n## charlm {name}\n\n<!-- generated: help {name} -->\n" in page
    command = main.get_command(click.Context(main), name)
    for part in command.commands if isinstance(command, click.Group) else ():
        assert f"<!-- generated: help {name} {part} -->\n" in page


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_links_lead_from_the_readme_to_every_page() -> None:
    reached, new = set[Path](), {ROOT / "README.md"}
    while new:
        reached |= new
        targets = {page.parent / target for page in new for target in LINK.findall(page.read_text(encoding="utf-8"))}
        new = {target.resolve() for target in targets if target.suffix == ".md"} - reached
    assert [page for page in PAGES if page not in reached] == []


def figures_with_links(page: Path) -> list[tuple[str, Path]]:
    """Return the numbers in the texts of links to result files, with the files."""
    found = RESULT_LINK.findall(page.read_text(encoding="utf-8"))
    return [(number, page.parent / target) for text, target in found for number in NUMBER.findall(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_figures_are_those_of_the_result_files_that_they_link_to(page: Path) -> None:
    wrong = []
    for figure, file in figures_with_links(page):
        decimals = len(figure.partition(".")[2])
        measured = NUMBER.findall(file.read_text(encoding="utf-8"))
        if not any(f"{float(number):.{decimals}f}" == figure for number in measured):
            wrong.append(f"{figure} is not in {file.name}")
    assert wrong == []


def test_a_shell_command_becomes_a_console_block_with_its_output() -> None:
    page = "before\n<!-- generated: echo hello -->\nold\n<!-- end -->\nafter\n"
    expected = "before\n<!-- generated: echo hello -->\n```console\n$ echo hello\nhello\n```\n<!-- end -->\nafter\n"
    assert generate["regenerate"](page, lambda command: "hello\n") == expected


def test_each_command_of_a_console_block_is_run_and_its_old_output_replaced() -> None:
    page = "<!-- generated: console -->\n```console\n$ one\nold\nold\n$ two\n```\n<!-- end -->\n"
    expected = "<!-- generated: console -->\n```console\n$ one\n<one>\n$ two\n<two>\n```\n<!-- end -->\n"
    assert generate["regenerate"](page, lambda command: f"<{command}>\n\n") == expected


def test_columns_become_a_table_of_all_columns() -> None:
    table = generate["regenerate"]("<!-- generated: columns -->\n<!-- end -->\n", lambda command: "")
    assert [f"| `{name}` |" in table for name in COLUMNS] == [True] * len(COLUMNS)


def test_commands_become_a_table_with_links() -> None:
    table = generate["regenerate"]("<!-- generated: commands -->\n<!-- end -->\n", lambda command: "")
    assert re.findall(r"\| \[charlm (\w+)\]\(docs/commands\.md#charlm-\1\) \| .+ \|", table) == list(COMMANDS)


def test_help_becomes_a_text_block() -> None:
    page = "<!-- generated: help vectors nearest -->\n<!-- end -->\n"
    expected = "<!-- generated: help vectors nearest -->\n```text\nUsage\n```\n<!-- end -->\n"
    ran: list[str] = []
    assert generate["regenerate"](page, lambda command: ran.append(command) or "Usage\n") == expected
    assert ran == ["charlm vectors nearest --help"]


def test_pages_become_a_list_with_the_first_sentences(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: pages Guides -->\n<!-- end -->\n", encoding="utf-8")
    assert run_generate(page).returncode == 0
    entries = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("- [")]
    assert len(entries) == len(list((ROOT / "docs" / "guides").glob("*.md")))
    assert all(re.fullmatch(r"- \[.+\]\(.*docs/guides/[\w-]+\.md\): .+\.", entry) for entry in entries)


def test_the_page_of_the_api_shows_every_public_name() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in charlm.__all__ if f"\n## charlm.{name}\n" not in page] == []
    methods = [
        name for name in vars(charlm.Model) if not name.startswith("_") and callable(getattr(charlm.Model, name))
    ]
    assert [name for name in methods if f"\n### Model.{name}\n" not in page] == []


@pytest.mark.parametrize("page", ["<!-- generated: help -->\n", "<!-- end -->\n"])
def test_a_marker_without_partner_is_an_error(page: str) -> None:
    with pytest.raises(Exception, match="needs a line"):
        generate["regenerate"](page, lambda command: "")


def test_check_prints_a_diff_and_leaves_the_page_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: cat lines.txt -->\n<!-- end -->\n", encoding="utf-8")
    done = run_generate("--check", page)
    assert (done.returncode, done.stderr) == (1, "")
    assert "+To be, or not to be\n" in done.stdout
    assert page.read_text(encoding="utf-8") == "<!-- generated: cat lines.txt -->\n<!-- end -->\n"
    assert run_generate(page).returncode == 0
    assert run_generate("--check", page).returncode == 0


def test_a_command_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: no-such-program -->\n<!-- end -->\n", encoding="utf-8")
    done = run_generate(page)
    assert done.returncode == 1
    assert "no-such-program: exit code 127" in done.stderr


def modules_with_examples() -> list[str]:
    """Return the modules with examples, without those that write files, which have tests of their own."""
    paths = [path for path in sorted(ROOT.glob("charlm/**/*.py")) if ">>> " in path.read_text(encoding="utf-8")]
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in paths
        if path.stem not in {"api", "classifier_api"}
    ]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")  # some read the included model, others write files
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(importlib.import_module(name), extraglobs={"charlm": charlm})
    assert tried
    assert not failed
