"""Fine-tuning: start a training from a trained model, with a vocabulary extended by the tokens of a new text.

Two tokens are the same if their text is the same, whatever their ids. Everything that the model has learned about a
known token is kept exactly: its row of the embedding, its row of the decoder matrix, its bias.

Shapes: V vocabulary, E embedding, H hidden.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.config import NGRAM_CELL, TokenizerConfig, TrainConfig
from charlm.engine.checkpoint import Checkpoint, Tensors, load_checkpoint
from charlm.engine.runs import Run, find_model
from charlm.errors import CheckpointError, ConfigError
from charlm.text.printable import escape_unprintable
from charlm.text.tokenizer import SpacedTokenizer, Tokenizer, tokenizer_from_dict

SHAPE_FIELDS = ("cell", "num_layers", "hidden_size", "embedding_dim", "skip_connections", "tie_weights")
"""Settings of the model's shape. Weights can be carried over only if all of them stay the same."""

MAX_NAMED_TOKENS = 10
"""Number of added tokens that a note names; the others are counted."""

MAX_METADATA_CHARS = 200
"""Maximum length of a value that is copied from the metadata of a model file, which is untrusted."""

LEARNING_RATE_FACTOR = 0.5
"""Default learning rate of fine-tuning, as a factor of the learning rate of a new training.

Evidence: validation loss in nats per character. A small model (Shakespeare, 48 units, 2,000 updates of 512 tokens),
after 120 more updates on 15,000 characters of another part ("short"), on all of that part ("long"), and on Python
source:

    factor        short     long   Python
    before        1.814    1.949    5.320
    1             1.719    1.841    2.459
    0.5           1.735    1.862    2.567
    0.25          1.752    1.887    2.754
    0.125         1.766    1.901    3.044
    new model     2.361    2.349    2.729

A small, briefly trained model has little to forget, so that the full rate is best. A large model is better off with
half of it (2 x 480 units, one hour of Shakespeare, then five epochs of 90,000 characters; left: weight decay 0.01,
right: weight decay 0.1, which is planned for such a short text):

    factor        Python          Wall Street Journal
    before        5.639           2.249
    1             0.856  0.833    1.227  1.228
    0.5           0.846  0.831    1.221  1.217
    0.25          0.868  0.865    1.219  1.216"""

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """Trained model from which a training starts.

    Attributes:
        spec: Name of the model, as the user gave it.
        path: Model file.
        sha256: Hash of the file.
        checkpoint: Contents of the file.
    """

    spec: str
    path: Path
    sha256: str
    checkpoint: Checkpoint

    @classmethod
    def find(cls, spec: str) -> "PretrainedModel":
        """Read the model that `spec` names; see `charlm.engine.runs.find_model`.

        Raises:
            CheckpointError: If there is no such model, or its file is damaged.
        """
        path = find_model(spec)
        checkpoint = load_checkpoint(path)
        if checkpoint.config.cell == NGRAM_CELL:
            raise CheckpointError(f"{path}: a model without a network cannot be fine-tuned; train a new one")
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
        return cls(spec=spec, path=path, sha256=sha256, checkpoint=checkpoint)

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of the model."""
        return self.checkpoint.tokenizer

    @property
    def fixed_settings(self) -> dict[str, Any]:
        """Settings that the model determines, by field name: its shape and its kind of tokenizer."""
        data = self.tokenizer.to_dict()
        return {
            **{name: getattr(self.checkpoint.config, name) for name in SHAPE_FIELDS},
            **({"split": data["split"]} if "split" in data else {}),
            "lowercase": self.tokenizer.folding.lowercase,
            "normalize": self.tokenizer.folding.normalize,
            "tokenizer": data["kind"],
        }

    @property
    def items(self) -> str | None:
        """Kind of list that the model was trained on, as the setting `items`; None if it was a text."""
        recorded = self.checkpoint.metadata.get("items")
        kind = recorded.get("kind") if isinstance(recorded, dict) else None
        return kind if isinstance(kind, str) and 0 < len(kind) <= MAX_METADATA_CHARS else None

    def check_vocabulary_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuse vocabulary settings that do not fit the model.

        Raises:
            ConfigError: If a setting applies to words and the model has characters, or the maximum vocabulary size is
                below that of the model.
        """
        if self.tokenizer.kind == "char" and settings.get("split") not in (None, TokenizerConfig.split):
            raise ConfigError(f"split applies to words only, and {self.path} has characters: omit it", fields=["split"])
        if (settings.get("max_vocab") or math.inf) < self.tokenizer.vocab_size:
            raise ConfigError(
                f"max_vocab {settings['max_vocab']}: {self.path} has {self.tokenizer.vocab_size} tokens, which are all "
                "kept: set it to at least that, or omit it",
                fields=["max_vocab"],
            )

    def with_reduced_learning_rate(self, config: TrainConfig) -> TrainConfig:
        """Return the settings of a new training with the learning rate for fine-tuning."""
        return replace(config, learning_rate=LEARNING_RATE_FACTOR * config.learning_rate)

    def is_in(self, run: Run) -> bool:
        """Return True if the model file is in a run's folder."""
        return self.path.resolve().parent == run.path.resolve()

    def note(self, tokenizer: Tokenizer, counts: Counts) -> str:
        """Return a sentence about the tokens that a vocabulary adds to the model's, the most frequent first.

        Args:
            tokenizer: The extended vocabulary.
            counts: Number of occurrences of each of its tokens in the training text, (V,).
        """
        kind = "words" if tokenizer.kind == "word" else "characters"
        known = f"pretrained model {self.spec}: {self.tokenizer.vocab_size - 1:,} {kind} known"
        added = np.flatnonzero(ids_in(self.tokenizer, tokenizer) < 0)
        if not len(added):
            return f"{known}, none added"
        by_count = added[np.argsort(-counts[added], kind="stable")]
        named = " ".join(f"'{escape_unprintable(tokenizer.tokens[index])}'" for index in by_count[:MAX_NAMED_TOKENS])
        more = f" and {len(added) - MAX_NAMED_TOKENS:,} more" if len(added) > MAX_NAMED_TOKENS else ""
        share = counts[added].sum() / max(1, counts.sum())
        return f"{known}, {len(added):,} added, {share:.2%} of the text: {named}{more}"

    def metadata(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Return metadata about this model for the file of the new model: path, hash and training text.

        The result is flat and short, so that the header does not grow with each step of a chain of fine-tuned models.
        """
        corpus = self.checkpoint.metadata.get("corpus")
        recorded = corpus if isinstance(corpus, dict) else {}
        copied = {f"corpus_{key}": recorded[key] for key in ("name", "characters", "sha256") if key in recorded}
        known = self.tokenizer.vocab_size
        return {
            "model": str(self.path),
            "sha256": self.sha256,
            **{
                key: value
                for key, value in copied.items()
                if isinstance(value, int | str) and len(str(value)) <= MAX_METADATA_CHARS
            },
            "tokens_known": known,
            "tokens_added": tokenizer.vocab_size - known,
        }

    def expanded_tensors(self, tokenizer: Tokenizer, counts: Counts) -> Tensors:
        """Return the weights for an extended vocabulary; see `expand_tensors`."""
        return expand_tensors(self.checkpoint, tokenizer, counts)


def extend_vocabulary(known: Tokenizer, other: Tokenizer, max_vocab: int | None = None) -> Tokenizer:
    """Return a vocabulary that keeps the ids of `known` and appends the tokens that only `other` has.

    Args:
        known: Vocabulary to extend.
        other: Vocabulary of the same kind, whose tokens are appended in their order.
        max_vocab: Maximum size of the result; None for no limit.
    """
    data, other_data = known.to_dict(), other.to_dict()
    added = np.flatnonzero(ids_in(known, other) < 0)
    if max_vocab is not None:
        added = added[: max(0, max_vocab - known.vocab_size)]
    tokens = [other.tokens[index] for index in added.tolist()]
    if data["kind"] == "char":
        return tokenizer_from_dict(data | {"chars": data["chars"] + "".join(tokens)})
    new_ids = {index: known.vocab_size + offset for offset, index in enumerate(added.tolist())}
    spacing = {
        side: [*data[side], *(new_ids[index] for index in other_data[side] if index in new_ids)]
        for side in ("no_space_before", "no_space_after")
    }
    extended = tokenizer_from_dict(data | spacing | {"tokens": [*data["tokens"], *tokens]})
    if isinstance(extended, SpacedTokenizer) and isinstance(other, SpacedTokenizer):
        extended.rare_words = extended.left_out({**dict.fromkeys(other.tokens[1:], 1), **other.rare_words})
    return extended


def ids_in(known: Tokenizer, tokenizer: Tokenizer) -> npt.NDArray[np.intp]:
    """Return the id in `known` of each token of a vocabulary, (V,), intp; -1 for tokens that `known` lacks.

    Tokens are compared by their text. The unknown token corresponds to the unknown token; U+FFFD in a text is an
    ordinary character.
    """
    ids = {token: index for index, token in enumerate(known.tokens[1:], start=1)}
    return np.array([0, *(ids.get(token, -1) for token in tokenizer.tokens[1:])], dtype=np.intp)


def expand_tensors(checkpoint: Checkpoint, tokenizer: Tokenizer, counts: Counts) -> Tensors:
    """Return a model's weights for a vocabulary with more tokens, or with the same tokens under other ids.

    A new token starts with the mean of the learned rows, and with a bias that corresponds to its frequency in the text,
    on the scale of the known tokens' biases. Evidence (validation loss in nats per character; 384 units trained on
    Shakespeare, then Python source with 33 new characters, 9 % of the text), before and after 20 and 80 updates:

        mean rows, this bias               3.96  2.60  2.36
        random rows, this bias             3.93  2.62  2.36
        unknown token's rows, this bias    4.08
        unknown token's rows and bias      4.74  3.20  2.59

    Args:
        checkpoint: The model.
        tokenizer: The new vocabulary.
        counts: Number of occurrences of each of its tokens in the training text, (V,).

    Returns:
        All tensors by name: `embedding.weight` (V, E), `decoder.weight` (V, H) unless tied, `decoder.bias` (V,), and
        the unchanged recurrent layers.
    """
    ids = ids_in(checkpoint.tokenizer, tokenizer)
    tensors = dict(checkpoint.tensors)
    for name in ("embedding.weight", "decoder.weight"):
        if name in tensors:
            tensors[name] = _expand_rows(tensors[name], ids)
    tensors["decoder.bias"] = _expand_bias(tensors["decoder.bias"], ids, counts)
    return tensors


def _expand_rows(rows: Floats, ids: npt.NDArray[np.intp]) -> Floats:
    """Return rows by new id, (V, E) or (V, H). A new token gets the mean of all rows except the unknown token's."""
    mean = rows[1:].mean(axis=0, dtype=np.float64).astype(rows.dtype)
    return np.where(ids[:, None] >= 0, rows[ids], mean)


def _expand_bias(bias: Floats, ids: npt.NDArray[np.intp], counts: Counts) -> Floats:
    """Return biases by new id, (V,). A new token gets the logarithm of its frequency, plus a shift.

    The shift is the mean difference between the biases of known tokens and the logarithms of their frequencies,
    weighted by their counts. Counts are smoothed by adding 1, as in a new model.
    """
    known = ids >= 0
    log_shares = np.log((counts + 1) / (counts + 1).sum())
    shift = np.average(bias[ids[known]] - log_shares[known], weights=counts[known] + 1)
    return np.where(known, bias[ids], log_shares + shift).astype(bias.dtype)
