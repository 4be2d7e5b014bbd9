"""Classifying texts, with many labels and with few.

Shapes: B texts in a batch, T words, V words in the vocabulary, E = 50 numbers per vector, C classes.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.classifier_config import ClassifierConfig
from charlm.config import ModelConfig
from charlm.lessons import LessonOptions, Say
from charlm.lessons.review_data import FEW, LENGTH, load_reviews
from charlm.lessons.review_training import Curves, make_vectors, train_epochs, train_language_model
from charlm.lessons.skipgram import EMBEDDING_DIM
from charlm.text.labelled import classes_text
from charlm.training.classifier_data import EncodedSamples
from charlm.training.classifier_model import ClassifierModel
from charlm.training.network import LanguageModel

UNITS, FEW_EPOCHS = 128, 10
NO_DROPOUT: dict[str, Any] = {"dropout": 0.0, "input_dropout": 0.0, "token_dropout": 0.0}
FULL: tuple[int | None, int, int, int, int] = (None, 5000, 1500, 2000, 5)
"""Maximum number of labels, vocabulary size, updates of the vectors and of the language model, epochs."""
QUICK = (2000, 1000, 150, 100, 3)

INTRODUCTION = """\
The texts are {name}: {train:,} to learn from
and {validation:,} for validation. The classes are {classes}. One network puts the
vectors of a text's {length} words side by side (flattened), and has one linear layer:

  logits = W [e(1), e(2), ..., e({length})] + b

The other reads the vectors with an LSTM of {units} units. Its linear layer gets the
last state, and the mean and the maximum of all states. Both learn the vectors,
too. The share of texts that are classified correctly after the last epoch:
"""
TABLE = "\n  network                       labels  training  validation"
PRETRAINING = """
Text without labels is easy to get: here are {tokens:,} words and marks,
without the validation texts. Word vectors and a language model, an LSTM of {units}
units, learn from it. The loss of the language model is in nats per word:

   step    loss"""
FROZEN = """
Now {few} labels again. The vectors, and the LSTM of the language model, are
frozen: only the linear layer learns from the labels."""
CONCLUSION = """
Look at the training column: both networks learn {few} texts by heart. For new
texts they are then hardly better than a guess. With all labels they are better:
the number of samples matters more than the algorithm. Look at the last line of
the second table for the way out: train a language model on text without labels,
then a classifier that starts from it:
  charlm train TEXTS --tokenizer word --name reader
  charlm classify train LABELLED --from reader"""


class Flattened(nn.Module):
    """Network without recurrent layers: the embeddings of all words side by side, and a linear layer."""

    def __init__(self, embedding: nn.Embedding, num_classes: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.head = nn.Linear(LENGTH * embedding.embedding_dim, num_classes)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits, (B, C), for token ids, (B, T), and the lengths of the texts, (B,)."""
        is_token = (torch.arange(ids.shape[1]) < lengths[:, None])[..., None]
        embedded = F.pad(self.embedding(ids) * is_token, (0, 0, 0, LENGTH - ids.shape[1]))  # (B, 40, E)
        logits: Tensor = self.head(embedded.flatten(1))
        return logits


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Train classifiers on all labels and on 200, and compare their accuracies on the validation texts."""
    torch.manual_seed(options.seed)
    limit, max_vocab, vector_steps, steps, epochs = QUICK if options.quick else FULL
    reviews = load_reviews(options, limit, max_vocab)
    all_labels, few, classes, size = reviews.train, reviews.few, len(reviews.labels), reviews.tokenizer.vocab_size
    layers: dict[str, Any] = {"vocab_size": size, "cell": "lstm", "embedding_dim": EMBEDDING_DIM, "hidden_size": UNITS}
    shape = ClassifierConfig(**layers, num_classes=classes, bidirectional=False, **NO_DROPOUT)
    curves: dict[str, Curves] = {}

    def compare(name: str, model: nn.Module, train: EncodedSamples = few, epochs: int = FEW_EPOCHS) -> None:
        curves[f"{name}, {len(train):,} labels"] = curve = train_epochs(say, model, train, reviews.validation, epochs)
        say(f"  {name:28}  {len(train):6,}  {curve['training'][-1]:8.1%}  {curve['validation'][-1]:10.1%}")

    counts = {"train": len(all_labels), "validation": len(reviews.validation), "few": len(few)}
    say(
        INTRODUCTION.format(
            name=reviews.name, classes=classes_text(reviews.labels), **counts, units=UNITS, length=LENGTH
        )
        + TABLE
    )
    for train, number in ((all_labels, epochs), (few, FEW_EPOCHS)):
        compare("embedding, flattened", Flattened(nn.Embedding(size, EMBEDDING_DIM), classes), train, number)
        compare("embedding and LSTM", ClassifierModel(shape), train, number)
    say(PRETRAINING.format(tokens=len(reviews.ids), units=UNITS))
    vectors = make_vectors(say, reviews, options.seed, vector_steps)  # frozen, (V, E)
    language_model = LanguageModel(ModelConfig(**layers, tie_weights=False))
    losses = train_language_model(say, language_model, reviews.ids, steps)
    say(FROZEN.format(few=FEW) + "\n" + TABLE)
    compare("word vectors, flattened", Flattened(vectors, classes))
    reader = ClassifierModel(shape)
    reader.load_encoder(language_model.to_tensors())
    reader.requires_grad_(False).head.requires_grad_(True)
    compare("LSTM of the language model", reader)
    say(CONCLUSION.format(few=FEW))
    return {"data": reviews.name, **counts, "accuracy": curves, "language_model_nats": losses}


def draw(figure: Any, figures: dict[str, Any]) -> None:  # noqa: ANN401 - a matplotlib figure
    """Draw the accuracies for training and for validation texts by epoch."""
    for axes, part in zip(figure.subplots(1, 2, sharey=True), ("training", "validation"), strict=True):
        for name, curve in figures["accuracy"].items():
            axes.plot(range(1, len(curve[part]) + 1), [100 * share for share in curve[part]], marker=".", label=name)
        axes.set(xlabel="epoch", ylabel="accuracy (%)", title=f"{part} texts")
    axes.legend(fontsize="small")
