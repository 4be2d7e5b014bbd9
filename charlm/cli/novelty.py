"""Command `charlm novelty`, and the choice of the text to compare with."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.completions import complete_files
from charlm.cli.mix import mixed_models
from charlm.cli.options import (
    command,
    corpus_option,
    encoding_option,
    errors_option,
    json_option,
    max_input_option,
    model_option,
    note,
    noter,
    option,
    quiet_option,
    wait_note,
)
from charlm.cli.streams import write_text

if TYPE_CHECKING:
    from charlm.engine.checkpoint import Checkpoint
    from charlm.engine.item_sampler import KnownItems
    from charlm.engine.novelty import Comparison, CopiedRun, NoveltyFilter
    from charlm.text.items import ItemFormat

MAX_SHOWN_CHARS = 200
"""Maximum length of the copied run that is printed, in characters; --json prints all of it."""


@command()
@click.argument("files", nargs=-1, shell_complete=complete_files)
@model_option
@corpus_option
@option(
    "--ngram",
    "lengths",
    type=click.IntRange(1, 10**6),
    multiple=True,
    default=(8, 16, 32),
    show_default=True,
    metavar="N",
    help="Length N of the runs, in characters; may be given several times.",
)
@json_option
@encoding_option
@errors_option("surrogateescape")
@max_input_option
@quiet_option
def novelty(
    files: tuple[str, ...], model: str | None, corpus: tuple[str, ...], quiet: bool, as_json: bool, **options: Any
) -> None:
    """Measure how much of a text is copied from the training text.

    Reads FILES, or stdin if there are none or if a file is -. Prints the number of characters, and the longest run of
    characters that also occurs in the training text. For each N of --ngram, prints the share, from 0 to 1, of all runs
    of N characters that also occur in the training text; nan if the text is shorter than N.

    The training text is the original text, including the validation text. After fine-tuning, it includes the text of
    the first model. For a model trained with --lowercase, case is ignored. For a model trained with --split whitespace,
    all whitespace between two words is equal.

    \b
    Example:
      charlm sample -n 2000 | charlm novelty
      charlm novelty poem.txt --corpus shakespeare --ngram 20
    """
    from charlm.text.corpus import limited
    from charlm.text.lines import read_lines
    from charlm.text.sources import STDIN

    wait_note(files, quiet=quiet)
    files = files or (STDIN,)
    blocks = read_lines(files, encoding=options["encoding"], errors=options["errors"], report=noter(quiet=quiet))
    lines = (line for block in blocks for line in block)
    text = "".join(limited(lines, " ".join(files), options["max_input"]))  # an empty text has figures too
    from charlm.engine.checkpoint import load_checkpoint
    from charlm.engine.novelty import Comparison, TrainingText
    from charlm.engine.runs import find_model

    if model or not corpus:
        path = find_model(model)
        compared = _text_to_compare(path, load_checkpoint(path), corpus, options["max_input"], quiet=quiet)
    else:  # all differences matter
        compared = read_whole(corpus, options["max_input"], quiet=quiet), Comparison()
    training = TrainingText(*compared)
    copy = training.longest_copy(text)
    shares = {length: training.copied_share(text, length) for length in options["lengths"]}
    (_print_json if as_json else _print_rows)(len(text), copy, shares)


def open_novelty_filter(model: Path, checkpoint: "Checkpoint", options: Mapping[str, Any]) -> "NoveltyFilter":
    """Return the filter of `--novel`; see `_texts_of_mixture`."""
    from charlm.engine.novelty import NoveltyFilter

    text, comparison = _texts_of_mixture(model, checkpoint, options)
    return NoveltyFilter(text, options["novel"], comparison)


def open_known_items(
    model: Path, checkpoint: "Checkpoint", form: "ItemFormat", options: Mapping[str, Any]
) -> "KnownItems":
    """Return the items that `--new` excludes; see `_texts_of_mixture`."""
    from charlm.engine.item_sampler import KnownItems

    text, comparison = _texts_of_mixture(model, checkpoint, options)
    return KnownItems(form.split([text]), comparison)


def _texts_of_mixture(model: Path, checkpoint: "Checkpoint", options: Mapping[str, Any]) -> "tuple[str, Comparison]":
    """Return the text that generated text must not repeat: the corpus, or the training texts of all mixed models.

    Args:
        model: Model file.
        checkpoint: Its content.
        options: Values of the options of `charlm sample` by name.

    Returns:
        The text, and the differences to ignore. Models that are mixed ignore the same ones.
    """
    from charlm.engine.checkpoint import load_checkpoint
    from charlm.text.sources import join_texts

    corpus, quiet = options["corpus"], options["quiet"]
    text, comparison = _text_to_compare(model, checkpoint, corpus, options["max_input"], quiet=quiet)
    others = [] if corpus else mixed_models(options["mix"])
    texts = [text, *(_training_text(path, load_checkpoint(path).metadata, quiet=quiet) for path in others)]
    return "".join(join_texts([[text] for text in texts])), comparison


def _text_to_compare(
    model: Path, checkpoint: "Checkpoint", corpus: tuple[str, ...], max_input: int, *, quiet: bool
) -> "tuple[str, Comparison]":
    """Return the corpus, or the training text of the model if no corpus is given, and the differences to ignore."""
    from charlm.engine.novelty import Comparison

    if corpus:
        text = read_whole(corpus, max_input, quiet=quiet)
    else:
        text = _training_text(model, checkpoint.metadata, quiet=quiet)
    return text, Comparison.of_model(checkpoint.tokenizer)


def read_whole(specs: tuple[str, ...], max_input: int, *, quiet: bool) -> str:
    """Return the text of files, folders, patterns or named corpora; note the files that are skipped."""
    from charlm.text.corpus import read_corpus

    corpus = read_corpus(specs, errors="surrogateescape", max_input=max_input)
    for message in corpus.notes:
        note(message, quiet=quiet)
    return corpus.text


def _print_json(num_chars: int, copy: "CopiedRun", shares: dict[int, float]) -> None:
    import json

    facts = {
        "characters": num_chars,
        "longest_copied_run": len(copy.text),
        "run": copy.text,
        "place": copy.position,
        "place_in_training_text": copy.training_position,
        "copied_share": {str(length): None if math.isnan(share) else share for length, share in shares.items()},
    }
    click.echo(json.dumps(facts))


def _print_rows(num_chars: int, copy: "CopiedRun", shares: dict[int, float]) -> None:
    import json

    shown = copy.text if len(copy.text) <= MAX_SHOWN_CHARS else f"{copy.text[:MAX_SHOWN_CHARS]}..."
    click.echo(f"characters\t{num_chars}")
    write_text(f"longest_copied_run\t{len(copy.text)}\t{json.dumps(shown, ensure_ascii=False)[1:-1]}\n")
    for length, share in shares.items():
        click.echo(f"copied_{length}-grams\t{share:.4f}")


def _training_text(model: Path, metadata: Mapping[str, Any], *, quiet: bool) -> str:
    """Return the training text of a model."""
    from charlm.engine.training_text import MAX_STORED_CHARS, is_stored, load_training_text, named_corpora

    if not is_stored(model) and (names := named_corpora(metadata)):
        note(f"no training text is stored with {model}: comparing with all of {' '.join(names)}", quiet=quiet)
    text = load_training_text(model, metadata)
    if is_stored(model) and len(text) >= MAX_STORED_CHARS:
        note(f"comparing with the first {MAX_STORED_CHARS:,} characters of the training text", quiet=quiet)
    return text
