"""Runs: the folders that training leaves, `checkpoints/NAME/`.

`model.safetensors` is the best model on validation, `last.safetensors` has all that resuming needs, and
`log.jsonl` has a line a report.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlm.errors import CheckpointError, RunError

RUNS = Path("checkpoints")
MODEL_FILE = "model.safetensors"
LAST_FILE = "last.safetensors"
LOG_FILE = "log.jsonl"


@dataclass(frozen=True)
class Run:
    """The folder of one training.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @property
    def model(self) -> Path:
        """The best model so far."""
        return self.path / MODEL_FILE

    @property
    def last(self) -> Path:
        """The state to resume from."""
        return self.path / LAST_FILE

    @property
    def log(self) -> Path:
        """The log, one JSON object a line."""
        return self.path / LOG_FILE

    @property
    def exists(self) -> bool:
        """Whether there is anything of a run here."""
        return any(path.exists() for path in (self.model, self.last, self.log))

    @classmethod
    def create(cls, name: str | None, suggestion: str, *, force: bool = False) -> "Run":
        """Make room for a new run.

        Args:
            name: The name asked for, or None to take the suggestion, numbered if it is taken.
            suggestion: A name from the corpus.
            force: Let a run of the name asked for be replaced.

        Raises:
            RunError: If the name is no folder name, or taken and `force` is not given.
        """
        if name is None:
            names = (f"{suggestion}-{number}" if number > 1 else suggestion for number in range(1, 10**6))
            run = next(run for run in map(cls.named, names) if not run.exists)
        else:
            run = cls.named(name)
            if run.exists and not force:
                raise RunError(
                    f"{run.path}: a run of this name exists; go on with it (--resume {name}), replace it (--force) "
                    "or take another --name"
                )
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            for path in (run.last, run.log, run.model):  # of the run to be replaced
                path.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{run.path}: cannot be made ({error.strerror})") from None
        return run

    @classmethod
    def named(cls, name: str) -> "Run":
        """The run of a name in ./checkpoints, whether it is there or not.

        Raises:
            RunError: If the name is none that a folder can have.
        """
        if not name or name in {".", ".."} or not name.isprintable() or set(name) & set("/\\"):
            raise RunError(f"--name {name!r}: a run's name becomes a folder in ./{RUNS}, and cannot be this")
        return cls(RUNS / name)

    @classmethod
    def to_resume(cls, name: str) -> "Run":
        """The run to go on with: of this name or folder, or the newest if the name is empty.

        Raises:
            RunError: If there is none, or its training never came to a save.
        """
        if name:
            run = cls(Path(name)) if (Path(name) / LAST_FILE).is_file() else cls.named(name)
            if not run.last.is_file():
                raise RunError(f"{run.path}: nothing to resume, no {LAST_FILE} there")
            return run
        saved = sorted(RUNS.glob(f"*/{LAST_FILE}"), key=lambda path: path.stat().st_mtime)
        if not saved:
            raise RunError(f"nothing to resume: no run in ./{RUNS}")
        return cls(saved[-1].parent)

    @classmethod
    def find(cls, name: str | None) -> "Run":
        """The run of a name or folder, or the newest one.

        Raises:
            RunError: If there is none.
        """
        logs = sorted(RUNS.glob(f"*/{LOG_FILE}"), key=lambda path: path.stat().st_mtime)
        if name is None:
            if not logs:
                raise RunError(f"no run in ./{RUNS}")
            return cls(logs[-1].parent)
        for run in (cls(Path(name)), cls(RUNS / name)):
            if run.log.is_file():
                return run
        known = ", ".join(sorted(path.parent.name for path in logs)) or "none yet"
        raise RunError(f"{name}: no run of this name (no {LOG_FILE} there); here: {known}")

    def read_log(self) -> list[dict[str, Any]]:
        """The lines of the log; one that was cut off while it was written is left out.

        Raises:
            RunError: If the log cannot be read.
        """
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise RunError(f"{self.log}: cannot be read ({error.strerror})") from None
        entries = []
        for line in lines:
            with contextlib.suppress(ValueError):
                entries.append(json.loads(line))
        return [entry for entry in entries if isinstance(entry, dict)]

    def append_log(self, entry: Mapping[str, Any]) -> None:
        """Add a line to the log."""
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def find_model(spec: str | None) -> Path:
    """The model file that `-m SPEC` means.

    Args:
        spec: A file, a run's folder, the name of a run in ./checkpoints, or None for the newest run there.

    Raises:
        CheckpointError: If there is none.
    """
    if spec is None:
        models = sorted(RUNS.glob(f"*/{MODEL_FILE}"), key=lambda path: path.stat().st_mtime)
        if not models:
            raise CheckpointError(f"no model in ./{RUNS}: train one (charlm train shakespeare) or name one with -m")
        return models[-1]
    for path in (Path(spec), RUNS / spec):
        if path.is_file():
            return path
        if (path / MODEL_FILE).is_file():
            return path / MODEL_FILE
    known = sorted(path.parent.name for path in RUNS.glob(f"*/{MODEL_FILE}"))
    raise CheckpointError(
        f"{spec}: no model file and no run; " + (f"the runs here are {', '.join(known)}" if known else "none here yet")
    )
