"""Writing of result files, each with the commit, the versions and the command that are needed to measure it again."""

import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
"""Folder of the result files."""

MATRIX_UNITS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}
"""Instruction sets for matrix products, fastest first, by their flags in Linux's /proc/cpuinfo."""

MAIN_UNIT = "AMX"
"""Instruction set of the machine with most results. Results of other machines get its name as a suffix."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean_and_range(values: Sequence[float], form: str) -> str:
    """Return the mean of a figure, with minimum and maximum if there are several values.

    Args:
        values: One value per training.
        form: Format specification of each number.
    """
    mean = format(sum(values) / len(values), form)
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}} to {max(values):{form}})"


def write_section(name: str, title: str, body: str, *, packages: Sequence[str] = ("numpy",)) -> None:
    """Print a result, and write it to results/NAME.md.

    The command is recorded without the folders of its arguments, which mean nothing on another machine.

    Args:
        name: Name of the file. It gets a suffix on a processor without `MAIN_UNIT`.
        title: Heading.
        body: Markdown.
        packages: Packages whose versions are recorded.
    """
    git = ["git", "-C", str(RESULTS.parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    versions = [f"Python {platform.python_version()}", *map(_version, packages)]
    arguments = [Path(argument).name if "/" in argument else argument for argument in sys.argv[1:]]
    command = shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *arguments])
    unit = matrix_unit()
    facts = f"Commit {commit or 'unknown'}; {', '.join(versions)}; processor with {unit}; `{command}`"
    if unit != MAIN_UNIT:
        name, title = f"{name}-{unit.lower()}", f"{title} ({unit})"
    text = f"# {title}\n\n{body.strip()}\n\n{facts}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    write_index()
    print(text)


def matrix_unit() -> str:
    """Return the processor's fastest instruction set for matrix products, or its architecture if that is unknown."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        flags = set()
    return next((name for flag, name in MATRIX_UNITS.items() if flag in flags), platform.machine())


def write_index() -> None:
    """Write RESULTS.md, the list of all result files."""
    lines = [
        "# Results",
        "",
        "The results of all benchmarks. The last line of each file names the benchmark that wrote it.",
        "",
    ]
    for path in sorted(RESULTS.glob("*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{title}](results/{path.name})")
    (RESULTS.parent / "RESULTS.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"
