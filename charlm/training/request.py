"""Request for a training: its texts, its settings and its hardware."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.config import ModelConfig, TokenizerConfig, TrainConfig
from charlm.errors import ConfigError, CorpusError
from charlm.text.corpus import CorpusReader
from charlm.text.id_cache import cache_folder
from charlm.text.records import Table
from charlm.text.sources import STDIN
from charlm.training.launch import rank_and_count

if TYPE_CHECKING:
    from charlm.training.throughput import Machine

CONFIGS = (TokenizerConfig, ModelConfig, TrainConfig)
"""Classes whose fields are settings of a training."""

PATHS = ("glove", "cache")
"""Settings that are paths."""

SPIN_COUNT = "4000"
"""Value of GOMP_SPINCOUNT: number of polls of an idle OpenMP thread before it sleeps. With the default, millions, two
trainings on two cores are a hundred times slower than one. This value makes a single training 5 to 8 % slower."""

CUBLAS_WORKSPACE = ":4096:2"
"""Value of CUBLAS_WORKSPACE_CONFIG that makes cuDNN's recurrent layers deterministic; see PyTorch's `nn.LSTM`."""


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """Options for reading texts.

    Attributes:
        encoding: Encoding of the texts; None for UTF-8, or for the encoding of the run if it is resumed.
        errors: Treatment of invalid bytes; None for `strict`, or for the treatment of the run if it is resumed.
        cache: Folder for the ids of texts too long for memory; None for the user's cache.
        field: Column of a table or key of JSON lines to train on; None to train on whole texts.
        table: Format of the table, one of `charlm.config.TABLE_FORMATS`; None to choose it by the name of the file.
    """

    encoding: str | None = None
    errors: str | None = None
    cache: Path | None = None
    field: str | None = None
    table: str | None = None

    @property
    def cache_folder(self) -> Path:
        """Folder of the cache."""
        return self.cache or cache_folder()


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Device and threads of a training.

    Attributes:
        device: cpu, cuda, mps or auto.
        threads: Number of threads; None to choose it automatically.
        started: Time at which the time limit begins, in seconds of `time.monotonic`.
    """

    device: str = "auto"
    threads: int | None = None
    started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, kw_only=True)
class Request:
    """Training that a user asks for.

    Attributes:
        corpus: Files, folders, patterns, `-`, or named corpora to train on.
        validation: Texts to validate on; none to use the end of the corpus.
        settings: Values of the fields of TokenizerConfig, ModelConfig and TrainConfig; None for those not given.
        glove: File of word vectors to initialise the embeddings from.
        pretrained: Model to start from, a file or a run.
        name: Name of the run; None to use `default_name`.
        default_name: Name to use if `name` is None, with a number if it is taken; None to derive it from the corpus.
        force: Whether to replace a run of the same name, or to resume even if the corpus has changed.
        text: Options for reading the texts.
        hardware: Device and threads.
        command: Command that the model file records.
    """

    corpus: Sequence[str] = ()
    validation: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    glove: Path | None = None
    pretrained: str | None = None
    name: str | None = None
    default_name: str | None = None
    force: bool = False
    text: TextOptions = field(default_factory=TextOptions)
    hardware: Hardware = field(default_factory=Hardware)
    command: str = ""


def request_from_settings(settings: Mapping[str, Any], **given: Any) -> Request:
    """Return a request from a flat set of settings.

    Args:
        settings: Values by name: fields of TokenizerConfig, ModelConfig, TrainConfig and TextOptions; `device` and
            `threads` of Hardware; `glove` and `force` of Request.
        **given: Other fields of the request.

    Raises:
        TypeError: If a setting does not exist.
    """
    groups: dict[str, dict[str, Any]] = {"text": {}, "hardware": {}, "request": {}, "config": {}}
    for name, value in settings.items():
        groups[_group_of(name)][name] = Path(value) if name in PATHS and value is not None else value
    return Request(
        settings=groups["config"],
        text=TextOptions(**groups["text"]),
        hardware=Hardware(**groups["hardware"]),
        **groups["request"],
        **given,
    )


def _group_of(name: str) -> str:
    if name in {spec.name for spec in fields(TextOptions)}:
        return "text"
    if name in {"device", "threads"}:
        return "hardware"
    if name in {"glove", "force"}:
        return "request"
    if any(name == spec.name for config in CONFIGS for spec in fields(config) if spec.metadata["rule"].flags):
        return "config"
    raise TypeError(f"train has no setting {name!r}")


def open_corpus(specs: Sequence[str], encoding: str, errors: str, options: TextOptions) -> CorpusReader:
    """Open a text.

    Raises:
        CorpusError: If it is missing, or several processes would have to share standard input.
        ConfigError: If the format of a table is given without a field.
    """
    if options.table is not None and options.field is None:
        raise ConfigError("table needs field: name the column to train on", fields=["table", "field"])
    if STDIN in specs and rank_and_count()[1] > 1:
        raise CorpusError("standard input cannot be shared by several processes: give a file")
    table = None if options.field is None else Table((options.field,), options.table)
    return CorpusReader(specs, encoding=encoding, errors=errors, folder=options.cache_folder, table=table)


def set_environment() -> None:
    """Set environment variables that PyTorch's libraries read when PyTorch is imported, unless they are set already."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)


@contextmanager
def open_machine(hardware: Hardware) -> Iterator["Machine"]:
    """Import PyTorch and find the device; connect to the other processes if torchrun has started several.

    Raises:
        ConfigError: If the device does not exist, or the number of threads is out of range.
        PeerLostError: If another process has ended.
    """
    TrainConfig.pick({"threads": hardware.threads})
    set_environment()
    import torch

    from charlm.training.distributed import find_device, joined_workers
    from charlm.training.throughput import Machine

    torch.set_flush_denormal(True)
    if hardware.threads is not None:
        torch.set_num_threads(hardware.threads)
    device = find_device(hardware.device)
    with joined_workers(device) as workers:
        yield Machine(device, workers, hardware.started, may_use_fewer_threads=hardware.threads is None)


def refuse_contradictions(given: Mapping[str, Any], known: Mapping[str, Any], source: str) -> None:
    """Refuse a setting that is given with another value than the known one.

    Args:
        given: Values by name; None for those not given.
        known: Values that are fixed, by name.
        source: Description of the origin of the known values, for the message.

    Raises:
        ConfigError: If there is such a setting.
    """
    for name, value in given.items():
        if value is not None and value != known[name]:
            unit = " minutes" if name == "minutes" and known[name] is not None else ""
            raise ConfigError(
                f"`{name}` {_value_text(value)} contradicts {_value_text(known[name])}{unit}, {source}: omit it",
                fields=[name],
            )


def _value_text(value: Any) -> str:  # noqa: ANN401 - a value of any setting
    """Return the value of a setting for a message, as the help text shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "no value" if value is None else str(value)
