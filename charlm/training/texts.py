"""Texts of a new training: check of the run's name, opening of the texts, and metadata about them."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

from charlm._version import __version__
from charlm.config import TrainConfig
from charlm.engine.runs import Run
from charlm.errors import RunError
from charlm.text.corpus import CorpusReader
from charlm.training.dataset import Dataset, TextSources
from charlm.training.finetune import PretrainedModel
from charlm.training.request import Request, open_corpus

READING, COUNTING = "reading the text", "counting n-grams"
"""Parts of the preparation, as they are announced."""


def check_name(request: Request, pretrained: PretrainedModel | None) -> None:
    """Refuse the name of an existing run before the texts are read.

    Raises:
        RunError: If the run exists and may not be replaced.
    """
    if request.name is None:
        return
    if pretrained is not None and pretrained.is_in(Run.named(request.name)):
        raise RunError(
            f"name {request.name}: this run contains the model of pretrained: choose another name",
            fields=["name", "pretrained"],
        )
    Run.check_free(request.name, force=request.force)


@contextmanager
def open_texts(request: Request, settings: Mapping[str, Any]) -> Iterator[TextSources]:
    """Open the texts of a new training.

    Raises:
        CorpusError: If a text is missing.
    """
    encoding, errors = request.text.encoding or "utf-8", request.text.errors or "strict"
    with ExitStack() as stack:
        corpus, validation = (
            stack.enter_context(open_corpus(specs, encoding, errors, request.text)) if specs else None
            for specs in (request.corpus, request.validation)
        )
        assert corpus is not None, "a request names a corpus"
        yield TextSources(
            corpus=corpus,
            validation=validation,
            val_fraction=settings.get("val_fraction"),
            items=settings.get("items"),
            seed=TrainConfig.seed if settings.get("seed") is None else settings["seed"],
            cache=request.text.cache_folder,
        )


def describe(request: Request, sources: TextSources, dataset: Dataset) -> dict[str, Any]:
    """Return the metadata of a new model: version, command, texts, tokenization."""
    reading = {"encoding": request.text.encoding or "utf-8", "errors": request.text.errors or "strict"}
    if request.text.field is not None:
        reading["field"] = request.text.field
        if request.text.table is not None:
            reading["table"] = request.text.table
    texts = {"corpus": sources.corpus, "validation": sources.validation}
    return {
        "charlm": __version__,
        "command": request.command,
        "tokenization": asdict(dataset.tokenizer_config),
        **({} if dataset.items is None else {"items": dataset.items.metadata()}),
        **{name: {**_provenance(text), **reading} for name, text in texts.items() if text is not None},
    }


def _provenance(text: CorpusReader) -> dict[str, Any]:
    return {"name": text.name, "sources": list(text.sources), "characters": text.num_chars, "sha256": text.sha256}
