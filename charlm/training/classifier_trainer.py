"""Training loop of a classifier.

The number of updates is fixed before the first one. Batches, learning rate and random numbers depend only on values
that a save contains. Therefore, a resumed training equals an uninterrupted one bit for bit.

With the encoder of a language model, the weights are unfrozen group by group from the output to the input, and each
group has a lower learning rate than the one after it.

Source:
    Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification" (gradual unfreezing,
    discriminative learning rates, pooled states).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from charlm.classifier_config import ClassifierTrainConfig
from charlm.engine.checkpoint import RESUME_PREFIX
from charlm.engine.classifier_file import PARTS, ClassifierCheckpoint, save_classifier
from charlm.engine.combination import JOINT_SHARE, combine, fit_weights, log_loss
from charlm.engine.naive_bayes import NaiveBayes
from charlm.engine.runs import Run
from charlm.errors import CharlmError, CheckpointError, TrainingError
from charlm.training.classifier_data import EncodedSamples
from charlm.training.classifier_model import ClassifierModel
from charlm.training.optimizer import AdamW
from charlm.training.schedule import learning_rate
from charlm.training.state import (
    RANDOM,
    checked_tensor,
    moments_to_save,
    random_state,
    read_counters,
    resumed_tensors,
    saved_moments,
    set_random_state,
)
from charlm.training.stopwatch import Stopwatch

RATE_FACTOR = 2.6
"""Ratio of the learning rates of two neighbouring groups of weights of a pretrained encoder (Howard & Ruder)."""

UNFREEZING_SHARE = 0.1
"""Share of the training between the unfreezing of two groups."""

MAX_VALIDATIONS = 20
"""Maximum number of validations."""

BEST = "best"
"""Prefix of the best weights so far in a save."""

NETWORK_WEIGHT = 0.6
"""Expected weight of the network beside the counts, if it has many samples."""

HALF_TRUST_SAMPLES = 1000
"""Number of samples with which half of that weight is expected. With few samples, counts are far better."""

BETAS = (0.9, 0.99)
"""Decay rates of AdamW's moments."""

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class ClassifierProgress:
    """Progress of the training of a classifier.

    Attributes:
        step: Number of updates.
        steps: Number of updates of the whole training.
        epoch: Number of passes over the samples.
        seconds: Time used, in seconds.
        train_nats: Mean log-loss of the updates since the last validation, in nats; it includes dropout.
        train_accuracy: Accuracy in these updates, from 0 to 1.
        val_nats: Log-loss of the combined classifier on the validation samples; None before the first validation.
        val_accuracy: Accuracy of the combined classifier on them.
        network_accuracy: Accuracy of the network alone on them.
        counts_accuracy: Accuracy of the counts alone on them; None without counts.
    """

    step: int
    steps: int
    epoch: float
    seconds: float
    train_nats: float
    train_accuracy: float
    val_nats: float | None = None
    val_accuracy: float | None = None
    network_accuracy: float | None = None
    counts_accuracy: float | None = None


@dataclass(kw_only=True)
class _Counters:
    """Numbers that change from update to update; a save has them under `resume` in its metadata."""

    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    num_right: int = 0
    num_seen: int = 0
    best_nats: float | None = None
    log_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class CountParts:
    """Logits of the parts of a classifier besides the network, for the validation samples.

    Attributes:
        logits: Logits by the name of the part, (N, C) each.
        weights: Weight of each part without the network.
        final: The counts for the model file, which also include the validation samples; None without counts.
    """

    logits: Mapping[str, Floats]
    weights: Mapping[str, float]
    final: NaiveBayes | None


class ClassifierTrainer:
    """Training of a classifier, from its first update or from a save.

    Args:
        model: The network, on its device.
        data: Training samples and validation samples.
        config: Settings of the training.
        content: Content of the model file: labels, tokenizer, prior, metadata. Tensors and weights are replaced. If its
            metadata has `from`, the network has the encoder of a language model.
        counts: The other parts.
        run: Folder for the model files and the log.
        steps: Number of updates.
        watch: Stopwatch with the time used.
    """

    def __init__(
        self,
        model: ClassifierModel,
        data: tuple[EncodedSamples, EncodedSamples],
        config: ClassifierTrainConfig,
        *,
        content: ClassifierCheckpoint,
        counts: CountParts,
        run: Run,
        steps: int,
        watch: Stopwatch | None = None,
    ) -> None:
        self.model = model
        self._train, self._validation = data
        self._config = config
        self._content = content
        self._counts = counts
        self._run = run
        self._steps = steps
        self._pretrained = "from" in content.metadata
        self._watch = watch or Stopwatch(lambda: 0.0)
        self._groups = model.layer_groups()
        self._optimizer = self._make_optimizer()
        self._steps_per_epoch = math.ceil(len(self._train) / config.batch_size)
        self._validation_steps = self._plan_validations()
        self._batches: tuple[int, list[list[int]]] = (-1, [])
        self._counters = _Counters()
        self._best: dict[str, Any] = {}
        self._last_save = 0.0

    def resume(self, saved: ClassifierCheckpoint) -> None:
        """Continue from a save.

        Args:
            saved: The save, loaded with `with_resume`.

        Raises:
            CheckpointError: If the save does not fit the model, or is damaged.
        """
        tensors = resumed_tensors(saved.tensors)
        try:
            self._counters = read_counters(_Counters, saved.metadata)
            self.model.load_tensors(saved.tensors)
            for name, weight in self.model.named_parameters():
                self._optimizer.state[weight] = saved_moments(tensors, name, weight)
                if f"{BEST}.{name}" in tensors:
                    self._best[name] = checked_tensor(tensors, f"{BEST}.{name}", tuple(weight.shape)).numpy()
            set_random_state(self._device, checked_tensor(tensors, RANDOM, (None,), torch.uint8))
        except CheckpointError as error:
            raise CheckpointError(f"{self._run.path}: {error}") from None
        self._watch.add(self._counters.seconds)
        self._run.truncate_log(self._counters.log_bytes)

    def train(
        self, report: Callable[[ClassifierProgress], None], stop: Callable[[], bool] = lambda: False
    ) -> ClassifierProgress:
        """Train until the end, or until `stop` returns True, and save.

        Returns:
            The progress at the end.

        Raises:
            TrainingError: If the loss is not finite.
            CheckpointError: If the model cannot be written.
        """
        self._last_save = self._watch.read()
        progress = self._progress()
        while self._counters.step < self._steps and not stop():
            self._update()
            progress = self._progress()
            if self._counters.step in self._validation_steps:
                progress = self._validate()
            report(progress)
            if self._watch.read() - self._last_save >= self._config.save_every:
                self._save(finished=False)
        finished = self._counters.step >= self._steps
        if self._counters.step:
            progress = self._write_model(self._best or self._current())
        self._save(finished=finished)
        return progress

    @property
    def _device(self) -> torch.device:
        return self.model.head.weight.device

    def _make_optimizer(self) -> AdamW:
        """Return AdamW with a group per layer; see `RATE_FACTOR`."""
        groups = [
            {"params": weights, "rate": RATE_FACTOR**-depth if self._pretrained else 1.0}
            for depth, weights in enumerate(self._groups)
        ]
        return AdamW(groups, betas=BETAS, weight_decay=self._config.weight_decay, fused=True)

    def _plan_validations(self) -> frozenset[int]:
        """Return the numbers of updates after which to validate: after each epoch, but not too often."""
        epochs = max(1, self._steps // self._steps_per_epoch)
        count = min(MAX_VALIDATIONS, epochs)
        return frozenset(round(self._steps * (index + 1) / count) for index in range(count))

    def _update(self) -> None:
        """Train on one batch.

        Raises:
            TrainingError: If the loss is not finite.
        """
        counters, config = self._counters, self._config
        fraction = counters.step / self._steps
        for depth, (weights, group) in enumerate(zip(self._groups, self._optimizer.param_groups, strict=True)):
            is_frozen = self._pretrained and fraction < UNFREEZING_SHARE * depth
            is_frozen |= config.freeze_embeddings and weights is self._groups[-1]
            for weight in weights:
                weight.requires_grad_(not is_frozen)
            group["lr"] = learning_rate(config, fraction) * group["rate"]
        ids, lengths, labels = self._next_batch()
        self._optimizer.zero_grad()
        logits = self.model(ids, lengths)
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([weight for weight in self.model.parameters() if weight.grad is not None], 1.0)
        nats = float(loss.detach())
        if not math.isfinite(nats):
            raise TrainingError(
                f"the loss is not finite after {counters.step:,} updates: set learning_rate below "
                f"{config.learning_rate:g}",
                fields=["learning_rate"],
            )
        self._optimizer.step()
        counters.step += 1
        counters.loss_sum += nats * len(labels)
        counters.num_right += int((logits.detach().argmax(dim=1) == labels).sum())
        counters.num_seen += len(labels)

    def _next_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return token ids, (B, T), lengths, (B,), and labels, (B,), of the next batch."""
        epoch, place = divmod(self._counters.step, self._steps_per_epoch)
        if self._batches[0] != epoch:
            self._batches = epoch, self._train.batches(self._config.batch_size, self._config.seed, epoch)
        return tensors_of(self._train, self._batches[1][place], self._device)

    def _validate(self) -> ClassifierProgress:
        """Validate the combined classifier; keep the weights of the network if they are the best so far."""
        progress, _ = self._measure()
        counters = self._counters
        assert progress.val_nats is not None, "just measured"
        if counters.best_nats is None or progress.val_nats < counters.best_nats:
            counters.best_nats = progress.val_nats
            self._best = self._current()
        self._run.append_log(finite(asdict(progress)))
        counters.loss_sum, counters.num_right, counters.num_seen = 0.0, 0, 0
        return progress

    def _measure(self) -> tuple[ClassifierProgress, dict[str, float]]:
        """Return the progress with the losses on the validation samples, and the fitted weights of the parts."""
        parts = {"network": network_logits(self.model, self._validation, self._device), **self._counts.logits}
        weights = self._fit(parts)
        log_probs, labels = combine(list(parts.values()), weights), self._validation.labels
        progress = replace(
            self._progress(),
            val_nats=log_loss(log_probs, labels),
            val_accuracy=accuracy_of(log_probs, labels),
            network_accuracy=accuracy_of(parts["network"], labels),
            counts_accuracy=self._counts_accuracy(),
        )
        return progress, dict(zip(parts, weights, strict=True))

    def _fit(self, parts: Mapping[str, Floats]) -> list[float]:
        """Return the weights of the parts.

        The weights of the counts relative to each other are known from all training samples. Therefore, only two
        numbers are fitted on the validation samples: the weight of the network, and a common factor of the others.
        """
        if len(parts) == 1:
            return [1.0]
        num_samples = len(self._train)
        trust = num_samples / (num_samples + HALF_TRUST_SAMPLES)
        expected = [NETWORK_WEIGHT * trust, 1 - (1 - JOINT_SHARE) * trust]
        known = self._counts.weights
        others = np.asarray(sum(known[name] * self._counts.logits[name].astype(np.float64) for name in known))
        network, factor = fit_weights([parts["network"], others], self._validation.labels, expected)
        return [network if name == "network" else factor * known[name] for name in parts]

    def _counts_accuracy(self) -> float | None:
        """Return the accuracy of the counts alone on the validation samples."""
        if not self._counts.logits:
            return None
        logits = list(self._counts.logits.values())
        weights = [self._counts.weights[name] for name in self._counts.logits]
        return accuracy_of(combine(logits, weights), self._validation.labels)

    def _current(self) -> dict[str, Any]:
        """Return a copy of the weights of the network."""
        return {name: np.array(array) for name, array in self.model.to_tensors().items()}

    def _write_model(self, tensors: dict[str, Any]) -> ClassifierProgress:
        """Write the model file with these weights of the network, and return the progress with its losses."""
        current = self._current()
        self.model.load_tensors(tensors)
        progress, weights = self._measure()
        content = replace(
            self._content,
            tensors=tensors,
            counts=self._counts.final,
            weights={**dict.fromkeys(PARTS, 0.0), **weights},
            metadata={
                **self._content.metadata,
                "metrics": finite(asdict(progress)),
                "history": self._run.read_log() if self._run.log_bytes else [],
            },
        )
        save_classifier(self._run.model, content)
        self.model.load_tensors(current)
        return progress

    def _save(self, *, finished: bool) -> None:
        """Write a save to resume from.

        Raises:
            CheckpointError: If it cannot be written at the end. A failure before the end is ignored.
        """
        self._last_save = self._watch.read()
        tensors = {RANDOM: random_state(self._device)}
        for name, weight in self.model.named_parameters():
            tensors |= moments_to_save(self._optimizer, name, weight)
        arrays = {RESUME_PREFIX + name: value.cpu().numpy() for name, value in tensors.items()}
        arrays |= {f"{RESUME_PREFIX}{BEST}.{name}": array for name, array in self._best.items()}
        resume = asdict(replace(self._counters, seconds=self._last_save, log_bytes=self._run.log_bytes))
        content = replace(
            self._content,
            tensors=self.model.to_tensors() | arrays,
            metadata={**self._content.metadata, "resume": resume, "finished": finished},
        )
        try:
            save_classifier(self._run.last, content, keep=self._run.previous)
        except CharlmError:
            if finished:
                raise

    def _progress(self) -> ClassifierProgress:
        counters = self._counters
        return ClassifierProgress(
            step=counters.step,
            steps=self._steps,
            epoch=counters.step / self._steps_per_epoch,
            seconds=self._watch.read(),
            train_nats=counters.loss_sum / counters.num_seen if counters.num_seen else math.nan,
            train_accuracy=counters.num_right / counters.num_seen if counters.num_seen else math.nan,
        )


def tensors_of(samples: EncodedSamples, batch: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return token ids, (B, T), lengths, (B,), and labels, (B,), of a batch, all int64."""
    lengths = torch.tensor([len(samples.ids[index]) for index in batch])
    ids = torch.zeros((len(batch), int(lengths.max())), dtype=torch.int64)
    for row, index in enumerate(batch):
        ids[row, : len(samples.ids[index])] = torch.from_numpy(samples.ids[index].astype(np.int64))
    labels = torch.from_numpy(samples.labels[list(batch)])
    return ids.to(device), lengths.to(device), labels.to(device)


@torch.no_grad()
def network_logits(model: ClassifierModel, samples: EncodedSamples, device: torch.device) -> Floats:
    """Return the logits of samples without dropout, (N, C), float32."""
    model.eval()
    order = sorted(range(len(samples)), key=lambda index: len(samples.ids[index]))
    logits = np.empty((len(samples), model.config.num_classes), dtype=np.float32)
    for begin in range(0, len(order), 64):
        batch = order[begin : begin + 64]
        ids, lengths, _ = tensors_of(samples, batch, device)
        logits[batch] = model(ids, lengths).cpu().numpy()
    model.train()
    return logits


def joint_weights(parts: Mapping[str, Floats], labels: npt.NDArray[np.integer]) -> dict[str, float]:
    """Return the weights of parts, fitted on their held-out logits of the training samples."""
    alone = [fit_weights([part], labels, [1.0])[0] if name != "prior" else 1.0 for name, part in parts.items()]
    together = fit_weights(list(parts.values()), labels, [JOINT_SHARE * weight for weight in alone])
    return dict(zip(parts, together, strict=True))


def accuracy_of(scores: Floats, labels: npt.NDArray[np.integer]) -> float:
    """Return the share of samples whose class has the highest score, from 0 to 1."""
    return float((scores.argmax(axis=1) == labels).mean())


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return values in which None stands for NaN, which JSON does not have."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
