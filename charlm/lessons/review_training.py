"""Training for the lesson reviews: a classifier, epoch by epoch; word vectors and a language model.

Shapes: B texts in a batch, T tokens, V tokens in the vocabulary, E numbers per vector, C classes.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.lessons import Say
from charlm.lessons.review_data import Reviews
from charlm.lessons.skipgram import train_vectors
from charlm.text.glove import embed_vocabulary
from charlm.text.ids import Ids
from charlm.training.batches import StreamBatches
from charlm.training.classifier_data import EncodedSamples
from charlm.training.classifier_trainer import tensors_of
from charlm.training.network import LanguageModel

BATCH_SIZE, STREAMS, SEQ_LEN, SAMPLED = 32, 32, 20, 500
CPU = torch.device("cpu")
Curves = dict[str, list[float]]
"""Shares of training texts and of validation texts that are classified correctly after each epoch."""


def train_epochs(say: Say, model: nn.Module, train: EncodedSamples, validation: EncodedSamples, epochs: int) -> Curves:
    """Train a network that gives logits, (B, C), for token ids, (B, T), and lengths, (B,); return its accuracies."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=3e-3)
    curves: Curves = {"training": [], "validation": []}
    for epoch in range(epochs):
        for batch in train.batches(BATCH_SIZE, 0, epoch):
            ids, lengths, labels = tensors_of(train, batch, CPU)
            loss = F.cross_entropy(model(ids, lengths), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        curves["training"].append(accuracy(model, train))
        curves["validation"].append(accuracy(model, validation))
        say.status(f"epoch {epoch + 1} of {epochs}: validation accuracy {curves['validation'][-1]:.1%}")
    return curves


@torch.no_grad()
def accuracy(model: nn.Module, samples: EncodedSamples) -> float:
    """Return the share of texts that are classified correctly."""
    num_right = 0
    for batch in samples.batches(256, 0, 0):
        ids, lengths, labels = tensors_of(samples, batch, CPU)
        predicted: Tensor = model(ids, lengths).argmax(dim=1)
        num_right += int((predicted == labels).sum())
    return num_right / len(samples)


def make_vectors(say: Say, reviews: Reviews, seed: int, steps: int) -> nn.Embedding:
    """Return frozen word vectors for the vocabulary, (V, E): from the file of the options, or trained by skipgram."""
    tokenizer, ids = reviews.tokenizer, reviews.ids
    if reviews.vectors is not None:
        counts = np.bincount(ids, minlength=tokenizer.vocab_size)
        vectors, coverage = embed_vocabulary(reviews.vectors, tokenizer.tokens, counts, seed=seed)
        say(str(coverage))
        return _frozen(torch.from_numpy(vectors))
    tokens = [tokenizer.tokens[index] for index in ids]
    trained = train_vectors(Say(lambda line: None, say.status), tokens, list(tokenizer.tokens[1:]), steps)
    return _frozen(F.pad(trained, (0, 0, 1, 0)))  # the unknown token has the vector 0


def _frozen(vectors: Tensor) -> nn.Embedding:
    embedding: nn.Embedding = nn.Embedding.from_pretrained(vectors, freeze=True)  # type: ignore[no-untyped-call]
    return embedding


def train_language_model(say: Say, model: LanguageModel, ids: Ids, steps: int) -> list[float]:
    """Train a language model on a text, (N,); print and return its mean losses in nats per word, five in all."""
    counts = np.bincount(ids, minlength=model.config.vocab_size)
    model.start_from_frequencies(torch.from_numpy(counts))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1, end_factor=0.05, total_iters=steps)
    batches = StreamBatches(ids, STREAMS, SEQ_LEN, start_id=0)
    state, total, losses = model.core.zero_state(STREAMS), 0.0, []
    for step in range(1, steps + 1):
        inputs, targets = map(torch.from_numpy, batches.inputs_and_targets(step - 1))
        loss, state = model.loss(inputs, targets, state, samples=SAMPLED)
        state = tuple(part.detach() for part in state)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        say.status(f"step {step:,} of {steps:,}")
        if step % (steps // 5) == 0:
            losses.append(total / (steps // 5))
            say(f"  {step:5,}   {losses[-1]:.3f}")
            total = 0.0
    return losses
