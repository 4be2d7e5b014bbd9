"""`charlm novelty`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from charlm.cli.options import (
    command,
    corpus_option,
    encoding_option,
    errors_option,
    json_option,
    model_option,
    note,
    quiet_option,
    wait_note,
)

if TYPE_CHECKING:
    from charlm.engine.novelty import Guard

SHOWN_CHARS = 200
"""Characters of the copied run that are printed; --json has it whole."""


@command()
@click.argument("files", nargs=-1)
@model_option
@corpus_option
@click.option(
    "--ngram",
    "lengths",
    type=click.IntRange(min=1),
    multiple=True,
    default=(8, 16, 32),
    show_default=True,
    help="Length of the runs to count, in characters; may be given several times.",
)
@json_option
@encoding_option
@errors_option("surrogateescape")
@quiet_option
def novelty(
    files: tuple[str, ...],
    model: str | None,
    corpus: tuple[str, ...],
    lengths: tuple[int, ...],
    as_json: bool,
    encoding: str,
    errors: str,
    quiet: bool,
) -> None:
    """Say how much of a text is copied from the training text.

    Reads FILES, or stdin if there are none or for -. Prints the longest run of characters that stands in the training
    text too, and which share of all runs of 8, 16 and 32 characters does.

    \b
    Example:
      charlm sample -n 2000 | charlm novelty
      charlm novelty poem.txt --corpus shakespeare --ngram 20
    """
    import json

    from charlm.text.corpus import read_corpus
    from charlm.text.sources import STDIN

    wait_note(files, quiet=quiet)
    text = read_corpus(files or (STDIN,), encoding=encoding, errors=errors).text
    from charlm.engine.novelty import TrainingText
    from charlm.engine.runs import find_model

    training = TrainingText(_compared_with(Path() if corpus else find_model(model), corpus, quiet=quiet))
    copy = training.longest_copy(text)
    shares = {length: training.copied_share(text, length) for length in lengths}
    if as_json:
        facts = {"characters": len(text), "longest_copied_run": len(copy.text), "run": copy.text}
        places = {"place": copy.place, "place_in_training_text": copy.origin}
        found = {str(length): share if share == share else None for length, share in shares.items()}
        click.echo(json.dumps({**facts, **places, "copied_share": found}))
        return
    shown = copy.text if len(copy.text) <= SHOWN_CHARS else f"{copy.text[:SHOWN_CHARS]}..."
    click.echo(f"characters\t{len(text)}")
    click.echo(f"longest_copied_run\t{len(copy.text)}\t{json.dumps(shown, ensure_ascii=False)[1:-1]}")
    for length, share in shares.items():
        click.echo(f"copied_{length}-grams\t{share:.4f}")


def open_guard(model: Path, corpus: tuple[str, ...], length: int, *, quiet: bool) -> "Guard":
    """What keeps a text from repeating a corpus, or if none is named the training text."""
    from charlm.engine.novelty import Guard

    return Guard(_compared_with(model, corpus, quiet=quiet), length)


def _compared_with(model: Path, corpus: tuple[str, ...], *, quiet: bool) -> str:
    from charlm.engine.novelty import KEPT_CHARS, TEXT_FILE, kept_text
    from charlm.text.corpus import read_corpus

    if corpus:
        return read_corpus(corpus, errors="surrogateescape").text
    if not (model.parent / TEXT_FILE).exists() and (names := _named_corpora(model)):
        note(f"the training text is not kept beside {model}: comparing with all of {' '.join(names)}", quiet=quiet)
        return read_corpus(names).text
    text = kept_text(model)
    if len(text) >= KEPT_CHARS:
        note(f"only the first {KEPT_CHARS:,} characters of the training text are kept to compare with", quiet=quiet)
    return text


def _named_corpora(model: Path) -> list[str]:
    """The corpora that a model says it has learnt, if all of them are named ones; none otherwise."""
    from charlm.engine.checkpoint import load_checkpoint
    from charlm.text.named_corpora import NAMED_CORPORA

    match load_checkpoint(model).metadata.get("corpus"):
        case {"sources": [*names]} if names and all(name in list(NAMED_CORPORA) for name in names):
            return names
    return []
