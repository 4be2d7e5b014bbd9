"""Gathers what a training needs before it starts: text, vocabulary, settings, folder."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from charlm import __version__
from charlm.checkpoint import Checkpoint, load_checkpoint
from charlm.config import ModelConfig, Rule, TrainConfig
from charlm.corpus import STDIN, Corpus, read_corpus, split_ids
from charlm.errors import ConfigError, CorpusError, RunError
from charlm.plan import plan
from charlm.runs import Run
from charlm.tokenizer import CharTokenizer, Ids, Tokenizer


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
    notes: list[str] = field(default_factory=list)
    resume_from: Checkpoint | None = None


def new_job(
    specs: Sequence[str],
    name: str | None,
    settings: Mapping[str, Any],
    *,
    encoding: str,
    errors: str,
    force: bool,
) -> Job:
    """Read a corpus and make room for a new run; nothing on disk is touched unless all is well."""
    corpus = read_corpus(specs, encoding=encoding, errors=errors)
    tokenizer = CharTokenizer.from_text(corpus.text)
    if tokenizer.vocab_size < 3:
        raise CorpusError(f"{' '.join(specs)}: only one distinct character, {corpus.text[0]!r}: nothing to learn")
    ids = tokenizer.encode(corpus.text)
    model_config, train_config, notes = plan(len(ids), tokenizer.vocab_size, settings)
    train_ids, val_ids = split_ids(ids, train_config.val_fraction)
    return Job(
        run=Run.create(name, corpus.name, force=force),
        model_config=model_config,
        train_config=train_config,
        tokenizer=tokenizer,
        train_ids=train_ids,
        val_ids=val_ids,
        chars_per_token=len(corpus.text) / len(ids),
        story=_story(corpus, encoding, errors),
        notes=notes,
    )


def resumed_job(name: str, specs: Sequence[str], settings: Mapping[str, Any], *, force: bool) -> Job:
    """Take up a run with the settings and the corpus it began with."""
    run = Run.to_resume(name)
    saved = load_checkpoint(run.last, with_resume=True)
    train_config = TrainConfig(**saved.story["training"])
    if saved.story["metrics"]["fraction"] >= 1:
        raise RunError(f"{run.path}: this training has come to its end; there is nothing to resume")
    _refuse_contradictions(settings, asdict(saved.config) | asdict(train_config))
    told = saved.story["corpus"]
    specs = specs or told["sources"]
    if list(specs) == [STDIN] and sys.stdin.isatty():
        raise CorpusError(f"{run.path}: its text came from stdin; give it again: charlm train - --resume {run.name}")
    corpus = read_corpus(specs, encoding=told["encoding"], errors=told["errors"])
    if corpus.sha256 != told["sha256"] and not force:
        raise CorpusError(f"{' '.join(specs)}: not the text that {run.path} began with; --force goes on all the same")
    ids = saved.tokenizer.encode(corpus.text)
    train_ids, val_ids = split_ids(ids, train_config.val_fraction)
    return Job(
        run=run,
        model_config=saved.config,
        train_config=train_config,
        tokenizer=saved.tokenizer,
        train_ids=train_ids,
        val_ids=val_ids,
        chars_per_token=len(corpus.text) / len(ids),
        story={key: saved.story[key] for key in ("charlm", "command", "corpus")},
        resume_from=saved,
    )


def _story(corpus: Corpus, encoding: str, errors: str) -> dict[str, Any]:
    return {
        "charlm": __version__,
        "command": shlex.join(["charlm", *sys.argv[1:]]),
        "corpus": {
            "name": corpus.name,
            "sources": list(corpus.sources),
            "characters": len(corpus.text),
            "sha256": corpus.sha256,
            "encoding": encoding,
            "errors": errors,
        },
    }


def _refuse_contradictions(given: Mapping[str, Any], began_with: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if value is not None and value != began_with[name]:
            rules: list[Rule] = [
                spec.metadata["rule"]
                for settings in (ModelConfig, TrainConfig)
                for spec in settings.__dataclass_fields__.values()
                if spec.name == name
            ]
            raise ConfigError(
                f"{rules[0].flags[-1]} {value} contradicts {began_with[name]}, which the run began with: leave it out"
            )
