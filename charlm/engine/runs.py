"""Runs: the folders `checkpoints/NAME/` that trainings write.

A run holds `model.safetensors`, the model with the lowest validation loss; `last.safetensors`, the state to resume
from; `previous.safetensors`, the state saved before that; `log.jsonl` with one JSON object per line; and `text.gz`, the
training text. The run of a classifier has `classifier.safetensors`, `classifier-last.safetensors` and
`classifier-previous.safetensors` instead, so that no command takes one for the other. The process that trains holds a
lock on the file `.lock`, which contains its process id.

This module does not import NumPy: the number of NumPy's threads depends on the size of the model file, and it must be
set before NumPy is imported.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from charlm.atomic import temporary_prefix
from charlm.errors import CheckpointError, RunError
from charlm.text.paths import access_problem

_PACKAGED_MODELS = Path(__file__).parents[1] / "models"
INCLUDED_MODELS = _PACKAGED_MODELS if _PACKAGED_MODELS.is_dir() else Path(__file__).parents[2] / "checkpoints"
"""Folder of the models that come with charlm: in an installed package, or in a clone of the repository."""

DEFAULT_MODEL = "shakespeare"
"""Included model that is used if there is no run."""

RUNS = Path("checkpoints")
"""Folder of all runs, relative to the working directory."""

MODEL_FILE = "model.safetensors"
LAST_FILE = "last.safetensors"
PREVIOUS_FILE = "previous.safetensors"
CLASSIFIER_FILE = "classifier.safetensors"
LAST_CLASSIFIER_FILE = "classifier-last.safetensors"
PREVIOUS_CLASSIFIER_FILE = "classifier-previous.safetensors"
LOG_FILE = "log.jsonl"
TEXT_FILE = "text.gz"
LOCK_FILE = ".lock"

RUN_FILES = (
    LAST_FILE,
    PREVIOUS_FILE,
    LAST_CLASSIFIER_FILE,
    PREVIOUS_CLASSIFIER_FILE,
    LOG_FILE,
    MODEL_FILE,
    CLASSIFIER_FILE,
)
"""Files of a run of any kind, those to resume from first."""

LOCKED_BYTE = 2**20
"""Offset of the byte that Windows locks. It lies after the process id, which stays readable."""

MAX_PID_BYTES = 20
"""Maximum length of a process id in the lock file, in bytes."""


@dataclass(frozen=True)
class Run:
    """Folder of one training.

    Attributes:
        path: The folder. It need not exist.
    """

    path: Path

    model_file: ClassVar[str] = MODEL_FILE
    last_file: ClassVar[str] = LAST_FILE
    previous_file: ClassVar[str] = PREVIOUS_FILE

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def model(self) -> Path:
        """File of the model with the lowest validation loss so far."""
        return self.path / self.model_file

    @property
    def last(self) -> Path:
        """File of the last saved training state."""
        return self.path / self.last_file

    @property
    def previous(self) -> Path:
        """File of the training state saved before the last one. It is used if the last one is damaged."""
        return self.path / self.previous_file

    @property
    def saves(self) -> list[Path]:
        """Files of saved training states that exist, newest first."""
        return [path for path in (self.last, self.previous) if os.path.isfile(path)]

    @property
    def log(self) -> Path:
        """File of the log, with one JSON object per line."""
        return self.path / LOG_FILE

    @property
    def text(self) -> Path:
        """File of the training text, compressed, to find copies of it."""
        return self.path / TEXT_FILE

    @property
    def exists(self) -> bool:
        """True if the folder contains a file of a run."""
        return any(os.path.exists(path) for path in self._files)

    @property
    def _files(self) -> list[Path]:
        """Files of a run of any kind, those to resume from first."""
        return [self.path / name for name in RUN_FILES]

    @classmethod
    @contextmanager
    def create(cls, name: str | None, suggestion: str, *, force: bool = False) -> Iterator["Run"]:
        """Create an empty run and lock it as `locked` does.

        Args:
            name: Name of the run, or None to use `suggestion`, with a number if that name is taken.
            suggestion: Name derived from the corpus.
            force: Whether an existing run called `name` is replaced.

        Raises:
            RunError: If the name is not a valid folder name, if it is taken and `force` is False, if another process
                trains the run, or if the folder cannot be written.
        """
        run = cls._first_free(suggestion) if name is None else cls.check_free(name, force=force)
        with run.locked():
            try:
                for path in (*run._files, run.text):
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise RunError(f"{run.path}: cannot be replaced ({error.strerror})") from None
            yield run

    @classmethod
    def check_free(cls, name: str, *, force: bool = False) -> "Run":
        """Return the run with a name, after checking that the name is free.

        Args:
            name: Name of the run.
            force: Whether an existing run may be replaced.

        Raises:
            RunError: If the name is not a valid folder name, or is taken and `force` is False.
        """
        run = cls.named(name)
        if run.exists and not force:
            raise RunError(
                f"{run.path}: this run exists already; set resume to continue it, force to replace it, or another name",
                fields=["resume", "force", "name"],
            )
        return run

    @classmethod
    def named(cls, name: str, *, field: str = "name") -> "Run":
        """Return the run with a name in ./checkpoints, whether it exists or not.

        Args:
            name: Name of the run.
            field: Name of the argument that gave the name, for the message.

        Raises:
            RunError: If the name is not a valid folder name.
        """
        if not name or name in {".", ".."} or not name.isprintable() or set(name) & set("/\\"):
            raise RunError(
                f"{field} {name!r}: not a valid folder name in ./{RUNS}; use printable characters without slashes",
                fields=[field],
            )
        return cls(RUNS / name)

    @classmethod
    def find_resumable(cls, name: str) -> "Run":
        """Return a run with a saved training state.

        Args:
            name: Name or folder of the run; empty for the run that was saved last.

        Raises:
            RunError: If there is no such run, or it has no saved training state.
        """
        if name:
            run = cls(Path(name)) if cls(Path(name)).saves else cls.named(name, field="resume")
            if not run.saves:
                if problem := access_problem(Path(name) / cls.last_file, run.last):
                    raise RunError(problem)
                raise RunError(f"{run.path}: nothing to resume ({cls.last_file} not found)")
            return run
        saves = _files_of_runs(cls.last_file, cls.previous_file)
        if not saves:
            raise RunError(f"./{RUNS}: no run to resume")
        return cls(saves[-1].parent)

    @classmethod
    def find(cls, name: str | None) -> "Run":
        """Return a run with a log.

        Args:
            name: Name or folder of the run, or None for the run whose log changed last.

        Raises:
            RunError: If there is no such run.
        """
        logs = _files_of_runs(LOG_FILE)
        if name is None:
            if not logs:
                raise RunError(f"./{RUNS}: no run found")
            return cls(logs[-1].parent)
        for run in (cls(Path(name)), cls(RUNS / name)):
            if os.path.isfile(run.log):
                return run
        if problem := access_problem(Path(name) / LOG_FILE, RUNS / name / LOG_FILE):
            raise RunError(problem)
        raise RunError(f"{name}: no run found ({LOG_FILE} is missing); {_names_of_runs(logs)}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for this process, and create its folder.

        The lock ends with the context, or with the process if that ends first. Temporary files that a killed process
        left in the folder are deleted.

        Raises:
            RunError: If another process holds the lock, or the folder cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be created ({error.strerror})") from None
        try:
            if not _lock(handle):
                pid = os.pread(handle, MAX_PID_BYTES, 0).decode("ascii", "replace") if hasattr(os, "pread") else ""
                raise RunError(
                    f"{self.path}: {f'process {pid}' if pid else 'another process'} is training this run; wait until "
                    "it ends, or set another name",
                    fields=["name"],
                )
            with suppress(OSError):  # the lock holds even if a full disk has no space for the process id
                os.ftruncate(handle, 0)
                os.write(handle, str(os.getpid()).encode())
            self._delete_temporary_files()
            yield
        finally:
            os.close(handle)

    def is_locked(self) -> bool:
        """Return whether another process holds the lock."""
        try:
            with self.path.joinpath(LOCK_FILE).open("rb+") as file:
                return not _lock(file.fileno())
        except OSError:
            return False

    def read_log(self) -> list[dict[str, Any]]:
        """Return the entries of the log. An incomplete line is skipped.

        Raises:
            RunError: If the log cannot be read.
        """
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise RunError(f"{self.log}: cannot be read ({error.strerror})") from None
        entries = []
        for line in lines:
            with suppress(ValueError):
                entries.append(json.loads(line))
        return [entry for entry in entries if isinstance(entry, dict)]

    def append_log(self, entry: Mapping[str, Any]) -> None:
        """Append an entry to the log. If writing fails, the log stays as it was.

        Raises:
            RunError: If the log cannot be written.
        """
        before = self.log_bytes
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            self.truncate_log(before)
            raise RunError(f"{self.log}: cannot be written ({error.strerror})") from None

    @property
    def log_bytes(self) -> int:
        """Length of the log in bytes; 0 if it does not exist."""
        return self.log.stat().st_size if os.path.exists(self.log) else 0

    def truncate_log(self, length: int) -> None:
        """Remove everything after the first `length` bytes of the log."""
        if self.log_bytes > length:
            os.truncate(self.log, length)

    @classmethod
    def _first_free(cls, suggestion: str) -> "Run":
        """Return the first run that is free, out of `suggestion`, `suggestion`-2, `suggestion`-3 and so on."""
        names = (f"{suggestion}-{number}" if number > 1 else suggestion for number in range(1, 10**6))
        return next(run for run in map(cls.named, names) if not run.exists and not run.is_locked())

    def _delete_temporary_files(self) -> None:
        for path in (self.model, self.last, self.text):
            for temporary in self.path.glob(f"{temporary_prefix(path)}*"):
                temporary.unlink(missing_ok=True)


class ClassifierRun(Run):
    """Folder of the training of a classifier."""

    model_file = CLASSIFIER_FILE
    last_file = LAST_CLASSIFIER_FILE
    previous_file = PREVIOUS_CLASSIFIER_FILE


def _lock(handle: int) -> bool:
    """Lock an open file unless another process has locked it. The system unlocks the file when it is closed.

    Returns:
        False if another process has locked the file.
    """
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
    except OSError:  # the file system has no locks
        return True
    return True


def list_runs() -> list[Run]:
    """Return the runs in ./checkpoints, the one that changed last first. A run that cannot be read is left out."""
    newest: dict[Path, None] = {}
    for file in reversed(_files_of_runs(*RUN_FILES)):
        newest.setdefault(file.parent)
    return [Run(folder) for folder in newest]


def included_models() -> list[str]:
    """Return the names of the models that come with charlm. In a clone, their folder also has the runs of the user."""
    return [DEFAULT_MODEL] if os.path.isfile(INCLUDED_MODELS / DEFAULT_MODEL / MODEL_FILE) else []


def find_model(spec: str | None) -> Path:
    """Return the path of a model file.

    Args:
        spec: A model file, the folder of a run, the name of a run in ./checkpoints or of an included model; or None for
            the newest run in ./checkpoints, or else the included model `DEFAULT_MODEL`.

    Raises:
        CheckpointError: If there is no such model file.
    """
    models = _files_of_runs(MODEL_FILE)
    if spec is None:
        for path in (*models[-1:], INCLUDED_MODELS / DEFAULT_MODEL / MODEL_FILE):
            if os.path.isfile(path):
                return path
        raise CheckpointError(
            f"./{RUNS}: no run found, and no model is included; train one (charlm train shakespeare) or set `model`",
            fields=["model"],
        )
    included = [INCLUDED_MODELS / spec] if Path(spec).name == spec else []
    return _find_file(
        spec,
        [Path(spec), RUNS / spec, *included],
        (MODEL_FILE, CLASSIFIER_FILE),
        f"no model file or run found; {_names_of_runs(models)}; included model: {DEFAULT_MODEL}",
    )


def find_classifier(spec: str | None) -> Path:
    """Return the path of the file of a classifier.

    Args:
        spec: The file, the folder of a run, or the name of a run in ./checkpoints; None for the newest classifier
            there.

    Raises:
        CheckpointError: If there is no such file.
    """
    models = _files_of_runs(CLASSIFIER_FILE)
    if spec is None:
        if not models:
            raise CheckpointError(f"./{RUNS}: no classifier found; train one with charlm classify train")
        return models[-1]
    included = [INCLUDED_MODELS / spec] if Path(spec).name == spec else []
    return _find_file(
        spec,
        [Path(spec), RUNS / spec, *included],  # the included models are language models, which the reader explains
        (CLASSIFIER_FILE, MODEL_FILE),
        f"no classifier found; {_names_of_runs(models)}",
    )


def name_of_model(path: Path) -> str:
    """Return the name of a model: that of its run, or that of its file without the suffix."""
    return path.resolve().parent.name if path.name == MODEL_FILE else path.stem


def origin_of_model(path: Path) -> str:
    """Return in words where `find_model` has found a model."""
    if path.is_relative_to(INCLUDED_MODELS):
        return "included with charlm"
    return f"run in ./{RUNS}" if path.is_relative_to(RUNS) else "file"


def _find_file(spec: str, candidates: list[Path], names: tuple[str, str], problem: str) -> Path:
    """Return the first candidate that is a file, or that is the folder of a run.

    Args:
        spec: Specification by the user.
        candidates: Files or folders.
        names: Names of the file in a folder: of the wanted kind, and of the other kind, whose reader then explains the
            mistake.
        problem: End of the message if there is no such file.

    Raises:
        CheckpointError: If there is none.
    """
    candidates = candidates if spec else []
    for path in candidates:
        if os.path.isfile(path):
            return path
        if os.path.isfile(path / names[0]):
            return path / names[0]
    for path in candidates:
        if os.path.isfile(path / names[1]):
            return path / names[1]
    if denied := access_problem(*candidates, *(path / names[0] for path in candidates)):
        raise CheckpointError(denied)
    raise CheckpointError(f"{spec or repr(spec)}: {problem}")


def _files_of_runs(*names: str) -> list[Path]:
    """Return the files with these names in the runs of ./checkpoints, the last one modified last.

    A run that cannot be read is left out.
    """
    found = []
    with suppress(OSError):
        for folder in sorted(RUNS.iterdir()):
            for name in names:
                path = folder / name
                if os.path.isfile(path):
                    found.append((os.path.getmtime(path), path))
    return [path for _, path in sorted(found, key=lambda pair: pair[0])]


def _names_of_runs(files: list[Path]) -> str:
    """Return a phrase that lists the runs to which files belong."""
    names = sorted(file.parent.name for file in files)
    return f"runs in ./{RUNS}: {', '.join(names)}" if names else f"./{RUNS} has no runs"
