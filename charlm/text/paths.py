"""Paths that cannot be looked at."""

import os
from pathlib import Path


def access_problem(path: str | Path) -> str:
    """Return the reason why a path cannot be looked at; an empty string if it can be, or if nothing is there.

    Names that are too long, loops of symbolic links and folders without permission are such reasons.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", error))
    return ""
