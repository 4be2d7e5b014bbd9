"""Summaries of runs and of included models, from the headers of their model files."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlm.engine.checkpoint import read_metadata
from charlm.engine.runs import (
    CLASSIFIER_FILE,
    INCLUDED_MODELS,
    MODEL_FILE,
    RUN_FILES,
    Run,
    included_models,
    list_runs,
)
from charlm.errors import CheckpointError

MODEL_FILES = (MODEL_FILE, CLASSIFIER_FILE)
"""Names of the files that a run is trained for."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Facts about a run or an included model. A fact that is not known is None.

    Attributes:
        name: Name under which commands find the model.
        path: The folder.
        val_nats: Lowest validation loss in nats per token; for a classifier in nats per text.
        val_bits_per_char: The same loss in bits per character.
        num_bytes: Size of the model file in bytes.
        modified: Time of the last change of a file of a run, in seconds since 1970.
        corpus: Name of the training text; for a classifier the names of its samples.
        included: Whether the model came with charlm.
        training: Whether a process is training the run.
        problem: Reason why the model file cannot be read, or an empty string.
    """

    name: str
    path: Path
    val_nats: float | None = None
    val_bits_per_char: float | None = None
    num_bytes: int | None = None
    modified: float | None = None
    corpus: str | None = None
    included: bool = False
    training: bool = False
    problem: str = ""


def summarize_runs() -> Iterator[RunSummary]:
    """Yield the runs in ./checkpoints, the one that changed last first, and then the included models.

    An included model with the name of a run is left out, because the name stands for the run.
    """
    names = set()
    for run in list_runs():
        names.add(run.name)
        yield _summarize(run, included=False)
    for name in included_models():
        if name not in names:
            yield _summarize(Run(INCLUDED_MODELS / name), included=True)


def _summarize(run: Run, *, included: bool) -> RunSummary:
    metadata: dict[str, Any] = {}
    problem = ""
    files = [path for path in (run.path / name for name in reversed(RUN_FILES)) if os.path.isfile(path)]
    source = next((path for path in files if path != run.log), None)
    if source is not None:
        try:
            metadata = read_metadata(source)
        except CheckpointError as error:
            problem = str(error)
    metrics, corpus, samples = (_dict(metadata.get(key)) for key in ("metrics", "corpus", "samples"))
    sources = samples.get("sources")
    corpus_name = " ".join(map(str, sources)) if isinstance(sources, list) else corpus.get("name")
    return RunSummary(
        name=run.name,
        path=run.path,
        val_nats=_number(metrics.get("val_nats")),
        val_bits_per_char=_number(metrics.get("val_bits_per_char")),
        num_bytes=os.path.getsize(source) if source is not None and source.name in MODEL_FILES else None,
        modified=None if included else max(map(os.path.getmtime, files), default=None),
        corpus=corpus_name if isinstance(corpus_name, str) else None,
        included=included,
        training=not included and run.is_locked(),
        problem=problem,
    )


def _dict(value: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON of a file
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:  # noqa: ANN401 - JSON of a file
    """Return a finite number, or None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    return float(value) if is_number else None
