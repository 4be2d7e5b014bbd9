"""Creation of matplotlib figures. matplotlib is an optional dependency."""

from pathlib import Path
from typing import Any

import click


def new_figure(path: Path, option: str) -> Any:  # noqa: ANN401 - the types of matplotlib are optional
    """Return an empty figure.

    The path is checked now, so that a mistake is reported before any work is done for the figure.

    Args:
        path: File to which the figure will be saved.
        option: Option that gave the path, for the messages.

    Raises:
        click.ClickException: If matplotlib is not installed, or the file format or the folder does not exist.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise click.ClickException(f"{option} needs matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(9, 5), layout="constrained")
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in formats:
        raise click.UsageError(
            f"{option} {path}: the name must end in one of {', '.join(f'.{name}' for name in formats)}"
        )
    if not path.parent.is_dir():
        raise click.UsageError(f"{option} {path}: there is no folder {path.parent}")
    return figure
