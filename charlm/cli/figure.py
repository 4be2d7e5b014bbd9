"""Pictures, drawn with matplotlib where it is installed."""

from pathlib import Path
from typing import Any

import click


def new_figure(path: Path, option: str) -> Any:  # noqa: ANN401 - matplotlib need not be installed
    """An empty picture; what could keep it from being saved is found before any work is done for it.

    Args:
        path: Where it shall go.
        option: The option that named the path, for the errors.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise click.ClickException(f"{option} draws with matplotlib: pip install 'charlm[plot]'") from None
    figure = Figure(figsize=(9, 5), layout="constrained")
    kinds = figure.canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in kinds:
        raise click.UsageError(
            f"{option} {path}: the name must end in one of {', '.join(f'.{kind}' for kind in kinds)}"
        )
    if not path.parent.is_dir():
        raise click.UsageError(f"{option} {path}: there is no folder {path.parent}")
    return figure
