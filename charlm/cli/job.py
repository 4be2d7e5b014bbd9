"""Gathers what a training needs before it starts: text, vocabulary, settings, folder."""

import math
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from charlm import __version__
from charlm.checkpoint import Checkpoint, load_checkpoint, tensor_shapes
from charlm.config import ModelConfig, TrainConfig, rebuilt
from charlm.corpus import ERRORS, STDIN, Texts, split_ids
from charlm.errors import CheckpointError, ConfigError, CorpusError, RunError
from charlm.idcache import cache_folder, encode_texts
from charlm.plan import plan
from charlm.runs import Run
from charlm.tokenizer import CharTokenizer, Ids, Tokenizer

BYTES_A_PARAMETER = 4 * 4
"""A weight, its gradient and its two moments, each a float32."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training that is ready to start.

    Attributes:
        run: Its folder.
        model_config: The model's shape.
        train_config: How to learn.
        tokenizer: The vocabulary.
        train_ids: The text to learn.
        val_ids: The text to validate on.
        chars_per_token: Characters that a token stands for, on average.
        story: What the model file shall tell of where it came from.
        hold: What is held till the training ends: the run, so that no other process takes it.
        notes: What its user should know.
        resume_from: The saved training to go on with, if it is one.
    """

    run: Run
    model_config: ModelConfig
    train_config: TrainConfig
    tokenizer: Tokenizer
    train_ids: Ids
    val_ids: Ids
    chars_per_token: float
    story: dict[str, Any]
    hold: ExitStack
    notes: list[str] = field(default_factory=list)
    resume_from: Checkpoint | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for on the command line, beside the settings.

    Attributes:
        specs: The texts.
        name: The run's name.
        encoding: How the texts' bytes become characters; None if not given.
        errors: What to do with bytes that don't; None if not given.
        cache: The folder for the ids of long texts; None for the user's own.
        force: Replace a run of the name; resume although the text has changed.
        first: Whether this process is the one that writes, of several.
    """

    specs: Sequence[str]
    name: str | None
    encoding: str | None
    errors: str | None
    cache: Path | None
    force: bool
    first: bool = True

    def texts(self, specs: Sequence[str], encoding: str, errors: str) -> Texts:
        """Open texts.

        Raises:
            CorpusError: If one is not there, or several processes would have to share standard input.
        """
        if STDIN in specs and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise CorpusError("standard input cannot be shared by several processes: give a file")
        return Texts(specs, encoding=encoding, errors=errors, folder=self.folder)

    @property
    def folder(self) -> Path:
        """The cache's folder."""
        return self.cache or cache_folder()


def new_job(request: Request, settings: Mapping[str, Any]) -> Job:
    """Read a corpus and make room for a new run; nothing of a run is touched unless all is well."""
    encoding, errors = request.encoding or "utf-8", request.errors or "strict"
    with ExitStack() as hold, request.texts(request.specs, encoding, errors) as texts:
        if request.name is not None:  # known before an hour of reading
            Run.check_free(request.name, force=request.force)
        tokenizer = CharTokenizer.from_pieces(texts.pieces())
        if tokenizer.vocab_size < 3:
            raise CorpusError(
                f"{' '.join(request.specs)}: only one distinct character, {tokenizer.tokens[1]!r}: nothing to learn"
            )
        ids, cached = encode_texts(texts, tokenizer, request.folder)
        model_config, train_config, notes = plan(len(ids), tokenizer.vocab_size, settings)
        _check_memory(model_config)
        if cached is not None:
            notes.append(f"the text's {len(ids):,} ids are kept in {cached}")
        train_ids, val_ids = split_ids(ids, train_config.val_fraction)
        run = Run(Path())  # which the other processes never touch
        if request.first:
            run = hold.enter_context(Run.create(request.name, texts.name, force=request.force))
        return Job(
            run=run,
            model_config=model_config,
            train_config=train_config,
            tokenizer=tokenizer,
            train_ids=train_ids,
            val_ids=val_ids,
            chars_per_token=texts.chars / len(ids),
            story=_story(texts, encoding, errors),
            hold=hold.pop_all(),
            notes=notes,
        )


def resumed_job(name: str, request: Request, settings: Mapping[str, Any]) -> Job:
    """Take up a run with the settings and the corpus it began with."""
    run = Run.to_resume(name)
    with ExitStack() as hold:
        if request.first:
            hold.enter_context(run.claimed())
        saved, notes = _load_save(run)
        train_config, told = _read_story(run, saved)
        given = {**settings, "encoding": request.encoding, "errors": request.errors, "name": request.name}
        began_with = asdict(saved.config) | asdict(train_config) | told | {"name": run.name}
        _refuse_contradictions(given, began_with)
        specs = request.specs or told["sources"]
        if STDIN in specs and sys.stdin.isatty():
            raise CorpusError(
                f"{run.path}: its text came from stdin; give it again: charlm train - --resume {run.name}"
            )
        with request.texts(specs, told["encoding"], told["errors"]) as texts:
            for _ in texts.pieces():  # to know it by its hash
                pass
            if texts.sha256 != told["sha256"] and not request.force:
                raise CorpusError(
                    f"{' '.join(specs)}: not the text that {run.path} began with; --force goes on all the same"
                )
            ids, _ = encode_texts(texts, saved.tokenizer, request.folder)
            chars_per_token = texts.chars / len(ids)
        train_ids, val_ids = split_ids(ids, train_config.val_fraction)
        if train_config.batch_size * train_config.seq_len > len(train_ids):  # the plan had fitted them
            raise CorpusError(f"{' '.join(specs)}: too short for the streams that {run.path} began with")
        return Job(
            run=run,
            model_config=saved.config,
            train_config=train_config,
            tokenizer=saved.tokenizer,
            train_ids=train_ids,
            val_ids=val_ids,
            chars_per_token=chars_per_token,
            story={key: saved.story[key] for key in ("charlm", "command", "corpus") if key in saved.story},
            hold=hold.pop_all(),
            notes=notes,
            resume_from=saved,
        )


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


def _read_story(run: Run, saved: Checkpoint) -> tuple[TrainConfig, dict[str, Any]]:
    """How the run learns, and what it knows of its text; the file may be anybody's."""
    match saved.story:
        case {"finished": True}:
            raise RunError(f"{run.path}: this training has come to its end; there is nothing to resume")
        case {
            "training": {},
            "corpus": {"sources": [str(), *_], "sha256": str(), "encoding": str(), "errors": str(errors)} as told,
        } if all(isinstance(source, str) for source in told["sources"]) and errors in ERRORS:
            try:
                return rebuilt(TrainConfig, saved.story["training"]), told
            except ConfigError as error:
                raise CheckpointError(f"{run.path}: damaged save ({error})") from None
    raise CheckpointError(f"{run.path}: damaged save (it does not say what it was trained on)")


def _check_memory(config: ModelConfig) -> None:
    """Refuse a model that this machine cannot hold, rather than be killed for it.

    Raises:
        ConfigError: If it needs more than the machine has.
    """
    parameters = sum(math.prod(shape) for shape in tensor_shapes(config).values())
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if parameters * BYTES_A_PARAMETER > memory:
        raise ConfigError(
            f"a model of {parameters:,} parameters needs {parameters * BYTES_A_PARAMETER / 2**30:,.0f} GiB to learn, "
            f"and this machine has {memory / 2**30:,.0f}: give a smaller --hidden or fewer --layers"
        )


def _story(texts: Texts, encoding: str, errors: str) -> dict[str, Any]:
    return {
        "charlm": __version__,
        "command": shlex.join(["charlm", *sys.argv[1:]]),
        "corpus": {
            "name": texts.name,
            "sources": list(texts.sources),
            "characters": texts.chars,
            "sha256": texts.sha256,
            "encoding": encoding,
            "errors": errors,
        },
    }


def _refuse_contradictions(given: Mapping[str, Any], began_with: Mapping[str, Any]) -> None:
    flags = {
        spec.name: spec.metadata["rule"].flags[-1].split("/")[0]
        for settings in (ModelConfig, TrainConfig)
        for spec in fields(settings)
        if "rule" in spec.metadata and spec.metadata["rule"].flags
    }
    for name, value in given.items():
        if value is not None and value != began_with[name]:
            raise ConfigError(
                f"{flags.get(name, '--' + name)} {value} contradicts {began_with[name]}, which the run began with: "
                "leave it out"
            )
