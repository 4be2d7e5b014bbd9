"""Creation and saving of matplotlib figures. matplotlib is an optional dependency."""

from pathlib import Path
from typing import Any

import click

from charlm.atomic import atomic_write


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


def save_figure(figure: Any, path: Path, option: str) -> None:  # noqa: ANN401 - the types of matplotlib are optional
    """Save a figure in the format of the suffix of its path.

    Args:
        figure: Figure from `new_figure`.
        path: File to write.
        option: Option that gave the path, for the message.

    Raises:
        click.ClickException: If the file cannot be written. An image that was there before stays as it was.
    """
    try:
        with atomic_write(path) as file:
            figure.savefig(file, format=path.suffix.removeprefix("."))
    except OSError as error:
        message = f"{option} {path}: cannot be written ({error.strerror}); nothing was changed"
        raise click.ClickException(message) from None
