"""Time of scoring a column of a table of 100,000 lines, compared with scoring the same lines as plain text.

    python -m benchmarks.crawl [--lines 100000] [--rounds 3]

The two commands alternate, and every second round begins with the other one, so that other programs disturb both
equally. The model is untrained, because speed does not depend on the weights. The smaller the model, the larger the
share of the time that is spent on reading and writing.
"""

import argparse
import csv
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import add_project_to_pythonpath
from benchmarks.engine import make_model
from benchmarks.report import table, write_section

WORDS = ("TO", "BE", "OR", "NOT", "THAT", "IS", "THE", "QUESTION", "WHETHER", "NOBLER", "SUFFER", "SLINGS", "ARROWS")
"""Words of the lines, from the characters of the model of `benchmarks.engine`."""

QUOTED_SHARE = 0.05
"""Share of the lines that contain a quotation mark, so that their field in the table is quoted."""

MAX_RATIO = 1.05
"""Goal for the ratio of the times."""


def make_lines(count: int) -> list[str]:
    """Return random lines of about 60 characters."""
    rng = random.Random(0)
    lines = []
    for _ in range(count):
        words = rng.choices(WORDS, k=rng.randint(8, 16))
        if rng.random() < QUOTED_SHARE:
            words[0] = f'"{words[0]}"'
        lines.append(" ".join(words))
    return lines


def write_inputs(lines: list[str], folder: Path) -> tuple[Path, Path]:
    """Write the lines as plain text and as the column `text` of a table, and return the paths of both files."""
    plain, crawl = folder / "lines.txt", folder / "crawl.tsv"
    plain.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    with crawl.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, dialect="excel-tab", lineterminator="\n")
        writer.writerow(("id", "url", "text", "language"))
        writer.writerows((number, f"https://example.org/{number}", line, "en") for number, line in enumerate(lines))
    return plain, crawl


def timed(command: list[str], out: Path) -> tuple[float, float]:
    """Run a command, and return its elapsed time and its processor time in seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with out.open("wb") as file:
        subprocess.run(command, check=True, stdout=file, stderr=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def largest_difference(plain: Path, crawl: Path, lines: list[str]) -> float:
    """Return the largest difference between the scores of both outputs. Exit if a column was changed."""
    scores = [float(line.split("\t")[0]) for line in plain.read_text(encoding="utf-8").splitlines()]
    with crawl.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, dialect="excel-tab"))
    if [row["text"] for row in rows] != lines or rows[-1]["id"] != str(len(lines) - 1):
        sys.exit("the columns of the input are not those of the output")
    column = list(rows[0])[-1]
    return max(abs(score - float(row[column])) for score, row in zip(scores, rows, strict=True))


def main() -> None:
    """Measure both commands, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=100_000, help="number of lines")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--units", type=int, default=256, help="number of units of the model")
    args = parser.parse_args()
    add_project_to_pythonpath()
    times: dict[str, list[tuple[float, float]]] = {"plain": [], "table": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder / "model.safetensors", num_layers=1, hidden_size=args.units)
        lines = make_lines(args.lines)
        plain, crawl = write_inputs(lines, folder)
        score = [sys.executable, "-m", "charlm", "score", "-m", str(model)]
        commands = {"plain": [*score, str(plain)], "table": [*score, "--field", "text", str(crawl)]}
        for number in range(args.rounds):
            for way in sorted(commands, reverse=number % 2 == 1):
                times[way].append(timed(commands[way], folder / f"{way}.out"))
                print(number, way, times[way][-1], file=sys.stderr)
        difference = largest_difference(folder / "plain.out", folder / "table.out", lines)
    medians = {way: [statistics.median(part) for part in zip(*rounds, strict=True)] for way, rounds in times.items()}
    rounds = zip(times["plain"], times["table"], strict=True)
    ratios = [[table / plain for plain, table in zip(*pair, strict=True)] for pair in rounds]
    seconds, cpu_seconds = (statistics.median(part) for part in zip(*ratios, strict=True))
    rows = [
        [way, command, *(f"{value:.2f}" for value in medians[way])]
        for way, command in (("plain", "`charlm score lines.txt`"), ("table", "`charlm score --field text crawl.tsv`"))
    ]
    body = (
        f"{args.lines:,} lines of about 60 characters; 5 % contain quotation marks. The table has three other columns, "
        f"which the output keeps. An untrained model of 1 x {args.units} units, {os.cpu_count()} cores. Times and "
        f"ratios are medians of {args.rounds} rounds in which the commands alternate.\n\n"
        + table(["input", "command", "seconds", "CPU seconds"], rows)
        + f"\n\nRatio: **{seconds:.3f}** in elapsed time (rounds: "
        f"{', '.join(f'{ratio[0]:.3f}' for ratio in ratios)}), {cpu_seconds:.3f} in processor time; the goal is "
        f"at most {MAX_RATIO}. Largest difference between the scores: {difference:g}."
    )
    write_section("crawl", "Scoring a column of a table", body)


if __name__ == "__main__":
    main()
