"""A trainer of characters as tutorials have it: two layers of nn.LSTM, Adam, random windows from the zero state.

    python -m benchmarks.plain TRAIN.txt VALID.txt --minutes 1 --out model.safetensors

It prints its losses as lines of JSON. `benchmarks.learning` runs it beside charlm.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

BATCH, WINDOW, RATE, CLIP = 32, 100, 2e-3, 5.0
"""char-rnn's and torch-rnn's rate and clip; their windows are of 50."""

REPORT_EVERY, VALIDATE_EVERY, VALIDATION_BATCHES = 0.01, 0.1, 4
"""The first two are shares of the time."""


class PlainModel(nn.Module):
    """Embedding, LSTM, decoder."""

    def __init__(self, vocab_size: int, hidden_size: int = 256, num_layers: int = 2, dropout: float = 0.2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 128)
        self.lstm = nn.LSTM(128, hidden_size, num_layers, batch_first=True, dropout=dropout)
        self.decoder = nn.Linear(hidden_size, vocab_size)

    def forward(self, ids: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, object]:
        """The logits of what follows each token of (B, T), and the state after."""
        outputs, state = self.lstm(self.embedding(ids), state)
        return self.decoder(outputs), state


def vocabulary(*texts: str) -> dict[str, int]:
    """A number for each character."""
    return {char: index for index, char in enumerate(sorted(set("\n").union(*texts)))}


def random_windows_loss(model: PlainModel, ids: Tensor) -> Tensor:
    """The loss on random windows of a text, each from the zero state."""
    length = min(WINDOW, len(ids) - 1)
    places = torch.randint(len(ids) - length, (BATCH, 1)) + torch.arange(length + 1)
    logits, _ = model(ids[places[:, :-1]])
    return F.cross_entropy(logits.flatten(0, 1), ids[places[:, 1:]].flatten())


def validation_loss(model: PlainModel, ids: Tensor) -> float:
    """A sample of the validation loss."""
    model.eval()
    with torch.no_grad():
        losses = [float(random_windows_loss(model, ids)) for _ in range(VALIDATION_BATCHES)]
    model.train()
    return sum(losses) / len(losses)


def learn(model: PlainModel, train_ids: Tensor, valid_ids: Tensor, began: float, seconds: float) -> None:
    """Train till so many seconds after the beginning, and print the losses on the way."""
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    losses, reported, validated, step = [], 0.0, 0.0, 0
    while (used := (time.time() - began) / seconds) < 1:
        loss = random_windows_loss(model, train_ids)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        step += 1
        losses.append(float(loss))
        if used >= reported + REPORT_EVERY:
            print(json.dumps({"training": sum(losses) / len(losses)}), flush=True)
            losses, reported = [], used
        if used >= validated + VALIDATE_EVERY:
            print(json.dumps({"validation": validation_loss(model, valid_ids)}), flush=True)
            validated = used
    print(json.dumps({"chars": step * BATCH * WINDOW}), flush=True)


def main() -> None:
    """Read the texts, train, and keep the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("valid", type=Path)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--began", type=float, default=time.time(), help="the time from which the minutes count")
    parser.add_argument("--out", type=Path, default=Path("model.safetensors"))
    given = parser.parse_args()
    texts = [path.read_text(encoding="utf-8") for path in (given.train, given.valid)]
    numbers = vocabulary(*texts)
    train_ids, valid_ids = (torch.tensor([numbers[char] for char in text]) for text in texts)
    torch.manual_seed(given.seed)
    model = PlainModel(len(numbers))
    learn(model, train_ids, valid_ids, given.began, 60 * given.minutes)
    save_file(model.state_dict(), given.out)


if __name__ == "__main__":
    main()
