"""Command `charlm plot`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from charlm.cli.completions import complete_runs
from charlm.cli.figure import new_figure, save_figure
from charlm.cli.options import command, option

if TYPE_CHECKING:
    from charlm.cli.curves import Curve

AXES = {"time": ("seconds", "seconds"), "epochs": ("epoch", "epochs"), "steps": ("step", "steps")}
"""Field of the log and label of the horizontal axis, for each value of `--x`."""


@command()
@click.argument("runs", nargs=-1, shell_complete=complete_runs)
@option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Image file to write, such as .png or .svg.  [default: draw in the terminal]",
)
@option(
    "--x",
    "axis",
    type=click.Choice(list(AXES)),
    default="time",
    show_default=True,
    help="Quantity on the horizontal axis; time is in seconds.",
)
def plot(runs: tuple[str, ...], out: Path | None, axis: str) -> None:
    """Plot the loss curves of runs.

    RUNS are names of runs in ./checkpoints or folders of runs; without RUNS, the newest run is plotted. Losses are in
    nats per token, and those of classifiers in nats per sample. With --out, the curves are saved as an image, and its
    path is printed. This needs matplotlib (pip install matplotlib).

    \b
    Example:
      charlm plot
      charlm plot shakespeare shakespeare-2 -o losses.png
    """
    from charlm.cli.curves import read_curves

    field, label = AXES[axis]
    curves = [curve for run in runs or (None,) for curve in read_curves(run, field)]
    if out is None:
        click.echo(_terminal_plot(curves, label))
    else:
        _save_image(curves, label, out)
        click.echo(out)


def _terminal_plot(curves: list["Curve"], label: str) -> str:
    """Return the curves drawn with characters, in a size that fits the terminal."""
    import shutil

    from charlm.cli.curves import draw

    size = shutil.get_terminal_size((100, 30))
    return draw(curves, label, width=max(40, min(size.columns, 120)), height=max(8, min(size.lines - 6, 24)))


def _save_image(curves: list["Curve"], label: str, out: Path) -> None:
    """Draw the curves with matplotlib: one colour per run, thick lines for validation losses."""
    figure = new_figure(out, "--out")
    from matplotlib import colormaps

    from charlm.cli.curves import loss_range, loss_units, names_of_runs

    axes = figure.add_subplot(xlabel=label, ylabel=f"loss ({loss_units(curves)})", ylim=loss_range(curves))
    colors = {name: colormaps["tab10"](index % 10) for index, name in enumerate(names_of_runs(curves))}
    for curve in curves:
        style = {"linewidth": 2, "marker": "o"} if curve.kind == "validation" else {"linewidth": 1, "alpha": 0.6}
        axes.plot(
            *zip(*curve.points, strict=True), color=colors[curve.run], label=f"{curve.run}, {curve.kind}", **style
        )
    axes.legend()
    axes.grid(alpha=0.3)
    save_figure(figure, out, "--out")
