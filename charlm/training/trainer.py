"""Training loop of a language model.

Without a time limit, batches, learning rate and random numbers depend only on values that a save contains. Therefore, a
resumed training equals an uninterrupted one bit for bit. With a time limit, the learning rate depends on the clock.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from charlm.config import TrainConfig
from charlm.engine.adaptive import Adaptation
from charlm.engine.checkpoint import Checkpoint, NGramPart, load_checkpoint
from charlm.engine.ngram import NGram
from charlm.engine.predictor import START
from charlm.engine.runs import Run
from charlm.errors import CheckpointError
from charlm.text.ids import Ids
from charlm.training.batches import Batches, StreamBatches
from charlm.training.callbacks import Callbacks
from charlm.training.checkpoint_writer import CheckpointWriter
from charlm.training.dataset import Dataset
from charlm.training.distributed import Workers
from charlm.training.divergence import DivergedError, DivergenceGuard
from charlm.training.items import ItemBatches, Items
from charlm.training.network import LanguageModel, State, reset_state
from charlm.training.optimizer import make_optimizer
from charlm.training.progress import Progress
from charlm.training.schedule import Schedule, learning_rate
from charlm.training.state import Counters, TrainingState, resumed_tensors
from charlm.training.stopwatch import Stopwatch
from charlm.training.throughput import Machine, mixed_precision
from charlm.training.validation import ItemValidator, TextValidator, ValidationLoss, Validator


class Trainer:
    """Training of a model, from its first update or from a save.

    Args:
        model: The network, on the device of the machine.
        dataset: Training text, validation text and vocabulary. Without a validation text, the last model counts as the
            best.
        config: Settings of the training.
        run: Folder for the model files and the log.
        metadata: Metadata of the model files besides settings and metrics.
        callbacks: Functions that receive progress and warnings, and that end the training.
        machine: Device, processes and clock. Every process makes a trainer and calls the same methods.
        ngram: N-gram model that is interpolated with the network; only the first process needs it.
    """

    def __init__(
        self,
        model: LanguageModel,
        dataset: Dataset,
        config: TrainConfig,
        *,
        run: Run,
        metadata: dict[str, Any],
        callbacks: Callbacks | None = None,
        machine: Machine | None = None,
        ngram: NGram | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self._run = run
        self._machine = machine = machine or Machine()
        self._workers = workers = machine.workers
        self._callbacks = callbacks = callbacks or Callbacks()
        self._watch = Stopwatch(machine.clock, machine.clock() - machine.started)
        start_id = int(dataset.tokenizer.encode(START)[0])
        self._batches = _make_batches(dataset, config, start_id, workers)
        self._validator = _make_validator(model, dataset, start_id, callbacks, ngram)
        self._counts = None if ngram is None else NGramPart(ngram=ngram, weight=0.0)
        self._schedule = Schedule(config, self._watch, self._batches, self._validator.num_tokens)
        self._state = TrainingState(
            model=model,
            optimizer=make_optimizer(model, config),
            streams=model.core.zero_state(config.batch_size),
            counters=Counters(next_validation=self._schedule.next_validation(0)),
        )
        self._guard = DivergenceGuard(self._state, config.learning_rate, run, callbacks.warn)
        self._writer = CheckpointWriter(run, model, dataset, config, metadata=metadata, warn=callbacks.warn)
        self._fraction_done = 0.0  # of the first process
        self._is_complete = False
        self._began_seconds, self._began_step = 0.0, 0
        self._validates_early = False

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from a save.

        Args:
            checkpoint: The save, loaded with `with_resume`.

        Raises:
            CheckpointError: If the save does not fit the model, or is damaged.
        """
        tensors = resumed_tensors(checkpoint.tensors)
        try:
            counters = Counters.from_metadata(checkpoint.metadata)
            same_count = counters.workers == self._workers.count
            if not same_count:
                self._callbacks.warn(
                    f"saved by {counters.workers} process(es), continued by {self._workers.count}: "
                    "the streams start at new positions of the text"
                )
            self.model.load_tensors(checkpoint.tensors)
            self._state.restore(tensors, self._workers, with_streams=same_count)
        except CheckpointError as error:
            raise CheckpointError(f"{self._run.path}: {error}") from None
        self._state.counters = counters
        self._writer.adaptation = checkpoint.adaptation
        if self._counts is not None:
            self._counts = checkpoint.counts
        self._watch.add(counters.seconds)
        if self._workers.is_first:
            self._run.truncate_log(counters.log_bytes)

    def train(self, pretrained: bool = False) -> Progress:
        """Train until the end or until the caller stops it, and save.

        Args:
            pretrained: Whether the model has been trained before. It is then validated before the first update, and
                counts as the best until an update improves it; and it is validated more often at the beginning.

        Returns:
            The progress at the end.

        Raises:
            TrainingError: If the training diverges repeatedly.
            CheckpointError: If the model cannot be written at the end. A failure before the end is only a warning.
        """
        self._begin(pretrained=pretrained)
        while True:
            self._validate_and_report()
            stop, save, keep = self._agree()
            if stop or self._fraction_done >= 1:
                return self._finish()
            if keep:
                self._guard.keep_snapshot()
            if save:
                self._save(must=False)
            try:
                self.update()
            except DivergedError as error:
                self._guard.recover(error)

    def _begin(self, *, pretrained: bool) -> None:
        """Prepare the first update."""
        self.model.train()
        self._validates_early = pretrained
        self._began_seconds, self._began_step = self._watch.read(), self._state.counters.step
        self._writer.last_save_seconds = self._began_seconds
        self._guard.keep_snapshot()
        if not self._workers.is_first:
            return
        if self.config.minutes is not None:
            self._validator.limit_time(self._schedule, self._watch)
        if pretrained and self._validator.num_tokens and self._state.counters.best_nats is None:
            self._validate()
        elif self._counts is not None and not self._writer.has_model:
            nats = self._validator.ngram_loss()
            progress = replace(self._progress(nats), val_nats_ngram=nats)
            self._writer.write_ngrams(progress, self._counts.ngram)

    def update(self) -> None:
        """Train on one batch.

        Raises:
            DivergedError: If the loss or the gradient is out of range. The weights are not changed in this case.
        """
        state, counters = self._state, self._state.counters
        planned_rate = learning_rate(self.config, self._fraction_done)
        counters.learning_rate = planned_rate * counters.rate_scale
        for group in state.optimizer.param_groups:
            group["lr"] = counters.learning_rate * group["rate"]
        nats, streams = self._forward_and_backward()
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip))
        recent_nats = self._guard.check(nats, norm)
        state.optimizer.step()
        state.streams = tuple(part.detach().float() for part in streams)
        counters.step += 1
        state.average.update(counters.step, planned_rate / self.config.learning_rate)
        counters.recent_nats = recent_nats
        counters.loss_sum += nats
        counters.loss_steps += 1

    def _forward_and_backward(self) -> tuple[float, State]:
        """Compute the gradients of a batch; return its loss in nats per token and the new state of the streams."""
        step, device = self._state.counters.step, self._machine.device
        ids, targets = (torch.from_numpy(part).to(device) for part in self._batches.inputs_and_targets(step))
        streams = reset_state(self._state.streams, self._batches.resets(step))
        self._state.optimizer.zero_grad()
        with mixed_precision(self.config.precision, device):
            loss, streams = self.model.loss(
                ids,
                targets,
                streams,
                samples=self.config.softmax_samples or 0,
                num_targets=self._batches.num_targets,
            )
        loss.backward()  # type: ignore[no-untyped-call]
        return self._workers.average_gradients(self.model, float(loss.detach())), streams

    def _agree(self) -> tuple[bool, bool, bool]:
        """Return whether to stop, to save and to keep a snapshot.

        The answers are the same in all processes, because the clock of the first process decides.
        """
        first = self._workers.is_first
        values = [
            self._fraction() if first else 0.0,
            self._callbacks.stop(),
            first and self._writer.is_save_due(self._watch.read()),
            self._guard.is_due,
        ]
        reduced = self._workers.all_reduce_max([float(value) for value in values], self._machine.device)
        self._fraction_done = reduced[0]
        stop, save, keep = (value > 0 for value in reduced[1:])
        return stop, save, keep

    def _validate_and_report(self) -> None:
        """Validate, write the log and report, if that is due.

        Without a time limit, this depends only on numbers that a save contains.
        """
        fraction, counters = self._fraction(), self._state.counters
        if not self._workers.is_first or fraction >= 1 or not counters.step:
            return
        is_report_due = fraction >= counters.next_report
        is_validation_due = is_report_due and fraction >= counters.next_validation
        is_validation_due = is_validation_due and self._schedule.has_time_to_validate()
        if is_validation_due or self._is_early_validation_due():
            if self._validate(early=not is_validation_due) is None:
                return  # the validation was stopped and remains due
            if is_validation_due:
                counters.next_validation = self._schedule.next_validation(fraction)
        elif is_report_due and counters.loss_steps:
            self._log(self._progress())
        if is_report_due:
            counters.next_report = self._schedule.next_report(fraction)
            self._guard.request_snapshot()
        self._callbacks.report(self._progress())

    def _is_early_validation_due(self) -> bool:
        counters = self._state.counters
        is_new = self._validates_early and counters.step > counters.validated_step
        return is_new and bool(self._validator.num_tokens) and self._schedule.is_early_validation(counters.step)

    def _validate(self, *, early: bool = False) -> Progress | None:
        """Validate the averaged weights, and write them if they are the best so far.

        Without a validation text, they always count as the best.

        Args:
            early: Whether the validation is none of the evenly spaced ones, which `patience` counts.

        Returns:
            The progress; None if the validation was stopped.
        """
        with self._state.average.applied(half=self.config.half):
            began, result, counters = self._watch.read(), None, self._state.counters
            if self._validator.num_tokens:
                result = self._validator.validate()
                if result is None:
                    return None
            nats = None if result is None else result.nats
            is_best = nats is None or counters.best_nats is None or nats < counters.best_nats
            if is_best:
                counters.best_nats = nats
                counters.validations_without_improvement = 0
            elif not early:
                counters.validations_without_improvement += 1
            counters.validated_step = counters.step
            progress = self._with_parts(self._progress(nats), result)
            if is_best and result is not None:
                progress = self._with_adaptation(progress, result)
            self._schedule.record_validation(self._watch.read() - began)
            if is_best:
                self._writer.write_best(progress, self._used_counts)
            self._log(progress)
            self._callbacks.report(progress)
        return progress

    def _with_parts(self, progress: Progress, result: ValidationLoss | None) -> Progress:
        """Record the weight of the n-gram model, and return the progress with the losses of network and n-grams."""
        if self._counts is None or result is None:
            return progress
        self._counts = replace(self._counts, weight=result.weight, gate=result.gate)
        return replace(
            progress,
            val_nats_network=result.network_nats,
            val_nats_ngram=result.ngram_nats,
            ngram_weight=result.weight,
        )

    def _with_adaptation(self, progress: Progress, result: ValidationLoss) -> Progress:
        """Fit the adaptive part to the validation text, and return the progress with the loss of the adaptive model."""
        fitted = self._validator.fit_adaptation(result, self._writer.adaptation)
        if fitted is None:
            return progress
        self._writer.adaptation, nats = fitted
        return replace(progress, val_nats_adaptive=nats)

    @property
    def _used_counts(self) -> NGramPart | None:
        """N-gram model of the model file: none if it does not help."""
        return self._counts if self._counts is not None and self._counts.weight else None

    def _finish(self) -> Progress:
        """Validate if the training is complete, save, and return the progress.

        A training that was stopped before its first update has no model, but it can be resumed.
        """
        progress = None
        if self._workers.is_first and self._fraction_done >= 1:
            self._is_complete = True
            progress = self._validate()
            self._is_complete = progress is not None
        progress = progress or self._progress()
        if self._workers.is_first:
            if self._state.counters.step and not self._writer.has_model:  # stopped before the first validation
                with self._state.average.applied(half=self.config.half):
                    self._writer.keep_best(progress, self._used_counts)
            self._writer.flush()
        self._save(must=True)
        if self._workers.is_first and self._is_complete:
            progress = replace(progress, sample_nats=self._sample_loss())
        return progress

    def _sample_loss(self) -> float | None:
        """Return the loss of the best model on a sample of the training text, without dropout; None if stopped."""
        with self._state.average.applied():
            self.model.load_tensors(load_checkpoint(self._run.model).tensors)
            return self._validator.sample_loss()

    def _save(self, *, must: bool) -> None:
        """Save the training. All processes must call this. If `must` is False, a failure is only a warning."""
        tensors = self._state.to_tensors(self._workers)
        if not self._workers.is_first:
            return
        counters = replace(self._state.counters, seconds=self._watch.read(), workers=self._workers.count)
        self._writer.save(self._progress(), counters, tensors, self._counts, finished=self._is_complete, must=must)

    def _fraction(self) -> float:
        """Return the share of the training that is done; slightly above 1 after a time limit."""
        patience = self.config.patience or math.inf
        if self._is_complete or self._state.counters.validations_without_improvement >= patience:
            return 1.0
        return self._schedule.fraction(self._state.counters.step)

    def _progress(self, val_nats: float | None = None) -> Progress:
        counters, seconds = self._state.counters, self._watch.read()
        last_nats = math.nan if counters.train_nats is None else counters.train_nats
        tokens = (counters.step - self._began_step) * self._batches.tokens_per_step
        return Progress(
            step=counters.step,
            epoch=counters.step / self._batches.steps_per_epoch,
            seconds=seconds,
            fraction=min(1.0, self._fraction()),
            train_nats=counters.loss_sum / counters.loss_steps if counters.loss_steps else last_nats,
            val_nats=val_nats,
            best_nats=counters.best_nats,
            tokens_per_second=max(tokens, 1.0) / max(seconds - self._began_seconds, 1e-9),
            learning_rate=counters.learning_rate,
        )

    def _log(self, progress: Progress) -> None:
        """Write a line of the log, and begin a new mean of the training loss."""
        self._writer.log(progress)
        counters = self._state.counters
        if counters.loss_steps:
            counters.train_nats = progress.train_nats
        counters.loss_sum, counters.loss_steps = 0.0, 0


def _make_batches(dataset: Dataset, config: TrainConfig, start_id: int, workers: Workers) -> Batches:
    """Return this process's part of the batches of a text, or of a list of items."""
    batch_size, seq_len = config.batch_size * workers.count, config.seq_len
    if dataset.items is not None:
        items = ItemBatches(dataset.items.train, batch_size, seq_len, start_id=start_id, seed=config.seed)
        return items.shard(workers.rank, workers.count)
    streams = StreamBatches(
        dataset.train_ids, batch_size, seq_len, start_id=start_id, reset_prob=config.reset_prob, seed=config.seed
    )
    return streams.shard(workers.rank, workers.count)


def _make_validator(
    model: LanguageModel, dataset: Dataset, start_id: int, callbacks: Callbacks, ngram: NGram | None
) -> Validator[Ids] | Validator[Items]:
    default = Adaptation.default(dataset.tokenizer.kind)
    if dataset.items is not None:
        train, validation = dataset.items.train, dataset.items.validation
        return ItemValidator(model, train, validation, start_id, callbacks.stop, default, ngram)
    return TextValidator(model, dataset.train_ids, dataset.val_ids, start_id, callbacks.stop, default, ngram)
