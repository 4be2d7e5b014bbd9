"""Training and use of the digit classifiers of the lessons.

Shapes: B images in a batch, R = 28 rows and C = 28 columns.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.lessons import Say
from charlm.lessons.digit_data import Digits

BATCH_SIZE = 150
LEARNING_RATE = 3e-3
"""Learning rate of Adam at the start. It falls linearly to 0."""


def train_epochs(say: Say, model: nn.Module, digits: Digits, epochs: int) -> Iterator[tuple[float, float]]:
    """Train a classifier with Adam.

    Args:
        say: Shows the progress.
        model: Maps images, (B, R, C), to logits, (B, 10).
        digits: Training and test images.
        epochs: Number of passes over the training images.

    Yields:
        After each epoch, its mean training loss in nats per image, and the accuracy on the test images, from 0 to 1.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    epoch_batches = math.ceil(len(digits.images) / BATCH_SIZE)
    batches = epochs * epoch_batches
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1, end_factor=0, total_iters=batches)
    for epoch in range(1, epochs + 1):
        total = 0.0
        for index, batch in enumerate(torch.split(torch.randperm(len(digits.images)), BATCH_SIZE), start=1):
            say.status(f"epoch {epoch} of {epochs}, batch {index} of {epoch_batches}")
            loss = F.cross_entropy(model(digits.images[batch]), digits.labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(batch)
        correct = predict(model, digits.test_images) == digits.test_labels
        yield total / len(digits.images), float(correct.float().mean())


@torch.no_grad()
def predict(model: nn.Module, images: Tensor) -> Tensor:
    """Return the most probable digit of each image, (N,), int64."""
    model.eval()
    digits = torch.cat([model(batch).argmax(dim=-1) for batch in torch.split(images, 1000)])
    model.train()
    return digits
