"""Values of options and arguments that a shell completes: runs, models, corpora, lessons and files."""

from collections.abc import Callable, Iterable, Mapping

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
"""Returns the values that begin with a text, as click calls it."""


def complete_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete the name of a file."""
    return [CompletionItem(incomplete, type="file")]


def complete_folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete the name of a folder."""
    return [CompletionItem(incomplete, type="dir")]


def complete_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a run that has a model or a classifier, of an included model, or of a file."""
    from charlm.engine.runs import CLASSIFIER_FILE, MODEL_FILE, included_models, list_runs

    runs = (run for run in list_runs() if any((run.path / file).is_file() for file in (MODEL_FILE, CLASSIFIER_FILE)))
    names = {run.name: "run" for run in runs}
    names |= {name: "included model" for name in included_models() if name not in names}
    return [*_beginning_with(incomplete, names), *complete_files(ctx, param, incomplete)]


def complete_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a run."""
    from charlm.engine.runs import list_runs

    return _beginning_with(incomplete, {run.name: "run" for run in list_runs()})


def complete_named_corpora(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a named corpus."""
    from charlm.text.named_corpora import NAMED_CORPORA

    return _beginning_with(incomplete, {name: entry.description for name, entry in NAMED_CORPORA.items()})


def complete_corpora(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a named corpus or of a file."""
    return [*complete_named_corpora(ctx, param, incomplete), *complete_files(ctx, param, incomplete)]


def complete_lessons(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a lesson."""
    from charlm.lessons import LESSONS

    return _beginning_with(incomplete, {name: entry.title for name, entry in LESSONS.items()})


COMPLETERS: Mapping[str, Completer] = {
    "CORPUS": complete_corpora,
    "FILE": complete_files,
    "FOLDER": complete_folders,
    "FILE|RUN": complete_models,
    "FILE|RUN:WEIGHT": complete_models,
    "[RUN]": complete_runs,
}
"""Completion of an option, by the placeholder of its value in the help."""


def _beginning_with(incomplete: str, names: Mapping[str, str]) -> list[CompletionItem]:
    """Return the names that begin with a text, with their descriptions. A name with odd characters is left out."""
    usable: Iterable[str] = (name for name in names if name.isprintable() and not set(name) & set(" ,\"'\\"))
    return [CompletionItem(name, help=names[name]) for name in usable if name.startswith(incomplete)]
