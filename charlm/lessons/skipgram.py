"""Word vectors from the plays, by telling true words from noise.

Words that stand among the same words mean something alike. So: give each word a vector, and let it predict the words
within three places of it. The softmax over all words would need a sum over ten thousand at each prediction.
Noise-contrastive estimation asks something easier: here is a word, is it the true neighbour, or was it drawn by
frequency alone? With K noise words for each true one, a word v drawn with the probability q(v), and a score s(v),

    P(true) = sigmoid(s(v) - ln(K q(v)))

and the loss is that of this yes or no. Where it is least, s(v) is the log-probability that the softmax would have
learnt. On a toy vocabulary both can be worked out in full, and compared.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.corpus import read_named
from charlm.lessons import LessonOptions, Say
from charlm.loss import log_uniform_probs, nce_loss
from charlm.runs import Run

TOY, NOISE = 20, 64
VOCABULARY, WIDTH, WINDOW, BATCH, EPOCHS = 10_000, 50, 3, 2048, 5
SHOWN = ("king", "love", "sword", "night", "father")


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Check the loss on a toy, learn vectors, show neighbours, write the vectors to a file."""
    torch.manual_seed(options.seed)
    toy = compare_with_softmax(say)
    text = read_named("shakespeare").lower()[: 300_000 if options.quick else None]
    words = re.findall(r"[a-z]+(?:['’][a-z]+)*", text)
    vocabulary = [word for word, _ in Counter(words).most_common(1000 if options.quick else VOCABULARY)]
    say("")
    say(f"The plays: {len(words):,} words, of which the {len(vocabulary):,} most frequent get {WIDTH} numbers each.")
    vectors = learn_vectors(say, words, vocabulary, 1 if options.quick else EPOCHS)

    neighbours = {word: nearest(word, vocabulary, vectors) for word in SHOWN}
    say("")
    say("The nearest words, by the angle between the vectors:")
    for word, near in neighbours.items():
        say(f"  {word:8} {', '.join(near)}")
    path = Run.named("skipgram").path / "vectors.txt"
    write_vectors(path, vocabulary, vectors)
    return {"toy": toy, "words": len(words), "neighbours": neighbours, "file": str(path)}
