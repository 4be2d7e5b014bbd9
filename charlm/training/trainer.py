"""Trains a language model: optimise, validate, save, resume. It reports through callbacks and draws nothing.

What a batch holds, the rate and the random numbers depend on what a save contains and on nothing else, so that a
training that goes on from a save is the training that was never broken off.

Shapes: B streams of a process, T tokens, L layers, H hidden.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from charlm.config import TrainConfig
from charlm.engine.checkpoint import RESUME_PREFIX, Checkpoint, save_checkpoint
from charlm.engine.rnn import START
from charlm.engine.runs import Run
from charlm.errors import CharlmError, TrainingError
from charlm.text.tokenizer import Ids, Tokenizer
from charlm.training.batches import StreamBatches
from charlm.training.distributed import Workers
from charlm.training.network import LanguageModel, reset_state
from charlm.training.optimizer import make_optimizer
from charlm.training.progress import Progress
from charlm.training.schedule import Schedule, learning_rate
from charlm.training.state import Learner, Position
from charlm.training.stopwatch import Stopwatch
from charlm.training.throughput import mixed_precision
from charlm.training.validation import validation_loss

VALIDATION_SAMPLE = 2**15
"""Tokens read to find out what a validation will take."""

MAX_VALIDATION_TOKENS = 500_000
"""Validation reads no more than this, from the beginning of the validation text."""

EXPLOSION, RECENT = 3.0, 0.05
"""A loss of so many times what a blind guess costs, ln V, comes from weights that have run away; not in a single
update, for a confident model may err, but in a running mean that gives each update so much weight."""

RECOVERIES, RECOVERY_RATE = 3, 0.3
"""How often a training goes back to its last good state, and what the learning rate is multiplied by each time."""


def copied(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The same arrays in memory of their own."""
    return {name: np.array(array) for name, array in tensors.items()}


class _DivergedError(Exception):
    """The loss or the gradient is no number, or beyond all reason."""


class Trainer:
    """One training, from its first update or from where it was saved.

    Args:
        model: The network, on its device.
        tokenizer: Its vocabulary, for the model file.
        train_ids: The text to learn, (N,).
        val_ids: The text to validate on; may be empty, and then the last model counts as the best.
        config: How to learn.
        run: Where models and log go.
        metadata: What the model file shall tell about itself beside metrics and settings.
        report: Called often with the progress.
        warn: Called with what its user should know at once.
        chars_per_token: Characters of the validation text that a token stands for, for the figures a character.
        stop: Asked after every update; once it says True, the training saves and ends.
        clock: The time in seconds.
        started: The clock's time at which the budget began to run; now, if left out.
        learnt: Whether the model has learnt before: it is then measured before the first update, and kept if no later
            one is better.
        workers: The processes that learn together; all of them make a trainer and call the same methods.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        train_ids: Ids,
        val_ids: Ids,
        config: TrainConfig,
        *,
        run: Run,
        metadata: dict[str, Any],
        report: Callable[[Progress], None],
        warn: Callable[[str], None] = lambda message: None,
        chars_per_token: float = 1.0,
        stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        started: float | None = None,
        learnt: bool = False,
        workers: Workers | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self._device = model.decoder.bias.device
        self._workers = workers = workers or Workers()
        self._tokenizer = tokenizer
        self._val_ids = val_ids[:MAX_VALIDATION_TOKENS]
        self._run = run
        self._metadata = metadata
        self._report = report
        self._warn = warn
        self._chars_per_token = chars_per_token
        self._stop = stop
        self._watch = Stopwatch(clock, 0.0 if started is None else clock() - started)
        self._start_id = int(tokenizer.encode(START)[0])
        self._batches = StreamBatches(
            train_ids,
            config.batch_size,
            config.seq_len,
            start_id=self._start_id,
            reset_prob=config.reset_prob,
            seed=config.seed,
            workers=workers.count,
            rank=workers.rank,
        )
        self._learner = Learner(model, make_optimizer(model, config), model.core.zero_state(config.batch_size))
        self._schedule = Schedule(config, self._watch, self._batches, len(self._val_ids))
        self._at = Position(next_validation=self._schedule.next_validation(0))
        self._blind_nats = math.log(model.config.vocab_size)
        self._used = 0.0
        self._began, self._began_at = 0.0, 0
        self._last_save = 0.0
        self._good: deque[tuple[Position, dict[str, Tensor]]] = deque(maxlen=2)
        self._unsaved_best: Checkpoint | None = None
        self._learnt = learnt
        self._ended = self._disk_failed = self._good_is_due = False

    def train(self) -> Progress:
        """Learn till the budget is used or a stop is asked for, and save.

        Returns:
            Where it ended.

        Raises:
            TrainingError: If the loss explodes again and again.
            CheckpointError: If a model cannot be written at the end; before it, that is a warning.
        """
        self.model.train()
        self._began, self._began_at = self._watch.read(), self._at.step
        self._last_save = self._began
        self._keep_good()
        self._time_validation()
        if self._learnt and self._workers.is_first and len(self._val_ids) and self._at.best_nats is None:
            self._validate_and_log()
        while True:
            self._attend()
            stop, save, good = self._agree()
            if stop or self._used >= 1:
                return self._finish()
            if good:
                self._keep_good()
            if save:
                self._save_last()
            try:
                self._update()
            except _DivergedError as error:
                self._recover(str(error))

    def _agree(self) -> tuple[bool, bool, bool]:
        """Have all processes stop, save or keep a good state at the same update, by the first one's clock."""
        first = self._workers.is_first
        save = first and self._watch.read() - self._last_save >= self.config.save_every
        values = [self._fraction() if first else 0.0, self._stop(), save, self._good_is_due]
        self._used, *answers = self._workers.all_reduce_max([float(value) for value in values], self._device)
        stop, save, good = (answer > 0 for answer in answers)
        return stop, save, good

    def _update(self) -> None:
        planned = learning_rate(self.config, self._used)
        rate = self._at.learning_rate = planned * self._at.rate_scale
        for group in self._learner.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        inputs, targets = self._batches.inputs_and_targets(self._at.step)
        ids, following = (torch.from_numpy(tokens).to(self._device) for tokens in (inputs, targets))
        state = reset_state(self._learner.state, self._batches.resets(self._at.step))
        self._learner.optimizer.zero_grad()
        with mixed_precision(self.config.precision, self._device):
            loss, state = self.model.loss(ids, following, state, samples=self.config.softmax_samples or 0)
        loss.backward()  # type: ignore[no-untyped-call]
        nats = self._workers.average_gradients(self.model, float(loss.detach()))
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip))
        recent = (1 - RECENT) * self._at.recent_nats + RECENT * nats
        if not (recent <= EXPLOSION * self._blind_nats and math.isfinite(norm)):
            raise _DivergedError(f"a loss of {nats:.3g} nats, a gradient of {norm:.3g}")
        self._learner.optimizer.step()
        self._learner.state = tuple(part.detach().float() for part in state)
        self._at.step += 1
        self._learner.average(self._at.step, planned / self.config.learning_rate)
        self._at.recent_nats = recent
        self._at.loss_sum += nats
        self._at.loss_steps += 1

    def _attend(self) -> None:
        """Do what is due between two updates: validate, log, report. What is due depends on saved numbers alone."""
        fraction = self._fraction()
        if not self._workers.is_first or fraction >= 1 or not self._at.step:
            return
        if fraction >= self._at.next_report:
            if fraction >= self._at.next_validation and self._schedule.bears_validation():
                if self._validate_and_log() is None:
                    return  # broken off; it is due still
                self._at.next_validation = self._schedule.next_validation(fraction)
            elif self._at.loss_steps:
                self._log(self._progress())
            self._at.next_report = self._schedule.next_report(fraction)
            self._good_is_due = self._at.recent_nats <= self._blind_nats
        self._report(self._progress())

    def _finish(self) -> Progress:
        ending = self._used >= 1
        progress = None
        if self._workers.is_first and ending:
            self._ended = True
            progress = self._validate_and_log()
            self._ended = progress is not None  # unless it was broken off
        progress = progress or self._progress()
        if self._workers.is_first:
            if not self._run.model.exists() and self._unsaved_best is None:  # stopped before the first validation
                with self._learner.averaged(half=self.config.half):
                    self._unsaved_best = self._checkpoint(progress, copied(self._model_tensors()))
            self._save_best()
        self._save_last(final=True)
        return progress

    def _recover(self, reason: str) -> None:
        """Go back to the last good state, with a smaller rate; if that diverged too, to the one before it."""
        tried = self._at.recoveries
        if tried == RECOVERIES:
            kept = f"; the best model so far is kept in {self._run.path}" if self._run.model.exists() else ""
            raise TrainingError(
                f"the loss explodes, even after {RECOVERIES} returns to a good state with a smaller rate ({reason} at "
                f"step {self._at.step:,}): try a smaller --lr than {self.config.learning_rate:g}{kept}"
            )
        bad = self._at
        good, tensors = self._good.pop() if len(self._good) > 1 else self._good[0]
        self._learner.restore(tensors, Workers())
        self._at = replace(
            good, rate_scale=bad.rate_scale * RECOVERY_RATE, recoveries=tried + 1, best_nats=bad.best_nats
        )
        self._warn(
            f"the loss exploded at step {bad.step:,} ({reason}): going on from step {self._at.step:,} with "
            f"{self._at.rate_scale:.3g} of the learning rate"
        )

    def _fraction(self) -> float:
        """The used part of the budget; may pass 1 a little in a training by the clock."""
        if self._ended or self._at.validations_without_improvement >= (self.config.patience or math.inf):
            return 1.0
        return self._schedule.fraction(self._at.step)

    def _time_validation(self) -> None:
        """Find out what a validation takes, and read less if it is too much of a training by the clock."""
        if self.config.minutes is None or not self._workers.is_first or not len(self._val_ids):
            return
        began, sample = self._watch.read(), self._val_ids[:VALIDATION_SAMPLE]
        validation_loss(self.model, sample, self._start_id, self._stop)
        seconds = max(1e-9, self._watch.read() - began) / len(sample)
        self._val_ids = self._val_ids[: max(len(sample), self._schedule.tokens_to_validate(seconds))]
        self._schedule.validated(seconds * len(self._val_ids))

    def _speed(self) -> float:
        """Tokens learnt a second, validation and saving counted in."""
        tokens = (self._at.step - self._began_at) * self._batches.tokens_per_step
        return max(tokens, 1) / max(self._watch.read() - self._began, 1e-9)

    def _progress(self, val_nats: float | None = None) -> Progress:
        at = self._at
        train_nats = math.nan if at.train_nats is None else at.train_nats
        return Progress(
            step=at.step,
            epoch=at.step / self._batches.steps_per_epoch,
            seconds=self._watch.read(),
            fraction=min(1.0, self._fraction()),
            train_nats=at.loss_sum / at.loss_steps if at.loss_steps else train_nats,
            val_nats=val_nats,
            best_nats=at.best_nats,
            tokens_per_second=self._speed(),
            learning_rate=at.learning_rate,
        )

    def _log(self, progress: Progress) -> None:
        self._try_to_write(lambda: self._run.append_log(progress.figures(self._chars_per_token)))
        if self._at.loss_steps:  # none before the first update
            self._at.train_nats = progress.train_nats
        self._at.loss_sum, self._at.loss_steps = 0.0, 0

    def _validate_and_log(self) -> Progress | None:
        """Measure the averaged model, and keep it if it is the best so far; without a validation text it always is.

        Returns:
            Where the training stands; None if a stop was asked for before the measuring was done.
        """
        with self._learner.averaged(half=self.config.half):
            return self._validate_weights()

    def _validate_weights(self) -> Progress | None:
        began = self._watch.read()
        nats = None
        if len(self._val_ids):
            nats = validation_loss(self.model, self._val_ids, self._start_id, self._stop)
            if nats is None:
                return None
        self._schedule.validated(self._watch.read() - began)
        best = self._at.best_nats
        better = nats is None or best is None or nats < best
        self._at.validations_without_improvement = 0 if better else self._at.validations_without_improvement + 1
        if better:
            self._at.best_nats = nats
        progress = self._progress(nats)
        if better:
            self._unsaved_best = self._checkpoint(progress, self._model_tensors())
            if not self._try_to_write(self._save_best):  # keep it till the disk has room
                self._unsaved_best = self._checkpoint(progress, copied(self._model_tensors()))
        self._log(progress)
        self._report(progress)
        return progress

    def _model_tensors(self) -> dict[str, Any]:
        """The weights as the model file is to have them."""
        dtype = np.float16 if self.config.half else np.float32
        return {name: array.astype(dtype, copy=False) for name, array in self.model.to_tensors().items()}

    def _save_best(self) -> None:
        if self._unsaved_best is not None:
            save_checkpoint(self._run.model, self._unsaved_best)
            self._unsaved_best = None

    def _save_last(self, *, final: bool = False) -> None:
        """Save all that resuming needs; on the way, a disk that is full is worth a warning, at the end an error."""
        tensors = self._learner.tensors(self._workers)
        if not self._workers.is_first:
            return
        self._last_save = self._watch.read()

        def write() -> None:
            self._save_best()
            named = {RESUME_PREFIX + name: value.cpu().numpy() for name, value in tensors.items()}
            at = replace(
                self._at,
                seconds=self._watch.read(),
                log_bytes=self._run.log_bytes,
                workers=self._workers.count,
            )
            checkpoint = self._checkpoint(
                self._progress(), self.model.to_tensors() | named, finished=self._ended, resume=asdict(at)
            )
            save_checkpoint(self._run.last, checkpoint, keep=self._run.previous)
            self._disk_failed = False

        if final:
            write()
        else:
            self._try_to_write(write)

    def _try_to_write(self, write: Callable[[], None]) -> bool:
        """Write something; if the disk won't have it, warn once and go on."""
        try:
            write()
        except CharlmError as error:
            if not self._disk_failed:
                self._warn(f"{error}; the training goes on, and tries again at the next save")
            self._disk_failed = True
            return False
        return True

    def _checkpoint(self, progress: Progress, tensors: dict[str, Any], **more: Any) -> Checkpoint:
        metrics = progress.figures(self._chars_per_token)
        metadata = {**self._metadata, "training": asdict(self.config), "metrics": metrics, **more}
        return Checkpoint(config=self.model.config, tokenizer=self._tokenizer, tensors=tensors, metadata=metadata)

    def _keep_good(self) -> None:
        self._good.append((replace(self._at), self._learner.copy()))
        self._good_is_due = False

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take up everything where `checkpoint`, read with its trainer's state, left it.

        Raises:
            CheckpointError: If it is no save of such a training.
        """
        saved = {
            name.removeprefix(RESUME_PREFIX): torch.from_numpy(array)
            for name, array in checkpoint.tensors.items()
            if name.startswith(RESUME_PREFIX)
        }
        position = Position.from_metadata(checkpoint.metadata)
        same = position.workers == self._workers.count
        if not same:
            self._warn(
                f"saved by {position.workers} process(es), going on with {self._workers.count}: "
                "the streams are dealt anew"
            )
        self.model.load_tensors(checkpoint.tensors)
        self._learner.restore(saved, self._workers, streams=same)
        self._at = position
        self._watch.add(position.seconds)
        if self._workers.is_first:
            self._run.truncate_log(position.log_bytes)
