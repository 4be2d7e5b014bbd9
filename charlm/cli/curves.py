"""Loss curves: read from the logs of runs, and drawn with characters."""

import math
from dataclasses import dataclass
from typing import Any

from charlm.engine.runs import Run
from charlm.errors import RunError

MARKS = "abcdefghijklmnopqrstuvwxyz"
"""Each run's validation losses are drawn as a letter of its own, all training losses as dots."""

SETTLED = 0.05
"""The share of a curve, its steep beginning, that may lie above the drawing."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Losses of a run.

    Attributes:
        run: Its name.
        kind: `training` or `validation`.
        points: Pairs of time, epochs or steps, and loss in nats a token.
    """

    run: str
    kind: str
    points: list[tuple[float, float]]


def read_curves(name: str | None, field: str) -> list[Curve]:
    """The curves of a run.

    Args:
        name: Its name or folder; the newest run if None.
        field: What goes across: `seconds`, `epoch` or `step`.

    Raises:
        RunError: If there is no such run, or nothing in its log.
    """
    run = Run.find(name)
    entries = run.read_log()
    curves = [
        Curve(run=run.name, kind=kind, points=points)
        for kind, key in (("training", "train_nats"), ("validation", "val_nats"))
        if (points := [(float(entry[field]), float(entry[key])) for entry in entries if _is_loss(entry.get(key))])
    ]
    if not curves:
        raise RunError(f"{run.log}: no losses to draw")
    return curves


def loss_range(curves: list[Curve]) -> tuple[float, float]:
    """The losses to draw, least and greatest; the steep beginning of a curve may lie above."""
    first, last = _extent([x for curve in curves for x, _ in curve.points])
    losses = [y for curve in curves for x, y in curve.points if x >= first + SETTLED * (last - first)]
    low, high = _extent(losses)
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin


def draw(curves: list[Curve], label: str, *, width: int, height: int) -> str:
    """Draw curves with characters.

    Args:
        curves: What to draw; a run's training curve before its validation curve, which goes on top.
        label: What goes across.
        width: Columns in all.
        height: Lines of the drawing, without axis and legend.
    """
    columns = width - 9
    low, high = loss_range(curves)
    left, right = _extent([x for curve in curves for x, _ in curve.points])
    grid = [[" "] * columns for _ in range(height)]
    marks = {name: MARKS[index % len(MARKS)] for index, name in enumerate(dict.fromkeys(c.run for c in curves))}
    for curve in sorted(curves, key=lambda curve: curve.kind):  # training first, validation on top
        mark = marks[curve.run] if curve.kind == "validation" else "."
        for x, y in curve.points:
            column = round((x - left) / ((right - left) or 1) * (columns - 1))
            row = round((high - y) / (high - low) * (height - 1))
            if 0 <= row < height:
                grid[row][column] = mark
    lines = []
    for row, cells in enumerate(grid):
        tick = f"{high - (high - low) * row / (height - 1):7.3f}" if row % 4 == 0 else " " * 7
        lines.append(f"{tick} |{''.join(cells)}".rstrip())
    lines.append(" " * 8 + "+" + "-" * columns)
    span = f"{left:,.0f}".ljust(columns // 2) + f"{right:,.0f} {label}".rjust(columns - columns // 2)
    lines.append(" " * 9 + span)
    legend = [f"{mark} {name}" for name, mark in marks.items()]
    lines.append("loss in nats a token:  .  training   " + "   ".join(f"{entry}, validation" for entry in legend))
    return "\n".join(lines)


def _extent(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def _is_loss(value: Any) -> bool:  # noqa: ANN401 - a value from a log, which may be anything
    return isinstance(value, int | float) and math.isfinite(value)
