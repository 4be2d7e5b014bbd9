"""Teach 'hihell' -> 'ihello': the smallest language model there is.

After each letter the model says which one comes next. After the first h of 'hihello' that is i, after the second
it is e: the letter alone does not tell, so the model must remember what came before. That is what recurrence is
for.
"""

from typing import Any

import torch

from charlm.config import ModelConfig
from charlm.lessons import LessonOptions, Say
from charlm.text.tokenizer import CharTokenizer
from charlm.training.loss import sequence_loss
from charlm.training.network import LanguageModel

TEXT = "hihello"
STEPS = 50


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Train until the model knows the word, at most `STEPS` steps.

    Returns:
        The steps used, the last loss in nats a character, and the predicted string.
    """
    torch.manual_seed(options.seed)
    tokenizer = CharTokenizer.from_text(TEXT)
    ids = torch.tensor(tokenizer.encode(TEXT)[None, :], dtype=torch.int64)
    inputs, targets = ids[:, :-1], ids[:, 1:]  # hihell, and one place on, ihello: each (B=1, T=6)

    model = LanguageModel(ModelConfig(vocab_size=tokenizer.vocab_size, embedding_dim=5, hidden_size=5))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    say(f"The letters of {TEXT!r} and their ids: " + ", ".join(f"{c}={i}" for i, c in enumerate(tokenizer.tokens) if i))
    say(f"What goes in: {tokenizer.decode(inputs[0])}   what should come out: {tokenizer.decode(targets[0])}")
    say("Each letter becomes 5 numbers, one LSTM of 5 units reads them, a matrix turns")
    say("its 5 outputs into letters.")
    say("")
    say("step  loss (nats)  predicted")
    step, loss, predicted, known_for = 0, torch.tensor(0.0), "", 0
    while step < STEPS and known_for < 5:  # five steps in a row: known, not guessed
        logits, _ = model(inputs)
        loss = sequence_loss(logits, targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step += 1
        predicted = tokenizer.decode(logits.argmax(dim=-1)[0])
        known_for = known_for + 1 if predicted == TEXT[1:] else 0
        say(f"{step:4d}  {float(loss.detach()):11.4f}  {predicted}")
    say("")
    _end(say, step, predicted)
    return {"steps": step, "loss_nats": float(loss.detach()), "predicted": predicted}


def _end(say: Say, step: int, predicted: str) -> None:
    if predicted != TEXT[1:]:
        say(f"After {step} steps it still says {predicted!r}: try another --seed.")
        return
    say(f"After {step} steps it says {predicted!r}, five times running. Look at the h: once it")
    say("is followed by i, once by e, and only the state that the LSTM carries from")
    say("letter to letter tells the two apart. The loss fell from about ln 6 = 1.79,")
    say("which is a guess among six tokens. The same from the command line:")
    say("  charlm train hello")
    say("  charlm sample --prime h -n 6 --temp 0")
