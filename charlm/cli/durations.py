"""Durations as text, such as `90s`, `2m` or `1h30m`."""

import re

SECONDS_PER_UNIT = {"h": 3600.0, "m": 60.0, "s": 1.0}
"""Units of durations, the largest first, in seconds."""

_AMOUNT = r"(?:\d+\.?\d*|\.\d+)"
_DURATION = re.compile("".join(rf"(?:(?P<{unit}>{_AMOUNT})\s*{unit})?\s*" for unit in SECONDS_PER_UNIT), re.ASCII)


def parse_duration(text: str) -> float:
    """Return the number of seconds that a text stands for.

    Args:
        text: A number of seconds, or numbers with the units h, m and s in this order. A unit that is left out counts 0.

    Raises:
        ValueError: If the text is neither.

    Example:
        >>> parse_duration("90"), parse_duration("1.5m"), parse_duration("1h30m")
        (90.0, 90.0, 5400.0)
    """
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        return float(text)
    return sum(float(found[unit]) * seconds for unit, seconds in SECONDS_PER_UNIT.items() if found[unit])


def duration_text(seconds: float) -> str:
    """Return a duration as `parse_duration` reads it.

    Args:
        seconds: Number of seconds, above 0. Durations above a millisecond are rounded to milliseconds.

    Example:
        >>> duration_text(1.5), duration_text(90), duration_text(5400)
        ('1.5s', '1m30s', '1h30m')
    """
    rest, text = round(seconds, 3) or seconds, ""
    for unit, size in SECONDS_PER_UNIT.items():
        amount, rest = divmod(rest, size) if size > 1 else (rest, 0.0)
        text += f"{amount:.6g}{unit}" if amount else ""
    return text
