"""Goes on from a trained model: its vocabulary and its weights, grown by the tokens of a new text.

A token is the same if its text is the same, wherever it stands. What the model has learnt of a token is kept to the
last bit: its row of the embedding, its row of the decoder's matrix, its bias.

Shapes: V tokens, E embedding width, H units.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.config import TokenizerConfig, TrainConfig
from charlm.engine.checkpoint import Checkpoint, Tensors, load_checkpoint
from charlm.engine.runs import Run, find_model
from charlm.errors import CheckpointError, ConfigError
from charlm.text.printable import escape_unprintable
from charlm.text.tokenizer import Tokenizer, tokenizer_from_dict

SHAPE = ("cell", "num_layers", "hidden_size", "embedding_dim", "skip_connections", "tie_weights")
"""The settings without which weights cannot be carried over."""

FOR_WORDS = {"split": "--split", "lowercase": "--lowercase", "max_vocab": "--vocab-size", "min_count": "--min-count"}
"""Settings that a model of characters has no use for, and what they are called."""

NAMED = 10
"""Added tokens that a note names; the others are counted."""

TOLD_CHARS = 200
"""Characters at most of what is taken over from the story of a file that may be anybody's."""

RATE_SHARE = 0.5
"""The learning rate by default, as a share of a fresh training's. Validation loss in nats of a model of Shakespeare, 48
units, 2000 updates of 512 tokens, after 120 more on 15,000 characters of another part, all of that part, Python source:

    share         short     long   Python
    before        1.814    1.949    5.320
    1             1.719    1.841    2.459
    0.5           1.735    1.862    2.567
    0.25          1.752    1.887    2.754
    0.125         1.766    1.901    3.044
    fresh model   2.361    2.349    2.729

A model so small and so briefly trained has little to lose, and likes the full rate best. A large one does not: 2 x 480
units, an hour of Shakespeare, after five more epochs of 90,000 characters, with a weight decay of 0.01 and with the 0.1
that is planned for so short a text:

    share         Python          Wall Street Journal
    before        5.639           2.249
    1             0.856  0.833    1.227  1.228
    0.5           0.846  0.831    1.221  1.217
    0.25          0.868  0.865    1.219  1.216"""

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """The trained model that a training goes on from.

    Attributes:
        spec: What it was asked for by.
        path: Its file.
        sha256: The file's hash.
        checkpoint: What the file holds.
    """

    spec: str
    path: Path
    sha256: str
    checkpoint: Checkpoint

    def with_reduced_learning_rate(self, config: TrainConfig) -> TrainConfig:
        """A fresh training's settings with the learning rate for going on."""
        return replace(config, learning_rate=RATE_SHARE * config.learning_rate)

    @classmethod
    def find(cls, spec: str) -> "PretrainedModel":
        """Read the model that `--from SPEC` means: see `charlm.engine.runs.find_model`.

        Raises:
            CheckpointError: If there is none, or its file is damaged.
        """
        path = find_model(spec)
        checkpoint = load_checkpoint(path)
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
        return cls(spec=spec, path=path, sha256=sha256, checkpoint=checkpoint)

    @property
    def tokenizer(self) -> Tokenizer:
        """Its vocabulary."""
        return self.checkpoint.tokenizer

    @property
    def fixed(self) -> dict[str, Any]:
        """The settings that it brings, by name: its shape, and how it cuts text."""
        data = self.tokenizer.to_dict()
        tokenizer_config = {"tokenizer": data["kind"]} | {
            name: data[name] for name in ("split", "lowercase") if name in data
        }
        return {name: getattr(self.checkpoint.config, name) for name in SHAPE} | tokenizer_config

    def check_bounds(self, settings: Mapping[str, Any]) -> None:
        """Refuse bounds on the vocabulary that do not suit the model.

        Raises:
            ConfigError: If they do not.
        """
        if self.tokenizer.kind == "char":
            for name, flag in FOR_WORDS.items():
                if settings.get(name) not in (None, getattr(TokenizerConfig, name)):
                    raise ConfigError(f"{flag} is for words, and {self.path} knows characters: leave it out")
        if (settings.get("max_vocab") or math.inf) < self.tokenizer.vocab_size:
            raise ConfigError(
                f"--vocab-size {settings['max_vocab']}: {self.path} knows {self.tokenizer.vocab_size} tokens, which "
                "stay: give that or more, or leave it out"
            )

    def is_in(self, run: Run) -> bool:
        """Whether its file is in a run's folder."""
        return self.path.resolve().parent == run.path.resolve()

    def note(self, tokenizer: Tokenizer, counts: Counts) -> str:
        """Say what a vocabulary has beside the model's, the most frequent first.

        Args:
            tokenizer: The vocabulary.
            counts: How often each of its tokens comes in the text to learn, (V,).
        """
        known = self.tokenizer.vocab_size - 1
        found = f"--from {self.spec}: {known:,} {'words' if tokenizer.kind == 'word' else 'characters'} known"
        added = np.flatnonzero(places_in(self.tokenizer, tokenizer) < 0)
        if not len(added):
            return f"{found}, none added"
        by_count = added[np.argsort(-counts[added], kind="stable")]
        named = " ".join(f"'{escape_unprintable(tokenizer.tokens[place])}'" for place in by_count[:NAMED])
        more = f" and {len(added) - NAMED:,} more" if len(added) > NAMED else ""
        share = counts[added].sum() / max(1, counts.sum())
        return f"{found}, {len(added):,} added, {share:.2%} of the text: {named}{more}"

    def metadata(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """What a model file shall tell of this one: its place, its hash, its text.

        It is flat, and short: a chain of fine-tuned models must not make a header that grows.
        """
        corpus = self.checkpoint.metadata.get("corpus")
        told = corpus if isinstance(corpus, dict) else {}
        taken = {f"corpus_{key}": told[key] for key in ("name", "characters", "sha256") if key in told}
        known = self.tokenizer.vocab_size
        return {
            "model": str(self.path),
            "sha256": self.sha256,
            **{
                key: value
                for key, value in taken.items()
                if isinstance(value, int | str) and len(str(value)) <= TOLD_CHARS
            },
            "tokens_known": known,
            "tokens_added": tokenizer.vocab_size - known,
        }

    def grown(self, tokenizer: Tokenizer, counts: Counts) -> Tensors:
        """Its weights for a larger vocabulary: see `grown_tensors`."""
        return grown_tensors(self.checkpoint, tokenizer, counts)


def extended(known: Tokenizer, other: Tokenizer, max_vocab: int | None = None) -> Tokenizer:
    """A vocabulary, each token with the id it has, and behind it what only another of the same kind knows.

    Args:
        known: The vocabulary.
        other: The other, its tokens in the order in which they shall come.
        max_vocab: The greatest size to grow to; None for any.
    """
    data, theirs = known.to_dict(), other.to_dict()
    added = np.flatnonzero(places_in(known, other) < 0)
    if max_vocab is not None:
        added = added[: max(0, max_vocab - known.vocab_size)]
    tokens = [other.tokens[place] for place in added.tolist()]
    if data["kind"] == "char":
        return tokenizer_from_dict(data | {"chars": data["chars"] + "".join(tokens)})
    ids = {place: known.vocab_size + offset for offset, place in enumerate(added.tolist())}
    spacing = {
        side: [*data[side], *(ids[place] for place in theirs[side] if place in ids)]
        for side in ("no_space_before", "no_space_after")
    }
    return tokenizer_from_dict(data | spacing | {"tokens": [*data["tokens"], *tokens]})


def places_in(known: Tokenizer, tokenizer: Tokenizer) -> npt.NDArray[np.intp]:
    """Where each token of a vocabulary stands in one that is known, by its text, (V,); -1 where it does not.

    The unknown token is the unknown token; U+FFFD in a text is a character like any other.
    """
    places = {token: place for place, token in enumerate(known.tokens[1:], start=1)}
    return np.array([0, *(places.get(token, -1) for token in tokenizer.tokens[1:])], dtype=np.intp)


def grown_tensors(checkpoint: Checkpoint, tokenizer: Tokenizer, counts: Counts) -> Tensors:
    """A model's weights for a vocabulary that has more tokens, or the same ones elsewhere.

    A new token begins with the mean of the rows that the model has learnt, and with a bias that gives it the share of
    the text that it has, on the scale of the known tokens' biases. Measured: a model of Shakespeare, 384 units, and
    Python source, 33 new characters, 9% of the text; validation loss in nats at once, after 20 updates, after 80:

        mean rows, this bias               3.96  2.60  2.36
        drawn rows, this bias              3.93  2.62  2.36
        unknown token's rows, this bias    4.08
        unknown token's rows and bias      4.74  3.20  2.59

    Args:
        checkpoint: The model.
        tokenizer: The vocabulary, V tokens.
        counts: How often each of them comes in the text to learn, (V,).

    Returns:
        All its tensors by name: `embedding.weight` (V, E), `decoder.weight` (V, H) unless tied, `decoder.bias` (V,).
    """
    places = places_in(checkpoint.tokenizer, tokenizer)
    grown = dict(checkpoint.tensors)
    for name in ("embedding.weight", "decoder.weight"):
        if name in grown:
            grown[name] = _grown_rows(grown[name], places)
    grown["decoder.bias"] = _grown_bias(grown["decoder.bias"], places, counts)
    return grown


def _grown_rows(rows: Floats, places: npt.NDArray[np.intp]) -> Floats:
    """Rows in their new places, (V, E) or (V, H); the mean of those learnt, without the unknown token's, for others."""
    mean = rows[1:].mean(axis=0, dtype=np.float64).astype(rows.dtype)
    return np.where(places[:, None] >= 0, rows[places], mean)


def _grown_bias(bias: Floats, places: npt.NDArray[np.intp], counts: Counts) -> Floats:
    """Biases in their new places, (V,); for others the log of their share, shifted as the known ones' are on average.

    One is added to each count, as in a fresh model; each known token weighs as often as it comes.
    """
    known = places >= 0
    shares = np.log((counts + 1) / (counts + 1).sum())
    shift = np.average(bias[places[known]] - shares[known], weights=counts[known] + 1)
    return np.where(known, bias[places], shares + shift).astype(bias.dtype)
