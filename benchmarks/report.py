"""Writes down what a benchmark has measured, with all that it takes to measure it again."""

import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"

MATRIX_UNITS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}
"""What a processor multiplies matrices with, the best first, by Linux' names."""

USUAL = "AMX"
"""Where most was measured; what is measured elsewhere is kept beside it."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean_and_range(values: Sequence[float], form: str) -> str:
    """The mean of a figure over trainings, and from where to where it goes if there are several."""
    mean = format(sum(values) / len(values), form)
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}} to {max(values):{form}})"


def write_section(name: str, title: str, body: str, *, packages: Sequence[str] = ("numpy",)) -> None:
    """Print a section of the results, and keep it in results/NAME.md; of paths in the command only the ends.

    Args:
        name: Of the section's file; on another processor than the usual one, what that has is added to it.
        title: Its heading.
        body: Markdown.
        packages: Whose versions matter.
    """
    git = ["git", "-C", str(RESULTS.parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False)
    versions = [f"Python {platform.python_version()}", *map(_version, packages)]
    arguments = [Path(argument).name if "/" in argument else argument for argument in sys.argv[1:]]
    made = f"`{shlex.join(['python', '-m', f'benchmarks.{Path(sys.argv[0]).stem}', *arguments])}`"
    units = matrix_units()
    facts = f"Commit {commit.stdout.strip() or 'unknown'}; {', '.join(versions)}; a processor with {units}; {made}"
    if units != USUAL:
        name, title = f"{name}-{units.lower()}", f"{title} ({units})"
    text = f"# {title}\n\n{body.strip()}\n\n{facts}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    write_index()
    print(text)


def matrix_units() -> str:
    """What this processor has for products of matrices, or its architecture, if that is not known."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        flags = set()
    return next((name for flag, name in MATRIX_UNITS.items() if flag in flags), platform.machine())


def write_index() -> None:
    """List all that has been measured in RESULTS.md."""
    lines = ["# Results", "", "Each is written by the benchmark that its last line names.", ""]
    for path in sorted(RESULTS.glob("*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{title}](results/{path.name})")
    (RESULTS.parent / "RESULTS.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"
