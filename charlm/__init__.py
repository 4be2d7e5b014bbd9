"""Character- and word-level recurrent language models: train, sample, score.

Load a model and use it. This never imports PyTorch:

    import charlm

    model = charlm.load("shakespeare")                  # a run, a file, or the model that comes with charlm
    model.generate("ROMEO:", length=200, seed=1)        # a string; an iterator of pieces with stream=True
    model.score("To be, or not to be").bits_per_char    # cross-entropy of a text
    model.surprisals("To be, or not to be", unit="word")
    model.next_tokens("To be, or not to b", top=5)

Train a model. This imports PyTorch:

    run = charlm.train("corpus.txt", minutes=2, name="mine")
    run.model.generate("Once upon a time")
    run.metrics["val_nats"]

Classify texts:

    classifier = charlm.train_classifier("reviews.tsv", name="reviews")     # imports PyTorch
    charlm.load_classifier("reviews").predict(["a charming film"])[0].label

The names below are the public interface; everything else in the package may change. Errors that a user can correct
are subclasses of `CharlmError`. The same functions are available on the command line: see `charlm --help`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from charlm._version import __version__ as __version__

if TYPE_CHECKING:
    from charlm.api import Model as Model
    from charlm.api import NextToken as NextToken
    from charlm.api import TrainedRun as TrainedRun
    from charlm.api import load as load
    from charlm.api import train as train
    from charlm.classifier_api import Classifier as Classifier
    from charlm.classifier_api import load_classifier as load_classifier
    from charlm.classifier_api import train_classifier as train_classifier
    from charlm.engine.scores import Score as Score
    from charlm.engine.surprisals import Surprisal as Surprisal
    from charlm.engine.surprisals import Surprisals as Surprisals
    from charlm.engine.text_classifier import Prediction as Prediction
    from charlm.errors import CharlmError as CharlmError

_MODULES = {
    **dict.fromkeys(("Classifier", "load_classifier", "train_classifier"), "charlm.classifier_api"),
    "Prediction": "charlm.engine.text_classifier",
    "Score": "charlm.engine.scores",
    "Surprisal": "charlm.engine.surprisals",
    "Surprisals": "charlm.engine.surprisals",
    "CharlmError": "charlm.errors",
}

__all__ = [
    "CharlmError",
    "Classifier",
    "Model",
    "NextToken",
    "Prediction",
    "Score",
    "Surprisal",
    "Surprisals",
    "TrainedRun",
    "load",
    "load_classifier",
    "train",
    "train_classifier",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - classes and functions
    """Import a public name when it is used, so that `import charlm` itself imports neither NumPy nor PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module 'charlm' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES.get(name, "charlm.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
