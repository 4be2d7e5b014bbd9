"""Word vectors by noise-contrastive estimation.

The skip-gram model has a vector for each word, and uses the vector of a word w
to predict the words within two places of w. Words with similar neighbours get
similar vectors. A softmax would need the scores of all 10,000 words for each
prediction. Noise-contrastive estimation (NCE) needs only a few. With more noise
words its gradient approaches the gradient of the softmax.

Shapes: B = 2048 pairs of words, V words, E = 50 numbers, K = 64 noise words.
"""

import io
import re
from collections import Counter
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.atomic import atomic_write
from charlm.engine.runs import RUNS
from charlm.lessons import LessonOptions, Say
from charlm.lessons.nce_gradients import compare_gradients
from charlm.text.glove import write_vectors
from charlm.text.sources import read_named
from charlm.text.vector_search import nearest
from charlm.training.loss import log_uniform_probs, nce_loss

VOCAB_SIZE, EMBEDDING_DIM, WINDOW, NUM_NOISE, BATCH_SIZE, STEPS = 10_000, 50, 2, 64, 2048, 6000
FREQUENT = 1e-3
"""Share of the text above which a word is left out at random. Frequent words say little about their neighbours."""
SHOWN = ("king", "father", "night", "love", "sweet")

INTRODUCTION = """\
This lesson trains one vector per word, so that the vector predicts the words
within two places of it. Words with similar neighbours get similar vectors. A
softmax over all words would be slow, so the loss compares the true neighbour
with K random noise words, drawn from q: noise-contrastive estimation (NCE).
The score of a word v as a neighbour of w, and the probability that v is the
true neighbour and not a noise word, are

  s(v) = vector(w) . output(v) + bias(v)
  P(v) = sigmoid(s(v) - ln(K q(v)))

The loss is -ln P of the true neighbour, plus -ln(1 - P) of each noise word.
"""
TRAINING = """
Now the plays of Shakespeare, with {length:,} words. The {vocab:,} most frequent words
get vectors of {dim} numbers. The loss is the mean since the line before, in nats
per pair of neighbours:

   step    loss"""
CONCLUSION = """
Look at the neighbours of 'father': other words for members of a family are
among them. The model was not given their meaning. It has learnt from the
context of each word. The vectors are saved in GloVe's format, and a word model
can start from them:
  charlm train shakespeare --tokenizer word \\
    --glove {path}"""


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Compare gradients, train word vectors on the plays, print nearest words, and save the vectors."""
    torch.manual_seed(options.seed)
    path = RUNS / "skipgram" / "vectors.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    say(INTRODUCTION)
    gradients = compare_gradients(say, 1000 if options.quick else 10_000)
    size, steps = (1000, 1500) if options.quick else (VOCAB_SIZE, STEPS)
    speeches = re.sub(r"^[^a-z\n]+:$", "", read_named("shakespeare"), flags=re.MULTILINE)  # without speakers' names
    text = re.findall(r"[a-z]+(?:'[a-z]+)*", speeches.lower())
    words = [word for word, _ in Counter(text).most_common(size)]
    say(TRAINING.format(length=len(text), vocab=size, dim=EMBEDDING_DIM))
    vectors = train_vectors(say, text, words, steps)

    say("\nThe words whose vectors have the smallest angle to that of the first word:")
    centred = (vectors - vectors.mean(dim=0)).numpy()
    nearest_words = partial(nearest, words[:3000], centred[:3000], top=7)  # rarer words have too few neighbours
    pairs = {word: nearest_words(vector=centred[words.index(word)], leave_out={word}) for word in SHOWN}
    neighbours = {word: [other for other, _ in found] for word, found in pairs.items()}
    say("\n".join(f"  {word:8} {', '.join(near)}" for word, near in neighbours.items()))
    with atomic_write(path) as file:
        text_file = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        write_vectors(text_file, words, vectors.numpy())
        text_file.detach()
    say(CONCLUSION.format(path=path))
    return {"toy": gradients, "words": len(text), "neighbours": neighbours, "file": str(path)}


def train_vectors(say: Say, text: list[str], words: list[str], steps: int) -> Tensor:
    """Train vectors of words to predict their neighbours in a text; return them, (V, E)."""
    word_ids = {word: index for index, word in enumerate(words)}
    ids = torch.tensor([word_ids[word] for word in text if word in word_ids])  # (N,)
    shares = torch.bincount(ids) / len(ids)  # (V,)
    ids = ids[torch.rand(len(ids)) < (FREQUENT / shares[ids]).sqrt()]
    vectors, outputs = (nn.Parameter(0.1 * torch.randn(len(words), EMBEDDING_DIM)) for _ in range(2))  # (V, E)
    bias = nn.Parameter(log_uniform_probs(len(words)).log().float())  # (V,), close to the words' log-frequencies
    optimizer = torch.optim.Adam([vectors, outputs, bias], lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1, end_factor=0, total_iters=steps)
    offsets = torch.tensor([*range(-WINDOW, 0), *range(1, WINDOW + 1)])
    total = 0.0
    for step in range(1, steps + 1):
        places = torch.randint(WINDOW, len(ids) - WINDOW, (BATCH_SIZE,))  # (B,)
        targets = ids[places + offsets[torch.randint(len(offsets), (BATCH_SIZE,))]]  # (B,), a neighbour of each
        loss = nce_loss(F.embedding(ids[places], vectors), targets, outputs, bias, num_sampled=NUM_NOISE)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        say.status(f"step {step:,} of {steps:,}")
        if step % (steps // 5) == 0:
            say(f"  {step:5,}   {total / (steps // 5):.3f}")
            total = 0
    return vectors.detach()
