"""Preparation of the resumed training of a classifier: find the save, check settings and samples."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from typing import Any

from charlm.classifier_config import ClassifierTrainConfig
from charlm.engine.classifier_file import ClassifierCheckpoint, load_classifier
from charlm.engine.runs import ClassifierRun, Run
from charlm.errors import CheckpointError, ConfigError, CorpusError, RunError
from charlm.settings import from_dict
from charlm.text.labelled import LabelledOptions, read_labelled
from charlm.training.classifier_data import samples_hash, split_samples
from charlm.training.classifier_planner import ClassifierPlan
from charlm.training.classifier_setup import Announce, ClassifierRequest, ClassifierTraining
from charlm.training.request import open_machine, refuse_contradictions
from charlm.training.resumption import load_save


@contextmanager
def prepare_resumed_classifier(
    request: ClassifierRequest, name: str, announce: Announce = lambda part: None
) -> Iterator[ClassifierTraining]:
    """Prepare to continue the training of a classifier, with the settings and the samples that it started with.

    Args:
        request: Settings, which must equal those of the run if they are given; and the samples, if they have moved.
        name: Name or folder of the run; an empty string for the newest.
        announce: Called at the beginning of each part of the preparation, with its description.

    Raises:
        CharlmError: Of any kind, if the run cannot be continued.
    """
    run = ClassifierRun.find_resumable(name)
    with ExitStack() as stack:
        stack.enter_context(run.locked())
        saved, notes = load_save(run, load_classifier)
        config, recorded = _origin(run, saved)
        known = {**asdict(saved.config), **asdict(config), "tokenizer": saved.tokenizer.kind}
        refuse_contradictions(request.settings, known, "with which the run started")
        announce("reading the samples")
        reading = LabelledOptions(**recorded["reading"])
        found = read_labelled(request.samples or recorded["sources"], reading)
        validation = read_labelled(recorded["validation"], reading) if recorded["validation"] else None
        samples = [*found.samples, *(validation.samples if validation else ())]
        if samples_hash(samples) != recorded["sha256"]:
            raise CorpusError(
                f"{' '.join(recorded['sources'])}: differs from the samples with which {run.path} started"
            )
        split = split_samples(found, validation, config.val_fraction, config.seed)
        announce("starting PyTorch")
        machine = stack.enter_context(open_machine(request.hardware))
        metadata = {key: value for key, value in saved.metadata.items() if key not in ("resume", "finished", "metrics")}
        steps = saved.metadata["steps"]
        epochs = steps / math.ceil(len(split.train) / config.batch_size)
        yield ClassifierTraining(
            run=run,
            split=split,
            plan=ClassifierPlan(model=saved.config, train=config, steps=steps, epochs=epochs),
            content=replace(saved, tensors={}, metadata=metadata),
            machine=machine,
            notes=tuple(notes),
            saved=saved,
        )


def _origin(run: Run, saved: ClassifierCheckpoint) -> tuple[ClassifierTrainConfig, dict[str, Any]]:
    """Return the settings and the description of the samples that a save records. The save is untrusted.

    Raises:
        RunError: If the training is complete.
        CheckpointError: If the save is damaged.
    """
    if saved.metadata.get("finished") is True:
        raise RunError(f"{run.path}: this training is complete; there is nothing to resume")
    match saved.metadata:
        case {
            "training": dict(training),
            "steps": int(steps),
            "samples": {"sources": [str(), *_], "validation": [*_], "reading": dict(), "sha256": str()} as samples,
        } if steps > 0:
            try:
                LabelledOptions(**samples["reading"])
                return from_dict(ClassifierTrainConfig, training), samples
            except (ConfigError, TypeError) as error:
                raise CheckpointError(f"{run.path}: damaged save ({str(error)[:80]})") from None
    raise CheckpointError(f"{run.path}: damaged save (it does not record its samples)")
