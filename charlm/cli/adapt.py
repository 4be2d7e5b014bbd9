"""Option `--adapt`: models that learn from the text that they read.

This module does not import NumPy.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from charlm.cli.options import option

if TYPE_CHECKING:
    from charlm.engine.checkpoint import Checkpoint
    from charlm.engine.predictor import Predictor

F = TypeVar("F", bound=Callable[..., Any])


def adapt_option(text: str, group: str = "") -> Callable[[F], F]:
    """Return the option `--adapt`.

    Args:
        text: What the command does with the option.
        group: Heading of the options to which it belongs.
    """
    return option("--adapt", is_flag=True, group=group, help=text)


def open_adaptive(predictor: "Predictor", checkpoint: "Checkpoint") -> "Predictor":
    """Return a predictor that adapts to what it reads, with the constants of a model file."""
    from charlm.engine.adaptive_predictor import AdaptivePredictor, adaptation_of

    return AdaptivePredictor(predictor, adaptation_of(checkpoint))
