"""The whole course in one program: train on Shakespeare's plays, generate text, score lines.

Training puts the earlier lessons together: letters become ids, and ids become vectors (embed); an LSTM reads them
(lstm) in streams whose state is carried on (stack); the optimiser lowers the cross-entropy of the next letter (loss).
Generation samples a letter from its probabilities, reads it, and samples the next. Scoring uses the same probabilities.
"""

import random
import tempfile
import textwrap
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

from charlm.engine.checkpoint import Checkpoint, load_checkpoint
from charlm.engine.mixture import open_predictor
from charlm.engine.predictor import Predictor
from charlm.engine.runs import Run
from charlm.engine.sampler import Sampler
from charlm.engine.scorer import ModelScorer
from charlm.lessons import LessonOptions, Say
from charlm.sample_config import SampleConfig
from charlm.text.sources import read_named
from charlm.training.callbacks import Callbacks
from charlm.training.network import LanguageModel
from charlm.training.progress import Progress
from charlm.training.request import Hardware, Request
from charlm.training.setup import Training, prepare_new

MINUTES = 3
SHORT = {"steps": 90, "hidden_size": 64, "seq_len": 32}
QUICK_CHARS = 300_000
Report = Callable[[Progress], None]
TEMPERATURES = (0.2, 0.8, 1.2)
LINE = "To be, or not to be: that is the question:\n"


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Train for three minutes, generate text at three temperatures, and score a line and shuffled copies of it."""
    trained, figures = train(say, options)
    predictor = open_predictor(load_checkpoint(trained.model))
    say("\nThree samples of the finished model, at three temperatures:")
    columns = [write(predictor, temperature, options.seed, 300) for temperature in TEMPERATURES]
    say("".join(f"  {temperature:<25}" for temperature in TEMPERATURES).rstrip())
    for pieces in list(zip_longest(*(wrap(text, 26) for text in columns), fillvalue=""))[:14]:
        say("".join(f"{piece:27}" for piece in pieces).rstrip())
    bits = score(say, predictor, options.seed)
    say("\nLook at the temperatures: at 0.2 the model repeats itself, at 1.2 it invents")
    say("words. Look at the scores: it has learned words, and a little of their order.")
    say(f"  charlm sample -m {trained.name} --prime 'ROMEO:'")
    say(f"  charlm score -m {trained.name} YOUR_FILE")
    say("This was the last lesson. Train on your own text: charlm train FILE")
    return {**figures, "bits_per_char": bits, "samples": dict(zip(map(str, TEMPERATURES), columns, strict=True))}


def train(say: Say, options: LessonOptions) -> tuple[Run, dict[str, Any]]:
    """Train as `charlm train shakespeare --minutes 3` does, and print a sample after each minute but the last."""
    settings = {"seed": options.seed, **(SHORT if options.quick else {"minutes": MINUTES})}
    with tempfile.TemporaryDirectory() as folder:
        excerpt = Path(folder, "plays.txt")
        if options.quick:
            excerpt.write_text(read_named("shakespeare")[:QUICK_CHARS], encoding="utf-8")
        corpus = str(excerpt) if options.quick else "shakespeare"
        machine = Hardware(threads=options.threads)
        request = Request(
            corpus=[corpus], settings=settings, default_name="lesson", hardware=machine, command="charlm lesson"
        )
        with prepare_new(request, say.status) as training:
            model = training.make_model()
            end = training.train(Callbacks(report=sampling(say, training, model, options)), model)
    say(f"\nAfter {end.seconds:.0f} seconds and {end.epoch:.1f} epochs, the validation loss is")
    say(f"{end.best_nats:.3f} nats per character, on text that the model was not trained on.")
    figures = {"run": training.run.name, "val_nats": end.best_nats, "seconds": end.seconds, "steps": end.step}
    return training.run, figures


def sampling(say: Say, training: Training, model: LanguageModel, options: LessonOptions) -> Report:
    """Print the size of the text and of the model. Return a function that prints a sample after each minute."""
    shape, dataset, due = training.model_config, training.dataset, list(range(1, MINUTES))
    num_chars = len(dataset.train_ids) + len(dataset.val_ids)
    say(f"The plays: {num_chars:,} characters, {dataset.tokenizer.vocab_size - 1} distinct. The last tenth is")
    say(f"kept for validation. The model is an {shape.cell} of {shape.num_layers} x {shape.hidden_size} units.")

    def report(progress: Progress) -> None:
        say.status(f"training: {progress.fraction:.0%}, {progress.train_nats:.2f} nats per character")
        minutes = MINUTES * progress.fraction if options.quick else progress.seconds / 60
        if due and minutes >= due[0]:
            due.pop(0)
            checkpoint = Checkpoint(config=shape, tokenizer=dataset.tokenizer, tensors=model.to_tensors())
            say(f"\nAfter {progress.seconds:.0f} seconds, training loss {progress.train_nats:.2f} nats per character:")
            say("\n".join(wrap(write(open_predictor(checkpoint), 0.8, options.seed, 200), 80)))

    return report


def write(predictor: Predictor, temperature: float, seed: int, length: int) -> str:
    """Return a text that the model generates."""
    sampler = Sampler(predictor=predictor, config=SampleConfig(temperature=temperature, seed=seed, length=length))
    return "".join(piece for (piece,) in sampler.stream())


def wrap(text: str, width: int) -> list[str]:
    """Return the lines of a text, wrapped to `width` columns and indented by two."""
    return [f"  {piece}" for line in text.splitlines() for piece in textwrap.wrap(line, width - 2) or [""]]


def score(say: Say, predictor: Predictor, seed: int) -> dict[str, float]:
    """Print and return the bits per character of a line of Hamlet, and of copies with shuffled words or letters."""
    shuffle, words, letters = random.Random(seed).sample, LINE.split(), LINE.strip()
    lines = {
        "as it is": LINE,
        "words shuffled": " ".join(shuffle(words, len(words))) + "\n",
        "letters shuffled": "".join(shuffle(letters, len(letters))) + "\n",
    }
    bits = [scored.score.bits_per_char for scored in ModelScorer(predictor).score_lines(list(lines.values()))]
    say("\nBits per character of a line of Hamlet, and of shuffled copies of it:")
    for (name, line), line_bits in zip(lines.items(), bits, strict=True):
        say(f"  {line_bits:5.2f}  {name:16}  {line.strip()}")
    return dict(zip(lines, bits, strict=True))
