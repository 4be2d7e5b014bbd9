"""`charlm train`."""

import functools
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.options import (
    command,
    encoding_option,
    errors_option,
    note,
    quiet_option,
    settings_options,
    threads_option,
)
from charlm.config import ModelConfig, TokenizerConfig, TrainConfig
from charlm.training.recipe import AUTOMATIC

if TYPE_CHECKING:
    from charlm.training.network import LanguageModel
    from charlm.training.setup import Job, Request
    from charlm.training.throughput import Machine

SPINS = "4000"
"""How often a thread of PyTorch looks whether others are done before it lets another program have its core. PyTorch's
own millions make two trainings on two cores a hundred times slower than one; these cost one that is alone a tenth."""

CUBLAS_WORKSPACE = ":4096:2"
"""What cuDNN's recurrent layers need to give the same numbers each time on a GPU; as PyTorch's `nn.LSTM` has it."""

CACHE_HELP = "Folder for the ids of texts too long for memory.  [default: charlm in the user's cache]"


@command()
@click.argument("corpus", nargs=-1)
@click.option("--name", help="Name of the run, a folder in ./checkpoints.  [default: from the corpus]")
@click.option(
    "--validation",
    multiple=True,
    metavar="CORPUS",
    help="Validate on this text, not on the corpus' end; may be given several times.",
)
@settings_options(TokenizerConfig, AUTOMATIC)
@settings_options(TrainConfig, AUTOMATIC)
@settings_options(ModelConfig, AUTOMATIC)
@click.option(
    "--glove",
    type=click.Path(path_type=Path),
    help="Begin with the word vectors of this file, in GloVe's or word2vec's text form, plain, .gz or .zip.",
)
@click.option(
    "--from",
    "start",
    metavar="FILE|RUN",
    help="Begin with this trained model, its shape and its tokens, and add the tokens that it lacks.",
)
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[RUN]",
    help="Go on with a run, the newest if none is named.",
)
@click.option(
    "--plan", "plan_only", is_flag=True, help="Print what would be chosen, and the epochs to expect; no more."
)
@click.option("--force", is_flag=True, help="Replace a run of the same name; resume although the corpus has changed.")
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help=CACHE_HELP)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto takes a GPU if there is one.",
)
@encoding_option
@errors_option("strict")
@threads_option
@quiet_option
def train(
    corpus: tuple[str, ...],
    name: str | None,
    validation: tuple[str, ...],
    glove: Path | None,
    start: str | None,
    resume: str | None,
    plan_only: bool,
    force: bool,
    cache: Path | None,
    device: str,
    encoding: str,
    errors: str,
    threads: int | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a model on a text.

    CORPUS is one or several files, folders, patterns, - for stdin, or names from `charlm corpus`. The best model on
    the end of the text, which is kept for validation, goes to ./checkpoints/NAME/model.safetensors, and this path to
    stdout. Ctrl-C saves and ends; --resume goes on.

    What is left open is planned: from the text, the minutes and some seconds of timing on this machine. The larger the
    budget, the larger the model; the more often it will read the text, the more dropout. --plan prints the plan alone.
    Without an end, a training goes on until the validation loss stops falling.

    --from goes on from a trained model with a new text, in a new run: what it has learnt of each character or word is
    kept, and new ones are added. The learning rate is half a fresh training's, unless --lr is given.

    \b
    Example:
      charlm train shakespeare --minutes 2
      charlm train shakespeare --minutes 60 --plan
      charlm train shakespeare --tokenizer word --minutes 10
      cat a.txt b.txt | charlm train - --minutes 1 --name mine
      charlm train --resume mine
      charlm train letters.txt --from mine --minutes 1
    """
    started = time.monotonic()
    from charlm.training.setup import Request

    request = Request(
        specs=corpus,
        validation=validation,
        glove=glove,
        start=start,
        name=name,
        encoding=_if_given("encoding", encoding),
        errors=_if_given("errors", errors),
        cache=cache,
        force=force,
        first=os.environ.get("RANK", "0") == "0",
        plan_only=plan_only,
    )
    quiet = quiet or not request.first
    with ExitStack() as stack:
        find_machine = functools.cache(lambda: _find_machine(stack, device, threads, started))
        job = _job(request, resume, settings, find_machine)
        stack.enter_context(job.hold)
        _announce(job, request, quiet=quiet)
        if plan_only:
            return
        signal_number = _train(job, find_machine(), quiet=quiet)
    if request.first:
        click.echo(job.run.model)
    if signal_number:
        click.get_current_context().exit(128 + signal_number)


def _job(
    request: "Request", resume: str | None, settings: dict[str, Any], find_machine: Callable[[], "Machine"]
) -> "Job":
    """A new training, or one to go on with if `resume` is a run or "", the newest."""
    from charlm.training.setup import new_job, resumed_job

    if resume is not None:
        if request.validation or request.glove or request.plan_only or request.start is not None:
            raise click.UsageError("--validation, --glove, --from and --plan are for a new run: leave them out.")
        return resumed_job(resume or request.name or "", request, settings)
    if not request.specs:
        raise click.UsageError("Missing CORPUS: a file, a folder, - for stdin, or a name from `charlm corpus`.")
    return new_job(request, settings, find_machine)


def _announce(job: "Job", request: "Request", *, quiet: bool) -> None:
    """Say what will be done: to the user on stderr, or where that is all that was asked for, on stdout."""
    from charlm.cli.plan_view import plan_text, print_plan

    for message in job.notes:
        note(message, quiet=quiet)
    if request.plan_only:
        if request.first:
            print_plan(job)
    elif job.plan is not None and not quiet:
        click.echo(plan_text(job.plan), err=True)


def _if_given(parameter: str, value: str) -> str | None:
    """The value of an option, None if it is the default."""
    source = click.get_current_context().get_parameter_source(parameter)
    return value if source == click.core.ParameterSource.COMMANDLINE else None


def _find_machine(stack: ExitStack, device_name: str, threads: int | None, started: float) -> "Machine":
    """Where to compute; processes that torchrun started meet here, and part when `stack` is closed."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # both before PyTorch is imported
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    import torch

    from charlm.training.distributed import find_device, joined_workers
    from charlm.training.throughput import Machine

    torch.set_flush_denormal(True)
    if threads is not None:
        torch.set_num_threads(threads)
    device = find_device(device_name)
    return Machine(device, stack.enter_context(joined_workers(device)), started, fewer=threads is None)


def _train(job: "Job", machine: "Machine", *, quiet: bool) -> int:
    """Train, and say how it went; returns the number of the signal that ended it, or 0."""
    import torch

    from charlm.cli.progress import ProgressView, print_summary
    from charlm.cli.signals import StopSignals
    from charlm.engine.checkpoint import load_checkpoint
    from charlm.engine.novelty import store_training_text
    from charlm.training.throughput import learns_in_bf16
    from charlm.training.trainer import Trainer

    config, workers = job.train_config, machine.workers
    if machine.fewer and config.threads is not None:  # a resumed training's too: with others its last bits would differ
        torch.set_num_threads(config.threads)
    if config.precision == "bf16" and not learns_in_bf16(machine.device):
        note("the run began in bf16, in which this processor does not learn: going on in fp32", quiet=quiet)
    with StopSignals() as stop, ProgressView(config, job.dataset.chars_per_token, quiet=quiet) as view:
        model = _fresh_model(job).to(machine.device)
        torch.manual_seed(config.seed + workers.rank)
        if workers.is_first:
            store_training_text(job.run.path, job.dataset.tokenizer, job.dataset.train_ids)
        trainer = Trainer(
            model,
            job.dataset.tokenizer,
            job.dataset.train_ids,
            job.dataset.val_ids,
            config,
            run=job.run,
            metadata=job.metadata,
            report=view,
            warn=view.warn if workers.is_first else lambda message: None,
            chars_per_token=job.dataset.chars_per_token,
            stop=lambda: stop.number != 0,
            started=machine.started,
            learnt="from" in job.metadata,
            workers=workers,
        )
        if job.resume_from is not None:
            trainer.resume(job.resume_from)
        end = trainer.train()
    if not quiet:
        stopped = end.fraction < 1
        print_summary(job.run, load_checkpoint(job.run.model), end, job.dataset.chars_per_token, stopped=stopped)
    return stop.number


def _fresh_model(job: "Job") -> "LanguageModel":
    """The model before it has learnt anything but how frequent the tokens are."""
    import torch

    from charlm.training.network import LanguageModel

    torch.manual_seed(job.train_config.seed)
    model = LanguageModel(job.model_config)
    model.start_from_frequencies(torch.from_numpy(job.dataset.counts()))
    if job.weights is not None:
        model.load_tensors(job.weights)
    if job.embedding is not None:
        model.embedding.weight.detach().copy_(torch.from_numpy(job.embedding))
    model.embedding.weight.requires_grad_(not job.train_config.freeze_embeddings)
    return model
