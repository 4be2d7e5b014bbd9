"""Base class of settings: frozen dataclasses whose fields have a description and a range, and that check themselves."""

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, TypeVar, get_args, get_type_hints

from charlm.errors import ConfigError

T = TypeVar("T")

MIN_POWER = 10**6
"""Number from which a bound that is a power of ten or of two is written as a power."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Meaning and range of a setting.

    A number has a finite range, so that no value overflows in a later computation.

    Attributes:
        help: One sentence with the unit. Other settings are named in backticks.
        flags: Names on the command line, such as `-n`, `--length`.
        group: Heading under which the help lists the setting.
        minimum: Smallest value allowed.
        maximum: Largest value allowed.
        above: Bound that is itself not allowed.
        below: Bound that is itself not allowed.
        choices: Values allowed, if they can be listed.
        metavar: Placeholder of the value in help texts; empty for that of its type.
        has_escapes: Whether the command line replaces escape sequences in the value, which is text.
        is_duration: Whether the value is a number of seconds, which the command line also takes with a unit.
        is_filter: Whether the setting excludes tokens from sampling: a key of `charlm.engine.decoding.FILTERS`.
    """

    help: str
    flags: tuple[str, ...] = ()
    group: str = ""
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    metavar: str = ""
    has_escapes: bool = False
    is_duration: bool = False
    is_filter: bool = False

    def interval(self, name: str) -> str:
        """Return the range of a number as an inequality, such as 0<X<=1, or an empty string if it has none."""
        low = _bound_text(self.minimum, "<=") or _bound_text(self.above, "<")
        high = _bound_text(self.maximum, "<=", left=True) or _bound_text(self.below, "<", left=True)
        return f"{low}{name}{high}" if low or high else ""

    def violation(self, value: Any) -> str:  # noqa: ANN401 - a value of any type, about to be checked
        """Return the rule that a value violates, in words, or an empty string."""
        if self.choices:
            return "" if value in self.choices else f"must be one of {', '.join(self.choices)}"
        if isinstance(value, float) and value != value:
            return "must be a number"
        bounds = (
            (self.minimum, operator.ge, "at least"),
            (self.maximum, operator.le, "at most"),
            (self.above, operator.gt, "above"),
            (self.below, operator.lt, "below"),
        )
        violated = [
            f"{words} {_number_text(bound)}"
            for bound, holds, words in bounds
            if bound is not None and not holds(value, bound)
        ]
        return f"must be {' and '.join(violated)}" if violated else ""


def setting(default: Any, help: str, *flags: str, **rule: Any) -> Any:  # noqa: ANN401 - as dataclasses.field
    """Return a dataclass field with a `Rule`."""
    return field(default=default, metadata={"rule": Rule(help=help, flags=flags, **rule)})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base class of the settings classes, which checks every field against its rule.

    Raises:
        ConfigError: Naming field, value and rule. A field whose default is None may be None.
    """

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            rule: Rule | None = spec.metadata.get("rule")
            if rule is None or (value is None and spec.default is None):
                continue
            if violation := rule.violation(value):
                raise ConfigError(f"{spec.name} {value}: {violation}", fields=[spec.name])

    @classmethod
    def pick(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings with those of `values` that are fields here; None stands for the default."""
        names = {spec.name for spec in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names and value is not None})


def from_dict(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return a dataclass made from untrusted values, such as those of a file; missing fields have their defaults.

    Raises:
        ConfigError: If a value has the wrong type or is out of range, or a name is unknown.
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            raise ConfigError(f"unknown setting {name[:80]!r}; a newer charlm may know it")
        kinds = {option if isinstance(option, type) else type(option) for option in get_args(hints[name])}
        kinds = kinds or {hints[name]}
        if type(value) not in kinds and not (type(value) is int and float in kinds):
            raise ConfigError(f"{name} is {str(value)[:80]}, which has the wrong type")
    return kind(**values)


def _bound_text(bound: float | None, sign: str, *, left: bool = False) -> str:
    """Return a bound with its sign to the right, or to the left; an empty string if there is no bound."""
    if bound is None:
        return ""
    return f"{sign}{_number_text(bound)}" if left else f"{_number_text(bound)}{sign}"


def _number_text(bound: float) -> str:
    """Return a bound in a short form: large powers of ten and of two as powers."""
    for base in (10, 2):
        exponent = round(math.log(bound, base)) if bound >= MIN_POWER else 0
        if exponent and base**exponent == bound:
            return f"{base}^{exponent}"
    return f"{bound:g}" if isinstance(bound, float) else str(bound)
