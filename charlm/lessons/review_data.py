"""Labelled texts for the lesson reviews: verse and prose from Shakespeare's plays, or a folder of labelled texts.

In the printed plays, each line of verse begins with a capital letter, and a line of prose goes on in lower case. The
second line of a speech therefore gives its label. The texts are in lower case and have no line breaks, so that a model
has to find the label in the words and in their order.
"""

import random
import re
from dataclasses import dataclass

from charlm.config import TokenizerConfig
from charlm.errors import CorpusError
from charlm.lessons import LessonOptions
from charlm.text.ids import Ids
from charlm.text.labelled import Labelled, Sample, read_labelled
from charlm.text.sources import read_named
from charlm.text.tokenizer import Tokenizer, make_tokenizer
from charlm.text.vector_files import VectorFile
from charlm.training.classifier_data import EncodedSamples, split_samples

VAL_FRACTION = 0.2
LENGTH = 40
"""Number of words after which a text is cut."""

FEW = 200
"""Number of texts of the small training set."""

LINES = 2
"""Number of lines of a speech that are one text."""


@dataclass(frozen=True, kw_only=True)
class Reviews:
    """Labelled texts, and a text without labels.

    Attributes:
        name: Description of the labelled texts.
        labels: Names of the classes.
        tokenizer: Tokenizer with the vocabulary of the text without labels.
        train: Texts to learn from.
        few: The first 200 of them.
        validation: Texts for validation.
        ids: Text without labels, (N,). No validation text is in it.
        vectors: File of word vectors of the options; None to train vectors.
    """

    name: str
    labels: tuple[str, ...]
    tokenizer: Tokenizer
    train: EncodedSamples
    few: EncodedSamples
    validation: EncodedSamples
    ids: Ids
    vectors: VectorFile | None


def load_reviews(options: LessonOptions, limit: int | None, max_vocab: int) -> Reviews:
    """Read the folder of the options, or make verse and prose from the plays.

    Args:
        options: Options of the lesson.
        limit: Maximum number of labelled texts, drawn at random; None for all.
        max_vocab: Maximum vocabulary size, including the unknown token.

    Raises:
        VectorsError: If the file of word vectors cannot be read.
        CorpusError: If the folder has too few labelled texts or only one class, or the plays are missing.
    """
    vectors = None if options.glove is None else VectorFile(options.glove)  # checked before the lesson starts
    if options.data is None:
        name = "verse and prose in Shakespeare's plays"
        found, others = label_speeches(read_named("shakespeare"), options.seed)
    else:
        name, others = str(options.data), []
        found = read_labelled([str(options.data)])
    texts = [*others, *(sample.text for sample in found.samples)]
    random.Random(options.seed).shuffle(found.samples)
    split = split_samples(Labelled(samples=found.samples[:limit]), None, VAL_FRACTION, options.seed)
    if len(split.train) < FEW:
        raise CorpusError(
            f"{name}: {len(split.train):,} texts to learn from, after a fifth of each class is kept for validation; "
            f"the lesson needs {FEW}: give more labelled texts",
        )
    held_out = {sample.text for sample in split.validation}
    text = "".join(text + "\n" for text in texts if text not in held_out)
    tokenizer = make_tokenizer(TokenizerConfig(tokenizer="word", max_vocab=max_vocab, lowercase=True), [text])
    train, few, validation = (
        EncodedSamples.encode(samples, split.indices(samples), tokenizer, LENGTH)
        for samples in (split.train, split.train[:FEW], split.validation)
    )
    return Reviews(
        name=name,
        labels=split.labels,
        tokenizer=tokenizer,
        train=train,
        few=few,
        validation=validation,
        ids=tokenizer.encode(text),
        vectors=vectors,
    )


def label_speeches(script: str, seed: int) -> tuple[Labelled, list[str]]:
    """Return the beginnings of speeches, labelled as verse or prose, and the other lines without labels.

    Both classes have the same number of samples.

    Args:
        script: Speeches after the name of the speaker, with an empty line between them.
        seed: Seed of the random choice in the larger class.
    """
    classes: dict[str, list[Sample]] = {"prose": [], "verse": []}
    others: list[str] = []
    for number, speech in enumerate(re.split(r"\n\n+", script.strip("\n")), start=1):
        lines = speech.lower().split("\n")[1:]
        pieces = [" ".join(lines[start : start + LINES]) for start in range(0, len(lines), LINES)]
        if len(lines) >= LINES:
            label = "verse" if speech.split("\n")[2][:1].isupper() else "prose"
            classes[label].append(Sample(label, pieces.pop(0), "shakespeare", number))
        others += pieces
    size = min(map(len, classes.values()))
    rng = random.Random(seed)
    return Labelled(samples=[sample for group in classes.values() for sample in rng.sample(group, size)]), others
