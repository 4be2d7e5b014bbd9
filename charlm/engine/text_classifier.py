"""Classification of texts with a trained classifier.

Shapes: N texts, C classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.engine.classifier_file import ClassifierCheckpoint, load_classifier
from charlm.engine.classifier_network import ClassifierNetwork
from charlm.engine.combination import combine
from charlm.engine.predictor import START
from charlm.text.tokenizer import Ids, Tokenizer

Doubles = npt.NDArray[np.float64]


class Prediction(NamedTuple):
    """Class of a text.

    Attributes:
        label: Name of the most probable class.
        probability: Its probability, from 0 to 1.
        probabilities: Probability of each class by its label.

    Example:
        >>> Prediction("pos", 0.75, {"neg": 0.25, "pos": 0.75}).label
        'pos'
    """

    label: str
    probability: float
    probabilities: dict[str, float]


def encode_text(tokenizer: Tokenizer, text: str) -> Ids:
    """Return the ids of a text after the newline with which every text begins."""
    return tokenizer.encode(START + " ".join(text.split("\n")))


class TextClassifier:
    """Trained classifier.

    Args:
        checkpoint: The classifier.
        threads: Number of threads, each of which reads batches of its own.

    Attributes:
        labels: Names of the classes.
        num_empty: Number of empty texts so far. Their probabilities are the shares of the classes among the samples.
    """

    def __init__(self, checkpoint: ClassifierCheckpoint, threads: int = 1) -> None:
        self.labels = checkpoint.labels
        self.num_empty = 0
        self._checkpoint = checkpoint
        self._threads = threads
        self._network = ClassifierNetwork(checkpoint.config, checkpoint.tensors)

    @classmethod
    def load(cls, path: Path, threads: int = 1) -> "TextClassifier":
        """Return the classifier of a file.

        Raises:
            CheckpointError: If the file is missing, damaged or no classifier.
        """
        return cls(load_classifier(path), threads)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Progress at each validation of the training, from the model file; empty if the file has none."""
        recorded = self._checkpoint.metadata.get("history")
        entries = recorded if isinstance(recorded, list) else []
        return [entry for entry in entries if isinstance(entry, dict) and _is_progress(entry)]

    def log_probabilities(self, texts: Sequence[str]) -> Doubles:
        """Return the logarithm of the probability of each class, (N, C), float64."""
        prior = np.array(self._checkpoint.prior)
        result = np.tile(prior, (len(texts), 1))
        filled = [index for index, text in enumerate(texts) if text.strip()]
        self.num_empty += len(texts) - len(filled)
        if filled:
            chosen = [texts[index] for index in filled]
            parts: dict[str, npt.NDArray[np.floating]] = {"network": self._network_logits(chosen)}
            if self._checkpoint.counts is not None:
                parts["words"], parts["spelling"] = self._checkpoint.counts.logits(chosen)
            parts["prior"] = np.tile(prior, (len(chosen), 1))
            weights = [self._checkpoint.weights[name] for name in parts]
            result[filled] = combine(list(parts.values()), weights)
        return result

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Return the class of each text."""
        predictions = []
        for row in np.exp(self.log_probabilities(texts)).tolist():
            best = max(range(len(row)), key=row.__getitem__)
            predictions.append(Prediction(self.labels[best], row[best], dict(zip(self.labels, row, strict=True))))
        return predictions

    def _network_logits(self, texts: Sequence[str]) -> npt.NDArray[np.floating]:
        """Return the logits of the network, (N, C)."""
        encoded = [encode_text(self._checkpoint.tokenizer, text) for text in texts]
        limit = self._checkpoint.config.max_tokens
        batches = self._network.batches([min(len(ids), limit) for ids in encoded])
        groups = [[encoded[index] for index in batch] for batch in batches]
        if self._threads > 1 and len(groups) > 1:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(self._threads) as pool:
                results = list(pool.map(self._network.logits, groups))
        else:
            results = list(map(self._network.logits, groups))
        logits = np.empty((len(texts), len(self.labels)), dtype=np.float32)
        for batch, result in zip(batches, results, strict=True):
            logits[batch] = result
        return logits


def _is_progress(entry: dict[str, Any]) -> bool:
    """Return whether an entry of the history has the numbers of a curve. Files are untrusted."""
    numbers = [entry.get(name) for name in ("epoch", "train_accuracy", "val_accuracy")]
    return all(isinstance(number, int | float) for number in numbers)
