"""Preparation of the training of a classifier: read samples, choose the settings, create the run.

The command line and the Python API train through `prepare_classifier`.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm._version import __version__
from charlm.classifier_config import ClassifierConfig, ClassifierTrainConfig
from charlm.config import TokenizerConfig
from charlm.engine.checkpoint import Checkpoint
from charlm.engine.classifier_file import (
    PARTS,
    ClassifierCheckpoint,
    classifier_shapes,
    save_classifier,
)
from charlm.engine.combination import combine, log_loss
from charlm.engine.naive_bayes import NaiveBayes, held_out_logits, log_priors
from charlm.engine.runs import ClassifierRun, Run
from charlm.errors import CheckpointError, ConfigError
from charlm.text.glove import embed_vocabulary
from charlm.text.labelled import Labelled, LabelledOptions, Sample, read_labelled
from charlm.text.sources import STDIN, short_name
from charlm.text.tokenizer import Tokenizer, make_tokenizer
from charlm.text.vector_files import VectorFile
from charlm.training.classifier_data import EncodedSamples, Split, samples_hash, split_samples
from charlm.training.classifier_planner import ClassifierPlan, choose_tokenizer, plan_classifier
from charlm.training.finetune import PretrainedModel
from charlm.training.request import Hardware, open_machine, refuse_contradictions
from charlm.training.stopwatch import Stopwatch

if TYPE_CHECKING:
    from charlm.training.classifier_trainer import ClassifierProgress, ClassifierTrainer, CountParts
    from charlm.training.throughput import Machine

Announce = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ClassifierRequest:
    """Training of a classifier that a user asks for.

    Attributes:
        samples: Files or folders of labelled texts.
        labelled: Labelled texts that are in memory; they replace `samples`.
        validation: Labelled texts to validate on; none to take a share of the samples.
        reading: Columns, format and encoding of the samples.
        settings: Values of the fields of ClassifierConfig and ClassifierTrainConfig, and `tokenizer`; None for those
            not given.
        glove: File of word vectors to initialise the embeddings from.
        pretrained: Language model whose encoder and vocabulary to start from, a file or a run.
        name: Name of the run; None to derive it from the samples.
        force: Whether to replace a run of the same name.
        hardware: Device and threads.
        command: Command that the model file records.
    """

    samples: Sequence[str] = ()
    labelled: Labelled | None = None
    validation: Sequence[str] = ()
    reading: LabelledOptions = field(default_factory=LabelledOptions)
    settings: Mapping[str, Any] = field(default_factory=dict)
    glove: Path | None = None
    pretrained: str | None = None
    name: str | None = None
    force: bool = False
    hardware: Hardware = field(default_factory=Hardware)
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining:
    """Training of a classifier that is ready to start.

    Attributes:
        run: Folder of the run.
        split: The samples.
        plan: Shape, settings and length.
        content: Content of the model file without the weights.
        machine: Device and threads.
        notes: Sentences for the user.
        encoder: Language model whose encoder the network starts with; None for random weights.
        vectors: File of word vectors for the embeddings.
        saved: State to resume from; None for a new training.
    """

    run: Run
    split: Split
    plan: ClassifierPlan
    content: ClassifierCheckpoint
    machine: "Machine"
    notes: tuple[str, ...] = ()
    encoder: Checkpoint | None = None
    embedding: Any = None
    saved: ClassifierCheckpoint | None = None

    def train(
        self, report: "Callable[[ClassifierProgress], None]" = lambda _: None, stop: Callable[[], bool] = lambda: False
    ) -> "ClassifierProgress":
        """Train until the end, or until `stop` returns True.

        Returns:
            The progress at the end.

        Raises:
            CharlmError: Of any kind, if the training cannot continue.
        """
        if self.plan.train.freeze_encoder:
            return self._train_output_layer()
        return self._make_trainer().train(report, stop)

    def _train_output_layer(self) -> "ClassifierProgress":
        """Train the output layer on the frozen encoder, on all samples, and write the model file."""
        import numpy as np

        from charlm.training.classifier_probe import fit_probe, pooled_states
        from charlm.training.classifier_trainer import ClassifierProgress, accuracy_of, finite, joint_weights

        assert self.encoder is not None, "only an encoder can be frozen"
        config, samples = self.plan.model, self.split.train
        encoded = EncodedSamples.encode(samples, self.split.indices(samples), self.content.tokenizer, config.max_tokens)
        labels, tensors = encoded.labels, self.encoder.tensors
        probe = fit_probe(pooled_states(config, tensors, encoded.ids), labels, config.num_classes)
        texts = [sample.text for sample in samples]
        parts: dict[str, Any] = {"network": probe.held_out}
        counts = None
        if self.plan.train.counts:
            words, spelling = held_out_logits(texts, labels, config.num_classes)
            parts |= {"words": words, "spelling": spelling}
            counts = NaiveBayes.fit(texts, labels, config.num_classes)
        parts["prior"] = np.repeat([self.content.prior], len(texts), axis=0)
        weights = joint_weights(parts, labels)
        log_probs = combine(list(parts.values()), list(weights.values()))
        progress = ClassifierProgress(
            step=1,
            steps=1,
            epoch=0.0,
            seconds=self.machine.seconds_used(),
            train_nats=math.nan,
            train_accuracy=math.nan,
            val_nats=log_loss(log_probs, labels),
            val_accuracy=accuracy_of(log_probs, labels),
            network_accuracy=accuracy_of(probe.held_out, labels),
        )
        names = [name for name in classifier_shapes(config) if not name.startswith("head.")]
        content = replace(
            self.content,
            tensors={**{name: tensors[name] for name in names}, "head.weight": probe.weight, "head.bias": probe.bias},
            counts=counts,
            weights={**dict.fromkeys(PARTS, 0.0), **weights},
            metadata={
                **self.content.metadata,
                "metrics": {**finite(asdict(progress)), "cross_validated": True},
            },
        )
        save_classifier(self.run.model, content)
        return progress

    def _make_trainer(self) -> "ClassifierTrainer":
        import torch

        from charlm.training.classifier_model import ClassifierModel
        from charlm.training.classifier_trainer import ClassifierTrainer

        config, machine = self.plan.train, self.machine
        torch.manual_seed(config.seed)
        model = ClassifierModel(self.plan.model)
        if self.encoder is not None:
            model.load_encoder(self.encoder.tensors)
        if self.embedding is not None:
            model.embedding.weight.detach().copy_(torch.from_numpy(self.embedding))
        samples = [
            EncodedSamples.encode(part, self.split.indices(part), self.content.tokenizer, self.plan.model.max_tokens)
            for part in (self.split.train, self.split.validation)
        ]
        counts = _count_parts(self.split, self.content, with_counts=config.counts)
        torch.manual_seed(config.seed)
        trainer = ClassifierTrainer(
            model.to(machine.device),
            (samples[0], samples[1]),
            config,
            content=self.content,
            counts=counts,
            run=self.run,
            steps=self.plan.steps,
            watch=Stopwatch(machine.clock, machine.clock() - machine.started),
        )
        if self.saved is not None:
            trainer.resume(self.saved)
        return trainer


def _count_parts(split: Split, content: ClassifierCheckpoint, *, with_counts: bool) -> "CountParts":
    """Return the parts of a classifier besides the network.

    Their logits for the validation samples are from the training samples alone. The counts of the model file include
    the validation samples.
    """
    import numpy as np

    from charlm.training.classifier_trainer import CountParts, joint_weights

    if not with_counts:
        return CountParts(logits={}, weights={}, final=None)
    num_classes = len(split.labels)
    labels = split.indices(split.train)
    texts, others = ([sample.text for sample in part] for part in (split.train, split.validation))
    prior = np.array([content.prior])
    held_out = dict(zip(("words", "spelling"), held_out_logits(texts, labels, num_classes), strict=True))
    weights = joint_weights({**held_out, "prior": np.repeat(prior, len(texts), axis=0)}, labels)
    words, spelling = NaiveBayes.fit(texts, labels, num_classes).logits(others)
    return CountParts(
        logits={"words": words, "spelling": spelling, "prior": np.repeat(prior, len(others), axis=0)},
        weights=weights,
        final=NaiveBayes.fit([*texts, *others], np.append(labels, split.indices(split.validation)), num_classes),
    )


@contextmanager
def prepare_classifier(
    request: ClassifierRequest, announce: Announce = lambda part: None, *, dry_run: bool = False
) -> Iterator[ClassifierTraining]:
    """Prepare a new training of a classifier.

    Args:
        request: Samples, settings and hardware.
        announce: Called at the beginning of each part of the preparation, with its description.
        dry_run: Whether to create no run.

    Raises:
        CharlmError: Of any kind, if the request cannot be fulfilled.
    """
    pretrained = None if request.pretrained is None else PretrainedModel.find(request.pretrained)
    settings = _check_settings(request, pretrained)
    vectors = None if request.glove is None else VectorFile(request.glove)
    if request.name is not None and not dry_run:
        ClassifierRun.check_free(request.name, force=request.force)
    announce("reading the samples")
    found, validation = _read_samples(request)
    train_config = ClassifierTrainConfig.pick(settings)
    share = settings.get("val_fraction") or _val_fraction(len(found.samples))
    split = split_samples(found, validation, share, train_config.seed)
    tokenizer = _make_tokenizer(split, settings, pretrained)
    with ExitStack() as stack:
        announce("starting PyTorch")
        machine = stack.enter_context(open_machine(request.hardware))
        sizes = {"embedding_dim": vectors.dim} if vectors is not None else {}
        refuse_contradictions({name: settings.get(name) for name in sizes}, sizes, f"the value of {request.glove}")
        plan = plan_classifier(
            split,
            tokenizer,
            {**settings, **sizes, "val_fraction": share},
            machine,
            encoder=None if pretrained is None else pretrained.checkpoint.config,
        )
        asked = frozenset(name for name, value in request.settings.items() if value is not None)
        plan = replace(plan, given=plan.given & asked)
        if plan.train.freeze_encoder and validation is None:
            split = replace(split, train=[*split.train, *split.validation], validation=[])
        embedding, more, notes = _embedding(vectors, tokenizer, split, train_config.seed)
        if pretrained is not None:
            more = {"from": {"model": str(pretrained.path), "sha256": pretrained.sha256}}
        content = ClassifierCheckpoint(
            config=plan.model,
            labels=split.labels,
            tokenizer=tokenizer,
            tensors={},
            prior=tuple(log_priors(split.indices([*split.train, *split.validation]), len(split.labels)).tolist()),
            metadata={
                **_describe(request, found, validation),
                **more,
                "training": asdict(plan.train),
                "steps": plan.steps,
            },
        )
        run: Run = ClassifierRun(Path())
        if not dry_run:
            default_name = short_name(request.samples[0]) if request.samples else "classifier"
            run = stack.enter_context(ClassifierRun.create(request.name, default_name, force=request.force))
        yield ClassifierTraining(
            run=run,
            split=split,
            plan=plan,
            content=content,
            machine=machine,
            notes=(*found.notes(), *(validation.notes() if validation else ()), *notes, *plan.notes),
            encoder=None if pretrained is None else pretrained.checkpoint,
            embedding=embedding,
        )


def check_setting_names(settings: Mapping[str, Any]) -> None:
    """Check that settings exist.

    Raises:
        TypeError: If one does not.
    """
    known = {spec.name for config in (ClassifierConfig, ClassifierTrainConfig) for spec in fields(config)}
    for name in settings:
        if name not in known | {"tokenizer"}:
            raise TypeError(f"train_classifier has no setting {name!r}")


def _val_fraction(num_samples: int) -> float:
    """Return the share of samples for validation: a tenth, and more of few samples, up to a quarter."""
    return max(ClassifierTrainConfig.val_fraction, min(0.25, 40 / num_samples))


def _check_settings(request: ClassifierRequest, pretrained: PretrainedModel | None) -> dict[str, Any]:
    """Return the settings by field name, including those of a pretrained model.

    Raises:
        ConfigError: If a setting is out of range, or two contradict each other.
        CheckpointError: If the pretrained model has no network.
    """
    settings = {name: value for name, value in request.settings.items() if value is not None}
    ClassifierTrainConfig.pick(settings)
    ClassifierConfig.pick(settings)
    clashes = [
        (
            request.validation and settings.get("val_fraction"),
            "validation and val_fraction contradict each other: set only one of them",
        ),
        (
            request.glove is not None and pretrained is not None,
            "glove and pretrained both provide embeddings: omit one of them",
        ),
        (
            request.glove is not None and settings.get("tokenizer") == "char",
            "glove contains vectors of words: set tokenizer to word, or omit it",
        ),
        (
            settings.get("freeze_embeddings") and request.glove is None and pretrained is None,
            "freeze_embeddings keeps the vectors of glove or pretrained unchanged: set one of them, or omit it",
        ),
    ]
    for clash, message in clashes:
        if clash:
            fields = ("validation", "val_fraction", "glove", "pretrained", "tokenizer", "freeze_embeddings")
            raise ConfigError(message, fields=fields)
    if settings.get("freeze_encoder") and pretrained is None:
        raise ConfigError(
            "freeze_encoder needs pretrained: set it, or omit it", fields=["freeze_encoder", "pretrained"]
        )
    if request.glove is not None:
        settings["tokenizer"] = "word"
    if pretrained is not None:
        shape = pretrained.checkpoint.config
        if "embedding.weight" not in pretrained.checkpoint.tensors:
            raise CheckpointError(f"{pretrained.path}: has no network to start from; choose another model")
        fixed = {
            **{name: getattr(shape, name) for name in ("cell", "num_layers", "hidden_size", "embedding_dim")},
            "skip_connections": shape.skip_connections,
            "bidirectional": False,
            "tokenizer": pretrained.tokenizer.kind,
        }
        refuse_contradictions({name: settings.get(name) for name in fixed}, fixed, f"the value of {pretrained.path}")
        settings |= fixed
    return settings


def _read_samples(request: ClassifierRequest) -> tuple[Labelled, Labelled | None]:
    """Return the samples, and the separate samples for validation."""
    if STDIN in request.samples and STDIN in request.validation:
        raise ConfigError("validation: standard input is read once; give a file", fields=["validation"])
    found = request.labelled or read_labelled(request.samples, request.reading)
    return found, read_labelled(request.validation, request.reading) if request.validation else None


def _make_tokenizer(split: Split, settings: Mapping[str, Any], pretrained: PretrainedModel | None) -> Tokenizer:
    """Return the tokenizer of the network: that of the pretrained model, or one of the training samples."""
    if pretrained is not None:
        return pretrained.tokenizer
    texts = [" ".join(sample.text.split("\n")) + "\n" for sample in split.train]
    kind = settings.get("tokenizer") or choose_tokenizer(texts)
    return make_tokenizer(TokenizerConfig(tokenizer=kind, min_count=2, lowercase=True), texts)


def _embedding(
    vectors: VectorFile | None, tokenizer: Tokenizer, split: Split, seed: int
) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
    """Return token embeddings from a file of vectors, metadata about them, and notes."""
    if vectors is None:
        return None, {}, ()
    import numpy as np

    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for sample in split.train:
        counts += np.bincount(tokenizer.encode(sample.text), minlength=tokenizer.vocab_size)
    embedding, coverage = embed_vocabulary(vectors, tokenizer.tokens, counts, seed=seed)
    return embedding, {"glove": asdict(coverage)}, (str(coverage),)


def _describe(request: ClassifierRequest, found: Labelled, validation: Labelled | None) -> dict[str, Any]:
    """Return the metadata of a new classifier: version, command, samples."""
    samples: list[Sample] = [*found.samples, *(validation.samples if validation else ())]
    return {
        "charlm": __version__,
        "command": request.command,
        "trained": time.strftime("%Y-%m-%d"),
        "samples": {
            "sources": list(request.samples),
            "validation": list(request.validation),
            "reading": asdict(request.reading),
            "count": len(samples),
            "sha256": samples_hash(samples),
        },
    }
