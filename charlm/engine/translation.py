"""Predictors with different vocabularies, in their joint vocabulary.

The events are the tokens that at least one model knows, and one event for all other tokens. A model gives equal parts
of the probability of its unknown token to each event that it does not know, so that its probabilities add up to 1.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.engine.mixture import Mixture
from charlm.engine.predictor import Array, Predictor, Reader
from charlm.engine.unknown import UnknownTokens
from charlm.text.joint_vocabulary import join_vocabularies, translate_ids
from charlm.text.tokenizer import UNKNOWN_ID, Ids, Tokenizer


def mix_predictors(predictors: Sequence[Predictor], weights: Sequence[float]) -> Mixture:
    """Return the mixture of models whose vocabularies may differ.

    Args:
        predictors: The models, at least one.
        weights: The weight of each model; they add up to 1.

    Raises:
        ConfigError: If the models split text into different tokens.
    """
    joint = join_vocabularies([predictor.tokenizer for predictor in predictors])
    return Mixture([Translated(predictor, joint) for predictor in predictors], weights)


class Translated(Predictor):
    """Predictor in a vocabulary that contains its own.

    Args:
        predictor: The model.
        tokenizer: Tokenizer with the larger vocabulary.

    Attributes:
        tokenizer: As given.
        unknown_tokens: Costs of the tokens that the larger vocabulary does not have.
    """

    def __init__(self, predictor: Predictor, tokenizer: Tokenizer) -> None:
        self._predictor = predictor
        self.tokenizer = tokenizer
        self.unknown_tokens = UnknownTokens(tokenizer, None)
        self._ids = translate_ids(tokenizer, predictor.tokenizer)

    def read(self, sequences: Sequence[Ids]) -> "TranslatedReader":
        """Read sequences; see `Predictor.read`."""
        return TranslatedReader(self._predictor.read([self._ids[ids] for ids in sequences]), self._ids)


class TranslatedReader(Reader):
    """Sequences that a model reads in a larger vocabulary.

    Args:
        reader: Reader of the model itself.
        ids: Id of each token of the larger vocabulary in that of the model, (V,).
    """

    def __init__(self, reader: Reader, ids: Ids) -> None:
        self._reader = reader
        self._ids = ids
        self._unknown = ids == UNKNOWN_ID
        self._unknown_nats = np.float32(math.log(np.count_nonzero(self._unknown)))

    @property
    def rows(self) -> int:
        """Number of sequences, B."""
        return self._reader.rows

    def logits(self) -> Array:
        """Return the unnormalised log-probabilities of the next token, (B, V), float32."""
        logits = self._reader.logits()[:, self._ids]
        logits[:, self._unknown] -= self._unknown_nats
        return logits

    def advance(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        """Read one token of each sequence; see `Reader.advance`."""
        self._reader.advance(self._ids[ids])

    def select(self, rows: npt.NDArray[np.integer[Any]]) -> None:
        """Continue with a selection of the sequences; see `Reader.select`."""
        self._reader.select(rows)

    def restart(self, rows: Sequence[int]) -> None:
        """Let some sequences start anew; see `Reader.restart`."""
        self._reader.restart(rows)
