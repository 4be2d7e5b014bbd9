"""Settings of models and training: defaults, ranges and help texts.

The command line generates its options from the fields of the settings classes, so that a default, a range or a
description is written once.
"""

from dataclasses import dataclass
from typing import Literal

from charlm.errors import ConfigError
from charlm.settings import Settings, setting

Precision = Literal["auto", "fp32", "bf16"]

MAX_VOCAB = 10**7
"""Maximum number of tokens in a vocabulary."""

MAX_THREADS = 1024
"""Maximum number of threads."""

MAX_INPUT_CHARS = 2**26
"""Default maximum length, in characters, of a text that must be in memory as a whole."""

MAX_BATCH_LINES = 128
"""Maximum number of lines that are scored in parallel."""

TABLE_FORMATS = ("tsv", "csv", "jsonl", "plain")
"""Formats of tables: tab-separated or comma-separated with quotation marks, JSON lines, tab-separated without them."""

DECODING_ERRORS = ("strict", "replace", "ignore", "surrogateescape")
"""Ways to handle bytes that are not valid in the encoding, by Python's names."""


@dataclass(frozen=True, kw_only=True)
class CellSpec:
    """Structure of a recurrent cell: everything in which the cells differ, apart from their equations.

    All gates but the one named `candidate` have a sigmoid.

    Attributes:
        gates: Names of the gates, in the order of PyTorch's weight matrices.
        state: Parts of the state: h, the output, and c, the memory of an LSTM.
        torch_class: Name of the layer in `torch.nn`.
        reset_inside: Whether the reset gate multiplies the candidate's recurrent product, bias included.
        activation: Activation of the candidate.
    """

    gates: tuple[str, ...]
    state: tuple[str, ...]
    torch_class: str
    reset_inside: bool = False
    activation: Literal["tanh", "relu"] = "tanh"

    @property
    def sigmoid_first(self) -> tuple[int, ...]:
        """Indices of the gates with the sigmoid gates first and the candidate last."""
        return tuple(sorted(range(len(self.gates)), key=lambda index: self.gates[index] == "candidate"))


CELLS: dict[str, CellSpec] = {
    "lstm": CellSpec(gates=("input", "forget", "candidate", "output"), state=("h", "c"), torch_class="LSTM"),
    "gru": CellSpec(gates=("reset", "update", "candidate"), state=("h",), torch_class="GRU", reset_inside=True),
    "rnn": CellSpec(gates=("candidate",), state=("h",), torch_class="RNN"),
}

NGRAM_CELL = "ngram"
"""Name of the cell of a model without a network, which has only an n-gram model."""

TOKENS = "Tokens and vocabulary"


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(Settings):
    """Settings of the tokenizer: how text is split into tokens, and which tokens a model knows."""

    tokenizer: str = setting(
        "char", "Unit of text that is one token.", "--tokenizer", choices=("char", "word"), group=TOKENS
    )
    split: str = setting(
        "words",
        "How a word tokenizer splits text: `words` separates words, numbers and punctuation; `whitespace` splits at "
        "whitespace only, for text that is already tokenized, and does not keep which whitespace it was.",
        "--split",
        choices=("words", "whitespace"),
        group=TOKENS,
    )
    max_vocab: int | None = setting(
        None,
        "Maximum vocabulary size in words or characters, including the unknown token.",
        "--vocab-size",
        minimum=8,
        maximum=MAX_VOCAB,
        group=TOKENS,
    )
    min_count: int | None = setting(
        None,
        "Drop words or characters that occur fewer than N times.",
        "--min-count",
        minimum=1,
        maximum=10**9,
        group=TOKENS,
    )
    lowercase: bool = setting(False, "Convert text to lower case.", "--lowercase/--no-lowercase", group=TOKENS)
    normalize: str = setting(
        "none",
        "Unicode normal form that text is converted to: NFC composes letters and marks, NFKC also replaces "
        "compatibility characters, such as full-width letters.",
        "--normalize",
        choices=("NFC", "NFKC", "none"),
        group=TOKENS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer != "word" and self.split != TokenizerConfig.split:
            raise ConfigError(
                "split applies to words only: set tokenizer to word, or omit it", fields=["split", "tokenizer"]
            )


MODEL, REGULARISATION = "Model", "Regularisation"


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """Shape of a language model: all that is needed to rebuild it around its weights."""

    vocab_size: int = setting(
        2, "Number of tokens in the vocabulary, including the unknown token.", minimum=2, maximum=MAX_VOCAB
    )
    cell: str = setting(
        "lstm",
        "Recurrent cell; `ngram` for a model without a network, which has only counts of n-grams.",
        "--cell",
        choices=(*CELLS, NGRAM_CELL),
        group=MODEL,
    )
    num_layers: int = setting(1, "Number of stacked recurrent layers.", "--layers", minimum=1, maximum=64, group=MODEL)
    hidden_size: int = setting(384, "Number of units in each layer.", "--hidden", minimum=1, maximum=65536, group=MODEL)
    embedding_dim: int = setting(
        64,
        "Size of the token embeddings; equal to `hidden_size` if weights are tied.",
        "--embed",
        minimum=1,
        maximum=65536,
        group=MODEL,
    )
    dropout: float = setting(
        0.0,
        "Dropout probability for the outputs of every layer.",
        "--dropout",
        minimum=0,
        below=1,
        group=REGULARISATION,
    )
    input_dropout: float = setting(
        0.0,
        "Dropout probability for the components of the embeddings.",
        "--dropout-input",
        minimum=0,
        below=1,
        group=REGULARISATION,
    )
    token_dropout: float = setting(
        0.0,
        "Dropout probability for whole tokens: a dropped token has a zero embedding wherever it occurs in the batch.",
        "--dropout-tokens",
        minimum=0,
        below=1,
        group=REGULARISATION,
    )
    recurrent_dropout: float = setting(
        0.0,
        "Dropout probability for recurrent weights (DropConnect).",
        "--dropconnect",
        minimum=0,
        below=1,
        group=REGULARISATION,
    )
    skip_connections: bool = setting(
        False, "Pass the sum of the outputs of all layers to the decoder.", "--skip/--no-skip", group=MODEL
    )
    tie_weights: bool = setting(
        False, "Tie weights: use the embedding matrix also as the decoder matrix.", "--tie/--no-tie", group=MODEL
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tie_weights and self.embedding_dim != self.hidden_size:
            raise ConfigError(
                f"tie_weights needs embedding_dim ({self.embedding_dim}) and hidden_size ({self.hidden_size}) to be "
                "equal",
                fields=["tie_weights", "embedding_dim", "hidden_size"],
            )


TEXT, LENGTH, OPTIMISATION, RUNNING = "Text", "Training length", "Optimisation", "Hardware and saving"
NGRAMS = "N-gram model"


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Settings of a training. One of `minutes`, `epochs` and `steps` ends the training."""

    minutes: float | None = setting(
        None, "Stop after X minutes, including start-up.", "--minutes", above=0, maximum=10**6, group=LENGTH
    )
    epochs: float | None = setting(
        None, "Stop after X passes over the training text.", "--epochs", above=0, maximum=10**6, group=LENGTH
    )
    steps: int | None = setting(
        None, "Stop after N updates of the weights.", "--steps", minimum=1, maximum=10**9, group=LENGTH
    )
    patience: int | None = setting(
        None,
        "Stop after N validations in a row without a lower validation loss.",
        "--patience",
        minimum=1,
        maximum=10**6,
        group=LENGTH,
    )
    batch_size: int = setting(
        16,
        "Number of text streams per process, read in parallel; number of items per update if the text is a list.",
        "--batch-size",
        minimum=1,
        maximum=65536,
        group=OPTIMISATION,
    )
    seq_len: int = setting(
        64,
        "Number of tokens per stream and update; longer items of a list are read in several updates.",
        "--seq-len",
        minimum=1,
        maximum=65536,
        group=OPTIMISATION,
    )
    learning_rate: float = setting(
        8e-3,
        "Peak learning rate of AdamW. The decoder has a higher rate unless weights are tied.",
        "--lr",
        above=0,
        maximum=1000,
        group=OPTIMISATION,
    )
    warmup: float = setting(
        0.1,
        "Share of the training during which the learning rate rises to its peak.",
        "--warmup",
        minimum=0,
        maximum=1,
        group=OPTIMISATION,
    )
    weight_decay: float = setting(
        0.01, "Decoupled weight decay of AdamW.", "--weight-decay", minimum=0, maximum=1000, group=REGULARISATION
    )
    softmax_samples: int | None = setting(
        None,
        "Number of words in the softmax of an update, half of them the most frequent, the others drawn; 0 for all.",
        "--softmax-samples",
        minimum=0,
        maximum=MAX_VOCAB,
        group=OPTIMISATION,
    )
    freeze_embeddings: bool = setting(
        False, "Do not train the token embeddings.", "--freeze-embeddings/--tune-embeddings", group=MODEL
    )
    grad_clip: float = setting(
        1.0, "Maximum norm of the gradient.", "--grad-clip", above=0, maximum=10**9, group=OPTIMISATION
    )
    reset_prob: float = setting(
        0.05,
        "Probability that a stream starts an update from the zero state; not used for lists of items.",
        "--reset-prob",
        minimum=0,
        maximum=1,
        group=OPTIMISATION,
    )
    val_fraction: float = setting(
        0.1,
        "Share of the text, taken from its end, that is used for validation only; 0 for no validation.",
        "--val-fraction",
        minimum=0,
        below=1,
        group=TEXT,
    )
    items: str | None = setting(
        None,
        "Kind of list: `line` for one item per line, `blank` for items between blank lines, `none` for a text, or the "
        "text that separates two items. The items of a list are shuffled before the validation part is taken, and each "
        "is read from the zero state.",
        "--items",
        metavar="KIND|TEXT",
        has_escapes=True,
        group=TEXT,
    )
    ngram: bool = setting(
        False,
        "Count the n-grams of the training text, and interpolate their probabilities with those of the network if this "
        "lowers the validation loss.",
        "--ngram/--no-ngram",
        group=NGRAMS,
    )
    ngram_order: int | None = setting(
        None, "Maximum number of tokens of an n-gram.", "--ngram-order", minimum=1, maximum=32, group=NGRAMS
    )
    ngram_size: float = setting(
        4.0,
        "Maximum size of the n-gram model in MB. If all n-grams need more, those that matter least are left out.",
        "--ngram-size",
        metavar="MB",
        above=0,
        maximum=10**6,
        group=NGRAMS,
    )
    seed: int = setting(
        1, "Random seed of weights, dropout and streams.", "--seed", minimum=0, below=2**63, group=OPTIMISATION
    )
    precision: Precision = setting(
        "auto",
        "Number format of matrix products. `auto` uses bf16 where it is faster; with `minutes`, speed is measured.",
        "--precision",
        choices=("auto", "fp32", "bf16"),
        group=RUNNING,
    )
    threads: int | None = setting(
        None, "Number of threads. With the same number, a training repeats bit for bit.", minimum=1, maximum=MAX_THREADS
    )
    half: bool = setting(
        False,
        "Store the model in half precision: the file is half as large, and the loss changes by less than 0.001 nats.",
        "--half/--full",
        group=RUNNING,
    )
    save_every: float = setting(
        60.0,
        "Time between two saves of the training state, in seconds or with a unit, such as 30s or 5m.",
        "--save-every",
        above=0,
        maximum=10**9,
        group=RUNNING,
        is_duration=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.items == "":
            raise ConfigError("items: an empty string separates nothing; set line, blank or none", fields=["items"])
        given = [name for name in ("minutes", "epochs", "steps") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} contradict each other: set only one of them", fields=given)
