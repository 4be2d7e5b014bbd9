"""Files of a running training: the best model, the saves to resume from, and the log."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from torch import Tensor

from charlm.config import NGRAM_CELL, ModelConfig, TrainConfig
from charlm.engine.adaptive import Adaptation
from charlm.engine.checkpoint import RESUME_PREFIX, Checkpoint, NGramPart, save_checkpoint
from charlm.engine.ngram import NGram
from charlm.engine.runs import Run
from charlm.errors import CharlmError
from charlm.training.dataset import Dataset
from charlm.training.network import LanguageModel
from charlm.training.progress import Progress
from charlm.training.state import Counters


class CheckpointWriter:
    """Writer of the files of a run. Only the first process writes.

    If a file cannot be written, for instance because the disk is full, the user is warned once and the training
    continues. The best model stays in memory until the next save. A failure at the end of the training is an error.

    Args:
        run: Folder of the training.
        model: The model.
        dataset: Dataset of the training, for the vocabulary, its spelling and the units of the loss.
        config: Settings of the training.
        metadata: Metadata of the model files besides settings and metrics.
        warn: Function that shows a message to the user.

    Attributes:
        last_save_seconds: Time of the last save, in seconds of the training.
        adaptation: Constants of the adaptive part of the model, which all files get.
    """

    def __init__(
        self,
        run: Run,
        model: LanguageModel,
        dataset: Dataset,
        config: TrainConfig,
        *,
        metadata: dict[str, Any],
        warn: Callable[[str], None],
    ) -> None:
        self._run = run
        self._model = model
        self._tokenizer = dataset.tokenizer
        self._metadata = {**metadata, "training": asdict(config)}
        self._dtype = np.float16 if config.half else np.float32
        self._spelling = dataset.spelling
        self._units = dataset.loss_units
        self._warn = warn
        self._save_every = config.save_every
        self.last_save_seconds = 0.0
        self.adaptation: Adaptation | None = None
        self._unsaved_best: Checkpoint | None = None
        self._has_warned = False

    @property
    def has_model(self) -> bool:
        """True if there is a best model, on disk or in memory."""
        return self._run.model.exists() or self._unsaved_best is not None

    def is_save_due(self, seconds: float) -> bool:
        """Return True if the next save is due.

        Args:
            seconds: Time used by the training, in seconds.
        """
        return seconds - self.last_save_seconds >= self._save_every

    def log(self, progress: Progress) -> None:
        """Append a line to the log, if possible."""
        self._try_to_write(lambda: self._run.append_log(progress.to_metrics(self._units)))

    def write_best(self, progress: Progress, counts: NGramPart | None = None) -> None:
        """Write the model's current weights as the best model. If that fails, keep a copy in memory.

        Args:
            progress: Progress for the metrics.
            counts: N-gram model of the best model.
        """
        self._unsaved_best = self._checkpoint(progress, self._model_tensors(), counts)
        if not self._try_to_write(self.flush):
            self.keep_best(progress, counts)

    def keep_best(self, progress: Progress, counts: NGramPart | None = None) -> None:
        """Keep a copy of the model's current weights in memory as the best model, until the next save."""
        copies = {name: np.array(array) for name, array in self._model_tensors().items()}
        self._unsaved_best = self._checkpoint(progress, copies, counts)

    def write_ngrams(self, progress: Progress, ngram: NGram) -> None:
        """Write a model without a network, so that there is a model until the first validation."""
        config = ModelConfig(vocab_size=self._model.config.vocab_size, cell=NGRAM_CELL)
        alone = self._checkpoint(progress, {}, NGramPart(ngram=ngram, weight=1.0))
        self._unsaved_best = replace(alone, config=config)
        self._try_to_write(self.flush)

    def flush(self) -> None:
        """Write the best model if it is not on disk yet.

        Raises:
            CheckpointError: If it cannot be written.
        """
        if self._unsaved_best is not None:
            save_checkpoint(self._run.model, self._unsaved_best)
            self._unsaved_best = None

    def save(
        self,
        progress: Progress,
        counters: Counters,
        tensors: dict[str, Tensor],
        counts: NGramPart | None = None,
        *,
        finished: bool,
        must: bool,
    ) -> None:
        """Write the best model, if it is not on disk yet, and a save to resume from.

        Args:
            progress: Progress for the metrics.
            counters: Counters of the training.
            tensors: State of the training, without the weights.
            counts: N-gram model, also if its weight is 0.
            finished: Whether the training is complete.
            must: Whether to raise an error if a file cannot be written. Otherwise, the user is warned, and the next
                save tries again.

        Raises:
            CheckpointError: If a file cannot be written and `must` is set.
        """
        self.last_save_seconds = counters.seconds

        def write() -> None:
            self.flush()
            named = {RESUME_PREFIX + name: value.cpu().numpy() for name, value in tensors.items()}
            resume = asdict(replace(counters, log_bytes=self._run.log_bytes))
            everything = self._model.to_tensors() | named
            checkpoint = self._checkpoint(progress, everything, counts, finished=finished, resume=resume)
            save_checkpoint(self._run.last, checkpoint, keep=self._run.previous)
            self._has_warned = False

        if must:
            write()
        else:
            self._try_to_write(write)

    def _try_to_write(self, write: Callable[[], None]) -> bool:
        """Call a function that writes. Return False and warn the user, once, if it fails."""
        try:
            write()
        except CharlmError as error:
            if not self._has_warned:
                self._warn(f"{error}; the training continues, and the next save will try again")
            self._has_warned = True
            return False
        return True

    def _model_tensors(self) -> dict[str, Any]:
        """Return the weights in the number format of the model file."""
        return {name: array.astype(self._dtype, copy=False) for name, array in self._model.to_tensors().items()}

    def _checkpoint(
        self, progress: Progress, tensors: dict[str, Any], counts: NGramPart | None, **more: Any
    ) -> Checkpoint:
        metadata = {**self._metadata, "metrics": progress.to_metrics(self._units), **more}
        return Checkpoint(
            config=self._model.config,
            tokenizer=self._tokenizer,
            tensors=tensors,
            counts=counts,
            adaptation=self.adaptation,
            spelling=self._spelling,
            metadata=metadata,
        )
