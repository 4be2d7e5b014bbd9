"""Generation of whole items, such as names, recipes or JSON lines, that satisfy conditions."""

import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from charlm.engine.generation import Generation
from charlm.engine.novelty import Comparison
from charlm.engine.sampler import Sampler
from charlm.errors import ConfigError, SamplingError
from charlm.item_config import ItemConfig
from charlm.sample_config import SampleConfig
from charlm.text.items import ItemFormat
from charlm.text.line_ends import fold_line_ends

ROUND_ITEMS = 64
"""Maximum number of items that are generated at the same time."""

LENGTH_FACTOR = 4
"""Maximum length of a generated item, as a multiple of the longest one of the list. A longer one has no end."""

MIN_LENGTH, DEFAULT_LENGTH = 100, 1000
"""Maximum length of a generated item in tokens: for lists of very short items, and for models of texts."""


def format_of_model(metadata: Mapping[str, Any]) -> tuple[ItemFormat | None, int]:
    """Return the format of the list that a model was trained on, and the maximum number of tokens of an item.

    Args:
        metadata: Metadata of the model, which is untrusted.

    Returns:
        The format, None for a model of a text; and the number of tokens.
    """
    match metadata.get("items"):
        case {"kind": str(kind), "separator": str(separator), "longest": int(longest)} if kind and separator:
            return ItemFormat(kind=kind, separator=separator), max(MIN_LENGTH, LENGTH_FACTOR * longest)
    return None, DEFAULT_LENGTH


def separator_of_model(metadata: Mapping[str, Any]) -> str | None:
    """Return the separator of the list that a model was trained on; None for a model of a text."""
    form, _ = format_of_model(metadata)
    return None if form is None else form.separator


class KnownItems:
    """Items of a training list, which `new` excludes.

    Args:
        items: The items.
        comparison: Differences that do not matter.
    """

    def __init__(self, items: Iterable[str], comparison: Comparison) -> None:
        self._comparison = comparison
        self._keys = set(map(self._key, items))

    def __contains__(self, item: str) -> bool:
        return self._key(item) in self._keys

    def _key(self, item: str) -> str | bytes:
        return item if self._comparison == Comparison() else self._comparison.points(item).tobytes()


@dataclass(frozen=True, kw_only=True)
class ItemSampler:
    """Model with the settings to generate items with it.

    Attributes:
        sampler: Model and settings of generation. `length` limits each item.
        form: Format of the list.
        config: Number of items, and their conditions.
        known: Items of the training list; needed if `new` is set.
        max_tokens: Maximum number of tokens of an item if `length` is not set.

    Raises:
        ConfigError: If a setting is for texts instead of items.
    """

    sampler: Sampler
    form: ItemFormat
    config: ItemConfig
    known: KnownItems | None = None
    max_tokens: int = DEFAULT_LENGTH
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        config = self.sampler.config
        for name in ("lines", "beam", "count"):
            if getattr(config, name) != getattr(SampleConfig, name):
                raise ConfigError(f"{name} and `items` contradict each other: omit one of them", fields=[name, "items"])
        if config.length is not None and config.length < 1:
            raise ConfigError(
                f"length {config.length}: must be at least 1 with `items`, because it limits each item",
                fields=["length", "items"],
            )

    def stream(self, prompts: Iterable[str]) -> Iterator[tuple[Generation, str]]:
        """Generate `items` items for each prompt, each as soon as it and all before it are complete.

        The seeds of all items, including rejected ones, are consecutive.

        Yields:
            The generation of each item, and its text after the prompt.

        Raises:
            ConfigError: If a prompt contains a separator.
            SamplingError: If `tries` items in a row do not satisfy the conditions.
        """
        seed = self.sampler.first_seed()
        for prompt in prompts:
            if self.form.separator in fold_line_ends(prompt):
                raise ConfigError(
                    f"prompt {prompt[:40]!r}: contains the separator of the items; omit `items`",
                    fields=["prompt", "items"],
                )
            seed = yield from self._items(prompt, seed)

    def _items(self, prompt: str, seed: int) -> Generator[tuple[Generation, str], None, int]:
        """Generate the items of one prompt; return the next seed."""
        sampler, accepted, in_a_row, rejected = self._item_sampler(prompt), 0, 0, Counter[str]()
        while True:
            size = min(ROUND_ITEMS, (1 + bool(in_a_row)) * (self.config.count - accepted))
            generations = [sampler.new_generation(prompt, seed + index) for index in range(size)]
            for generation, text in sampler.complete(generations):
                seed = generation.seed + 1
                kept = generation.stop_text if generation.stop_text != self.form.separator else ""
                text += kept if self.sampler.config.keep_stop else ""
                if reason := self._violation(fold_line_ends(prompt) + text, generation):
                    rejected[reason] += 1
                    in_a_row += 1
                    if in_a_row == self.config.tries:
                        raise self._error(accepted, rejected)
                    continue
                accepted, in_a_row = accepted + 1, 0
                yield generation, text
                if accepted == self.config.count:
                    return seed

    def _item_sampler(self, prompt: str) -> Sampler:
        """Return a sampler that ends a text at the separator."""
        config = self.sampler.config
        length = config.length or self.max_tokens
        if self.config.max_chars is not None and self.sampler.predictor.tokenizer.kind == "char":
            num_chars = self.config.max_chars + len(self.form.separator) - len(fold_line_ends(prompt))
            length = max(1, min(length, num_chars))
        stop = (*config.stop, self.form.separator)
        return replace(self.sampler, config=replace(config, stop=stop, length=length, keep_stop=False))

    def _violation(self, item: str, generation: Generation) -> str:
        """Return the condition that an item does not satisfy, in words, or an empty string; remember the item."""
        config = self.config
        if config.max_chars is not None and len(item) > config.max_chars:
            return f"longer than max_chars {config.max_chars}"
        if generation.ended_by != "stop":
            return f"without an end within {generation.num_tokens:,} tokens"
        if not item.strip():
            return "empty"
        if config.min_chars is not None and len(item) < config.min_chars:
            return f"shorter than min_chars {config.min_chars}"
        if config.match is not None and not re.search(config.match, item):
            return f"not found by match {config.match}"
        if self.known is not None and config.new and item in self.known:
            return "of the training list (new)"
        if config.unique:
            if item in self._seen:
                return "generated before (unique)"
            self._seen.add(item)
        return ""

    def _error(self, accepted: int, rejected: Mapping[str, int]) -> SamplingError:
        most_frequent = Counter(rejected).most_common()
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in most_frequent)
        return SamplingError(
            f"{accepted:,} of {self.config.count:,} items generated, and the last {self.config.tries:,} candidates "
            f"rejected; rejected in all: {reasons}; change the conditions, or set a larger tries or temperature",
            fields=["max_chars", "min_chars", "match", "new", "unique", "tries", "temperature"],
        )
