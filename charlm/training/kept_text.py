"""Storing of the training text beside a model, so that copies of it can be found."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from charlm.engine.runs import Run
from charlm.engine.training_text import store_training_text, training_blocks
from charlm.errors import CharlmError, NoveltyError
from charlm.training.dataset import TextSources
from charlm.training.finetune import PretrainedModel


def keep_text(run: Run, sources: TextSources, pretrained: PretrainedModel | None) -> list[str]:
    """Store the texts of a new training beside its model.

    Args:
        run: Run of the training.
        sources: Texts of the training, after their first pass. The part or text that validates is stored too.
        pretrained: Model that the training starts from; its training text is stored after the others.

    Returns:
        A note for the user about each text that could not be stored.
    """
    older = None if pretrained is None else (pretrained.path, pretrained.checkpoint.metadata)
    return _store(run, sources, older)


def keep_text_of_resumed(run: Run, sources: TextSources, metadata: Mapping[str, Any], *, changed: bool) -> list[str]:
    """Store the texts of a resumed training if they are missing, or add them if they have changed.

    Args:
        run: Run of the training.
        sources: Texts of the training, after their first pass.
        metadata: Metadata of the run.
        changed: Whether a text differs from that with which the run started.

    Returns:
        A note for the user about each text that could not be stored.
    """
    if run.text.exists():
        return _store(run, sources, (run.model, {})) if changed else []
    match metadata.get("from"):
        case {"model": str(path)}:
            return _store(run, sources, (Path(path), {}))
    return _store(run, sources, None)


def _store(run: Run, sources: TextSources, older: tuple[Path, Mapping[str, Any]] | None) -> list[str]:
    """Store texts, and after them the training text of an older model, given by its file and metadata."""
    notes: list[str] = []

    def older_blocks(model: Path, metadata: Mapping[str, Any]) -> Iterator[str]:
        try:
            yield from training_blocks(model, metadata)
        except CharlmError:
            notes.append(f"no training text is stored with {model}: copies of it will not be found")

    texts = [text.blocks() for text in (sources.corpus, sources.validation) if text is not None]
    try:
        store_training_text(run, [*texts, older_blocks(*older)] if older else texts)
    except NoveltyError as error:
        notes.append(f"{error}; the training continues, but copies of its text will not be found")
    return notes
