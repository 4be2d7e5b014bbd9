"""The settings of models, training and sampling: their defaults, ranges and meaning, here and nowhere else.

Each settings class is a frozen dataclass that checks itself. Its fields carry what the command line needs
(option names, help), so that an option, its default and its range are written once.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, TypeVar, get_args, get_type_hints

from charlm.errors import ConfigError

T = TypeVar("T")
Cell = Literal["lstm", "gru", "rnn"]
CELLS: tuple[Cell, ...] = ("lstm", "gru", "rnn")
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a setting means and which values it may take.

    Attributes:
        help: One sentence with the unit.
        flags: Its names on the command line, `--cell` or `-n`, `--length`.
        at_least: The least value allowed.
        at_most: The greatest value allowed.
        above: A bound that itself is not allowed.
        below: A bound that itself is not allowed.
        choices: The values allowed, where they can be listed.
    """

    help: str
    flags: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()

    def broken_by(self, value: Any) -> str:  # noqa: ANN401 - a value of any type, about to be checked
        """The rule that a value breaks, in words; empty if it keeps them all."""
        if self.choices:
            return "" if value in self.choices else f"must be one of {', '.join(self.choices)}"
        if isinstance(value, float) and value != value:
            return "must be a number"
        bounds = (
            (self.at_least, operator.ge, "at least"),
            (self.at_most, operator.le, "at most"),
            (self.above, operator.gt, "above"),
            (self.below, operator.lt, "below"),
        )
        broken = [
            f"{words} {bound:g}" for bound, keeps, words in bounds if bound is not None and not keeps(value, bound)
        ]
        return f"must be {' and '.join(broken)}" if broken else ""


def setting(default: Any, help: str, *flags: str, **rule: Any) -> Any:  # noqa: ANN401 - as dataclasses.field
    """A dataclass field with its rule: see `Rule`."""
    return field(default=default, metadata={"rule": Rule(help=help, flags=flags, **rule)})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The base of the settings classes: checks every field against its rule.

    Raises:
        ConfigError: Naming field, value and rule. A field whose default is None may be None.
    """

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            rule: Rule | None = spec.metadata.get("rule")
            if rule is None or (value is None and spec.default is None):
                continue
            if broken := rule.broken_by(value):
                name = rule.flags[-1] if rule.flags else spec.name
                raise ConfigError(f"{name} {value}: {broken}")

    @classmethod
    def pick(cls, values: Mapping[str, Any]) -> Self:
        """Make the settings from those of `values` that are fields here; None means the default."""
        names = {spec.name for spec in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names and value is not None})


def from_dict(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make a dataclass from what a file, which may be anybody's, has of it; what is missing has its default.

    Raises:
        ConfigError: If a value is of another type than its field or breaks its rule, or a name is unknown.
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            raise ConfigError(f"a setting {name[:80]!r}, which only a newer charlm knows")
        kinds = {option if isinstance(option, type) else type(option) for option in get_args(hints[name])}
        kinds = kinds or {hints[name]}
        if type(value) not in kinds and not (type(value) is int and float in kinds):
            raise ConfigError(f"{name} is {str(value)[:80]}, which is of the wrong type")
    return kind(**values)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(Settings):
    """How text is cut into tokens, and which of them a model knows."""

    tokenizer: str = setting("char", "What a token is.", "--tokenizer", choices=("char", "word"))
    split: str = setting(
        "words",
        "Cut into words and punctuation, or only at white space (a text that is tokenised already).",
        "--split",
        choices=("words", "whitespace"),
    )
    max_vocab: int | None = setting(
        None, "Know the so many most frequent words, the unknown one included.", "--vocab-size", at_least=8
    )
    min_count: int | None = setting(
        None,
        "Know the words that come so often.  [default: 2, or 1 in a short text or one split at white space]",
        "--min-count",
        at_least=1,
    )
    lowercase: bool = setting(False, "Turn words to lower case.", "--lowercase/--no-lowercase")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer == "word":
            return
        for spec in fields(self)[1:]:
            if getattr(self, spec.name) != spec.default:
                name = spec.metadata["rule"].flags[-1].split("/")[0]
                raise ConfigError(f"{name} is for words: add --tokenizer word, or leave it out")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """The shape of a language model: all that is needed to rebuild it around its weights."""

    vocab_size: int = setting(2, "Number of token types, the unknown token among them.", at_least=2)
    cell: Cell = setting("lstm", "Recurrent cell.", "--cell", choices=CELLS)
    num_layers: int = setting(
        1, "Stacked recurrent layers.  [default: grows with the budget]", "--layers", at_least=1, at_most=64
    )
    hidden_size: int = setting(
        384, "Units in each layer.  [default: grows with the budget]", "--hidden", at_least=1, at_most=65536
    )
    embedding_dim: int = setting(
        64, "Width of the token embedding (as --hidden if tied).", "--embed", at_least=1, at_most=65536
    )
    dropout: float = setting(
        0.0,
        "Share of outputs dropped, between layers and after the last.  [default: grows with the epochs to come]",
        "--dropout",
        at_least=0,
        below=1,
    )
    input_dropout: float = setting(
        0.0,
        "Share of the embedding's outputs dropped.  [default: as --dropout, of words]",
        "--dropout-input",
        at_least=0,
        below=1,
    )
    token_dropout: float = setting(
        0.0,
        "Share of tokens dropped whole, wherever they stand.  [default: a fifth of --dropout, of words]",
        "--dropout-tokens",
        at_least=0,
        below=1,
    )
    recurrent_dropout: float = setting(
        0.0,
        "Share of recurrent weights dropped (DropConnect).  [default: grows with the epochs to come, from four on, of "
        "words from two]",
        "--dropconnect",
        at_least=0,
        below=1,
    )
    skip_connections: bool = setting(
        False,
        "Give the decoder the outputs of all layers, added up.  [default: on, of characters in several layers]",
        "--skip/--no-skip",
    )
    tie_weights: bool = setting(False, "Use the embedding as the decoder's matrix too.", "--tie/--no-tie")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tie_weights and self.embedding_dim != self.hidden_size:
            raise ConfigError(
                f"--tie needs --embed ({self.embedding_dim}) and --hidden ({self.hidden_size}) to be equal"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """How a model learns. One of `minutes`, `epochs` and `steps` ends the training."""

    minutes: float | None = setting(None, "Train for so many minutes in all.", "--minutes", above=0)
    epochs: float | None = setting(None, "Train for so many passes over the text.", "--epochs", above=0)
    steps: int | None = setting(None, "Train for so many updates.", "--steps", at_least=1)
    patience: int | None = setting(
        None,
        "End when so many validations in a row were no better.  [default: 6 if no end is given]",
        "--patience",
        at_least=1,
    )
    batch_size: int = setting(
        16, "Parallel streams of text.  [default: 16 to 64, by the budget; 20 of words]", "--batch-size", at_least=1
    )
    seq_len: int = setting(
        64, "Tokens of each stream in an update.  [default: 64; 35 of words]", "--seq-len", at_least=1
    )
    learning_rate: float = setting(
        8e-3,
        "Peak learning rate of AdamW; an untied decoder's is higher.  [default: by the model's size]",
        "--lr",
        above=0,
    )
    warmup: float = setting(0.1, "Share of the training in which the rate rises.", "--warmup", at_least=0, at_most=1)
    weight_decay: float = setting(
        0.01,
        "AdamW's decoupled weight decay.  [default: by the text's length; 0.01 of words, and in a short text]",
        "--weight-decay",
        at_least=0,
    )
    softmax_samples: int | None = setting(
        None,
        "Learn with so many words drawn for each update; 0 for all.  [default: all, 8192 beyond 30,000 words]",
        "--softmax-samples",
        at_least=0,
    )
    freeze_embeddings: bool = setting(
        False, "Keep the token embedding as it begins.", "--freeze-embeddings/--tune-embeddings"
    )
    grad_clip: float = setting(1.0, "Greatest norm of the gradient.", "--grad-clip", above=0)
    reset_prob: float = setting(
        0.05,
        "Chance that a stream starts an update from the zero state.",
        "--reset-prob",
        at_least=0,
        at_most=1,
    )
    val_fraction: float = setting(
        0.1,
        "Share of the text, its end, kept for validation; 0 for none.",
        "--val-fraction",
        at_least=0,
        below=1,
    )
    seed: int = setting(1, "Seed of weights, dropout and stream order.", "--seed", at_least=0, below=2**63)
    precision: Precision = setting(
        "auto",
        "Arithmetic of the matrix products; auto takes bf16 where it is faster, timed if --minutes decide.",
        "--precision",
        choices=("auto", "fp32", "bf16"),
    )
    threads: int | None = setting(
        None, "Threads to compute with; on as many, a training is repeated to the bit.", at_least=1
    )
    half: bool = setting(
        False, "Keep the model in half precision: a file of half the size, the loss within 0.001.", "--half/--full"
    )
    save_every: float = setting(60.0, "Seconds between saves for resuming.", "--save-every", above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [f"--{name}" for name in ("minutes", "epochs", "steps") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} contradict each other: give one of them")


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Settings):
    """How text is drawn from a model."""

    temperature: float = setting(
        0.8, "Divides the logits: 0 takes the likeliest token, 1 the model as it is.", "--temp", at_least=0
    )
    greedy: bool = setting(False, "Take the likeliest token: as --temp 0.", "--greedy")
    allow_unknown: bool = setting(False, "Let the unknown token be written too, as <unk> or U+FFFD.", "--allow-unk")
    top_k: int | None = setting(None, "Draw from the K likeliest tokens.", "--top-k", at_least=1)
    typical_p: float | None = setting(
        None,
        "Draw from the tokens of the most usual surprise that hold this share of probability.",
        "--typical",
        above=0,
        at_most=1,
    )
    top_p: float | None = setting(
        None,
        "Draw from the fewest tokens that hold this share of probability.",
        "--top-p",
        above=0,
        at_most=1,
    )
    min_p: float | None = setting(
        None,
        "Drop tokens below this share of the likeliest one's probability.",
        "--min-p",
        at_least=0,
        at_most=1,
    )
    repeat_penalty: float = setting(
        1.0, "Makes recent tokens less likely: their logits are divided by it; 1 for none.", "--repeat-penalty", above=0
    )
    repeat_last: int = setting(
        64, "How many tokens back --repeat-penalty looks, the prompt's among them.", "--repeat-last", at_least=1
    )
    beam: int | None = setting(
        None, "Search for the likeliest text with so many beams, instead of drawing.", "--beam", at_least=1
    )
    length: int | None = setting(
        None,
        "Tokens to write after the prompt; -1 for no end.  [default: 500; with --lines no end]",
        "-n",
        "--length",
        at_least=-1,
    )
    lines: int | None = setting(None, "End behind so many line ends.", "--lines", at_least=1)
    count: int = setting(1, "Samples of each prompt; sample i of all has the seed SEED + i.", "--count", at_least=1)
    seed: int | None = setting(None, "Seed: the same gives the same text.", "--seed", at_least=0, below=2**63)
    stop: tuple[str, ...] = ()
    """Texts that end a sample where they come up, and are left out of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "" in self.stop:
            raise ConfigError("--stop: an empty text would end every sample at once")
        if self.beam is None:
            return
        for value, flag in zip(
            (self.top_k, self.typical_p, self.top_p, self.min_p),
            ("--top-k", "--typical", "--top-p", "--min-p"),
            strict=True,
        ):
            if value is not None:
                raise ConfigError(f"--beam {self.beam} takes the likeliest text and draws nothing: leave {flag} out")
        if self.greedy or self.repeat_penalty != 1:
            raise ConfigError(f"--beam {self.beam} goes with neither --greedy nor --repeat-penalty")
        if self.limit < 0:
            raise ConfigError(f"--beam {self.beam} needs an end: give -n")
        if self.count > self.beam:
            raise ConfigError(f"--count {self.count}: a search with --beam {self.beam} finds no more than that")

    @property
    def limit(self) -> int:
        """Tokens to write at most; -1 for no limit."""
        if self.length is None:
            return DEFAULT_LENGTH if self.lines is None else -1
        return self.length


DEFAULT_LENGTH = 500
"""Tokens of a sample whose length is not given."""
