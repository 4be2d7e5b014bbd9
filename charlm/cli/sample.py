"""Command `charlm sample`."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.adapt import adapt_option, open_adaptive
from charlm.cli.mix import mix_option, open_mixed
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
from charlm.cli.sample_items import open_item_sampler, write_items
from charlm.cli.streams import stdin_lines, write_text
from charlm.cli.threads import limit_threads
from charlm.errors import ConfigError
from charlm.item_config import ItemConfig
from charlm.sample_config import (
    DEFAULT_LENGTH,
    DRAWING,
    ENDING,
    MAX_LINE_TOKENS,
    MAX_NOVELTY_CHARS,
    PENALTY,
    SampleConfig,
)
from charlm.text.escapes import ESCAPES_HELP
from charlm.text.line_ends import fold_line_ends

if TYPE_CHECKING:
    from charlm.engine.checkpoint import Checkpoint
    from charlm.engine.generation import Generation
    from charlm.engine.item_sampler import ItemSampler
    from charlm.engine.sampler import Sampler

PROMPT = "Prompt"
"""Heading of the options that give the prompt."""

DEFAULTS = {
    "length": f"{DEFAULT_LENGTH}; {MAX_LINE_TOKENS:,} per line with --lines; four times the longest item of a list",
    "items": "10 for a model of a list, unless a length or a number of lines is given",
    "min_chars": "no limit",
    "max_chars": "no limit",
    "match": "off",
    "lines": "no limit",
    "seed": "random",
    **dict.fromkeys(("top_k", "typical_p", "top_p", "min_p", "beam"), "off"),
}
"""Descriptions of the defaults that are not fixed values, by field name."""

SEPARATOR = "-" * 8
"""Line between two samples."""


@command()
@model_option
@mix_option()
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
@adapt_option(
    "Learn from the prompt, its names and its style, and from what is generated. With -i, also from earlier prompts; "
    ":forget forgets them.",
    PROMPT,
)
@option("--no-prompt", is_flag=True, group=PROMPT, help="Do not print the prompt.")
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
    help="Text that --novel and --new compare with, as for charlm train; may be given several times.  [default: the "
    "training text stored with the model, and with each model of --mix]",
)
@option(
    "--stop",
    type=EscapedText(),
    multiple=True,
    metavar="TEXT",
    group=ENDING,
    help="Stop before this text; may be given several times. Escape sequences are those of --prime.",
)
@option(
    "--ban",
    type=EscapedText(),
    multiple=True,
    metavar="TEXT",
    group=DRAWING,
    help="Never generate this text; may be given several times. Escape sequences are those of --prime.",
)
@settings_options(ItemConfig, DEFAULTS)
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

    A model of a list, such as names, writes whole items, each as soon as it is complete, unless -n, --lines, --count,
    --beam or --stop asks for a text.

    \b
    Example:
      charlm sample --temp 0.8 -n 500
      charlm sample --prime 'ROMEO:' --seed 7 --stop '\\n\\n'
      charlm sample -n -1 | head -100
      charlm sample --prime - --lines 1 --json < prompts.txt
      charlm sample --novel 30
      charlm sample -m names --items 20 --new --unique --max-chars 8
      charlm sample -m plays --mix sonnets:0.3
    """
    from charlm.engine.runs import find_model

    path = find_model(model)
    config = SampleConfig.pick(options)
    prompts = [""] if interactive else _given_prompts(prompt, prompt_file, options["max_input"])
    limit_threads(threads, path, num_sequences=len(prompts) * config.count)  # before any import of NumPy
    sampler, checkpoint = _open_sampler(path, config, options, with_nll=as_json)
    items = open_item_sampler(path, checkpoint, sampler, options)
    output = _Output(
        as_json=as_json, with_prompt=not options["no_prompt"], quiet=options["quiet"], adaptive=options["adapt"]
    )
    if interactive:
        _run_session(sampler, items, output)
        return
    if prompt_file is not None:
        prompts = [_read_prompt_file(prompt_file, options["max_input"], quiet=options["quiet"])]
    note_unknown(sampler.predictor.tokenizer.unknown_in(fold_line_ends("".join(prompts))), quiet=options["quiet"])
    _write_samples(sampler, items, prompts, output)


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


def _open_sampler(
    path: Path, config: SampleConfig, options: Mapping[str, Any], *, with_nll: bool
) -> "tuple[Sampler, Checkpoint]":
    """Load the model, and the training text if `novel` is set. Return the sampler and the content of the model file."""
    from charlm.cli.novelty import open_novelty_filter
    from charlm.engine.checkpoint import load_checkpoint
    from charlm.engine.item_sampler import separator_of_model
    from charlm.engine.sampler import Sampler

    checkpoint, novelty_filter = load_checkpoint(path), None
    predictor, separator = open_mixed(checkpoint, options["mix"]), separator_of_model(checkpoint.metadata)
    if options["adapt"]:
        if separator is not None:
            raise ConfigError(
                f"{path} was trained on a list, whose items are independent; omit `adapt`", fields=["adapt"]
            )
        predictor = open_adaptive(predictor, checkpoint)
    if options["novel"] is not None:
        novelty_filter = open_novelty_filter(path, checkpoint, options)
    sampler = Sampler(
        predictor=predictor,
        config=config,
        novelty_filter=novelty_filter,
        with_nll=with_nll,
        separator=separator,
    )
    return sampler, checkpoint


def _run_session(sampler: "Sampler", items: "ItemSampler | None", output: "_Output") -> None:
    """Read prompts and commands from stdin until it ends."""
    from charlm.cli.interact import Session

    if sys.stdin.isatty():
        click.echo("Type a prompt. :help lists the commands, :quit ends the session.", err=True)

    def write(changed: "Sampler", prompt: str) -> None:
        _write_samples(changed, None if items is None else replace(items, sampler=changed), [prompt], output)

    Session(sampler, write).run()


@dataclass(frozen=True, kw_only=True)
class _Output:
    """Form of the output.

    Attributes:
        as_json: Whether to write JSON.
        with_prompt: Whether to write the prompt before its continuation.
        quiet: Whether to print no notes.
        adaptive: Whether the model adapts to the texts.
    """

    as_json: bool
    with_prompt: bool
    quiet: bool
    adaptive: bool


def _write_samples(sampler: "Sampler", items: "ItemSampler | None", prompts: Sequence[str], output: _Output) -> None:
    """Generate the samples of all prompts and write them to stdout.

    Raises:
        ConfigError: If a text without an end would have to be complete before it or another text can be written.
    """
    if items is not None:
        if output.as_json:
            _write_json(items.stream(prompts), output)
        else:
            write_items(items, prompts, with_prompt=output.with_prompt)
        return
    config = sampler.config
    endless = config.limit < 0 and not config.lines and not config.stop
    if endless and (output.as_json or len(prompts) * config.count > 1):
        raise ConfigError(
            "length -1: without a limit, only one sample can be generated, and not as JSON; set a limit, lines or stop",
            fields=["length", "lines", "stop"],
        )
    if output.as_json and config.beam is not None:
        _write_json(_search(sampler, prompts), output, searches=True)
    elif output.as_json:
        _write_json(sampler.complete(sampler.start(prompts)), output)
    elif config.beam is not None:
        for index, (generation, text) in enumerate(_search(sampler, prompts)):
            _write_sample(f"{SEPARATOR}\n" * (index > 0) + generation.prompt * output.with_prompt + text)
    else:
        _write_first_immediately(sampler, prompts, output)


def _write_first_immediately(sampler: "Sampler", prompts: Sequence[str], output: _Output) -> None:
    """Write the first sample token by token, and the others after it. All are generated at the same time."""
    generations = sampler.start(prompts)
    later_samples: list[list[str]] = [[generation.prompt * output.with_prompt] for generation in generations[1:]]
    last_written = prompts[0] * output.with_prompt
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
    if sampler.config.length is None and any(generation.cut_before_newline for generation in generations):
        note(f"ended after {sampler.config.limit:,} tokens, before the last newline", quiet=output.quiet)


def _write_sample(text: str) -> None:
    write_text(text if text.endswith("\n") else f"{text}\n")


def _write_json(samples: "Iterable[tuple[Generation, str]]", output: _Output, *, searches: bool = False) -> None:
    """Write one line per sample, as soon as it arrives.

    Args:
        samples: Generations, and their texts without the prompt.
        output: Form of the output.
        searches: Whether they are the results of a search, which has no seeds.
    """
    import json

    log_probability = f"{'adaptive_' * output.adaptive}log_probability_per_token"
    for generation, text in samples:
        facts = {
            "prompt": generation.prompt,
            "text": text,
            "seed": None if searches else generation.seed,
            "tokens": generation.num_tokens,
            log_probability: -generation.nats_per_token,
            "ended_by": generation.ended_by or "length",
        }
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


def _search(sampler: "Sampler", prompts: Sequence[str]) -> Iterator[tuple["Generation", str]]:
    """Yield the texts that a beam search finds for each prompt, up to `count` per prompt."""
    from charlm.engine.beam import beam_search

    config = sampler.config
    for prompt in prompts:
        hypotheses = beam_search(sampler.predictor, config, prompt, sampler.novelty_filter)
        yield from hypotheses[: config.count]
