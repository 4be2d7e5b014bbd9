"""Python interface: load a trained model and use it, or train one."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from charlm.config import NGRAM_CELL
from charlm.engine.adaptive_predictor import AdaptivePredictor, adaptation_of
from charlm.engine.checkpoint import Checkpoint, load_checkpoint
from charlm.engine.item_sampler import ItemSampler, KnownItems, format_of_model, separator_of_model
from charlm.engine.mixture import open_predictor
from charlm.engine.novelty import Comparison, NoveltyFilter
from charlm.engine.predictor import Predictor
from charlm.engine.runs import MODEL_FILE, Run, find_model
from charlm.engine.sampler import Sampler, next_tokens
from charlm.engine.scorer import score_text
from charlm.engine.scores import Score
from charlm.engine.surprisals import Surprisals, Unit, surprisals_of
from charlm.engine.training_text import load_training_text
from charlm.errors import ConfigError
from charlm.item_config import DEFAULT_ITEMS, ItemConfig
from charlm.sample_config import SampleConfig
from charlm.text.items import LINE, ItemFormat

if TYPE_CHECKING:
    from charlm.training.progress import Progress


class NextToken(NamedTuple):
    """A token that may come next.

    Attributes:
        token: Its text.
        probability: Its probability, from 0 to 1.

    Example:
        >>> (best,) = charlm.load("shakespeare").next_tokens("To be, or not to b", top=1)
        >>> best.token, round(best.probability, 2)
        ('e', 0.83)
    """

    token: str
    probability: float


class Model:
    """A trained language model, ready to generate and score text with NumPy.

    Use `charlm.load` to open one.

    Args:
        path: Model file.

    Attributes:
        path: Model file.

    Raises:
        CheckpointError: If the file is missing or damaged.

    Example:
        >>> import charlm
        >>> model = charlm.load("shakespeare")
        >>> model
        <charlm.Model shakespeare: lstm 2 x 480 with n-grams of order 10, 77 tokens>
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._checkpoint: Checkpoint = load_checkpoint(path)
        self._static = open_predictor(self._checkpoint)
        self._adaptive = AdaptivePredictor(self._static, adaptation_of(self._checkpoint))

    def __repr__(self) -> str:
        config = self._checkpoint.config
        name = self.path.parent.name if self.path.name == MODEL_FILE else str(self.path)
        parts = [] if config.cell == NGRAM_CELL else [f"{config.cell} {config.num_layers} x {config.hidden_size}"]
        if self._checkpoint.counts is not None:
            parts.append(f"n-grams of order {self._checkpoint.counts.ngram.order}")
        return f"<charlm.Model {name}: {' with '.join(parts)}, {config.vocab_size} tokens>"

    @property
    def tokens(self) -> Sequence[str]:
        """Vocabulary: the token with id i is `tokens[i]`, and `tokens[0]` is the unknown token."""
        return self._checkpoint.tokenizer.tokens

    @property
    def metadata(self) -> dict[str, Any]:
        """Origin and quality of the model: corpus, command, training settings, metrics."""
        return self._checkpoint.metadata

    @overload
    def generate(
        self,
        prompt: str = ...,
        *,
        length: int | None = ...,
        temperature: float = ...,
        seed: int | None = ...,
        stream: Literal[False] = ...,
        novel: int | None = ...,
        adapt: bool = ...,
        **settings: Any,
    ) -> str: ...

    @overload
    def generate(
        self,
        prompt: str = ...,
        *,
        length: int | None = ...,
        temperature: float = ...,
        seed: int | None = ...,
        stream: Literal[True],
        novel: int | None = ...,
        adapt: bool = ...,
        **settings: Any,
    ) -> Iterator[str]: ...

    def generate(
        self,
        prompt: str = "",
        *,
        length: int | None = None,
        temperature: float = SampleConfig.temperature,
        seed: int | None = None,
        stream: bool = False,
        novel: int | None = None,
        adapt: bool = False,
        **settings: Any,
    ) -> str | Iterator[str]:
        r"""Generate text that continues a prompt.

        Args:
            prompt: Text to continue; it is not part of the result. An empty prompt is the start of a line.
            length: Maximum number of tokens; -1 for no limit. Default: 500, or no limit if `lines` is given.
            temperature: Divides the logits: 0 always takes the most probable token, 1 samples from the model unchanged.
            seed: Random seed: the same seed gives the same text. Default: a random one.
            stream: Return an iterator over pieces of text, as they are generated, instead of a string.
            novel: Number of consecutive characters of the training text that are never repeated, from 1 to 1000.
            adapt: Whether to learn from the prompt, its names and its style, and from what is generated.
            **settings: Other fields of `charlm.sample_config.SampleConfig`, named as there: `top_k`, `top_p`, `min_p`,
                `typical_p`, `repeat_penalty`, `repeat_last`, `lines`, `stop` (a string or several), `greedy`,
                `allow_unknown`, `ban` (a string or several that are never written), `keep_stop`.

        Returns:
            The text, or an iterator over its pieces.

        Raises:
            ConfigError: If a setting is out of range.
            TypeError: If a setting does not exist.
            NoveltyError: If `novel` is given, and the training text is neither stored with the model nor a named
                corpus, or every continuation would repeat it.

        Example:
            >>> model = charlm.load("shakespeare")
            >>> model.generate("ROMEO:", lines=2, temperature=0)
            '\nI will not see thee so far as thou art.\n'
            >>> "".join(model.generate("ROMEO:", lines=2, temperature=0, stream=True))
            '\nI will not see thee so far as thou art.\n'
        """
        config = _sample_config({**settings, "length": length, "temperature": temperature, "seed": seed}, stream=stream)
        sampler = self._sampler(config, novel, adapt=adapt)
        pieces = (piece for (piece,) in sampler.stream(prompt) if piece)
        return pieces if stream else "".join(pieces)

    def items(
        self,
        items: int = DEFAULT_ITEMS,
        prompt: str = "",
        *,
        temperature: float = SampleConfig.temperature,
        seed: int | None = None,
        novel: int | None = None,
        **settings: Any,
    ) -> Iterator[str]:
        """Generate whole items of a list, such as names. For a model of a text, an item is a line.

        Args:
            items: Number of items.
            prompt: Beginning of every item; part of the results.
            temperature: As for `generate`.
            seed: As for `generate`.
            novel: As for `generate`.
            **settings: Conditions, fields of `charlm.item_config.ItemConfig`: `unique`, `new` (not in the training
                list), `min_chars`, `max_chars`, `match` (a regular expression), `tries`. Also the other settings of
                `generate`; `length` limits each item.

        Returns:
            An iterator over the items, without separators.

        Raises:
            ConfigError: If a setting is out of range.
            TypeError: If a setting does not exist.
            SamplingError: If too many items in a row do not satisfy the conditions.

        Example:
            >>> model = charlm.load("shakespeare")
            >>> list(model.items(1, "ROMEO", match=":$", seed=3))
            ['ROMEO:']
        """
        conditions = {spec.name: settings.pop(spec.name) for spec in fields(ItemConfig) if spec.name in settings}
        item_config = ItemConfig(**conditions, items=items)
        config = _sample_config({**settings, "temperature": temperature, "seed": seed}, stream=True)
        form, max_tokens = format_of_model(self.metadata)
        form, known = form or ItemFormat(kind=LINE, separator="\n"), None
        if item_config.new:
            training_items = form.split([load_training_text(self.path, self.metadata)])
            known = KnownItems(training_items, Comparison.of_model(self._checkpoint.tokenizer))
        sampler = self._sampler(config, novel)
        found = ItemSampler(sampler=sampler, form=form, config=item_config, known=known, max_tokens=max_tokens)
        return (prompt + text for _, text in found.stream([prompt]))

    def _predictor(self, *, adapt: bool) -> Predictor:
        """Return the model, or the model that adapts to the text it reads."""
        return self._adaptive if adapt else self._static

    def _sampler(self, config: SampleConfig, novel: int | None, *, adapt: bool = False) -> Sampler:
        """Return a sampler that repeats no run of `novel` characters of the training text.

        Raises:
            ConfigError: If the model is to adapt, but was trained on a list.
        """
        novelty = None
        if novel is not None:
            training_text = load_training_text(self.path, self.metadata)
            novelty = NoveltyFilter(training_text, novel, Comparison.of_model(self._checkpoint.tokenizer))
        separator = separator_of_model(self.metadata)
        if adapt and separator is not None:
            raise ConfigError(
                "the model was trained on a list, whose items are independent; omit `adapt`", fields=["adapt"]
            )
        predictor = self._predictor(adapt=adapt)
        return Sampler(predictor=predictor, config=config, novelty_filter=novelty, separator=separator)

    def score(self, text: str, *, adapt: bool = False) -> Score:
        """Return the score of a text: its negative log-likelihood, and the measures derived from it.

        The text starts from the zero state after one newline. Every token counts, including a final newline if the text
        has one. The score of an unknown token includes its spelling, except in perplexity and nats per token.

        Args:
            text: The text.
            adapt: Whether the model learns from the text while it reads it. Compare such a score only with others that
                adapt.

        Returns:
            Nats, bits per character and per byte, perplexity, and the numbers of tokens and unknown tokens.

        Raises:
            ValueError: If the text is empty.

        Example:
            >>> score = charlm.load("shakespeare").score("To be, or not to be")
            >>> round(score.bits_per_char, 2), score.num_unknown
            (1.92, 0)
        """
        return score_text(self._predictor(adapt=adapt), text)

    def surprisals(self, text: str, unit: Unit = "token", *, adapt: bool = False) -> Surprisals:
        """Return the surprisal of each part of a text: a list, with arrays of all numbers as its attributes.

        Args:
            text: The text; it starts from the zero state after one newline.
            unit: `token` for the model's own tokens. `character`: the surprisal of a token is divided evenly among its
                characters. `word`: words are separated by whitespace; the whitespace before a word belongs to it, and
                the whitespace after the last word is a part of its own.
            adapt: Whether the model learns from the text while it reads it.

        Raises:
            ConfigError: If the unit does not exist.

        Example:
            >>> model = charlm.load("shakespeare")
            >>> [(word.text, round(word.bits, 1)) for word in model.surprisals("To be or not", unit="word")]
            [('To', 5.8), (' be', 4.4), (' or', 10.1), (' not', 6.4)]
        """
        return surprisals_of(self._predictor(adapt=adapt), text, unit)

    def next_tokens(self, prompt: str = "", top: int = 10, *, adapt: bool = False) -> list[NextToken]:
        """Return the most probable next tokens after a prompt, the most probable first.

        Args:
            prompt: Text before the token; an empty prompt is the start of a line.
            top: Maximum number of tokens to return.
            adapt: Whether the model learns from the prompt: what has occurred in it becomes more probable.

        Example:
            >>> model = charlm.load("shakespeare")
            >>> best, second = model.next_tokens("To be, or not to b", top=2)
            >>> best.token, round(best.probability, 2)
            ('e', 0.83)
        """
        return [NextToken(*entry) for entry in next_tokens(self._predictor(adapt=adapt), prompt)[: max(0, top)]]


def load(model: str | os.PathLike[str] | None = None) -> Model:
    """Open a trained model. This never imports PyTorch.

    Args:
        model: A model file, the folder of a run, the name of a run in ./checkpoints, or the name of an included model,
            `shakespeare`. Default: the newest run in ./checkpoints, or else the included model.

    Raises:
        CheckpointError: If there is no such model, or its file is damaged.

    Example:
        >>> import charlm
        >>> charlm.load("shakespeare").tokens[:4]
        ('�', '\\n', ' ', '!')
    """
    return Model(find_model(None if model is None else os.fspath(model)))


@dataclass(frozen=True)
class TrainedRun:
    """A finished training.

    Attributes:
        path: Folder of the run, ./checkpoints/NAME, as an absolute path.

    Example:
        >>> run = charlm.train("hello", steps=2, name="brief", threads=1)
        >>> run.log[-1]["step"], run.model.tokens[1:]
        (2, ('e', 'h', 'i', 'l', 'o'))
    """

    path: Path

    @property
    def name(self) -> str:
        """Name of the run, for `charlm.load` and for the command line."""
        return self.path.name

    @functools.cached_property
    def model(self) -> Model:
        """The model with the lowest validation loss."""
        return load(self.path)

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the model: `val_nats`, `val_bits_per_char`, `epoch`, `seconds` and others."""
        return dict(self.model.metadata["metrics"])

    @property
    def log(self) -> list[dict[str, Any]]:
        """Metrics during the training, one dictionary per line of the log."""
        return Run(self.path).read_log()


def train(
    corpus: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    name: str | None = None,
    validation: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    pretrained: str | os.PathLike[str] | None = None,
    report: "Callable[[Progress], None] | None" = None,
    **settings: Any,
) -> TrainedRun:
    """Train a model on a text, as `charlm train` does. This imports PyTorch, except with `cell="ngram"`.

    Settings that are not given are chosen automatically. With `steps` or `epochs`, the same call makes the same model.
    PyTorch's global random state is changed.

    Args:
        corpus: Files, folders, patterns, or named corpora such as `shakespeare`.
        name: Name of the run. Default: derived from the corpus.
        validation: Texts to validate on. Default: the end of the corpus.
        pretrained: Model to start from: a file or a run.
        report: Called with the progress after each update and after each validation.
        **settings: `minutes`, `epochs` or `steps`, and other fields of `charlm.config.TrainConfig`, `ModelConfig` and
            `TokenizerConfig`; also `glove`, `force`, `encoding`, `errors`, `cache`, `device` and `threads`, as on the
            command line.

    Returns:
        The run, with its model, metrics and log.

    Raises:
        CharlmError: Of any kind, if the training is not possible.
        TypeError: If a setting does not exist.

    Example:
        >>> run = charlm.train("hello", steps=2, name="first", threads=1)
        >>> run.name, run.metrics["step"]
        ('first', 2)
    """
    from charlm.training.callbacks import Callbacks
    from charlm.training.request import request_from_settings
    from charlm.training.setup import run

    request = request_from_settings(
        settings,
        corpus=_specs(corpus),
        validation=_specs(validation),
        pretrained=None if pretrained is None else os.fspath(pretrained),
        name=name,
        command="charlm.train",
    )
    trained, _ = run(request, Callbacks() if report is None else Callbacks(report=report))
    return TrainedRun(trained.path.absolute())


def _sample_config(settings: dict[str, Any], *, stream: bool) -> SampleConfig:
    """Return the settings of one sampled text, in which a single string may stand for a sequence of them.

    Raises:
        ConfigError: If the settings are for several texts or for a search, or the text would have no end.
    """
    if settings.get("beam") is not None or settings.get("count", 1) != 1:
        raise ConfigError("generate returns one sampled text: omit beam and count", fields=["beam", "count"])
    texts = {name: settings.pop(name, ()) for name in ("stop", "ban")}
    several: dict[str, Any] = {name: (text,) if isinstance(text, str) else tuple(text) for name, text in texts.items()}
    config = SampleConfig(**settings, **several)
    if config.limit < 0 and not (stream or config.lines or config.stop):
        raise ConfigError(
            "length -1 has no end: set lines or stop, or use stream=True", fields=["length", "lines", "stop"]
        )
    return config


def _specs(texts: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    """Return the names of one or several texts."""
    return (os.fspath(texts),) if isinstance(texts, str | os.PathLike) else tuple(os.fspath(text) for text in texts)
