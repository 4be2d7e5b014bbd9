"""Trains a language model: optimise, validate, save, resume. It reports through a callback and draws nothing.

Shapes: B streams, T tokens, L layers, H hidden.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.batches import StreamBatches
from charlm.checkpoint import RESUME_PREFIX, Checkpoint, save_checkpoint
from charlm.config import TrainConfig
from charlm.engine import START
from charlm.errors import TrainingError
from charlm.model import LanguageModel, State
from charlm.precision import mixed_precision
from charlm.runs import Run
from charlm.tokenizer import Ids, Tokenizer

BETAS = (0.9, 0.99)
"""AdamW's; a second moment of 0.99 follows the quick change of a short training better than 0.999 (measured)."""

FINAL_RATE = 0.02
"""The share of the peak learning rate at the end of the cosine."""

VALIDATIONS = 10
"""Validations in a training, evenly spread over its budget."""

VALIDATION_COST = 30
"""In a training by the clock, one validation waits for so many times the time that the last one took."""

MAX_VALIDATION_TOKENS = 500_000
"""Validation reads no more than this, from the beginning of the validation text."""

VALIDATION_STREAM, WARM_UP = 2048, 192
"""Validation goes in parallel streams of about so many tokens, each of which reads the tokens before its own
first, uncounted: a recurrent model forgets, so that this gives what one carried pass would."""

VALIDATION_BLOCK = 2**22
"""Validation holds so many logits at a time, however large the vocabulary."""

REPORTS = 100
"""Lines of the log in a training, evenly spread over its budget."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a training stands.

    Attributes:
        step: Updates made.
        epoch: Passes over the text.
        seconds: Time used, in seconds.
        fraction: The part of the budget used, 0 to 1.
        train_nats: Training loss since the last line of the log, nats a token.
        val_nats: Validation loss, nats a token; None if this is no validation.
        best_nats: The best validation loss so far.
        tokens_per_second: Speed since training began or was resumed.
        learning_rate: Of the last update.
    """

    step: int
    epoch: float
    seconds: float
    fraction: float
    train_nats: float
    val_nats: float | None
    best_nats: float | None
    tokens_per_second: float
    learning_rate: float

    def figures(self, chars_per_token: float) -> dict[str, float | None]:
        """All of this for the log and the model file, with the validation loss in its other units."""
        nats = self.val_nats
        return asdict(self) | {
            "val_bits_per_char": None if nats is None else nats / math.log(2) / chars_per_token,
            "val_perplexity": None if nats is None else perplexity(nats),
        }


def perplexity(nats: float) -> float:
    """Of a token that costs so much on average; infinite where it is beyond a float."""
    return math.exp(nats) if nats < 700 else math.inf


def learning_rate(config: TrainConfig, fraction: float) -> float:
    """The rate at a point of the budget, 0 to 1: a linear rise, then a cosine down to `FINAL_RATE` of the peak."""
    if fraction < config.warmup:
        return config.learning_rate * max(fraction / config.warmup, FINAL_RATE)
    fall = min(1.0, (fraction - config.warmup) / max(1e-9, 1 - config.warmup))
    return config.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * fall)) / 2)


@torch.no_grad()
def validation_loss(model: LanguageModel, ids: Ids, start_id: int) -> float:
    """The mean loss over a text that is read as one stream, in nats a token.

    The text begins as a scored text does, from the zero state after one newline token.

    Args:
        model: The model; its mode, training or not, is left as it was.
        ids: The text, (N,), at least one token.
        start_id: The newline token.
    """
    was_training = model.training
    model.eval()
    streams = max(1, round(len(ids) / VALIDATION_STREAM))
    length = -(-len(ids) // streams)
    tokens = np.concatenate([np.array([start_id]), ids]).astype(np.int64)
    begins = np.arange(streams)[:, None] * length
    state = model.core.zero_state(streams)
    total, rows = 0.0, max(1, VALIDATION_BLOCK // model.config.vocab_size)
    for offset in range(-WARM_UP if streams > 1 else 0, length, WARM_UP):
        if offset == 0:  # the first stream has nothing before it
            state = _reset(state, np.arange(streams) == 0)
        places = begins + np.arange(offset, min(offset + WARM_UP, length))
        inside = (places >= begins) & (places < len(ids))
        places = places.clip(0, len(ids) - 1)
        outputs, state = model.read(torch.from_numpy(tokens[places]), state)
        if offset >= 0:
            targets = torch.from_numpy(tokens[places + 1][inside])
            parts = zip(torch.split(outputs[torch.from_numpy(inside)], rows), torch.split(targets, rows), strict=True)
            total += sum(float(F.cross_entropy(model.decoder(part), wanted, reduction="sum")) for part, wanted in parts)
    model.train(was_training)
    return total / len(ids)


class Trainer:
    """One training, from its first update or from where it was saved.

    Args:
        model: The network.
        tokenizer: Its vocabulary, for the model file.
        train_ids: The text to learn, (N,).
        val_ids: The text to validate on; may be empty, and then the last model counts as the best.
        config: How to learn.
        run: Where models and log go.
        story: What the model file shall tell about itself beside metrics and settings.
        report: Called often with the progress.
        chars_per_token: Characters of the validation text that a token stands for, for the figures a character.
        stop: Asked after every update; once it says True, the training saves and ends.
        clock: The time in seconds.
        started: The clock's time at which the budget began to run; now, if left out.
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
        story: dict[str, Any],
        report: Callable[[Progress], None],
        chars_per_token: float = 1.0,
        stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        started: float | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self._tokenizer = tokenizer
        self._val_ids = val_ids[:MAX_VALIDATION_TOKENS]
        self._run = run
        self._story = story
        self._report = report
        self._chars_per_token = chars_per_token
        self._stop = stop
        self._clock = clock
        self._started = clock() if started is None else started
        self._start_id = int(tokenizer.encode(START)[0])
        # The ring's end and beginning meet at a start, so that the model learns how a text begins.
        ring = np.concatenate([np.array([self._start_id], dtype=train_ids.dtype), train_ids])
        self._batches = StreamBatches(
            ring, config.batch_size, config.seq_len, reset_prob=config.reset_prob, seed=config.seed
        )
        matrices = [weight for weight in model.parameters() if weight.ndim > 1]
        vectors = [weight for weight in model.parameters() if weight.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            betas=BETAS,
            fused=True,
        )
        self._state: State = model.core.zero_state(config.batch_size)
        self._step = 0
        self._best_nats: float | None = None
        self._train_nats = math.nan
        self._loss_sum, self._loss_steps = 0.0, 0
        self._val_seconds: float | None = None
        self._began, self._began_at = self._started, 0
        self._ended = False

    def train(self) -> Progress:
        """Learn till the budget is used or a stop is asked for, and save.

        Returns:
            Where it ended.

        Raises:
            TrainingError: If the loss is no longer a number.
            CheckpointError: If a model cannot be written.
        """
        self.model.train()
        self._began, self._began_at = self._clock(), self._step
        next_report, next_validation = (
            self._fraction(),
            math.floor(self._fraction() * VALIDATIONS + 1) / VALIDATIONS,
        )
        last_save = last_validation = self._clock()
        while self._fraction() < 1 and not self._stop():
            self._update()
            fraction, now = self._fraction(), self._clock()
            if fraction >= 1:
                break
            affordable = now - last_validation >= VALIDATION_COST * self._validation_seconds()
            if fraction >= next_validation and (self.config.minutes is None or affordable):
                next_validation = math.floor(fraction * VALIDATIONS + 1) / VALIDATIONS
                self._validate_and_log()
                last_validation = self._clock()
            elif fraction >= next_report:
                self._log(self._progress())
            if fraction >= next_report:
                next_report = math.floor(fraction * REPORTS + 1) / REPORTS
            if now - last_save >= self.config.save_every:
                self._save_last()
                last_save = self._clock()
            self._report(self._progress())
        return self._finish()

    def _finish(self) -> Progress:
        self._ended = self._fraction() >= 1
        progress = self._validate_and_log() if self._ended else self._progress()
        if not self._run.model.exists():  # stopped before the first validation
            save_checkpoint(self._run.model, self._checkpoint(progress, self.model.to_tensors()))
        self._save_last()
        return progress

    def _update(self) -> None:
        rate = learning_rate(self.config, self._fraction())
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = self._batches.inputs_and_targets(self._step)
        state = _reset(self._state, self._batches.resets(self._step))
        ids, following = torch.from_numpy(inputs), torch.from_numpy(targets)
        with mixed_precision(self.config.precision):
            loss, state = self.model.loss(ids, following, state, samples=self.config.softmax_samples or 0)
        nats = float(loss.detach())
        if not math.isfinite(nats):
            raise TrainingError(
                f"the loss is {nats} at step {self._step:,}: try a smaller --lr than {self.config.learning_rate:g}; "
                f"the best model so far is kept in {self._run.path}"
            )
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self._optimizer.step()
        self._state = tuple(part.detach().float() for part in state)
        self._step += 1
        self._loss_sum += nats
        self._loss_steps += 1

    def _elapsed(self) -> float:
        return self._clock() - self._started

    def _fraction(self) -> float:
        """The used part of the budget; may pass 1 a little in a training by the clock."""
        config = self.config
        if self._ended:
            return 1.0
        if config.minutes is not None:
            return self._elapsed() / max(1e-3, config.minutes * 60 - self._validation_seconds())
        if config.epochs is not None:
            return self._step / math.ceil(config.epochs * self._batches.steps_per_epoch)
        assert config.steps is not None, "the plan sets a budget"
        return self._step / config.steps

    def _validation_seconds(self) -> float:
        """What a validation takes: as the last one did, or at a guess, a third of learning as much."""
        if self._val_seconds is not None or self._step == self._began_at:
            return self._val_seconds or 0.0
        return len(self._val_ids) / 3 / self._speed()

    def _speed(self) -> float:
        """Tokens learnt a second, validation and saving counted in."""
        steps = self._step - self._began_at
        return steps * self._batches.tokens_per_step / max(self._clock() - self._began, 1e-9)

    def _progress(self, val_nats: float | None = None) -> Progress:
        return Progress(
            step=self._step,
            epoch=self._step / self._batches.steps_per_epoch,
            seconds=self._elapsed(),
            fraction=min(1.0, self._fraction()),
            train_nats=self._loss_sum / self._loss_steps if self._loss_steps else self._train_nats,
            val_nats=val_nats,
            best_nats=self._best_nats,
            tokens_per_second=self._speed(),
            learning_rate=self._optimizer.param_groups[0]["lr"],
        )

    def _log(self, progress: Progress) -> None:
        self._run.append_log(progress.figures(self._chars_per_token))
        self._train_nats = progress.train_nats
        self._loss_sum, self._loss_steps = 0.0, 0

    def _validate_and_log(self) -> Progress:
        """Measure, and keep the model if it is the best so far; without a validation text it always is."""
        began = self._clock()
        nats = None
        if len(self._val_ids):
            nats = validation_loss(self.model, self._val_ids, self._start_id)
        self._val_seconds = self._clock() - began
        better = nats is None or self._best_nats is None or nats < self._best_nats
        if better:
            self._best_nats = nats
        progress = self._progress(nats)
        if better:
            save_checkpoint(self._run.model, self._checkpoint(progress, self.model.to_tensors()))
        self._log(progress)
        self._report(progress)
        return progress

    def _checkpoint(self, progress: Progress, tensors: dict[str, Any]) -> Checkpoint:
        metrics = progress.figures(self._chars_per_token)
        story = {**self._story, "training": asdict(self.config), "metrics": metrics}
        return Checkpoint(config=self.model.config, tokenizer=self._tokenizer, tensors=tensors, story=story)

    def _save_last(self) -> None:
        resume = {f"state.{index}": part for index, part in enumerate(self._state)}
        resume["random"] = torch.get_rng_state()
        for name, weight in self.model.named_parameters():
            for key, value in self._optimizer.state[weight].items():
                resume[f"{name}.{key}"] = value
        best = math.nan if self._best_nats is None else self._best_nats
        counters = [self._elapsed(), self._loss_sum, self._loss_steps, self._train_nats, best]
        resume["counters"] = torch.tensor(counters, dtype=torch.float64)
        tensors = self.model.to_tensors() | {RESUME_PREFIX + name: value.numpy() for name, value in resume.items()}
        save_checkpoint(self._run.last, self._checkpoint(self._progress(), tensors))

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take up everything where `checkpoint`, read with its trainer's state, left it."""
        saved = {
            name.removeprefix(RESUME_PREFIX): torch.from_numpy(np.array(array))
            for name, array in checkpoint.tensors.items()
            if name.startswith(RESUME_PREFIX)
        }
        self.model.load_tensors(checkpoint.tensors)
        self._state = tuple(saved[f"state.{index}"] for index in range(len(self._state)))
        torch.set_rng_state(saved["random"])
        for name, weight in self.model.named_parameters():
            self._optimizer.state[weight] = {
                key: saved[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{name}.{key}" in saved
            }
        elapsed, self._loss_sum, loss_steps, self._train_nats, best = saved["counters"].tolist()
        self._started -= elapsed
        self._loss_steps = int(loss_steps)
        self._best_nats = None if math.isnan(best) else best
        self._step = int(checkpoint.story["metrics"]["step"])


def _reset(state: State, resets: np.ndarray[Any, np.dtype[np.bool_]]) -> State:
    """Set the state of some streams, (B,), to zero."""
    if not resets.any():
        return state
    keep: Tensor = torch.from_numpy(~resets)[None, :, None]
    return tuple(part * keep for part in state)
