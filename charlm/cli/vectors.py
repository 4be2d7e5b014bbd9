"""Command `charlm vectors`."""

from pathlib import Path

import click

from charlm.cli.options import GroupedCommand, json_option, model_option, option, top_option


@click.group()
def vectors() -> None:
    """Export word vectors, or find the nearest words.

    \b
    Example:
      charlm vectors export -m ptb > ptb.vectors.txt
      charlm vectors nearest king
      charlm vectors nearest king --file glove.6B.50d.txt
    """


@vectors.command(cls=GroupedCommand)
@model_option
def export(model: str | None) -> None:
    """Print the token embeddings of a model.

    The output has the format of GloVe's files: each line is a token and the numbers of its vector, separated by spaces.
    A newline is written as </s>, as in word2vec's files. `charlm train --glove` reads this format.

    \b
    Example:
      charlm vectors export -m ptb > ptb.vectors.txt
    """
    import sys

    from charlm.engine.checkpoint import load_checkpoint
    from charlm.engine.runs import find_model
    from charlm.text.glove import write_vectors

    checkpoint = load_checkpoint(find_model(model))
    write_vectors(sys.stdout, checkpoint.tokenizer.tokens, checkpoint.tensors["embedding.weight"])


@vectors.command(name="nearest", cls=GroupedCommand)
@click.argument("word")
@model_option
@option(
    "--file", type=click.Path(path_type=Path), metavar="FILE", help="Search a file of word vectors instead of a model."
)
@top_option("words")
@json_option
def nearest_words(word: str, model: str | None, file: Path | None, top: int, as_json: bool) -> None:
    """Print the words nearest to WORD.

    The nearest words are those whose vectors have the largest cosine similarity to the vector of WORD. Prints one line
    per word, the nearest first: the cosine, a tab and the word. A newline is shown as \\n.

    \b
    Example:
      charlm vectors nearest king
      charlm vectors nearest king --file glove.6B.50d.txt --top 5
    """
    import json

    from charlm.text.glove import VectorFile, nearest_in_file
    from charlm.text.printable import escape_unprintable

    if file is not None and model is not None:
        raise click.UsageError("--model and --file contradict each other: give only one of them")
    found = _nearest_in_model(word, model, top) if file is None else nearest_in_file(VectorFile(file), word, top)
    if as_json:
        click.echo(json.dumps([{"word": other, "cosine": cosine} for other, cosine in found]))
        return
    for other, cosine in found:
        click.echo(f"{cosine:.4f}\t{escape_unprintable(other)}")


def _nearest_in_model(word: str, model: str | None, top: int) -> list[tuple[str, float]]:
    """Return the words of a model's vocabulary that are nearest to a word, with their cosines.

    Raises:
        VectorsError: If the word is not in the vocabulary.
    """
    from charlm.engine.checkpoint import load_checkpoint
    from charlm.engine.runs import find_model
    from charlm.errors import VectorsError
    from charlm.text.glove import nearest

    path = find_model(model)
    checkpoint = load_checkpoint(path)
    tokens = checkpoint.tokenizer.tokens
    if word not in tokens:
        raise VectorsError(f"{word!r}: not in the vocabulary of {path}")
    embedding = checkpoint.tensors["embedding.weight"]
    return nearest(tokens, embedding, embedding[tokens.index(word)], top, leave_out=word)
