"""Command `charlm vectors`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.options import EscapedText, GroupedCommand, json_option, model_option, option, top_option
from charlm.cli.streams import write_text
from charlm.config import NGRAM_CELL
from charlm.errors import CheckpointError

if TYPE_CHECKING:
    import numpy.typing as npt

    from charlm.engine.checkpoint import Checkpoint
    from charlm.text.vector_search import VectorSource

file_option = option(
    "--file",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Search a file of word vectors instead of a model, in GloVe's format or word2vec's text or binary format; "
    "plain, .gz or .zip. - is stdin.",
)


@click.group()
def vectors() -> None:
    """Export word vectors, or compare words by their vectors.

    \b
    Example:
      charlm vectors export -m ptb > ptb.vectors.txt
      charlm vectors nearest king queen
      charlm vectors similar king queen --file glove.6B.50d.txt
      charlm vectors analogy man king woman --file glove.6B.50d.txt
    """


@vectors.command(cls=GroupedCommand)
@model_option
@option("--header", is_flag=True, help="Begin with a line of the number of tokens and the length of a vector.")
def export(model: str | None, header: bool) -> None:
    """Print the token embeddings of a model.

    The output has the format of GloVe's files: each line is a token and the numbers of its vector, separated by spaces.
    With --header, it has word2vec's text format. A newline is written as </s>, as in word2vec's files, and other
    whitespace as \\uXXXX, so that programs that read such files find one word per line. `charlm train --glove` reads
    both formats.

    \b
    Example:
      charlm vectors export -m ptb > ptb.vectors.txt
      charlm vectors export -m ptb --header > ptb.word2vec.txt
    """
    from charlm.engine.checkpoint import load_checkpoint
    from charlm.engine.runs import find_model
    from charlm.text.glove import vector_lines

    path = find_model(model)
    checkpoint = load_checkpoint(path)
    for line in vector_lines(checkpoint.tokenizer.tokens, _embedding(path, checkpoint), header=header):
        write_text(line)


@vectors.command(cls=GroupedCommand)
@click.argument("words", nargs=-1, required=True, type=EscapedText())
@model_option
@file_option
@top_option("words")
@json_option
def nearest(words: tuple[str, ...], model: str | None, file: Path | None, top: int, as_json: bool) -> None:
    """Print the words nearest to each of WORDS.

    The nearest words are those whose vectors have the largest cosine similarity to the vector of the word. Prints one
    line per word, the nearest first: the cosine, a tab and the word. For several WORDS, each line begins with the one
    of WORDS to which it belongs, and a tab. A file is read once for all of them.

    \b
    Example:
      charlm vectors nearest king
      charlm vectors nearest king queen --file glove.6B.50d.txt --top 5
    """
    from charlm.text.vector_search import nearest_words

    source, shown = _open_source(model, file)
    found = nearest_words(source, words, top)
    rows = [
        {"query": word, "word": other, "cosine": cosine}
        for word, neighbours in zip(words, found, strict=True)
        for other, cosine in neighbours
    ]
    if len(words) == 1:
        rows = [{"word": row["word"], "cosine": row["cosine"]} for row in rows]
        _print_rows(rows, ("cosine", "word"), shown, as_json=as_json)
    else:
        _print_rows(rows, ("query", "cosine", "word"), shown, as_json=as_json)


@vectors.command(cls=GroupedCommand)
@click.argument("words", nargs=-1, required=True, type=EscapedText())
@model_option
@file_option
@json_option
def similar(words: tuple[str, ...], model: str | None, file: Path | None, as_json: bool) -> None:
    """Print the cosine similarity of each pair of WORDS.

    Prints one line per pair: the cosine, from -1 to 1, a tab, the first word, a tab and the second word.

    \b
    Example:
      charlm vectors similar king queen
      charlm vectors similar king queen castle --file glove.6B.50d.txt
    """
    from charlm.text.vector_search import similarities

    if len(words) < 2:
        raise click.UsageError("similar: give two or more words")
    source, shown = _open_source(model, file)
    rows = [
        {"first": first, "second": second, "cosine": cosine} for first, second, cosine in similarities(source, words)
    ]
    _print_rows(rows, ("cosine", "first", "second"), shown, as_json=as_json)


@vectors.command(cls=GroupedCommand)
@click.argument("first", type=EscapedText())
@click.argument("second", type=EscapedText())
@click.argument("third", type=EscapedText())
@model_option
@file_option
@top_option("words")
@json_option
def analogy(first: str, second: str, third: str, model: str | None, file: Path | None, top: int, as_json: bool) -> None:
    """Print the words that are to THIRD as SECOND is to FIRST.

    They are the words nearest to SECOND - FIRST + THIRD, computed with vectors of length 1. The three words themselves
    are excluded. Prints one line per word, the nearest first: the cosine, a tab and the word.

    \b
    Example:
      charlm vectors analogy man king woman --file glove.6B.50d.txt
    """
    from charlm.text.vector_search import analogous_words

    source, shown = _open_source(model, file)
    rows = [{"word": word, "cosine": cosine} for word, cosine in analogous_words(source, first, second, third, top)]
    _print_rows(rows, ("cosine", "word"), shown, as_json=as_json)


def _open_source(model: str | None, file: Path | None) -> "tuple[VectorSource, Callable[[str], str]]":
    """Return the file or the embedding of the model, and the function by which its words are shown."""
    from charlm.text.printable import escape_unprintable
    from charlm.text.vector_search import FileVectors, ModelVectors, shown_token

    if file is not None:
        if model is not None:
            raise click.UsageError("--model and --file contradict each other: give only one of them")
        from charlm.text.vector_files import VectorFile

        return FileVectors(VectorFile(file)), escape_unprintable
    from charlm.engine.checkpoint import load_checkpoint
    from charlm.engine.runs import find_model

    path = find_model(model)
    checkpoint = load_checkpoint(path)
    tokenizer = checkpoint.tokenizer
    source = ModelVectors(str(path), tokenizer.tokens, _embedding(path, checkpoint), fold=tokenizer.folding.fold)
    return source, lambda token: escape_unprintable(shown_token(token))


def _embedding(path: Path, checkpoint: "Checkpoint") -> "npt.NDArray[Any]":
    """Return the embedding of a model, (V, E).

    Raises:
        CheckpointError: If the model has no network.
    """
    if checkpoint.config.cell == NGRAM_CELL:
        raise CheckpointError(f"{path}: has no vectors, because it has n-grams and no network; name another model")
    return checkpoint.tensors["embedding.weight"]


def _print_rows(
    rows: list[dict[str, Any]], columns: tuple[str, ...], shown: Callable[[str], str], *, as_json: bool
) -> None:
    """Print one line per row with these columns, separated by tabs, or a JSON array of the rows."""
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        cells = (f"{row[name]:.4f}" if name == "cosine" else shown(row[name]) for name in columns)
        click.echo("\t".join(cells))
