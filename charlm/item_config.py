"""Settings of the generation of items with a model: their number, and conditions that each of them must satisfy."""

import re
from dataclasses import dataclass, fields

from charlm.errors import ConfigError
from charlm.settings import Settings, setting

ITEMS = "Items of a list"
"""Heading of the settings in help texts."""

DEFAULT_ITEMS = 10
"""Number of items if `items` is not set."""


@dataclass(frozen=True, kw_only=True)
class ItemConfig(Settings):
    """Settings of the generation of items."""

    items: int | None = setting(
        None,
        "Generate N whole items, such as names, separated as in the list that the model was trained on. For a model of "
        "a text, an item is a line.",
        "--items",
        minimum=1,
        maximum=10**9,
        group=ITEMS,
    )
    unique: bool = setting(False, "Generate no item twice.", "--unique", group=ITEMS)
    new: bool = setting(
        False, "Generate no item of the training list, including its validation part.", "--new", group=ITEMS
    )
    min_chars: int | None = setting(
        None, "Minimum length of an item in characters.", "--min-chars", minimum=0, maximum=10**9, group=ITEMS
    )
    max_chars: int | None = setting(
        None, "Maximum length of an item in characters.", "--max-chars", minimum=1, maximum=10**9, group=ITEMS
    )
    match: str | None = setting(
        None,
        "Generate only items in which this regular expression (Python's syntax) is found; ^ and $ are the ends.",
        "--match",
        metavar="REGEX",
        group=ITEMS,
    )
    tries: int = setting(
        1000,
        "Give up after N items in a row that do not satisfy the conditions.",
        "--tries",
        minimum=1,
        maximum=10**9,
        group=ITEMS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_chars is not None and (self.min_chars or 0) > self.max_chars:
            raise ConfigError(
                f"min_chars {self.min_chars} is above max_chars {self.max_chars}", fields=["min_chars", "max_chars"]
            )
        if self.match is not None:
            try:
                re.compile(self.match)
            except (re.error, OverflowError, RecursionError) as error:
                raise ConfigError(
                    f"match {self.match}: not a valid regular expression ({error})", fields=["match"]
                ) from None

    @property
    def any_given(self) -> bool:
        """True if a setting differs from its default."""
        return any(getattr(self, spec.name) != spec.default for spec in fields(self))

    @property
    def count(self) -> int:
        """Number of items."""
        return self.items or DEFAULT_ITEMS
