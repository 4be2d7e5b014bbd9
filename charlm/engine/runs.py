"""Runs: the folders that training leaves, `checkpoints/NAME/`.

`model.safetensors` is the best model on validation, `last.safetensors` has all that resuming needs,
`previous.safetensors` is the save before it, and `log.jsonl` has a line a report. `.lock` is held by the process
that trains, and says which one that is.

Finding a model goes before all else, and so needs no NumPy: its threads are counted by the model's size.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlm.errors import CheckpointError, RunError

RUNS = Path("checkpoints")
MODEL_FILE = "model.safetensors"
LAST_FILE = "last.safetensors"
PREVIOUS_FILE = "previous.safetensors"
LOG_FILE = "log.jsonl"
LOCK_FILE = ".lock"
LOCKED_BYTE = 2**20
"""Where Windows locks the lock file: past the text in it, which stays readable."""


def temporary_prefix(path: Path) -> str:
    """What the names of files begin with that are to become `path` and are not whole yet."""
    return f".{path.name}."


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
    def previous(self) -> Path:
        """The state before that, should the last be damaged."""
        return self.path / PREVIOUS_FILE

    @property
    def saves(self) -> list[Path]:
        """The states to resume from that there are, newest first."""
        return [path for path in (self.last, self.previous) if path.is_file()]

    @property
    def log(self) -> Path:
        """The log, one JSON object a line."""
        return self.path / LOG_FILE

    @property
    def exists(self) -> bool:
        """Whether there is anything of a run here."""
        return any(path.exists() for path in (self.model, self.last, self.previous, self.log))

    @classmethod
    @contextmanager
    def create(cls, name: str | None, suggestion: str, *, force: bool = False) -> Iterator["Run"]:
        """Make room for a new run, and hold it as `claimed` does.

        Args:
            name: The name asked for, or None to take the suggestion, numbered if it is taken.
            suggestion: A name from the corpus.
            force: Let a run of the name asked for be replaced.

        Raises:
            RunError: If the name is no folder name, or taken and `force` is not given.
        """
        if name is not None:
            run = cls.check_free(name, force=force)
        else:
            names = (f"{suggestion}-{number}" if number > 1 else suggestion for number in range(1, 10**6))
            run = next(run for run in map(cls.named, names) if not run.exists and not run.is_claimed())
        with run.claimed():
            try:
                for path in (run.last, run.previous, run.log, run.model):  # of the run to be replaced
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise RunError(f"{run.path}: cannot be replaced ({error.strerror})") from None
            yield run

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the run for this process: another one is refused until then, or until this process is dead.

        Raises:
            RunError: If another process has it, or its folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be made ({error.strerror})") from None
        try:
            if not _lock(handle):
                owner = os.pread(handle, 20, 0).decode("ascii", "replace") if hasattr(os, "pread") else ""
                raise RunError(
                    f"{self.path}: another charlm train is at work on this run (process {owner or 'unknown'}); "
                    "wait for its end, or take another --name"
                )
            with suppress(OSError):  # a full disk has no room for the number, and the lock holds without it
                os.ftruncate(handle, 0)
                os.write(handle, str(os.getpid()).encode())
            for path in (self.model, self.last):  # what a killed process left
                for rest in self.path.glob(f"{temporary_prefix(path)}*"):
                    rest.unlink(missing_ok=True)
            yield
        finally:
            os.close(handle)

    def is_claimed(self) -> bool:
        """Whether another process has the run."""
        try:
            with self.path.joinpath(LOCK_FILE).open("rb+") as file:
                return not _lock(file.fileno())
        except OSError:
            return False

    @classmethod
    def check_free(cls, name: str, *, force: bool = False) -> "Run":
        """The run that a name is free for.

        Raises:
            RunError: If the name is no folder name, or taken and `force` is not given.
        """
        run = cls.named(name)
        if run.exists and not force:
            raise RunError(
                f"{run.path}: a run of this name exists; go on with it (--resume {name}), replace it (--force) "
                "or take another --name"
            )
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
            run = cls(Path(name)) if cls(Path(name)).saves else cls.named(name)
            if not run.saves:
                raise RunError(f"{run.path}: nothing to resume, no {LAST_FILE} there")
            return run
        saved = [path for file in (LAST_FILE, PREVIOUS_FILE) for path in RUNS.glob(f"*/{file}")]
        if not saved:
            raise RunError(f"nothing to resume: no run in ./{RUNS}")
        return cls(max(saved, key=lambda path: path.stat().st_mtime).parent)

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
        """Add a line to the log, or, if that fails, nothing.

        Raises:
            RunError: If the log cannot be written.
        """
        before = self.log_bytes
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            self.cut_log(before)
            raise RunError(f"{self.log}: cannot be written ({error.strerror})") from None

    @property
    def log_bytes(self) -> int:
        """The length of the log."""
        return self.log.stat().st_size if self.log.exists() else 0

    def cut_log(self, length: int) -> None:
        """Take from the log what comes after its first `length` bytes."""
        if self.log_bytes > length:
            os.truncate(self.log, length)


def _lock(handle: int) -> bool:
    """Take an open file for this process, if no other one has it; the system gives it back when it is closed."""
    if sys.platform == "win32":
        import msvcrt

        try:
            os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


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
