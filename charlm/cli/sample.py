"""Command `charlm sample`."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.options import (
    EscapedText,
    command,
    json_option,
    max_input_option,
    model_option,
    note,
    note_unknown,
    option,
    quiet_option,
    settings_options,
    threads_option,
)
from charlm.cli.streams import stdin_lines, write_text
from charlm.cli.threads import limit_threads
from charlm.config import DEFAULT_LENGTH, ENDING, MAX_NOVELTY_CHARS, PENALTY, SampleConfig
from charlm.errors import ConfigError
from charlm.text.escapes import ESCAPES_HELP
from charlm.text.line_ends import fold_line_ends

if TYPE_CHECKING:
    from charlm.engine.generation import Generation
    from charlm.engine.sampler import Sampler

PROMPT = "Prompt"
"""Heading of the options that give the prompt."""

DEFAULTS = {
    "length": f"{DEFAULT_LENGTH}; no limit with --lines",
    "lines": "no limit",
    "seed": "random",
    **dict.fromkeys(("top_k", "typical_p", "top_p", "min_p", "beam"), "off"),
}
"""Descriptions of the defaults that are not fixed values, by field name."""

SEPARATOR = "-" * 8
"""Line between two samples."""


@command()
@model_option
@option(
    "--prime",
    "prompt",
    type=EscapedText(),
    metavar="TEXT|-",
    group=PROMPT,
    help=f"Text to continue. {ESCAPES_HELP} - reads one prompt per line from stdin, without escapes.  [default: the "
    "start of a line]",
)
@option(
    "--prime-file",
    "prompt_file",
    metavar="FILE",
    group=PROMPT,
    help="File whose whole text is the prompt, including its last newline; - is stdin.",
)
@option(
    "-i",
    "--interactive",
    is_flag=True,
    group=PROMPT,
    help="Read prompts and commands line by line; :help lists the commands.",
)
@settings_options(SampleConfig, DEFAULTS)
@option(
    "--novel",
    type=click.IntRange(1, MAX_NOVELTY_CHARS),
    metavar="N",
    group=PENALTY,
    help="Never generate N consecutive characters that also occur in the training text.  [default: off]",
)
@option(
    "--corpus",
    multiple=True,
    metavar="CORPUS",
    group=PENALTY,
    help="Text that --novel compares with, as for charlm train; may be given several times.  [default: the training "
    "text stored with the model]",
)
@option(
    "--stop",
    type=EscapedText(),
    multiple=True,
    metavar="TEXT",
    group=ENDING,
    help="Stop before this text; may be given several times. Escape sequences are those of --prime.",
)
@json_option
@max_input_option
@threads_option
@quiet_option
def sample(
    model: str | None,
    prompt: str | None,
    prompt_file: str | None,
    interactive: bool,
    as_json: bool,
    threads: int | None,
    **options: Any,
) -> None:
    """Generate text.

    Prints the prompt and its continuation, token by token. A line of dashes separates several samples. With --json,
    prints one JSON object per sample: prompt, text, seed, number of tokens, mean log-probability per token in nats, and
    the reason for the end (length, lines or stop).

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
    config = SampleConfig.pick(options)
    prompts = [""] if interactive else _given_prompts(prompt, prompt_file, options["max_input"])
    limit_threads(threads, path, num_sequences=len(prompts) * config.count)  # before any import of NumPy
    sampler = _open_sampler(path, config, options, with_nll=as_json)
    if interactive:
        _run_session(sampler)
        return
    if prompt_file is not None:
        prompts = [_read_prompt_file(prompt_file, options["max_input"], quiet=options["quiet"])]
    note_unknown(sampler.network.tokenizer.unknown_in(fold_line_ends("".join(prompts))), quiet=options["quiet"])
    _write_samples(sampler, prompts, as_json=as_json)


def _given_prompts(prompt: str | None, prompt_file: str | None, max_input: int) -> list[str]:
    """Return the prompts of the command line or of stdin.

    For a prompt file, return one empty prompt. The file is read later, because reading it imports NumPy.
    """
    if prompt is not None and prompt_file is not None:
        raise click.UsageError("--prime and --prime-file contradict each other: give only one of them")
    if prompt != "-":
        return [prompt or ""]
    if sys.stdin.isatty():
        note("reading prompts from the terminal, one per line; press Ctrl-D to end")
    prompts = list(stdin_lines(max_input, in_all=True))
    if not prompts:
        raise click.UsageError("--prime -: stdin is empty; write one prompt per line")
    return prompts


def _read_prompt_file(prompt_file: str, max_input: int, *, quiet: bool) -> str:
    from charlm.cli.novelty import read_whole

    return read_whole((prompt_file,), max_input, quiet=quiet)


def _open_sampler(path: Path, config: SampleConfig, options: Mapping[str, Any], *, with_nll: bool) -> "Sampler":
    """Load the model, and the training text if `novel` is set."""
    from charlm.cli.novelty import open_novelty_filter
    from charlm.engine.rnn import RecurrentNetwork
    from charlm.engine.sampler import Sampler

    network, novelty_filter = RecurrentNetwork.load(path), None
    if options["novel"] is not None:
        novelty_filter = open_novelty_filter(
            path, options["corpus"], options["novel"], max_input=options["max_input"], quiet=options["quiet"]
        )
    return Sampler(network=network, config=config, novelty_filter=novelty_filter, with_nll=with_nll)


def _run_session(sampler: "Sampler") -> None:
    """Read prompts and commands from stdin until it ends."""
    from charlm.cli.interact import Session

    if sys.stdin.isatty():
        click.echo("Type a prompt. :help lists the commands, Ctrl-D ends the session.", err=True)
    Session(sampler, lambda changed, prompt: _write_samples(changed, [prompt], as_json=False)).run()


def _write_samples(sampler: "Sampler", prompts: Sequence[str], *, as_json: bool) -> None:
    """Generate the samples of all prompts and write them to stdout.

    Raises:
        ConfigError: If a text without an end would have to be complete before it or another text can be written.
    """
    config = sampler.config
    endless = config.limit < 0 and not config.lines and not config.stop
    if endless and (as_json or len(prompts) * config.count > 1):
        raise ConfigError(
            "length -1: without a limit, only one sample can be generated, and not as JSON; set a limit, lines or stop",
            fields=["length", "lines", "stop"],
        )
    if as_json:
        _write_json(sampler, prompts)
    elif config.beam is not None:
        for index, (generation, text) in enumerate(_search(sampler, prompts)):
            _write_sample(f"{SEPARATOR}\n" * (index > 0) + generation.prompt + text)
    else:
        _write_first_immediately(sampler, prompts)


def _write_first_immediately(sampler: "Sampler", prompts: Sequence[str]) -> None:
    """Write the first sample token by token, and the others after it. All are generated at the same time."""
    generations = sampler.start(prompts)
    later_samples: list[list[str]] = [[generation.prompt] for generation in generations[1:]]
    last_written = prompts[0]
    write_text(last_written)
    for first, *others in sampler.generate(generations):
        if first:
            write_text(first)
            sys.stdout.flush()
            last_written = first
        for pieces, piece in zip(later_samples, others, strict=True):
            pieces.append(piece)
    if not last_written.endswith("\n"):
        sys.stdout.write("\n")
    for pieces in later_samples:
        _write_sample(f"{SEPARATOR}\n{''.join(pieces)}")
    sys.stdout.flush()


def _write_sample(text: str) -> None:
    write_text(text if text.endswith("\n") else f"{text}\n")


def _write_json(sampler: "Sampler", prompts: Sequence[str]) -> None:
    """Write one line per sample, in order, as soon as the sample and all before it are complete."""
    import json

    searches = sampler.config.beam is not None
    for generation, text in _search(sampler, prompts) if searches else _complete_samples(sampler, prompts):
        facts = {
            "prompt": generation.prompt,
            "text": text,
            "seed": None if searches else generation.seed,
            "tokens": generation.num_tokens,
            "log_probability_per_token": -generation.nats_per_token,
            "ended_by": generation.ended_by or "length",
        }
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


def _complete_samples(sampler: "Sampler", prompts: Sequence[str]) -> Iterator[tuple["Generation", str]]:
    """Yield the samples and their texts in order, each as soon as it and all before it are complete."""
    generations = sampler.start(prompts)
    texts: list[list[str]] = [[] for _ in generations]
    num_complete = 0
    for new_pieces in sampler.generate(generations):
        for pieces, piece in zip(texts, new_pieces, strict=True):
            pieces.append(piece)
        while num_complete < len(generations) and generations[num_complete].ended_by:
            yield generations[num_complete], "".join(texts[num_complete])
            num_complete += 1
    for generation, pieces in zip(generations[num_complete:], texts[num_complete:], strict=True):
        yield generation, "".join(pieces)


def _search(sampler: "Sampler", prompts: Sequence[str]) -> Iterator[tuple["Generation", str]]:
    """Yield the texts that a beam search finds for each prompt, up to `count` per prompt."""
    from charlm.engine.beam import beam_search

    config = sampler.config
    for prompt in prompts:
        hypotheses = beam_search(sampler.network, config, prompt, sampler.novelty_filter)
        yield from hypotheses[: config.count]
