"""Gathers what a training needs before it starts: text, vocabulary, settings, folder."""

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm._version import __version__
from charlm.config import ModelConfig, TokenizerConfig, TrainConfig, from_dict
from charlm.engine.checkpoint import Checkpoint, Tensors, load_checkpoint
from charlm.engine.runs import Run
from charlm.errors import CheckpointError, ConfigError, CorpusError, RunError
from charlm.text.corpus import CorpusReader
from charlm.text.glove import VectorFile, Vectors, embed_vocabulary
from charlm.text.id_cache import cache_folder
from charlm.text.sources import ERRORS, STDIN
from charlm.training.dataset import Dataset
from charlm.training.finetune import PretrainedModel
from charlm.training.planner import Plan, plan

if TYPE_CHECKING:
    from charlm.training.throughput import Machine

KEPT_METADATA = ("charlm", "command", "corpus", "validation", "tokenization", "glove", "from")
"""What a resumed training goes on telling of where it came from."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training that is ready to start.

    Attributes:
        run: Its folder.
        model_config: The model's shape.
        train_config: How to learn.
        dataset: What to learn, and what to validate on.
        metadata: What the model file shall tell of where it came from.
        hold: What is held till the training ends: the run, so that no other process takes it.
        notes: What its user should know.
        embedding: The token embedding to begin with, (V, E), if it is not to be drawn.
        plan: What was chosen, of a new training.
        weights: All weights to begin with, if the model has learnt before.
        resume_from: The saved training to go on with, if it is one.
    """

    run: Run
    model_config: ModelConfig
    train_config: TrainConfig
    dataset: Dataset
    metadata: dict[str, Any]
    hold: ExitStack
    notes: list[str] = field(default_factory=list)
    embedding: Vectors | None = None
    plan: Plan | None = None
    weights: Tensors | None = None
    resume_from: Checkpoint | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for on the command line, beside the settings.

    Attributes:
        specs: The texts.
        validation: The texts to validate on, if they are not the end of the others.
        glove: A file of word vectors to begin with.
        start: The trained model to go on from, a file or run.
        name: The run's name.
        encoding: How the texts' bytes become characters; None if not given.
        errors: What to do with bytes that don't; None if not given.
        cache: The folder for the ids of long texts; None for the user's own.
        force: Replace a run of the name; resume although the text has changed.
        first: Whether this process is the one that writes, of several.
        plan_only: Make no run.
    """

    specs: Sequence[str]
    validation: Sequence[str]
    glove: Path | None
    start: str | None
    name: str | None
    encoding: str | None
    errors: str | None
    cache: Path | None
    force: bool
    first: bool = True
    plan_only: bool = False

    def texts(self, specs: Sequence[str], encoding: str, errors: str) -> CorpusReader:
        """Open texts.

        Raises:
            CorpusError: If one is not there, or several processes would have to share standard input.
        """
        if STDIN in specs and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise CorpusError("standard input cannot be shared by several processes: give a file")
        return CorpusReader(specs, encoding=encoding, errors=errors, folder=self.folder)

    @property
    def folder(self) -> Path:
        """The cache's folder."""
        return self.cache or cache_folder()


def new_job(request: Request, settings: Mapping[str, Any], find_machine: Callable[[], "Machine"]) -> Job:
    """Read a corpus, plan, and make room for a new run; nothing of a run is touched unless all is well.

    Args:
        request: What was asked for.
        settings: The settings by field name; None for those that were not given.
        find_machine: Called once the corpus is read; importing PyTorch takes time.
    """
    encoding, errors = request.encoding or "utf-8", request.errors or "strict"
    start, settings = _with_start(request, settings)
    tokenizer_config = TokenizerConfig.pick(settings)
    TrainConfig.pick(settings)  # what is out of its range is known before an hour of reading
    ModelConfig.pick({**settings, "tie_weights": None})
    _refuse_clashes(request, settings, tokenizer_config)
    vectors = None if request.glove is None else VectorFile(request.glove)
    if request.name is not None and start is not None and start.is_in(Run.named(request.name)):
        raise RunError(f"--name {request.name}: that is the run that --from reads, and it stays: take another --name")
    if request.name is not None and not request.plan_only:
        Run.check_free(request.name, force=request.force)
    with ExitStack() as hold, ExitStack() as reading:
        texts = reading.enter_context(request.texts(request.specs, encoding, errors))
        known = None if start is None else start.tokenizer
        held_out = None
        if request.validation:
            held_out = reading.enter_context(request.texts(request.validation, encoding, errors))
        dataset = Dataset.read(
            texts, held_out, tokenizer_config, settings.get("val_fraction"), request.folder, known=known
        )
        tokenizer_config = dataset.tokenizer_config
        asked = {**settings, "val_fraction": dataset.val_fraction} | _as_wide_as(vectors, settings)
        words, vocab_size = tokenizer_config.tokenizer == "word", dataset.tokenizer.vocab_size
        planned = plan(len(dataset.train_ids), vocab_size, asked, find_machine(), words=words)
        if start is not None and settings.get("learning_rate") is None:
            planned = replace(planned, train=start.with_reduced_learning_rate(planned.train))
        planned = replace(planned, given=frozenset(name for name in planned.given if settings.get(name) is not None))
        begin, told, said = _beginning(start, vectors, dataset, planned.train.seed)
        run = Run(Path())  # which the other processes never touch
        if request.first and not request.plan_only:
            run = hold.enter_context(Run.create(request.name, texts.name, force=request.force))
        return Job(
            run=run,
            model_config=planned.model,
            train_config=planned.train,
            dataset=dataset,
            metadata=_metadata(texts, held_out, tokenizer_config, encoding, errors) | told,
            hold=hold.pop_all(),
            notes=[*dataset.notes(), *said, *planned.notes],
            plan=planned,
            **begin,
        )


def resumed_job(name: str, request: Request, settings: Mapping[str, Any]) -> Job:
    """Take up a run with the settings and the corpus it began with."""
    run = Run.find_resumable(name)
    with ExitStack() as hold, ExitStack() as reading:
        if request.first:
            hold.enter_context(run.locked())
        saved, notes = _load_save(run)
        train_config, tokenizer_config, told = _read_metadata(run, saved)
        given = {**settings, "encoding": request.encoding, "errors": request.errors, "name": request.name}
        began_with = (
            asdict(saved.config) | asdict(train_config) | asdict(tokenizer_config) | told["corpus"] | {"name": run.name}
        )
        _refuse_contradictions(given, began_with, "which the run began with")
        texts = _same_texts(reading, request, told["corpus"], run, request.specs)
        held_out = _same_texts(reading, request, told["validation"], run) if "validation" in told else None
        fraction = train_config.val_fraction
        dataset = Dataset.read(texts, held_out, tokenizer_config, fraction, request.folder, saved.tokenizer)
        if train_config.batch_size * train_config.seq_len > len(dataset.train_ids):  # the plan had fitted them
            raise CorpusError(f"{' '.join(texts.sources)}: too short for the streams that {run.path} began with")
        return Job(
            run=run,
            model_config=saved.config,
            train_config=train_config,
            dataset=dataset,
            metadata={key: saved.metadata[key] for key in KEPT_METADATA if key in saved.metadata},
            hold=hold.pop_all(),
            notes=notes,
            resume_from=saved,
        )


def _same_texts(
    reading: ExitStack, request: Request, told: Mapping[str, Any], run: Run, specs: Sequence[str] = ()
) -> CorpusReader:
    """Open texts again, and read them once to see that they are those that a run began with."""
    specs = specs or told["sources"]
    if STDIN in specs and sys.stdin.isatty():
        raise CorpusError(f"{run.path}: its text came from stdin; give it again: charlm train - --resume {run.name}")
    texts = reading.enter_context(request.texts(specs, told["encoding"], told["errors"]))
    texts.read_through()
    if texts.sha256 != told["sha256"] and not request.force:
        raise CorpusError(f"{' '.join(specs)}: not the text that {run.path} began with; --force goes on all the same")
    return texts


def _with_start(request: Request, settings: Mapping[str, Any]) -> tuple[PretrainedModel | None, Mapping[str, Any]]:
    """The model to go on from, if one was asked for, and the settings, completed by what it brings.

    Raises:
        CheckpointError: If there is no such model.
        ConfigError: If the settings contradict it.
    """
    if request.start is None:
        return None, settings
    start = PretrainedModel.find(request.start)
    _refuse_contradictions({name: settings.get(name) for name in start.fixed}, start.fixed, f"as {start.path} has it")
    start.check_bounds(settings)
    return start, {**settings, **start.fixed}


def _beginning(
    start: PretrainedModel | None, vectors: VectorFile | None, dataset: Dataset, seed: int
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """What a training begins with, if not with drawn weights: fields of its job, parts of its story, notes."""
    if start is not None:
        weights = start.grown(dataset.tokenizer, dataset.counts())
        told = {"from": start.metadata(dataset.tokenizer)}
        return {"weights": weights}, told, [start.note(dataset.tokenizer, dataset.counts())]
    if vectors is None:
        return {}, {}, []
    embedding, coverage = embed_vocabulary(vectors, dataset.tokenizer.tokens, dataset.counts(), seed=seed)
    return {"embedding": embedding}, {"glove": asdict(coverage)}, [str(coverage)]


def _refuse_clashes(request: Request, settings: Mapping[str, Any], tokenizer_config: TokenizerConfig) -> None:
    if request.validation and settings.get("val_fraction"):
        raise ConfigError("--validation and --val-fraction contradict each other: give one of them")
    if request.glove is not None and request.start is not None:
        raise ConfigError("--glove: --from brings what its model has learnt of words: leave one of them out")
    if request.glove is not None and tokenizer_config.tokenizer == "char":
        raise ConfigError("--glove has vectors of words: add --tokenizer word, or leave it out")
    if settings.get("freeze_embeddings") and request.glove is None and request.start is None:
        raise ConfigError("--freeze-embeddings keeps the vectors of --glove as they are: give it, or leave both out")
    if settings.get("freeze_embeddings") and settings.get("tie_weights"):
        raise ConfigError("--freeze-embeddings with --tie would freeze the decoder too: leave one of them out")


def _as_wide_as(vectors: VectorFile | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The embedding width that a file of vectors asks for, and the units, if the weights are tied."""
    if vectors is None:
        return {}
    asked = settings.get("embedding_dim")
    if asked is not None and asked != vectors.dim:
        raise ConfigError(
            f"--embed {asked}: the vectors of {vectors.path} have {vectors.dim} numbers; leave --embed out"
        )
    units = vectors.dim if settings.get("tie_weights") and settings.get("hidden_size") is None else None
    return {"embedding_dim": vectors.dim} | ({} if units is None else {"hidden_size": units})


def _load_save(run: Run) -> tuple[Checkpoint, list[str]]:
    """The newest save that is whole."""
    notes: list[str] = []
    *newer, oldest = run.saves
    for path in newer:
        try:
            return load_checkpoint(path, with_resume=True), notes
        except CheckpointError as error:
            notes.append(f"{error}; going on from the save before it")
    return load_checkpoint(oldest, with_resume=True), notes


def _read_metadata(run: Run, saved: Checkpoint) -> tuple[TrainConfig, TokenizerConfig, dict[str, Any]]:
    """How the run learns, how its text is cut, and what it knows of its texts; the file may be anybody's."""
    match saved.metadata:
        case {"finished": True}:
            raise RunError(f"{run.path}: this training has come to its end; there is nothing to resume")
        case {"training": {}, "corpus": {}}:
            told: dict[str, Any] = {
                name: saved.metadata[name] for name in ("corpus", "validation") if name in saved.metadata
            }
            if all(map(_tells_its_sources, told.values())):
                try:
                    tokenizer_config = from_dict(TokenizerConfig, saved.metadata.get("tokenization", {}))
                    return from_dict(TrainConfig, saved.metadata["training"]), tokenizer_config, told
                except ConfigError as error:
                    raise CheckpointError(f"{run.path}: damaged save ({error})") from None
    raise CheckpointError(f"{run.path}: damaged save (it does not say what it was trained on)")


def _tells_its_sources(told: object) -> bool:
    match told:
        case {"sources": [str(), *sources], "sha256": str(), "encoding": str(), "errors": str(errors)}:
            return all(isinstance(source, str) for source in sources) and errors in ERRORS
    return False


def _metadata(
    texts: CorpusReader, held_out: CorpusReader | None, tokenizer_config: TokenizerConfig, encoding: str, errors: str
) -> dict[str, Any]:
    metadata = {
        "charlm": __version__,
        "command": shlex.join(["charlm", *sys.argv[1:]]),
        "corpus": _provenance(texts, encoding, errors),
        "tokenization": asdict(tokenizer_config),
    }
    return metadata | ({"validation": _provenance(held_out, encoding, errors)} if held_out else {})


def _provenance(texts: CorpusReader, encoding: str, errors: str) -> dict[str, Any]:
    return {
        "name": texts.name,
        "sources": list(texts.sources),
        "characters": texts.chars,
        "sha256": texts.sha256,
        "encoding": encoding,
        "errors": errors,
    }


def _refuse_contradictions(given: Mapping[str, Any], known: Mapping[str, Any], whose: str) -> None:
    """Refuse a setting that is given and is not what is known of it already."""
    flags = {
        spec.name: spec.metadata["rule"].flags[-1].split("/")[0]
        for settings in (ModelConfig, TrainConfig, TokenizerConfig)
        for spec in fields(settings)
        if "rule" in spec.metadata and spec.metadata["rule"].flags
    }
    for name, value in given.items():
        if value is not None and value != known[name]:
            raise ConfigError(
                f"{flags.get(name, '--' + name)} {value} contradicts {known[name]}, {whose}: leave it out"
            )
