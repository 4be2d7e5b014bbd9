"""Python interface to classifiers: load one and use it, or train one."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from charlm.engine.classifier_file import load_classifier as load_file
from charlm.engine.runs import CLASSIFIER_FILE, find_classifier
from charlm.engine.text_classifier import Prediction, TextClassifier
from charlm.errors import CorpusError
from charlm.text.labelled import Labelled, LabelledOptions, Sample, checked_sample

if TYPE_CHECKING:
    from charlm.training.classifier_trainer import ClassifierProgress

READING = ("label_field", "text_field", "table", "encoding", "errors")
"""Settings of `train_classifier` that say how files are read."""

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Classifier:
    """A trained classifier, ready to use with NumPy.

    Use `charlm.load_classifier` to open one.

    Args:
        path: File of the classifier.

    Attributes:
        path: File of the classifier.
        labels: Names of the classes.

    Raises:
        CheckpointError: If the file is missing, damaged or no classifier.

    Example:
        >>> import charlm
        >>> samples = [("good", "a fine film"), ("bad", "a dull film")] * 10
        >>> classifier = charlm.train_classifier(samples, name="films", epochs=1, threads=1)
        >>> classifier
        <charlm.Classifier films: 2 classes>
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        checkpoint = load_file(path)
        self.labels = checkpoint.labels
        self._metadata = checkpoint.metadata
        self._classifier = TextClassifier(checkpoint)

    def __repr__(self) -> str:
        name = self.path.parent.name if self.path.name == CLASSIFIER_FILE else str(self.path)
        return f"<charlm.Classifier {name}: {len(self.labels)} classes>"

    @property
    def metadata(self) -> dict[str, Any]:
        """Origin and quality: samples, command, training settings, metrics."""
        return self._metadata

    def predict(self, texts: Iterable[str]) -> list[Prediction]:
        """Return the class of each text: its label, its probability, and the probabilities of all classes.

        Args:
            texts: The texts. An empty text has the probabilities that the classes have among the samples.

        Example:
            >>> import charlm
            >>> samples = [("good", "a fine film"), ("bad", "a dull film")] * 10
            >>> classifier = charlm.train_classifier(samples, epochs=1, threads=1)
            >>> [prediction.label for prediction in classifier.predict(["so dull", "fine"])]
            ['bad', 'good']
        """
        return self._classifier.predict(_checked(texts))

    def probabilities(self, texts: Iterable[str]) -> npt.NDArray[np.float64]:
        """Return the probability of each class of `labels` for each text, (number of texts, number of classes)."""
        probabilities: npt.NDArray[np.float64] = np.exp(self._classifier.log_probabilities(_checked(texts)))
        return probabilities


def load_classifier(model: str | os.PathLike[str] | None = None) -> Classifier:
    """Open a trained classifier. This never imports PyTorch.

    Args:
        model: The file of a classifier, the folder of a run, or the name of a run in ./checkpoints. Default: the newest
            classifier there.

    Raises:
        CheckpointError: If there is no such classifier, or its file is damaged.

    Example:
        >>> import charlm
        >>> samples = [("good", "a fine film"), ("bad", "a dull film")] * 10
        >>> classifier = charlm.train_classifier(samples, name="reviews", epochs=1, threads=1)
        >>> charlm.load_classifier("reviews").labels
        ('bad', 'good')
    """
    return Classifier(find_classifier(None if model is None else os.fspath(model)).absolute())


def train_classifier(
    samples: Paths | Sequence[tuple[str, str]],
    *,
    name: str | None = None,
    validation: Paths = (),
    pretrained: str | os.PathLike[str] | None = None,
    report: "Callable[[ClassifierProgress], None] | None" = None,
    **settings: Any,
) -> Classifier:
    """Train a classifier, as `charlm classify train` does. This imports PyTorch.

    Settings that are not given are chosen automatically. Without `minutes`, the same call makes the same classifier.
    PyTorch's global random state is changed.

    Args:
        samples: Files or folders of labelled texts; or pairs of a label and a text.
        name: Name of the run. Default: derived from the samples.
        validation: Files or folders to validate on. Default: a share of the samples.
        pretrained: Language model whose encoder to start with: a file or a run.
        report: Called with the progress after each update and after each validation.
        **settings: `minutes` or `epochs`, and other fields of `ClassifierConfig` and `ClassifierTrainConfig` of
            `charlm.classifier_config`; also `tokenizer`, `glove`, `force`, `label_field`, `text_field`, `table`,
            `encoding`, `errors` and `threads`, as on the command line.

    Returns:
        The classifier.

    Raises:
        CharlmError: Of any kind, if the training is not possible.
        TypeError: If a setting does not exist, or a sample is no pair of strings.

    Example:
        >>> import charlm
        >>> samples = [("good", "a fine film"), ("bad", "a dull film")] * 10
        >>> classifier = charlm.train_classifier(samples, name="first", epochs=1, threads=1)
        >>> classifier.predict(["what a dull story"])[0].label
        'bad'
    """
    from charlm.training.classifier_setup import ClassifierRequest, check_setting_names, prepare_classifier
    from charlm.training.request import Hardware

    reading = {key: settings.pop(key) for key in READING if key in settings}
    glove, force, threads = settings.pop("glove", None), settings.pop("force", False), settings.pop("threads", None)
    check_setting_names(settings)
    labelled = _labelled(samples)
    request = ClassifierRequest(
        samples=() if labelled is not None else _specs(samples),  # type: ignore[arg-type]
        labelled=labelled,
        validation=_specs(validation),
        reading=LabelledOptions(**reading),
        settings=settings,
        glove=None if glove is None else Path(glove),
        pretrained=None if pretrained is None else os.fspath(pretrained),
        name=name,
        force=force,
        hardware=Hardware(device="cpu", threads=threads),
        command="charlm.train_classifier",
    )
    with prepare_classifier(request) as training:
        training.train(report or (lambda progress: None))
    return Classifier(training.run.model.absolute())


def _labelled(samples: Paths | Sequence[tuple[str, str]]) -> Labelled | None:
    """Return pairs of a label and a text as labelled texts, those without a text apart; None if there are files.

    Raises:
        TypeError: If there are neither files nor pairs of strings.
        CorpusError: If a label is invalid.
    """
    if isinstance(samples, str | os.PathLike):
        return None
    if samples and all(isinstance(sample, str | os.PathLike) for sample in samples):
        return None
    found = Labelled()
    for number, pair in enumerate(samples, start=1):
        match pair:
            case [str(label), str(text)]:
                sample = checked_sample(Sample(label, text, "samples", number))
                (found.samples if text.strip() else found.empty).append(sample)
            case _:
                raise TypeError(f"samples: sample {number:,} is no pair of a label and a text, both strings: {pair!r}")
    if not found.samples:
        raise CorpusError("samples: no labelled text")
    return found


def _checked(texts: Iterable[str]) -> list[str]:
    """Return texts as a list. A single string is a mistake: its characters would be the texts.

    Raises:
        TypeError: If it is one.
    """
    if isinstance(texts, str):
        raise TypeError("texts is a string; give a list of texts")
    return list(texts)


def _specs(paths: Paths) -> tuple[str, ...]:
    """Return the names of one or several files."""
    return (os.fspath(paths),) if isinstance(paths, str | os.PathLike) else tuple(os.fspath(path) for path in paths)
