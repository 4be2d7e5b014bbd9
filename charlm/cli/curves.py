"""Loss curves: read from the logs of runs, and drawn with characters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from charlm.engine.runs import Run
from charlm.errors import RunError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
"""Marks of the validation losses, one letter per run. Training losses of all runs are dots."""

HIDDEN_SHARE = 0.05
"""Share of the horizontal axis, from its start, in which losses may be above the top of the drawing."""

TICK_COLUMNS = 9
"""Number of columns to the left of the drawing: the labels of the vertical axis and the axis."""

ROWS_PER_TICK = 4
"""Number of rows between two labels of the vertical axis."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Losses of a run.

    Attributes:
        run: Name of the run.
        kind: `training` or `validation`.
        points: Pairs of position (seconds, epochs or steps) and loss in nats per `unit`.
        unit: `token`, or `sample` for a classifier.
    """

    run: str
    kind: str
    points: list[tuple[float, float]]
    unit: str = "token"


def read_curves(name: str | None, field: str) -> list[Curve]:
    """Read the loss curves of a run from its log.

    Args:
        name: Name or folder of the run, or None for the newest run.
        field: Field of the log with the position: `seconds`, `epoch` or `step`.

    Raises:
        RunError: If there is no such run, or its log has no losses.
    """
    run = Run.find(name)
    entries = run.read_log()
    unit = "sample" if any("train_accuracy" in entry for entry in entries) else "token"
    curves = [
        Curve(run=run.name, kind=kind, points=points, unit=unit)
        for kind, key in (("training", "train_nats"), ("validation", "val_nats"))
        if (points := [(float(entry[field]), float(entry[key])) for entry in entries if _is_loss(entry.get(key))])
    ]
    if not curves:
        raise RunError(f"{run.log}: no losses to plot")
    return curves


def names_of_runs(curves: Sequence[Curve]) -> list[str]:
    """Return the names of the runs, without duplicates and in their order."""
    return list(dict.fromkeys(curve.run for curve in curves))


def loss_units(curves: Sequence[Curve]) -> str:
    """Return the unit of the losses in words."""
    return f"nats per {' or '.join(dict.fromkeys(curve.unit for curve in curves))}"


def loss_range(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the lowest and the highest loss to draw. The steep start of a curve may be above the highest."""
    first, last = _extent([x for curve in curves for x, _ in curve.points])
    losses = [y for curve in curves for x, y in curve.points if x >= first + HIDDEN_SHARE * (last - first)]
    low, high = _extent(losses)
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin


def draw(curves: Sequence[Curve], label: str, *, width: int, height: int) -> str:
    """Draw curves with characters.

    Args:
        curves: The curves. Validation losses are drawn over training losses.
        label: Label of the horizontal axis.
        width: Total number of columns.
        height: Number of rows of the drawing, without axis and legend.
    """
    num_columns = width - TICK_COLUMNS
    low, high = loss_range(curves)
    left, right = _extent([x for curve in curves for x, _ in curve.points])
    letters = {name: LETTERS[index % len(LETTERS)] for index, name in enumerate(names_of_runs(curves))}
    grid = [[" "] * num_columns for _ in range(height)]
    for curve in sorted(curves, key=lambda curve: curve.kind):  # validation is drawn after training
        mark = letters[curve.run] if curve.kind == "validation" else "."
        for x, y in curve.points:
            column = round((x - left) / ((right - left) or 1) * (num_columns - 1))
            row = round((high - y) / (high - low) * (height - 1))
            if 0 <= row < height:
                grid[row][column] = mark
    limits = f"{left:,.0f}".ljust(num_columns // 2) + f"{right:,.0f} {label}".rjust(num_columns - num_columns // 2)
    return "\n".join(
        [
            *_rows_with_ticks(grid, low, high),
            " " * (TICK_COLUMNS - 1) + "+" + "-" * num_columns,
            " " * TICK_COLUMNS + limits,
            _legend(letters, loss_units(curves)),
        ]
    )


def _rows_with_ticks(grid: Sequence[Sequence[str]], low: float, high: float) -> list[str]:
    """Return the rows of a drawing with the labels of the vertical axis."""
    rows = []
    for row, marks in enumerate(grid):
        loss = high - (high - low) * row / (len(grid) - 1)
        tick = f"{loss:7.3f}" if row % ROWS_PER_TICK == 0 else " " * 7
        rows.append(f"{tick} |{''.join(marks)}".rstrip())
    return rows


def _legend(letters: dict[str, str], units: str) -> str:
    validation = "   ".join(f"{letter} {name}, validation" for name, letter in letters.items())
    return f"loss in {units}:  .  training   {validation}"


def _extent(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _is_loss(value: Any) -> bool:  # noqa: ANN401 - any value from a log
    return isinstance(value, int | float) and math.isfinite(value)
