"""Quality of a classifier on labelled texts.

Shapes: N texts, C classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CALIBRATION_GROUPS = 10
"""Number of groups of texts of the calibration error."""

MIN_PROBABILITY = 1e-15
"""Probability below which the log-loss does not rise, as in scikit-learn."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ClassQuality:
    """Quality for one class.

    Attributes:
        precision: Share of right labels among the texts that were given this label; 0 if there is none.
        recall: Share of right labels among the texts of this class; 0 if there is none.
        f1: Harmonic mean of both.
        count: Number of texts of this class.
    """

    precision: float
    recall: float
    f1: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Quality of a classifier.

    Attributes:
        num_texts: Number of texts.
        accuracy: Share of right labels.
        macro_f1: Mean F1 of the classes that have a text or were predicted.
        log_loss: Mean negative logarithm of the probability of the right class, in nats.
        calibration_error: Mean difference between probability and accuracy, in groups of equal width.
        classes: Quality for each class, by label.
        confusion: Number of texts of each true class (row) with each label (column), (C, C).
    """

    num_texts: int
    accuracy: float
    macro_f1: float
    log_loss: float
    calibration_error: float
    classes: dict[str, ClassQuality]
    confusion: npt.NDArray[np.intp]

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers in types that JSON supports."""
        return {
            "texts": self.num_texts,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "log_loss": self.log_loss,
            "calibration_error": self.calibration_error,
            "classes": {label: vars(quality) for label, quality in self.classes.items()},
            "confusion": {"labels": list(self.classes), "counts": self.confusion.tolist()},
        }


def measure_quality(log_probs: Floats, true: npt.NDArray[np.integer], labels: tuple[str, ...]) -> Quality:
    """Return the quality of predictions.

    Args:
        log_probs: Logarithm of the probability of each class, (N, C).
        true: Index of the right class of each text, (N,).
        labels: Names of the classes.

    Example:
        >>> quality = measure_quality(np.log([[0.75, 0.25], [0.75, 0.25]]), np.array([0, 1]), ("a", "b"))
        >>> quality.accuracy, quality.calibration_error, quality.classes["a"].recall
        (0.5, 0.25, 1.0)
    """
    predicted = log_probs.argmax(axis=1)
    size = len(labels)
    confusion = np.bincount(true * size + predicted, minlength=size * size).reshape(size, size)
    classes = {label: _class_quality(confusion, index) for index, label in enumerate(labels)}
    is_used = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
    f1 = np.array([quality.f1 for quality in classes.values()])
    chosen = np.maximum(log_probs[np.arange(len(true)), true], np.log(MIN_PROBABILITY))
    return Quality(
        num_texts=len(true),
        accuracy=float((predicted == true).mean()),
        macro_f1=float(f1[is_used].mean()),
        log_loss=-float(chosen.mean()),
        calibration_error=_calibration_error(np.exp(log_probs.max(axis=1)), predicted == true),
        classes=classes,
        confusion=confusion,
    )


def _class_quality(confusion: npt.NDArray[np.intp], index: int) -> ClassQuality:
    right, given, count = (
        int(value) for value in (confusion[index, index], confusion[:, index].sum(), confusion[index].sum())
    )
    return ClassQuality(
        precision=right / given if given else 0.0,
        recall=right / count if count else 0.0,
        f1=2 * right / (given + count) if given + count else 0.0,
        count=count,
    )


def _calibration_error(probabilities: Floats, is_right: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error.

    Source:
        Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    groups = np.minimum((probabilities * CALIBRATION_GROUPS).astype(np.intp), CALIBRATION_GROUPS - 1)
    difference = np.bincount(groups, weights=probabilities - is_right, minlength=CALIBRATION_GROUPS)
    return float(np.abs(difference).sum() / len(probabilities))
