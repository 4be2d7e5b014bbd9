"""`charlm sample`."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.options import (
    command,
    corpus_option,
    json_option,
    model_option,
    note,
    note_unknown,
    quiet_option,
    settings_options,
    threads_option,
)
from charlm.cli.threads import limit_threads
from charlm.config import SampleConfig

if TYPE_CHECKING:
    from charlm.engine.sampler import Sampler, Writer

SEPARATOR = "-" * 8


@command()
@model_option
@settings_options(SampleConfig)
@click.option(
    "--stop",
    multiple=True,
    metavar="TEXT",
    help=r"End where this text comes up, and leave it out; \n is a line end. May be given several times.",
)
@click.option(
    "--prime",
    metavar="TEXT|-",
    help="Text to go on from; - reads one a line from stdin.  [default: the start of a line]",
)
@click.option("--prime-file", metavar="FILE", help="File whose whole text to go on from; - is stdin.")
@click.option(
    "--novel",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Never repeat a run of N characters of the training text.",
)
@corpus_option
@click.option("-i", "--interactive", is_flag=True, help="Ask for prompts; :help tells more.")
@json_option
@threads_option
@quiet_option
def sample(
    model: str | None,
    stop: tuple[str, ...],
    prime: str | None,
    prime_file: str | None,
    novel: int | None,
    corpus: tuple[str, ...],
    interactive: bool,
    as_json: bool,
    threads: int | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Write text with a model.

    The prompt is written first, then what the model makes of it, as it is made. Samples after the first follow
    a line of dashes. With --json there is a line for each sample: prompt, text, seed, tokens, and the mean
    log-probability of a token in nats, as the model itself has it.

    \b
    Example:
      charlm sample --temp 0.8 -n 500
      charlm sample --prime 'ROMEO:' --seed 7 --stop '\\n\\n'
      charlm sample -n -1 | head -100
      charlm sample --prime - --lines 1 --json < prompts.txt
      charlm sample --novel 30
    """
    from charlm.engine.runs import find_model

    path = find_model(model)
    config = SampleConfig.pick({**settings, "stop": tuple(text.replace("\\n", "\n") for text in stop)})
    prompts = [""] if interactive else _prompts(prime, prime_file)
    limit_threads(threads, path, num_sequences=len(prompts) * config.count)
    from charlm.cli.novelty import open_guard
    from charlm.engine.rnn import RecurrentNetwork
    from charlm.engine.sampler import Sampler

    network = RecurrentNetwork.load(path)
    guard = None if novel is None else open_guard(path, corpus, novel, quiet=quiet)
    sampler = Sampler(network=network, config=config, guard=guard, with_costs=as_json)
    if interactive:
        _converse(sampler)
        return
    note_unknown(network.tokenizer.unknown_in("".join(prompts)), quiet=quiet)
    _write(sampler, prompts, as_json=as_json)


def _prompts(prime: str | None, prime_file: str | None) -> list[str]:
    """What to go on from; nothing is asked for where nothing was said."""
    if prime is not None and prime_file is not None:
        raise click.UsageError("--prime and --prime-file contradict each other: give one of them.")
    if prime_file is not None:
        from charlm.text.corpus import read_corpus

        return [read_corpus([prime_file], errors="surrogateescape").text.removesuffix("\n")]
    if prime != "-":
        return [prime or ""]
    if sys.stdin.isatty():
        note("waiting for prompts, one a line; Ctrl-D ends them")
    prompts = [line.removesuffix("\n") for line in sys.stdin]
    if not prompts:
        raise click.UsageError("--prime -: no prompt came from stdin.")
    return prompts


def _converse(sampler: "Sampler") -> None:
    from charlm.cli.interact import Session

    if sys.stdin.isatty():
        click.echo("Type a prompt; :help tells more, Ctrl-D ends.", err=True)
    Session(sampler, lambda changed, prompt: _write(changed, [prompt], as_json=False)).run()


def _write(sampler: "Sampler", prompts: Sequence[str], *, as_json: bool) -> None:
    """Write the first sample as it is made, and the others, made along with it, behind it."""
    config = sampler.config
    if config.limit < 0 and (as_json or len(prompts) * config.count > 1) and not config.lines and not config.stop:
        raise click.UsageError(
            "-n -1: without an end only one text can be written, and not as JSON: give -n or --lines."
        )
    if as_json:
        _write_json(sampler, prompts)
        return
    if config.beam is not None:
        for place, (writer, text) in enumerate(_search(sampler, prompts)):
            _write_text(f"{SEPARATOR}\n" * (place > 0) + writer.prompt + text)
        return
    writers = sampler.writers(prompts)
    later: list[list[str]] = [[writer.prompt] for writer in writers[1:]]
    out = sys.stdout
    out.write(prompts[0])
    last = prompts[0]
    for first, *others in sampler.write(writers):
        if first:
            out.write(first)
            out.flush()
            last = first
        for pieces, piece in zip(later, others, strict=True):
            pieces.append(piece)
    if not last.endswith("\n"):
        out.write("\n")
    for pieces in later:
        _write_text(f"{SEPARATOR}\n{''.join(pieces)}")
    out.flush()


def _write_text(text: str) -> None:
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def _search(sampler: "Sampler", prompts: Sequence[str]) -> list[tuple["Writer", str]]:
    from charlm.engine.beam import beam_search

    config = sampler.config
    return [
        (beam.writer, beam.text)
        for prompt in prompts
        for beam in beam_search(sampler.network, config, prompt, sampler.guard)[: config.count]
    ]


def _write_json(sampler: "Sampler", prompts: Sequence[str]) -> None:
    """Write a line for each sample, in their order, as soon as it and all before it are whole."""
    import json

    def show(writer: "Writer", text: str) -> None:
        facts = {
            "prompt": writer.prompt,
            "text": text,
            "seed": None if sampler.config.beam else writer.seed,
            "tokens": writer.tokens,
            "log_probability_per_token": -writer.nats_per_token,
            "ended_by": writer.ending or "length",
        }
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()

    if sampler.config.beam is not None:
        for writer, text in _search(sampler, prompts):
            show(writer, text)
        return
    writers = sampler.writers(prompts)
    texts: list[list[str]] = [[] for _ in writers]
    shown = 0
    for pieces in sampler.write(writers):
        for parts, piece in zip(texts, pieces, strict=True):
            parts.append(piece)
        while shown < len(writers) and writers[shown].ending:
            show(writers[shown], "".join(texts[shown]))
            shown += 1
    for writer, parts in zip(writers[shown:], texts[shown:], strict=True):
        show(writer, "".join(parts))
