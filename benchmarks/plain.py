"""Character-level training as in tutorials: two layers of nn.LSTM, Adam, random windows from the zero state.

    python -m benchmarks.plain TRAIN.txt VALID.txt --minutes 1 --out model.safetensors

Losses are printed as lines of JSON. `benchmarks.learning` compares this program with charlm.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

BATCH_SIZE, WINDOW = 32, 100
"""Number of windows per update, and number of characters per window (50 in char-rnn and torch-rnn)."""

LEARNING_RATE, GRAD_CLIP = 2e-3, 5.0
"""As in char-rnn and torch-rnn."""

REPORT_EVERY, VALIDATE_EVERY = 0.01, 0.1
"""Intervals of reports and of validations, as shares of the training time."""

VALIDATION_BATCHES = 4


class PlainModel(nn.Module):
    """Language model of an embedding, an LSTM and a linear decoder."""

    def __init__(self, vocab_size: int, hidden_size: int = 256, num_layers: int = 2, dropout: float = 0.2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 128)
        self.lstm = nn.LSTM(128, hidden_size, num_layers, batch_first=True, dropout=dropout)
        self.decoder = nn.Linear(hidden_size, vocab_size)

    def forward(self, ids: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, object]:
        """Return the logits of the token after each token of (B, T), and the next state."""
        outputs, state = self.lstm(self.embedding(ids), state)
        return self.decoder(outputs), state


def vocabulary(*texts: str) -> dict[str, int]:
    """Return an id for each character that occurs in the texts, and for the newline."""
    return {char: index for index, char in enumerate(sorted(set("\n").union(*texts)))}


def random_windows_loss(model: PlainModel, ids: Tensor) -> Tensor:
    """Return the mean loss on random windows of a text, each read from the zero state, in nats per character."""
    length = min(WINDOW, len(ids) - 1)
    places = torch.randint(len(ids) - length, (BATCH_SIZE, 1)) + torch.arange(length + 1)  # (B, T + 1)
    logits, _ = model(ids[places[:, :-1]])
    return F.cross_entropy(logits.flatten(0, 1), ids[places[:, 1:]].flatten())


def validation_loss(model: PlainModel, ids: Tensor) -> float:
    """Return an estimate of the validation loss from some random windows."""
    model.eval()
    with torch.no_grad():
        losses = [float(random_windows_loss(model, ids)) for _ in range(VALIDATION_BATCHES)]
    model.train()
    return sum(losses) / len(losses)


def train(model: PlainModel, train_ids: Tensor, valid_ids: Tensor, start: float, seconds: float) -> None:
    """Train until `seconds` after the time `start`, and print losses."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    losses, reported, validated, step = [], 0.0, 0.0, 0
    while (share := (time.time() - start) / seconds) < 1:
        loss = random_windows_loss(model, train_ids)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
        optimizer.step()
        step += 1
        losses.append(float(loss))
        if share >= reported + REPORT_EVERY:
            print(json.dumps({"training": sum(losses) / len(losses)}), flush=True)
            losses, reported = [], share
        if share >= validated + VALIDATE_EVERY:
            print(json.dumps({"validation": validation_loss(model, valid_ids)}), flush=True)
            validated = share
    print(json.dumps({"chars": step * BATCH_SIZE * WINDOW}), flush=True)


def main() -> None:
    """Read the texts, train, and save the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path, help="training text")
    parser.add_argument("valid", type=Path, help="validation text")
    parser.add_argument("--minutes", type=float, default=1.0, help="training time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=float, default=time.time(), help="Unix time from which the minutes count")
    parser.add_argument("--out", type=Path, default=Path("model.safetensors"), help="file for the weights")
    args = parser.parse_args()
    texts = [path.read_text(encoding="utf-8") for path in (args.train, args.valid)]
    char_ids = vocabulary(*texts)
    train_ids, valid_ids = (torch.tensor([char_ids[char] for char in text]) for text in texts)
    torch.manual_seed(args.seed)
    model = PlainModel(len(char_ids))
    train(model, train_ids, valid_ids, args.start, 60 * args.minutes)
    save_file(model.state_dict(), args.out)


if __name__ == "__main__":
    main()
