"""Preparation of a training: open texts, encode them, plan, create the run.

The command line, the lessons, the benchmarks and the Python API all train through `run`, or through `prepare_new` and
`charlm.training.resumption.prepare_resumed` if they have to do something between preparation and training.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.config import NGRAM_CELL, ModelConfig, TokenizerConfig, TrainConfig
from charlm.engine.checkpoint import Checkpoint, Tensors
from charlm.engine.ngram import NGram
from charlm.engine.runs import Run
from charlm.errors import ConfigError
from charlm.text.glove import embed_vocabulary
from charlm.text.items import NO_ITEMS
from charlm.text.vector_files import VectorFile, Vectors
from charlm.training.counting import Counts, count_ngrams, wants_counts
from charlm.training.dataset import Dataset, read_dataset
from charlm.training.finetune import PretrainedModel
from charlm.training.kept_text import keep_text
from charlm.training.launch import check_pytorch, rank_and_count
from charlm.training.ngram_training import train_ngrams
from charlm.training.planner import ItemLengths, Plan, check_time, plan
from charlm.training.request import Request, open_machine, refuse_contradictions
from charlm.training.texts import COUNTING, READING, check_name, describe, open_texts

if TYPE_CHECKING:
    from charlm.training.callbacks import Callbacks
    from charlm.training.network import LanguageModel
    from charlm.training.progress import Progress
    from charlm.training.throughput import Machine

STARTING = "starting PyTorch"
"""Part of the preparation, as it is announced."""


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """Weights that a new training starts with instead of random ones.

    Attributes:
        tensors: All weights by name, of a pretrained model.
        embedding: Token embeddings, (V, E), float32, from a file of word vectors.
        metadata: Metadata of the model file about these weights.
        notes: Sentences for the user.
    """

    tensors: Tensors | None = None
    embedding: Vectors | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training that is ready to start.

    Attributes:
        run: Folder of the run; unused in processes other than process 0.
        model_config: Shape of the model.
        train_config: Settings of the training.
        dataset: Texts and vocabulary.
        metadata: Metadata of the model file about its origin.
        machine: Device, processes and threads.
        notes: Sentences for the user.
        plan: Settings that were given or chosen, and the expected speed; None for a resumed training.
        initial: Weights to start with.
        ngram: N-gram model that is interpolated with the network; None in processes other than process 0.
        saved: State to resume from; None for a new training.
    """

    run: Run
    model_config: ModelConfig
    train_config: TrainConfig
    dataset: Dataset
    metadata: dict[str, Any]
    machine: "Machine"
    notes: tuple[str, ...] = ()
    plan: Plan | None = None
    initial: InitialWeights = field(default_factory=InitialWeights)
    ngram: NGram | None = None
    saved: Checkpoint | None = None

    def make_model(self) -> "LanguageModel":
        """Return the network with its initial weights, on the CPU."""
        import torch

        from charlm.training.network import LanguageModel

        torch.manual_seed(self.train_config.seed)
        model = LanguageModel(self.model_config)
        model.start_from_frequencies(torch.from_numpy(self.dataset.counts()))
        if self.initial.tensors is not None:
            model.load_tensors(self.initial.tensors)
        if self.initial.embedding is not None:
            model.embedding.weight.detach().copy_(torch.from_numpy(self.initial.embedding))
        model.embedding.weight.requires_grad_(not self.train_config.freeze_embeddings)
        return model

    def train(self, callbacks: "Callbacks | None" = None, model: "LanguageModel | None" = None) -> "Progress":
        """Train until the budget is used or `callbacks.stop` returns True.

        Args:
            callbacks: Called during the training.
            model: Network from `make_model`, if callbacks use it while it is trained; None to make one.

        Returns:
            The progress at the end.

        Raises:
            TrainingError: If the loss diverges repeatedly.
            CheckpointError: If the model cannot be written at the end.
        """
        import torch

        from charlm.training.trainer import Trainer

        config, workers = self.train_config, self.machine.workers
        if self.machine.may_use_fewer_threads and config.threads is not None:
            # With another number of threads, a resumed training would differ in the last bits.
            torch.set_num_threads(config.threads)
        model = (model or self.make_model()).to(self.machine.device)
        torch.manual_seed(config.seed + workers.rank)
        trainer = Trainer(
            model,
            self.dataset,
            config,
            run=self.run,
            metadata=self.metadata,
            callbacks=callbacks,
            machine=self.machine,
            ngram=self.ngram,
        )
        if self.saved is not None:
            trainer.resume(self.saved)
        return trainer.train(pretrained="from" in self.metadata)


def run(request: Request, callbacks: "Callbacks | None" = None) -> tuple[Run, "Progress"]:
    """Prepare a new training and train the model: a network, or an n-gram model without a network.

    Args:
        request: Texts, settings and hardware of the training.
        callbacks: Called during the training.

    Returns:
        The run, and the progress at its end.

    Raises:
        CharlmError: Of any kind, if the request cannot be fulfilled.
    """
    if request.settings.get("cell") == NGRAM_CELL:
        trained = train_ngrams(request)
        if callbacks is not None:
            callbacks.report(trained.progress)
        return trained.run, trained.progress
    with prepare_new(request) as training:
        return training.run, training.train(callbacks)


@contextmanager
def prepare_new(
    request: Request, announce: Callable[[str], None] = lambda part: None, *, dry_run: bool = False
) -> Iterator[Training]:
    """Prepare a new training: read the texts, choose the settings, create the run.

    Everything that can be checked without reading the texts is checked first. The run stays locked, and the processes
    of a distributed training stay connected, until the context ends.

    Args:
        request: Texts, settings and hardware of the training.
        announce: Called at the beginning of each part of the preparation, with its description.
        dry_run: Whether to create no run.

    Raises:
        CharlmError: Of any kind, if the request cannot be fulfilled.
    """
    check_pytorch()
    pretrained = None if request.pretrained is None else PretrainedModel.find(request.pretrained)
    settings = _check_settings(request, pretrained)
    vectors = None if request.glove is None else VectorFile(request.glove)
    if not dry_run:
        check_name(request, pretrained)

    with ExitStack() as stack:
        announce(READING)
        texts = stack.enter_context(ExitStack())
        sources = texts.enter_context(open_texts(request, settings))
        base = None if pretrained is None else pretrained.tokenizer
        dataset = read_dataset(sources, TokenizerConfig.pick(settings), base=base)

        has_ngrams, counts = wants_counts(settings, dataset), Counts()
        if has_ngrams and rank_and_count()[0] == 0:
            announce(COUNTING)
            counts = count_ngrams(dataset, settings)

        announce(STARTING)
        machine = stack.enter_context(open_machine(request.hardware))
        announce("timing some updates to choose the settings")
        planned = _make_plan(settings, dataset, vectors, pretrained, machine, has_ngrams=has_ngrams)
        planned = replace(planned, notes=(*planned.notes, *check_time(planned, machine)))
        initial = _initial_weights(pretrained, vectors, dataset, planned.train.seed)

        run, text_notes, described = Run(Path()), [], (*sources.notes(), *dataset.notes())
        if machine.workers.is_first and not dry_run:
            default_name = request.default_name or sources.corpus.name
            run = stack.enter_context(Run.create(request.name, default_name, force=request.force))
            text_notes = keep_text(run, sources, pretrained)
        texts.close()
        yield Training(
            run=run,
            model_config=planned.model,
            train_config=planned.train,
            dataset=dataset,
            metadata={**describe(request, sources, dataset), **initial.metadata},
            machine=machine,
            notes=(*described, *initial.notes, *counts.notes, *planned.notes, *text_notes),
            plan=planned,
            initial=initial,
            ngram=counts.ngram,
        )


def _check_settings(request: Request, pretrained: PretrainedModel | None) -> dict[str, Any]:
    """Return the settings by field name, including those of a pretrained model.

    Raises:
        ConfigError: If a setting is out of range, or two contradict each other.
    """
    settings = dict(request.settings)
    if pretrained is not None:
        known = pretrained.fixed_settings
        refuse_contradictions({name: settings.get(name) for name in known}, known, f"the value of {pretrained.path}")
        pretrained.check_vocabulary_settings(settings)
        settings |= known
        if settings.get("items") is None:
            settings["items"] = pretrained.items
    config = TokenizerConfig.pick(settings)
    TrainConfig.pick(settings)
    ModelConfig.pick({**settings, "tie_weights": None})  # the widths that tied weights need are still to be planned
    _refuse_clashes(request, settings, config)
    return settings


def _refuse_clashes(request: Request, settings: Mapping[str, Any], config: TokenizerConfig) -> None:
    """Refuse settings that contradict each other.

    Raises:
        ConfigError: If there are any.
    """
    frozen = settings.get("freeze_embeddings")
    clashes = [
        (
            request.validation and settings.get("val_fraction"),
            "validation and val_fraction contradict each other: set only one of them",
        ),
        (
            request.glove is not None and request.pretrained is not None,
            "glove and pretrained both provide embeddings: omit one of them",
        ),
        (
            request.glove is not None and config.tokenizer == "char",
            "glove contains vectors of words: set tokenizer to word, or omit it",
        ),
        (
            frozen and request.glove is None and request.pretrained is None,
            "freeze_embeddings keeps the vectors of glove or pretrained unchanged: set one of them, or omit it",
        ),
        (
            frozen and settings.get("tie_weights"),
            "freeze_embeddings would freeze the decoder too if tie_weights is set: omit one of them",
        ),
        (
            settings.get("ngram") is False and (settings.get("ngram_order") or settings.get("ngram_size")),
            "ngram_order and ngram_size are settings of the n-gram model, which is switched off: omit them",
        ),
    ]
    fields = (
        *("validation", "val_fraction", "glove", "pretrained", "tokenizer", "freeze_embeddings", "tie_weights"),
        *("ngram_order", "ngram_size"),
    )
    for clash, message in clashes:
        if clash:
            raise ConfigError(message, fields=fields)


def _make_plan(
    settings: Mapping[str, Any],
    dataset: Dataset,
    vectors: VectorFile | None,
    pretrained: PretrainedModel | None,
    machine: "Machine",
    *,
    has_ngrams: bool,
) -> Plan:
    """Choose the settings that were not given.

    Raises:
        ConfigError: If a setting is out of range, or the size of the word vectors is not the one that was given.
    """
    split = dataset.items
    resolved = {
        "val_fraction": dataset.val_fraction,
        "items": NO_ITEMS if split is None else split.form.kind,
        "ngram": has_ngrams,
    }
    given = {**settings, **resolved} | _sizes_from_vectors(vectors, settings)
    lengths = None if split is None else ItemLengths(count=len(split.train), longest=split.train.longest)
    words = dataset.tokenizer_config.tokenizer == "word"
    planned = plan(dataset.num_train_tokens, dataset.tokenizer.vocab_size, given, machine, words=words, items=lengths)
    if pretrained is not None and settings.get("learning_rate") is None:
        planned = replace(planned, train=pretrained.with_reduced_learning_rate(planned.train))
    return replace(planned, given=frozenset(name for name in planned.given if settings.get(name) is not None))


def _sizes_from_vectors(vectors: VectorFile | None, settings: Mapping[str, Any]) -> dict[str, int]:
    """Return the embedding size that a file of vectors requires, and the hidden size if weights are tied.

    Raises:
        ConfigError: If another embedding size was given.
    """
    if vectors is None:
        return {}
    given = settings.get("embedding_dim")
    if given is not None and given != vectors.dim:
        raise ConfigError(
            f"embedding_dim {given}: the vectors of {vectors.path} have {vectors.dim} numbers; omit it",
            fields=["embedding_dim"],
        )
    tied = settings.get("tie_weights") and settings.get("hidden_size") is None
    return {"embedding_dim": vectors.dim} | ({"hidden_size": vectors.dim} if tied else {})


def _initial_weights(
    pretrained: PretrainedModel | None, vectors: VectorFile | None, dataset: Dataset, seed: int
) -> InitialWeights:
    """Return the weights of a pretrained model or of a file of vectors, fitted to the vocabulary."""
    if pretrained is not None:
        counts = dataset.counts()
        return InitialWeights(
            tensors=pretrained.expanded_tensors(dataset.tokenizer, counts),
            metadata={"from": pretrained.metadata(dataset.tokenizer)},
            notes=(pretrained.note(dataset.tokenizer, counts),),
        )
    if vectors is not None:
        embedding, coverage = embed_vocabulary(vectors, dataset.tokenizer.tokens, dataset.counts(), seed=seed)
        return InitialWeights(embedding=embedding, metadata={"glove": asdict(coverage)}, notes=(str(coverage),))
    return InitialWeights()
