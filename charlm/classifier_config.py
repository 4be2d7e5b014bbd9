"""Settings of classifiers and of their training: defaults, ranges and help texts."""

from dataclasses import dataclass

from charlm.config import CELLS, MAX_THREADS, ModelConfig
from charlm.errors import ConfigError
from charlm.settings import Settings, setting

MAX_CLASSES = 10_000
"""Maximum number of classes."""

MAX_TEXT_TOKENS = 10**5
"""Maximum number of tokens of a text that a network may read."""

NETWORK, LEARNING, TIME = "Network", "Optimisation", "Training length"


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Settings):
    """Shape of a classifier's network, which reads a text and gives a logit for each class."""

    vocab_size: int = setting(
        2, "Number of tokens in the vocabulary, including the unknown token.", minimum=2, maximum=10**7
    )
    num_classes: int = setting(2, "Number of classes.", minimum=2, maximum=MAX_CLASSES)
    cell: str = setting("gru", "Recurrent cell.", "--cell", choices=tuple(CELLS), group=NETWORK)
    num_layers: int = setting(1, "Number of recurrent layers.", "--layers", minimum=1, maximum=64, group=NETWORK)
    hidden_size: int = setting(
        96, "Number of units in each layer and direction.", "--hidden", minimum=1, maximum=65536, group=NETWORK
    )
    embedding_dim: int = setting(
        100, "Size of the token embeddings.", "--embed", minimum=1, maximum=65536, group=NETWORK
    )
    bidirectional: bool = setting(
        True,
        "Read each text forward and backward. The encoder of a language model reads forward only.",
        "--bidirectional/--forward",
        group=NETWORK,
    )
    skip_connections: bool = setting(False, "Sum the outputs of all layers, as the language model does.")
    dropout: float = setting(
        0.5, "Dropout probability for the pooled states.", "--dropout", minimum=0, below=1, group=NETWORK
    )
    input_dropout: float = setting(
        0.3,
        "Dropout probability for the components of the embeddings.",
        "--dropout-input",
        minimum=0,
        below=1,
        group=NETWORK,
    )
    token_dropout: float = setting(
        0.2, "Dropout probability for whole tokens.", "--dropout-tokens", minimum=0, below=1, group=NETWORK
    )
    max_tokens: int = setting(
        400,
        "Number of tokens at the beginning of a text that the network reads.",
        "--max-tokens",
        minimum=1,
        maximum=MAX_TEXT_TOKENS,
        group=NETWORK,
    )

    @property
    def core(self) -> ModelConfig:
        """Shape of the recurrent layers, as that of a language model."""
        return ModelConfig(
            vocab_size=self.vocab_size,
            cell=self.cell,
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            embedding_dim=self.embedding_dim,
            skip_connections=self.skip_connections,
        )

    @property
    def output_size(self) -> int:
        """Size of the outputs of the recurrent layers: the units of all directions."""
        return (2 if self.bidirectional else 1) * self.hidden_size

    @property
    def pooled_size(self) -> int:
        """Size of the pooled states: the last one, the mean and the maximum."""
        return 3 * self.output_size


@dataclass(frozen=True, kw_only=True)
class ClassifierTrainConfig(Settings):
    """Settings of the training of a classifier."""

    minutes: float | None = setting(
        None,
        "Stop after X minutes, including start-up.",
        "--minutes",
        above=0,
        maximum=10**6,
        group=TIME,
    )
    epochs: int | None = setting(
        None, "Stop after N passes over the samples.", "--epochs", minimum=1, maximum=10**6, group=TIME
    )
    batch_size: int = setting(
        32, "Number of texts per update.", "--batch-size", minimum=1, maximum=65536, group=LEARNING
    )
    learning_rate: float = setting(2e-3, "Peak learning rate of AdamW.", "--lr", above=0, maximum=1000, group=LEARNING)
    warmup: float = setting(0.1, "Share of the training during which the learning rate rises.", minimum=0, maximum=1)
    weight_decay: float = setting(
        0.01, "Decoupled weight decay of AdamW.", "--weight-decay", minimum=0, maximum=1000, group=LEARNING
    )
    grad_clip: float = setting(1.0, "Maximum norm of the gradient.", above=0, maximum=10**9)
    val_fraction: float = setting(
        0.1,
        "Share of the samples of each class that is used for validation only.",
        "--val-fraction",
        above=0,
        maximum=0.9,
        group=LEARNING,
    )
    freeze_embeddings: bool = setting(
        False, "Do not train the token embeddings.", "--freeze-embeddings/--tune-embeddings", group=NETWORK
    )
    freeze_encoder: bool | None = setting(
        None,
        "Keep the encoder of a language model unchanged and train only the output layer, by cross-validation.",
        "--freeze-encoder/--tune-encoder",
        group=NETWORK,
    )
    counts: bool = setting(
        True,
        "Combine the network with counts of words and pairs of words in each class (naive Bayes).",
        "--counts/--no-counts",
        group=NETWORK,
    )
    seed: int = setting(1, "Random seed.", "--seed", minimum=0, below=2**63, group=LEARNING)
    threads: int | None = setting(None, "Number of threads.", minimum=1, maximum=MAX_THREADS)
    save_every: float = setting(
        60.0, "Save the training state every X seconds.", "--save-every", above=0, maximum=10**9, group=TIME
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minutes is not None and self.epochs is not None:
            raise ConfigError(
                "minutes and epochs contradict each other: set only one of them", fields=["minutes", "epochs"]
            )
