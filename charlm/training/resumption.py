"""Preparation of a resumed training: find the save, check settings and texts, encode the texts again."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from charlm.config import DECODING_ERRORS, NGRAM_CELL, TokenizerConfig, TrainConfig
from charlm.engine.checkpoint import Checkpoint, load_checkpoint
from charlm.engine.runs import Run
from charlm.errors import CheckpointError, ConfigError, CorpusError, RunError
from charlm.settings import from_dict
from charlm.text.corpus import CorpusReader
from charlm.text.items import NO_ITEMS
from charlm.text.sources import STDIN
from charlm.training.dataset import TextSources, read_dataset
from charlm.training.kept_text import keep_text_of_resumed
from charlm.training.launch import check_pytorch, rank_and_count
from charlm.training.request import Request, open_corpus, open_machine, refuse_contradictions
from charlm.training.setup import STARTING, Training
from charlm.training.texts import READING

if TYPE_CHECKING:
    from charlm.training.throughput import Machine

T = TypeVar("T")

KEPT_METADATA = ("charlm", "command", "corpus", "validation", "tokenization", "items", "glove", "from")
"""Metadata that a resumed training keeps from its first part."""


@contextmanager
def prepare_resumed(
    request: Request, name: str, announce: Callable[[str], None] = lambda part: None
) -> Iterator[Training]:
    """Prepare to continue a run, with the settings and the corpus that it started with.

    Args:
        request: Settings, which must equal those of the run if they are given; and the corpus, if it has moved.
        name: Name or folder of the run; an empty string for the newest.
        announce: Called at the beginning of each part of the preparation, with its description.

    Raises:
        CharlmError: Of any kind, if the run cannot be continued.
    """
    check_pytorch()
    run = _find_run(name)
    with ExitStack() as stack:
        if rank_and_count()[0] == 0:
            stack.enter_context(run.locked())
        saved, notes = load_save(run, load_checkpoint)
        origin = _Origin.from_metadata(run, saved)
        _check_unchanged(request, run, saved, origin)

        announce(READING)
        with _reopen_texts(request, run, origin) as sources:
            dataset = read_dataset(sources, origin.tokenizer_config, tokenizer=saved.tokenizer, spelling=saved.spelling)
            notes += sources.notes()
            if rank_and_count()[0] == 0:
                notes += keep_text_of_resumed(run, sources, saved.metadata, changed=origin.differs_from(sources))
        config = origin.train_config
        if dataset.items is None and config.batch_size * config.seq_len > len(dataset.train_ids):
            names = " ".join(sources.corpus.sources)
            raise CorpusError(
                f"{names}: too short for {config.batch_size} streams of {config.seq_len} tokens; give a longer text"
            )

        announce(STARTING)
        machine = stack.enter_context(open_machine(request.hardware))
        yield Training(
            run=run,
            model_config=saved.config,
            train_config=config,
            dataset=dataset,
            metadata={key: saved.metadata[key] for key in KEPT_METADATA if key in saved.metadata},
            machine=machine,
            notes=(*notes, *_precision_notes(config, machine)),
            ngram=None if saved.counts is None else saved.counts.ngram,
            saved=saved,
        )


def _find_run(name: str) -> Run:
    """Return the run to continue.

    Raises:
        RunError: If there is none, or its model has no network.
    """
    try:
        return Run.find_resumable(name)
    except RunError:
        model = Run.named(name).model if name else None
        if model is None or not model.is_file() or load_checkpoint(model).config.cell != NGRAM_CELL:
            raise
        raise RunError(f"{model}: a model without a network is complete; there is nothing to resume") from None


def load_save(run: Run, load: Callable[..., T]) -> tuple[T, list[str]]:
    """Return the newest save that is intact, and a note for each that is not.

    Args:
        run: A run with saves.
        load: Function that loads a file; it takes the path and `with_resume`.

    Raises:
        CheckpointError: If the oldest save is damaged too.
    """
    notes: list[str] = []
    *newer, oldest = run.saves
    for path in newer:
        try:
            return load(path, with_resume=True), notes
        except CheckpointError as error:
            notes.append(f"{error}; using the previous save")
    return load(oldest, with_resume=True), notes


@dataclass(frozen=True, kw_only=True)
class _Origin:
    """Settings and texts with which a run started, as its save records them.

    Attributes:
        train_config: Settings of the training.
        tokenizer_config: Settings of the tokenizer.
        corpus: Provenance of the corpus.
        validation: Provenance of the validation text, if it is separate.
    """

    train_config: TrainConfig
    tokenizer_config: TokenizerConfig
    corpus: Mapping[str, Any]
    validation: Mapping[str, Any] | None

    @classmethod
    def from_metadata(cls, run: Run, saved: Checkpoint) -> "_Origin":
        """Return the record of a save. The save is untrusted.

        Raises:
            RunError: If the training is complete.
            CheckpointError: If the metadata is incomplete or damaged.
        """
        metadata = saved.metadata
        if metadata.get("finished") is True:
            raise RunError(f"{run.path}: this training is complete; there is nothing to resume")
        texts = [metadata[name] for name in ("corpus", "validation") if name in metadata]
        settings = metadata.get("training"), metadata.get("tokenization", {})
        if "corpus" not in metadata or not all(map(_is_provenance, texts)) or not isinstance(settings[0], dict):
            raise CheckpointError(f"{run.path}: damaged save (it does not record its training text)")
        try:
            return cls(
                train_config=from_dict(TrainConfig, settings[0]),
                tokenizer_config=from_dict(TokenizerConfig, settings[1]),
                corpus=metadata["corpus"],
                validation=metadata.get("validation"),
            )
        except ConfigError as error:
            raise CheckpointError(f"{run.path}: damaged save ({error})") from None

    def differs_from(self, sources: TextSources) -> bool:
        """Return True if a text, after its first pass, is not the one with which the run started."""
        recorded = {"corpus": self.corpus, "validation": self.validation}
        texts = {"corpus": sources.corpus, "validation": sources.validation}
        return any(
            text is not None and text.sha256 != (recorded[name] or {}).get("sha256") for name, text in texts.items()
        )


def _is_provenance(recorded: object) -> bool:
    match recorded:
        case {"sources": [str(), *sources], "sha256": str(), "encoding": str(), "errors": str(errors), **others}:
            texts = [*sources, others.get("field", ""), others.get("table", "")]
            return all(isinstance(text, str) for text in texts) and errors in DECODING_ERRORS
    return False


def _check_unchanged(request: Request, run: Run, saved: Checkpoint, origin: _Origin) -> None:
    """Refuse settings that differ from those with which a run started."""
    given = {
        **request.settings,
        "encoding": request.text.encoding,
        "errors": request.text.errors,
        "field": request.text.field,
        "table": request.text.table,
        "name": request.name,
    }
    known = {
        **asdict(saved.config),
        **asdict(origin.train_config),
        **asdict(origin.tokenizer_config),
        "field": None,
        "table": None,
        **origin.corpus,
        "name": run.name,
    }
    refuse_contradictions(given, known, "with which the run started")


@contextmanager
def _reopen_texts(request: Request, run: Run, origin: _Origin) -> Iterator[TextSources]:
    """Open the texts of a run again.

    Raises:
        CorpusError: If a text is missing or has changed.
    """
    with ExitStack() as stack:
        corpus = stack.enter_context(_same_text(request, origin.corpus, run, request.corpus))
        validation = None
        if origin.validation is not None:
            validation = stack.enter_context(_same_text(request, origin.validation, run))
        yield TextSources(
            corpus=corpus,
            validation=validation,
            val_fraction=origin.train_config.val_fraction,
            items=origin.train_config.items or NO_ITEMS,
            seed=origin.train_config.seed,
            cache=request.text.cache_folder,
        )


def _same_text(request: Request, recorded: Mapping[str, Any], run: Run, specs: Sequence[str] = ()) -> CorpusReader:
    """Open a text, and read it once to check that the run started with this text.

    Raises:
        CorpusError: If the text is missing or has changed.
    """
    specs = specs or recorded["sources"]
    if STDIN in specs and sys.stdin.isatty():
        raise CorpusError(
            f"{run.path}: started with a text from standard input; set corpus to - and provide the text there again",
            fields=["corpus"],
        )
    options = replace(request.text, field=recorded.get("field"), table=recorded.get("table"))
    text = open_corpus(specs, recorded["encoding"], recorded["errors"], options)
    text.read_through()
    if text.sha256 != recorded["sha256"] and not request.force:
        raise CorpusError(
            f"{' '.join(specs)}: differs from the text with which {run.path} started; set force to continue anyway",
            fields=["force"],
        )
    return text


def _precision_notes(config: TrainConfig, machine: "Machine") -> list[str]:
    """Return a note if this machine does not support the number format with which the run started."""
    from charlm.training.throughput import can_train_in_bf16

    if config.precision != "bf16" or can_train_in_bf16(machine.device):
        return []
    return ["the run started in bf16, which this processor does not support for training: continuing in fp32"]
