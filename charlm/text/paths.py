"""Paths that cannot be looked at."""

import os
from pathlib import Path


def access_problem(*paths: str | Path) -> str:
    """Return a sentence about the first of these paths that cannot be looked at; an empty string if there is none.

    Names that are too long, loops of symbolic links and folders without permission are such problems. A missing file is
    none.

    Example:
        >>> access_problem("missing.txt", "/" + "x" * 300).endswith("x: cannot be read (File name too long)")
        True
    """
    for path in paths:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            return f"{path}: cannot be read ({getattr(error, 'strerror', error)})"
    return ""
