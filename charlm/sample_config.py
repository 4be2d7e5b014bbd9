"""Settings of text generation: defaults, ranges and help texts."""

from dataclasses import dataclass, fields

from charlm.config import MAX_VOCAB
from charlm.errors import ConfigError
from charlm.settings import Settings, setting

MAX_NOVELTY_CHARS = 1000
"""Maximum length of the runs that a novelty filter excludes, in characters."""

DRAWING, PENALTY, ENDING = "Choice of tokens", "Repetition", "Length and number"


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Settings):
    """Settings of text generation."""

    temperature: float = setting(
        0.8,
        "Divide the logits by X. 0 always takes the most probable token, 1 samples from the model unchanged.",
        "--temp",
        minimum=0,
        maximum=1000,
        group=DRAWING,
    )
    greedy: bool = setting(
        False, "Always take the most probable token, as with `temperature` 0.", "--greedy", group=DRAWING
    )
    allow_unknown: bool = setting(
        False, "Also generate the unknown token, <unk> or U+FFFD.", "--allow-unk", group=DRAWING
    )
    top_k: int | None = setting(
        None,
        "Sample from the N most probable tokens.",
        "--top-k",
        minimum=1,
        maximum=MAX_VOCAB,
        group=DRAWING,
        is_filter=True,
    )
    typical_p: float | None = setting(
        None,
        "Locally typical sampling: sample from the tokens whose surprisal is closest to the entropy and that together "
        "have probability X.",
        "--typical",
        above=0,
        maximum=1,
        group=DRAWING,
        is_filter=True,
    )
    top_p: float | None = setting(
        None,
        "Nucleus sampling: sample from the most probable tokens that together have probability X.",
        "--top-p",
        above=0,
        maximum=1,
        group=DRAWING,
        is_filter=True,
    )
    min_p: float | None = setting(
        None,
        "Exclude tokens less probable than X times the most probable token.",
        "--min-p",
        minimum=0,
        maximum=1,
        group=DRAWING,
        is_filter=True,
    )
    repeat_penalty: float = setting(
        1.0,
        "Make recent tokens less probable: divide their logits by X if positive, multiply them by X if negative. 1 has "
        "no effect.",
        "--repeat-penalty",
        minimum=0.001,
        maximum=1000,
        group=PENALTY,
    )
    repeat_last: int = setting(
        64,
        "Number of recent tokens that `repeat_penalty` applies to, including tokens of the prompt.",
        "--repeat-last",
        minimum=1,
        maximum=10**6,
        group=PENALTY,
    )
    beam: int | None = setting(
        None,
        "Use beam search with beam width N instead of sampling: find the text with the highest total probability.",
        "--beam",
        minimum=1,
        maximum=1000,
        group=DRAWING,
    )
    length: int | None = setting(
        None,
        "Maximum number of tokens to generate after the prompt; -1 for no limit.",
        "-n",
        "--length",
        minimum=-1,
        maximum=10**9,
        group=ENDING,
    )
    lines: int | None = setting(None, "Stop after N newlines.", "--lines", minimum=1, maximum=10**9, group=ENDING)
    count: int = setting(
        1,
        "Number of samples per prompt. Seeds are consecutive, from `seed` on.",
        "--count",
        minimum=1,
        maximum=10_000,
        group=ENDING,
    )
    seed: int | None = setting(
        None, "Random seed: the same seed gives the same text.", "--seed", minimum=0, below=2**63, group=ENDING
    )
    stop: tuple[str, ...] = ()
    """Strings that end a sample and are not part of it, unless `keep_stop` is set."""
    ban: tuple[str, ...] = ()
    """Strings that are never written."""
    keep_stop: bool = setting(False, "Also print the text that ended a sample.", "--keep-stop", group=ENDING)

    def __post_init__(self) -> None:
        super().__post_init__()
        if "" in self.stop:
            raise ConfigError("stop: an empty string would end every sample immediately", fields=["stop"])
        if any(not text or len(text) > MAX_NOVELTY_CHARS for text in self.ban):
            raise ConfigError(f"ban: a text must have from 1 to {MAX_NOVELTY_CHARS} characters", fields=["ban"])
        if self.beam is not None:
            self._check_beam(self.beam)

    def _check_beam(self, beam: int) -> None:
        sampling = (*self.filter_names(), "greedy", "repeat_penalty")
        given = [name for name in sampling if getattr(self, name) != getattr(type(self), name)]
        if given:
            raise ConfigError(
                f"beam {beam} searches for the most probable text and does not sample: omit {given[0]}",
                fields=["beam", given[0]],
            )
        if self.limit < 0:
            raise ConfigError(f"beam {beam} needs a limit: set length", fields=["beam", "length"])
        if self.count > beam:
            raise ConfigError(
                f"count {self.count}: a search with beam {beam} finds no more than {beam} texts",
                fields=["count", "beam"],
            )

    @classmethod
    def filter_names(cls) -> tuple[str, ...]:
        """Return the fields that exclude tokens from sampling, in the order in which they are applied."""
        return tuple(spec.name for spec in fields(cls) if "rule" in spec.metadata and spec.metadata["rule"].is_filter)

    @property
    def limit(self) -> int:
        """Maximum number of tokens to generate; -1 for no limit."""
        if self.length is None:
            return DEFAULT_LENGTH if self.lines is None else MAX_LINE_TOKENS * self.lines
        return self.length


DEFAULT_LENGTH = 500
"""Number of tokens of a sample if neither `length` nor `lines` is set."""

MAX_LINE_TOKENS = 10_000
"""Maximum mean number of tokens per line if `lines` is set and `length` is not: a model may never write a newline."""
