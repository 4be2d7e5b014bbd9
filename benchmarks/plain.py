"""Plain baseline: one layer of nn.LSTM with carried state, Adam, and a cosine schedule.

    python -m benchmarks.plain TRAIN.txt VALID.txt --minutes 1 --out model.safetensors

Losses are printed as lines of JSON. `benchmarks.learning` compares this program with charlm.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

BATCH_SIZE, SEQ_LEN = 16, 64
"""Number of streams, and number of characters per stream and update."""

LEARNING_RATE, GRAD_CLIP = 0.008, 1.0

REPORT_EVERY, VALIDATE_EVERY = 0.01, 0.1
"""Intervals of reports and of validations, as shares of the training."""

VALIDATION_CHARS = 10_000

State = tuple[Tensor, Tensor]


class PlainModel(nn.Module):
    """Language model of an embedding, an LSTM and a linear decoder."""

    def __init__(self, vocab_size: int, hidden_size: int = 256, embedding_dim: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        self.lstm = nn.LSTM(embedding_dim, hidden_size, batch_first=True)
        self.decoder = nn.Linear(hidden_size, vocab_size)

    def forward(self, ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return the logits of the token after each token of (B, T), and the next state."""
        outputs, state = self.lstm(self.embedding(ids), state)
        return self.decoder(outputs), state


def vocabulary(*texts: str) -> dict[str, int]:
    """Return an id for each character that occurs in the texts, and for the newline."""
    return {char: index for index, char in enumerate(sorted(set("\n").union(*texts)))}


def stream_loss(model: PlainModel, ids: Tensor, state: State | None) -> tuple[Tensor, State]:
    """Return the mean loss of tokens, (B, T + 1), in nats per character, and the next state."""
    logits, state = model(ids[:, :-1], state)
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()), state


def train(
    model: PlainModel, ids: Tensor, progress: Callable[[int], float], report: Callable[[float, float], None]
) -> int:
    """Train, and return the number of updates.

    Args:
        model: The model.
        ids: Training text.
        progress: Returns the share of the training that is done after a number of updates.
        report: Called after each update with the share and the loss.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    streams = ids[: len(ids) // BATCH_SIZE * BATCH_SIZE].view(BATCH_SIZE, -1)
    begin, step, state = 0, 0, None
    while (share := progress(step)) < 1:
        if begin + SEQ_LEN >= streams.shape[1]:
            begin, state = 0, None
        loss, (hidden, memory) = stream_loss(model, streams[:, begin : begin + SEQ_LEN + 1], state)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * share)) / 2
        optimizer.step()
        begin, step, state = begin + SEQ_LEN, step + 1, (hidden.detach(), memory.detach())
        report(share, float(loss))
    return step


class Reporter:
    """Printer of training and validation losses.

    Args:
        model: The model.
        valid_ids: Validation text. Only its first `VALIDATION_CHARS` characters are read.
    """

    def __init__(self, model: PlainModel, valid_ids: Tensor) -> None:
        self._model = model
        self._valid_ids = valid_ids[None, :VALIDATION_CHARS]
        self._losses: list[float] = []
        self._reported = self._validated = 0.0

    def __call__(self, share: float, loss: float) -> None:
        """Print losses if they are due at a share of the training."""
        self._losses.append(loss)
        if share >= self._reported + REPORT_EVERY:
            print(json.dumps({"training": sum(self._losses) / len(self._losses)}), flush=True)
            self._losses, self._reported = [], share
        if share >= self._validated + VALIDATE_EVERY:
            with torch.no_grad():
                validation, _ = stream_loss(self._model, self._valid_ids, None)
            print(json.dumps({"validation": float(validation)}), flush=True)
            self._validated = share


def main() -> None:
    """Read the texts, train, and save the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path, help="training text")
    parser.add_argument("valid", type=Path, help="validation text")
    parser.add_argument("--minutes", type=float, default=1.0, help="training time")
    parser.add_argument("--chars", type=float, help="number of characters to read, instead of a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=float, default=time.time(), help="Unix time from which the minutes count")
    parser.add_argument("--out", type=Path, default=Path("model.safetensors"), help="file for the weights")
    args = parser.parse_args()
    texts = [path.read_text(encoding="utf-8") for path in (args.train, args.valid)]
    char_ids = vocabulary(*texts)
    train_ids, valid_ids = (torch.tensor([char_ids[char] for char in text]) for text in texts)
    torch.manual_seed(args.seed)
    model = PlainModel(len(char_ids))
    chars_per_update = BATCH_SIZE * SEQ_LEN

    def progress(step: int) -> float:
        if args.chars:
            return float(step * chars_per_update / args.chars)
        return float((time.time() - args.start) / (60 * args.minutes))

    steps = train(model, train_ids, progress, Reporter(model, valid_ids))
    print(json.dumps({"chars": steps * chars_per_update}), flush=True)
    save_file(model.state_dict(), args.out)


if __name__ == "__main__":
    main()
