"""Lessons: a course from one recurrent cell to a language model of Shakespeare.

Here belong one module per lesson, and what several lessons share. A lesson has a function `run(say, options)`, which
prints the lesson with `say` and returns its figures. A lesson that can draw a picture also has a function
`draw(figure, figures)`. Lessons use charlm's own modules, as a program that imports charlm would. This module does not
import PyTorch, so that the list of lessons appears at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from charlm.config import CELLS, MAX_THREADS
from charlm.settings import Settings, setting


def _ignore(_: str) -> None:
    pass


@dataclass(frozen=True)
class Say:
    """Output of a lesson: `say(text)` prints one or more lines.

    Attributes:
        line: Prints one or more lines.
        status: Shows what the lesson is computing until the next line is printed.
    """

    line: Callable[[str], None]
    status: Callable[[str], None] = _ignore

    def __call__(self, text: str) -> None:
        """Print one or more lines."""
        self.line(text)


@dataclass(frozen=True, kw_only=True)
class LessonOptions(Settings):
    """Settings of a lesson."""

    seed: int = setting(1, "Random seed: the same seed gives the same numbers.", "--seed", minimum=0, below=2**63)
    cell: str = setting("lstm", "Recurrent cell; for the lesson digits.", "--cell", choices=tuple(CELLS))
    data: Path | None = setting(
        None,
        "Folder with the four MNIST files, plain or .gz, to use instead of generated images; for the lessons digits "
        "and batchnorm. For the lesson reviews: folder of labelled texts, with a folder or a file per class.",
        "--data",
        metavar="FOLDER",
    )
    glove: Path | None = setting(
        None, "File of word vectors to use; for the lesson reviews.", "--glove", metavar="FILE"
    )
    threads: int | None = setting(None, "Number of threads.", "--threads", minimum=1, maximum=MAX_THREADS)
    quick: bool = setting(False, "Use less data and fewer training steps.", "--quick/--full")


@dataclass(frozen=True)
class Lesson:
    """Entry in the list of lessons.

    Attributes:
        title: Subject of the lesson.
        time: Approximate running time on two CPU cores.
        takes: Options of this lesson that not all lessons have: `data`, `glove`, `cell`, `plot`.
        threads: Default number of threads; None to choose it as for every training. The networks of most lessons are so
            small that a second thread is no faster, and waiting for it takes most of the time if other programs run.
    """

    title: str
    time: str
    takes: tuple[str, ...] = ()
    threads: int | None = 1


LESSONS: dict[str, Lesson] = {
    "cell": Lesson("a recurrent layer by hand, in PyTorch and in NumPy", "2 s"),
    "unroll": Lesson("a batch of sequences of different lengths", "2 s"),
    "shapes": Lesson("one-hot vectors, tensor shapes and number of weights", "2 s"),
    "stack": Lesson("stacked layers, carried state and two directions", "2 s"),
    "lstm": Lesson("the gates of an LSTM, and gradients over many steps", "2 s"),
    "embed": Lesson("padding and token embeddings", "2 s"),
    "loss": Lesson("the cross-entropy loss of a sequence", "2 s"),
    "hello": Lesson("a first language model: from 'hihell' to 'ihello'", "2 s"),
    "series": Lesson("forecasting a time series", "20 s", ("plot",)),
    "digits": Lesson("classifying images of digits row by row", "30 s", ("data", "cell", "plot")),
    "batchnorm": Lesson("batch normalisation between dense layers", "10 s", ("data", "plot")),
    "skipgram": Lesson("word vectors by noise-contrastive estimation", "1 min"),
    "reviews": Lesson("classifying texts with many labels and with few", "2 min", ("data", "glove", "plot")),
    "shakespeare": Lesson("training, sampling and scoring a language model", "3 min", threads=None),
}
"""All lessons, in the order of the course."""
