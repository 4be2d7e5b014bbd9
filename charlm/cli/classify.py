"""Command `charlm classify`."""

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import click

from charlm.classifier_config import LEARNING, NETWORK, TIME, ClassifierConfig, ClassifierTrainConfig
from charlm.cli.completions import complete_files
from charlm.cli.options import (
    Number,
    command,
    encoding_option,
    errors_option,
    glove_option,
    json_option,
    note,
    option,
    quiet_option,
    resume_option,
    settings_options,
    table_option,
    threads_option,
    wait_note,
)
from charlm.cli.threads import limit_threads
from charlm.config import MAX_BATCH_LINES

RUN, INPUT, OUTPUT = "Run", "Input", "Output"

AUTOMATIC = {
    "epochs": "4 to 30, more for fewer samples",
    "hidden_size": "64 to 192, more for more samples; that of the language model with --from",
    "max_tokens": "400; 1500 for characters",
    "learning_rate": "0.002; 0.005 with --from",
    "val_fraction": "0.1; up to 0.25 for less than 400 samples",
    "freeze_encoder": "freeze with up to 2,000 samples",
}
"""Settings that are planned if they are not given."""

classifier_option = option(
    "-m",
    "--model",
    "model",
    metavar="FILE|RUN",
    help="File of a classifier, folder of a run, or name of a run in ./checkpoints.  [default: the newest classifier "
    "there]",
)


def label_options(function: Any) -> Any:  # noqa: ANN401 - a command
    """Add the options that say where labels and texts are."""
    for decorate in (
        table_option(INPUT),
        option(
            "--text-field",
            metavar="NAME|N",
            group=INPUT,
            help="Column of the text in a table, or key in JSON lines.  [default: text, sentence, review and others]",
        ),
        option(
            "--label-field",
            metavar="NAME|N",
            group=INPUT,
            help="Column of the label in a table, or key in JSON lines. A number counts columns from 1, and the table "
            "has no header.  [default: label, class, category and others]",
        ),
    ):
        function = decorate(function)
    return function


@click.group()
def classify() -> None:
    """Sort texts into classes: train a classifier, use it, test it.

    \b
    Example:
      charlm classify train reviews.tsv --name reviews
      charlm classify train few.tsv --from mine --minutes 2
      charlm classify predict -m reviews new.txt
      charlm classify test -m reviews held-out.tsv
    """


@classify.command(cls=command.keywords["cls"], groups=(RUN, TIME, INPUT, NETWORK, LEARNING))
@click.argument("samples", nargs=-1, metavar="LABELLED...", shell_complete=complete_files)
@option(
    "--name", metavar="NAME", group=RUN, help="Name of the run's folder in ./checkpoints.  [default: from LABELLED]"
)
@option("--force", is_flag=True, group=RUN, help="Replace a run of the same name.")
@resume_option(RUN)
@option("--plan", "plan_only", is_flag=True, group=RUN, help="Print the settings and exit without training.")
@option(
    "--validation",
    multiple=True,
    metavar="LABELLED",
    group=INPUT,
    help="Validate on these samples instead of a share of LABELLED; may be given several times.",
)
@label_options
@option(
    "--from",
    "pretrained",
    metavar="FILE|RUN",
    group=NETWORK,
    help="Start with the encoder and the vocabulary of this language model. Its layers are unfrozen one after the "
    "other, the lower ones with lower learning rates.",
)
@glove_option(NETWORK)
@option(
    "--tokenizer",
    type=click.Choice(["char", "word"]),
    group=NETWORK,
    help="Unit of text that is one token.  [default: word if spaces separate words]",
)
@settings_options(ClassifierTrainConfig, AUTOMATIC)
@settings_options(ClassifierConfig, AUTOMATIC)
@encoding_option
@errors_option("strict")
@threads_option
@quiet_option
def train(
    samples: tuple[str, ...],
    name: str | None,
    force: bool,
    resume: str | None,
    plan_only: bool,
    validation: tuple[str, ...],
    label_field: str | None,
    text_field: str | None,
    table: str | None,
    pretrained: str | None,
    glove: Path | None,
    encoding: str,
    errors: str,
    threads: int | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a classifier on labelled texts.

    LABELLED is a file or a folder, in one of these layouts, which is detected and printed: a table with a header
    (.csv, .tsv); lines of a label, a tab and a text; JSON lines; lines of __label__x and a text (fastText); a folder
    with a folder or a file per class (unsup is ignored). By default, a tenth of each class is used for validation only.

    The classifier combines a recurrent network with counts of words, pairs of words and runs of characters in each
    class. The weights of both are fitted on the validation samples. It is written to
    ./checkpoints/NAME/classifier.safetensors, and its path is printed. Ctrl-C saves and stops; --resume continues.

    \b
    Example:
      charlm classify train reviews.tsv --name reviews
      charlm classify train aclImdb/train --minutes 10
      charlm train all-reviews.txt --tokenizer word --name lm
      charlm classify train few.csv --label-field stars --text-field body --from lm
    """
    started = time.monotonic()
    from charlm.cli.classify_training import run_training
    from charlm.text.labelled import LabelledOptions
    from charlm.training.classifier_setup import ClassifierRequest
    from charlm.training.request import Hardware

    if resume is None and not samples:
        raise click.UsageError("Missing LABELLED: files or folders of labelled texts, or - for stdin")
    request = ClassifierRequest(
        samples=samples,
        validation=validation,
        reading=LabelledOptions(
            label_field=label_field, text_field=text_field, table=table, encoding=encoding, errors=errors
        ),
        settings=settings,
        glove=glove,
        pretrained=pretrained,
        name=name,
        force=force,
        hardware=Hardware(device="cpu", threads=threads, started=started),
        command=shlex.join(["charlm", *sys.argv[1:]]),
    )
    if signal_number := run_training(request, resume, plan_only=plan_only, quiet=quiet):
        click.get_current_context().exit(128 + signal_number)


@classify.command(cls=command.keywords["cls"], groups=(INPUT, OUTPUT))
@click.argument("files", nargs=-1, shell_complete=complete_files)
@classifier_option
@option(
    "--field",
    metavar="NAME|N",
    group=INPUT,
    help="Classify this column of a table, or this key of JSON lines, and print all columns with label and probability "
    "after them, or with predicted_label if there is a column label. With a name, the first record is the header. A "
    "number counts columns from 1.",
)
@table_option(INPUT)
@option(
    "--all", "all_classes", is_flag=True, group=OUTPUT, help="Print the probability of every class, after a header."
)
@option(
    "--format",
    "columns",
    metavar="COLUMNS",
    group=OUTPUT,
    help="Columns to print, separated by commas: label, probability, text, line, file.  "
    "[default: label,probability,text]",
)
@option(
    "--above",
    type=Number(0, 1),
    metavar="X",
    group=OUTPUT,
    help="Print only texts whose most probable class has a probability above X.",
)
@option("--label", "only", metavar="LABEL", group=OUTPUT, help="Print only texts whose most probable class is LABEL.")
@json_option
@encoding_option
@errors_option("surrogateescape")
@threads_option
@quiet_option
@click.pass_context
def predict(ctx: click.Context, /, **values: Any) -> None:
    """Print the most probable class of each line of a text.

    Reads FILES, or stdin if there are none or if a file is -. For each line, prints its label, the probability of the
    label, and the line, separated by tabs. An empty line has the probabilities that the classes have among the samples.

    With --above or --label, the exit code is 1 if no line is printed.

    \b
    Example:
      charlm classify predict -m reviews new.txt
      charlm classify predict -m reviews --label neg --above 0.9 --format text new.txt
      charlm classify predict -m reviews --field body mails.csv > sorted.csv
      tail -f log.txt | charlm classify predict -m alerts --json
    """
    from charlm.engine.runs import find_classifier

    path = find_classifier(values.pop("model"))
    threads = limit_threads(values.pop("threads"), path, num_sequences=MAX_BATCH_LINES, independent=True)
    from charlm.cli.classify_views import PredictOptions, show_predictions
    from charlm.engine.text_classifier import TextClassifier

    options = PredictOptions(**values)
    classifier = TextClassifier.load(path, threads)
    wait_note(options.files, quiet=options.quiet)
    passed = show_predictions(classifier, options)
    if classifier.num_empty:
        note(f"{classifier.num_empty:,} empty text(s), predicted from the shares of the classes", quiet=options.quiet)
    if not passed:
        ctx.exit(1)


@classify.command(cls=command.keywords["cls"], groups=(INPUT, OUTPUT))
@click.argument("samples", nargs=-1, required=True, metavar="LABELLED...", shell_complete=complete_files)
@classifier_option
@label_options
@json_option
@option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    group=OUTPUT,
    help="Draw the confusion matrix, and the accuracy in the course of the training, to an image.",
)
@encoding_option
@errors_option("strict")
@threads_option
@quiet_option
def test(samples: tuple[str, ...], model: str | None, threads: int | None, **values: Any) -> None:
    """Measure the quality of a classifier on labelled texts.

    Prints accuracy, macro F1, log-loss in nats, calibration error, precision and recall of each class, and the
    confusion matrix: a row for each true class, a column for each predicted class. LABELLED is as for
    `charlm classify train`. The calibration error is the mean difference between the probability of the predicted
    class and the accuracy, in ten groups of texts with similar probabilities.

    \b
    Example:
      charlm classify test -m reviews held-out.tsv
      charlm classify test -m reviews aclImdb/test --plot confusion.png
      charlm classify test -m reviews held-out.csv --json
    """
    from charlm.engine.runs import find_classifier

    path = find_classifier(model)
    threads = limit_threads(threads, path, num_sequences=MAX_BATCH_LINES, independent=True)
    from charlm.cli.classify_report import show_report
    from charlm.engine.text_classifier import TextClassifier
    from charlm.text.labelled import LabelledOptions

    quiet, as_json, plot = values.pop("quiet"), values.pop("as_json"), values.pop("plot")
    show_report(
        TextClassifier.load(path, threads), samples, LabelledOptions(**values), as_json=as_json, plot=plot, quiet=quiet
    )
