"""Gathers what a training needs before it starts: text, vocabulary, settings, folder."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm import __version__
from charlm.checkpoint import Checkpoint, load_checkpoint
from charlm.config import ModelConfig, Rule, TokenizerConfig, TrainConfig
from charlm.corpus import STDIN, Corpus, check_split, read_corpus, split_ids, split_text
from charlm.errors import ConfigError, CorpusError, RunError
from charlm.glove import VectorFile, Vectors, embed_vocabulary
from charlm.plan import plan, share_to_validate, words_to_know
from charlm.runs import Run
from charlm.tokenizer import UNKNOWN_ID, Ids, Tokenizer, make_tokenizer
from charlm.words import JOIN, LINE_END_WORD, UNKNOWN_WORD


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
        embedding: The token embedding to begin with, (V, E), if it is not to be drawn.
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
    embedding: Vectors | None = None
    resume_from: Checkpoint | None = None


def new_job(
    specs: Sequence[str],
    name: str | None,
    settings: Mapping[str, Any],
    *,
    validation: Sequence[str] = (),
    glove: Path | None = None,
    encoding: str,
    errors: str,
    force: bool,
) -> Job:
    """Read a corpus and make room for a new run; nothing on disk is touched unless all is well."""
    cutting = TokenizerConfig.pick(settings)
    _refuse_clashes(settings, cutting, validation, glove)
    corpus = read_corpus(specs, encoding=encoding, errors=errors)
    held_out = read_corpus(validation, encoding=encoding, errors=errors) if validation else None
    cutting = words_to_know(len(corpus.text), cutting)
    fraction = 0.0 if held_out else share_to_validate(len(corpus.text), settings.get("val_fraction"))
    texts = _Texts.of(corpus, held_out, cutting, fraction)
    if not texts.worth_learning:
        what = "character" if cutting.tokenizer == "char" else "word"
        raise CorpusError(f"{' '.join(specs)}: only one distinct {what}: nothing to learn")
    vectors = None if glove is None else VectorFile(glove)
    asked = {**settings, "val_fraction": fraction} | ({} if vectors is None else _as_wide_as(vectors, settings))
    model_config, train_config, notes = plan(
        len(texts.train_ids), texts.tokenizer.vocab_size, asked, words=cutting.tokenizer == "word"
    )
    embedding, coverage = None, None
    if vectors is not None:
        embedding, coverage = embed_vocabulary(vectors, texts.tokenizer.tokens, texts.counts, seed=train_config.seed)
    return Job(
        run=Run.create(name, corpus.name, force=force),
        model_config=model_config,
        train_config=train_config,
        tokenizer=texts.tokenizer,
        train_ids=texts.train_ids,
        val_ids=texts.val_ids,
        chars_per_token=texts.chars_per_token,
        story=_story(corpus, held_out, cutting, encoding, errors) | ({"glove": asdict(coverage)} if coverage else {}),
        notes=[*texts.notes(), *notes, *([str(coverage)] if coverage else [])],
        embedding=embedding,
    )


def _refuse_clashes(
    settings: Mapping[str, Any], cutting: TokenizerConfig, validation: Sequence[str], glove: Path | None
) -> None:
    if validation and settings.get("val_fraction"):
        raise ConfigError("--validation and --val-fraction contradict each other: give one of them")
    if glove is not None and cutting.tokenizer == "char":
        raise ConfigError("--glove has vectors of words: add --tokenizer word, or leave it out")
    if settings.get("freeze_embeddings") and glove is None:
        raise ConfigError("--freeze-embeddings keeps the vectors of --glove as they are: give it, or leave both out")
    if settings.get("freeze_embeddings") and settings.get("tie_weights"):
        raise ConfigError("--freeze-embeddings with --tie would freeze the decoder too: leave one of them out")


def _as_wide_as(vectors: VectorFile, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The embedding width that a file of vectors asks for, and the units, if the weights are tied."""
    asked = settings.get("embedding_dim")
    if asked is not None and asked != vectors.dim:
        raise ConfigError(
            f"--embed {asked}: the vectors of {vectors.path} have {vectors.dim} numbers; leave --embed out"
        )
    units = vectors.dim if settings.get("tie_weights") and settings.get("hidden_size") is None else None
    return {"embedding_dim": vectors.dim} | ({} if units is None else {"hidden_size": units})


def resumed_job(name: str, specs: Sequence[str], settings: Mapping[str, Any], *, force: bool) -> Job:
    """Take up a run with the settings and the corpus it began with."""
    run = Run.to_resume(name)
    saved = load_checkpoint(run.last, with_resume=True)
    train_config = TrainConfig(**saved.story["training"])
    if saved.story["metrics"]["fraction"] >= 1:
        raise RunError(f"{run.path}: this training has come to its end; there is nothing to resume")
    cutting = TokenizerConfig(**saved.story.get("tokenization", {}))
    _refuse_contradictions(settings, asdict(saved.config) | asdict(train_config) | asdict(cutting))
    told = saved.story["corpus"]
    specs = specs or told["sources"]
    if list(specs) == [STDIN] and sys.stdin.isatty():
        raise CorpusError(f"{run.path}: its text came from stdin; give it again: charlm train - --resume {run.name}")
    corpus = _same_corpus(specs, told, run, force=force)
    held_out = None
    if "validation" in saved.story:
        held_out = _same_corpus(saved.story["validation"]["sources"], saved.story["validation"], run, force=force)
    texts = _Texts.of(corpus, held_out, cutting, train_config.val_fraction, saved.tokenizer)
    kept = ("charlm", "command", "corpus", "validation", "tokenization", "glove")
    return Job(
        run=run,
        model_config=saved.config,
        train_config=train_config,
        tokenizer=saved.tokenizer,
        train_ids=texts.train_ids,
        val_ids=texts.val_ids,
        chars_per_token=texts.chars_per_token,
        story={key: saved.story[key] for key in kept if key in saved.story},
        resume_from=saved,
    )


@dataclass(frozen=True, kw_only=True)
class _Texts:
    """The tokens of the text to learn and of the one to validate on.

    Attributes:
        tokenizer: The vocabulary.
        train_ids: The text to learn.
        val_ids: The text to validate on.
        chars_per_token: Of the text to validate on, or if there is none, of the one to learn.
    """

    tokenizer: Tokenizer
    train_ids: Ids
    val_ids: Ids
    chars_per_token: float

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        held_out: Corpus | None,
        cutting: TokenizerConfig,
        val_fraction: float,
        tokenizer: Tokenizer | None = None,
    ) -> "_Texts":
        """Cut a corpus, with a vocabulary of its own if none is given.

        A vocabulary of words is that of the text to learn alone, so that what it lacks of the other is known.
        """
        if cutting.tokenizer == "char" and held_out is None:
            tokenizer = tokenizer or make_tokenizer(cutting, [corpus.text])
            train_ids, val_ids = split_ids(tokenizer.encode(corpus.text), val_fraction)
            return cls(tokenizer=tokenizer, train_ids=train_ids, val_ids=val_ids, chars_per_token=1.0)
        to_learn, to_validate = (corpus.text, held_out.text) if held_out else split_text(corpus.text, val_fraction)
        tokenizer = tokenizer or make_tokenizer(cutting, [to_learn])
        train_ids, val_ids = tokenizer.encode(to_learn), tokenizer.encode(to_validate)
        check_split(len(train_ids), len(val_ids), val_fraction)
        measured, tokens = (to_validate, val_ids) if len(val_ids) else (to_learn, train_ids)
        chars_per_token = len(measured) / len(tokens)
        return cls(tokenizer=tokenizer, train_ids=train_ids, val_ids=val_ids, chars_per_token=chars_per_token)

    @property
    def counts(self) -> npt.NDArray[np.intp]:
        """How often each token comes in the text to learn, (V,)."""
        return np.bincount(self.train_ids, minlength=self.tokenizer.vocab_size)

    @property
    def worth_learning(self) -> bool:
        """Whether the text to learn has two distinct tokens that say something."""
        nothing = {UNKNOWN_WORD, LINE_END_WORD, JOIN} if self.tokenizer.kind == "word" else set()
        seen = [self.tokenizer.tokens[index] for index in np.flatnonzero(self.counts).tolist()]
        return sum(token not in nothing and not token.isspace() for token in seen) > 1 or (
            self.tokenizer.kind == "char" and len(seen) > 1
        )

    def notes(self) -> list[str]:
        """What is unknown, and how much of it there is."""
        notes = []
        for name, ids in (("text to learn", self.train_ids), ("validation text", self.val_ids)):
            if unknown := int((ids == UNKNOWN_ID).sum()):
                notes.append(f"{unknown:,} of {len(ids):,} tokens of the {name} are unknown ({unknown / len(ids):.2%})")
        return notes


def _same_corpus(specs: Sequence[str], told: Mapping[str, Any], run: Run, *, force: bool) -> Corpus:
    corpus = read_corpus(specs, encoding=told["encoding"], errors=told["errors"])
    if corpus.sha256 != told["sha256"] and not force:
        raise CorpusError(f"{' '.join(specs)}: not the text that {run.path} began with; --force goes on all the same")
    return corpus


def _story(
    corpus: Corpus, held_out: Corpus | None, cutting: TokenizerConfig, encoding: str, errors: str
) -> dict[str, Any]:
    story = {
        "charlm": __version__,
        "command": shlex.join(["charlm", *sys.argv[1:]]),
        "corpus": _provenance(corpus, encoding, errors),
        "tokenization": asdict(cutting),
    }
    return story | ({"validation": _provenance(held_out, encoding, errors)} if held_out else {})


def _provenance(corpus: Corpus, encoding: str, errors: str) -> dict[str, Any]:
    return {
        "name": corpus.name,
        "sources": list(corpus.sources),
        "characters": len(corpus.text),
        "sha256": corpus.sha256,
        "encoding": encoding,
        "errors": errors,
    }


def _refuse_contradictions(given: Mapping[str, Any], began_with: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if value is not None and value != began_with[name]:
            rules: list[Rule] = [
                spec.metadata["rule"]
                for settings in (ModelConfig, TrainConfig, TokenizerConfig)
                for spec in settings.__dataclass_fields__.values()
                if spec.name == name
            ]
            raise ConfigError(
                f"{rules[0].flags[-1]} {value} contradicts {began_with[name]}, which the run began with: leave it out"
            )
