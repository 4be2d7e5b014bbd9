"""Option `--mix`: other models whose probabilities are interpolated with those of the model.

This module does not import NumPy.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from charlm.cli.options import option
from charlm.errors import ConfigError

if TYPE_CHECKING:
    from charlm.engine.checkpoint import Checkpoint
    from charlm.engine.predictor import Predictor

F = TypeVar("F", bound=Callable[..., Any])

WEIGHT_TOLERANCE = 1e-9
"""Rounding error allowed in a sum of weights."""


def mix_option(group: str = "") -> Callable[[F], F]:
    """Return the option `--mix`, whose values are models with weights."""
    return option(
        "--mix",
        multiple=True,
        metavar="FILE|RUN:WEIGHT",
        group=group,
        help="Interpolate with the probabilities of another model. With RUN:0.3, the weight of RUN is 0.3, and that of "
        "--model is 0.7. May be given several times.",
    )


def parse_mix(mix: str) -> tuple[str, float]:
    """Split a value of `--mix` into the name of the model and its weight.

    Raises:
        ConfigError: If the value is not a name, a colon and a weight from 0 to 1.
    """
    name, _, weight_text = mix.rpartition(":")
    try:
        weight = float(weight_text)
    except ValueError:
        weight = -1.0
    if not name or not 0 <= weight <= 1:
        raise ConfigError(
            f"mix {mix}: must be a model, a colon and a weight from 0 to 1, such as shakespeare:0.3", fields=["mix"]
        )
    return name, weight


def mixture_weights(weights: Sequence[float]) -> list[float]:
    """Return the weights of all models of a mixture; the first model has what the given weights leave.

    Raises:
        ConfigError: If the given weights add up to more than 1.
    """
    rest = 1 - math.fsum(weights)
    if rest < -WEIGHT_TOLERANCE:
        raise ConfigError(f"mix: the weights add up to {math.fsum(weights):g}; at most 1 is possible", fields=["mix"])
    return [max(0.0, rest), *weights]


def mixed_models(mix: Sequence[str]) -> list[Path]:
    """Return the model files that values of `--mix` name.

    Raises:
        CheckpointError: If there is no such model.
        ConfigError: If a value is wrong.
    """
    from charlm.engine.runs import find_model

    return [find_model(parse_mix(value)[0]) for value in mix]


def open_mixed(checkpoint: "Checkpoint", mix: Sequence[str]) -> "Predictor":
    """Return the predictor of a model, or of its mixture with others.

    Args:
        checkpoint: Content of the model file.
        mix: Values of `--mix`.

    Raises:
        CheckpointError: If another model cannot be read.
        ConfigError: If a value is wrong, or the models split text into different tokens.
    """
    from charlm.engine.checkpoint import load_checkpoint
    from charlm.engine.mixture import open_predictor
    from charlm.engine.translation import mix_predictors

    if not mix:
        return open_predictor(checkpoint)
    weights = mixture_weights([parse_mix(value)[1] for value in mix])
    others = [open_predictor(load_checkpoint(path)) for path in mixed_models(mix)]
    return mix_predictors([open_predictor(checkpoint), *others], weights)
