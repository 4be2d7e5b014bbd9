"""The way from one recurrent cell to Shakespeare, a module a lesson, each using charlm as a user would.

A lesson has a function `run(say, options)`: it says what it does line by line and returns its figures. One that has
a picture draws it with `draw(figure, figures)`. This module imports nothing heavy, so that the list comes at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from charlm.config import CELLS, Settings, setting

Say = Callable[[str], None]
"""Called with each line that a lesson has to say."""


@dataclass(frozen=True, kw_only=True)
class LessonOptions(Settings):
    """What a lesson may be told."""

    seed: int = setting(1, "Seed of all that is drawn.", "--seed", minimum=0, below=2**63)
    cell: str = setting("lstm", "Recurrent cell (digits).", "--cell", choices=tuple(CELLS))
    data: Path | None = setting(
        None,
        "Folder with MNIST's four files, plain or .gz, in place of small drawn digits (digits, batchnorm).",
        "--data",
    )
    quick: bool = setting(False, "A short form: the same with less training.", "--quick/--full")


@dataclass(frozen=True)
class Lesson:
    """A line in the list of lessons.

    Attributes:
        title: What it shows.
        time: How long it takes on two cores.
        takes: The options it has beside those of all lessons: `data`, `cell`, `plot`.
    """

    title: str
    time: str
    takes: tuple[str, ...] = ()


LESSONS: dict[str, Lesson] = {
    "cell": Lesson("one recurrent layer by hand, by the library, by the engine", "2 s"),
    "unroll": Lesson("the same over a batch of sequences, long and short", "2 s"),
    "shapes": Lesson("'hello' in one-hot: shapes, and the number of weights", "2 s"),
    "stack": Lesson("layers on layers, state carried on, two directions", "2 s"),
    "lstm": Lesson("gates by hand, and why they remember", "2 s"),
    "embed": Lesson("padding, and the look-up that is a matrix product", "2 s"),
    "loss": Lesson("the loss of a sequence by hand", "2 s"),
    "hello": Lesson("five units learn to answer 'hihell' with 'ihello'", "2 s"),
    "series": Lesson("forecasting a wave, with one layer and with three", "20 s", ("plot",)),
    "digits": Lesson("reading a picture row by row", "30 s", ("data", "cell", "plot")),
    "batchnorm": Lesson("the same through dense layers, normalised or not", "10 s", ("data", "plot")),
    "skipgram": Lesson("word vectors, by telling true words from noise", "1 min"),
    "shakespeare": Lesson("train, sample and score: the whole road", "3 min"),
}
"""All lessons, in the order to take them in."""
