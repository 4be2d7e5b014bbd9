"""The whole road: train on Shakespeare's plays, write as it learns, and score.

Everything so far in one place: letters become ids and ids vectors (embed), an LSTM reads them (lstm) in streams whose
state is carried on (stack), a matrix makes the logits of the next letter, and their loss (loss) goes down. Then the
model works the other way round: it draws a letter, reads what it drew, and draws the next. And because it gives each
letter a probability, it can say how probable a line is.
"""

import random
import textwrap
from itertools import zip_longest
from typing import Any

import torch

from charlm.config import SampleConfig, TrainConfig
from charlm.engine.checkpoint import Checkpoint
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.runs import Run
from charlm.engine.sampler import Sampler
from charlm.engine.scorer import ModelScorer
from charlm.lessons import LessonOptions, Say
from charlm.text.corpus import Corpus, read_corpus, split_ids
from charlm.text.tokenizer import CharTokenizer
from charlm.training.callbacks import Callbacks
from charlm.training.dataset import Dataset
from charlm.training.network import LanguageModel
from charlm.training.planner import plan
from charlm.training.progress import Progress
from charlm.training.throughput import Machine
from charlm.training.trainer import Trainer

MINUTES = 3
SHORT = {"steps": 90, "hidden_size": 64, "seq_len": 32}
TEMPERATURES = (0.2, 0.8, 1.2)
LINE = "To be, or not to be: that is the question:\n"


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Train three minutes with a sample a minute, sample at three temperatures, score a line."""
    corpus = read_corpus(["shakespeare"])
    trained, figures = train(say, corpus, options)
    network = RecurrentNetwork.load(trained.model)
    say("\nThree samples of the finished model, at temperature")
    columns = [write(network, temperature, options.seed, 300) for temperature in TEMPERATURES]
    say("".join(f"  {temperature:<25}" for temperature in TEMPERATURES).rstrip())
    wrapped = [wrap(text, 26) for text in columns]
    for pieces in list(zip_longest(*wrapped, fillvalue=""))[:14]:
        say("".join(f"{piece:27}" for piece in pieces).rstrip())
    bits = score(say, network, options.seed)
    say("")
    say("Look at the temperatures: 0.2 takes what is likeliest and repeats itself, 1.2")
    say("invents words; 0.8 is in between. And at the scores: the model knows letters,")
    say("words, and a little of their order. Go on with what it learnt:")
    say(f"  charlm sample -m {trained.name} --prime 'ROMEO:'")
    say(f"  charlm score -m {trained.name} YOUR_FILE")
    say("This was the last lesson. Now your own text: charlm train FILE")
    return {**figures, "bits_per_char": bits, "samples": dict(zip(map(str, TEMPERATURES), columns, strict=True))}


def train(say: Say, corpus: Corpus, options: LessonOptions) -> tuple[Run, dict[str, Any]]:
    """Train as `charlm train shakespeare --minutes 3` does; a sample after each minute but the last."""
    torch.manual_seed(options.seed)
    text = corpus.text[: 300_000 if options.quick else None]
    tokenizer = CharTokenizer.from_text(text)
    asked = {"seed": options.seed, **(SHORT if options.quick else {"minutes": MINUTES})}
    train_ids, val_ids = split_ids(tokenizer.encode(text), TrainConfig.val_fraction)
    dataset = Dataset(tokenizer=tokenizer, train_ids=train_ids, val_ids=val_ids)
    planned = plan(len(train_ids), tokenizer.vocab_size, asked, Machine())
    shape, config = planned.model, planned.train
    model = LanguageModel(shape)
    model.start_from_frequencies(torch.from_numpy(dataset.counts()))
    say(f"The plays: {len(text):,} characters, {tokenizer.vocab_size - 1} different ones, the last tenth for")
    say(f"validation. An {shape.cell} of {shape.num_layers} x {shape.hidden_size} units learns the rest.")
    due = list(range(1, MINUTES))

    def report(progress: Progress) -> None:
        minutes = MINUTES * progress.fraction if options.quick else progress.seconds / 60
        if due and minutes >= due[0]:
            due.pop(0)
            network = RecurrentNetwork(Checkpoint(config=shape, tokenizer=tokenizer, tensors=model.to_tensors()))
            say(f"\nAfter {progress.seconds:.0f} seconds, {progress.train_nats:.2f} nats a character in training:")
            say("\n".join(wrap(write(network, 0.8, options.seed, 200), 80)))

    about = {"name": corpus.name, "sources": list(corpus.sources), "characters": len(text), "sha256": corpus.sha256}
    metadata = {"command": "charlm lesson shakespeare", "corpus": {**about, "encoding": "utf-8", "errors": "strict"}}
    with Run.create(None, "lesson") as folder:
        end = Trainer(model, dataset, config, run=folder, metadata=metadata, callbacks=Callbacks(report=report)).train()
    say("")
    say(f"After {end.seconds:.0f} seconds, {end.epoch:.1f} epochs: {end.best_nats:.3f} nats a character on the tenth")
    say("of the text that it never learnt.")
    return folder, {"run": folder.name, "val_nats": end.best_nats, "seconds": end.seconds, "steps": end.step}


def write(network: RecurrentNetwork, temperature: float, seed: int, length: int) -> str:
    """A text that the model draws."""
    sampler = Sampler(network=network, config=SampleConfig(temperature=temperature, seed=seed, length=length))
    return "".join(piece for (piece,) in sampler.stream())


def wrap(text: str, width: int) -> list[str]:
    """The lines of a text, those that are longer than `width` broken, and indented by two."""
    return [f"  {piece}" for line in text.splitlines() for piece in textwrap.wrap(line, width - 2) or [""]]


def score(say: Say, network: RecurrentNetwork, seed: int) -> dict[str, float]:
    """What a line of Hamlet costs, and with its words or its letters shuffled, in bits a character."""
    shuffle = random.Random(seed).sample
    words, letters = LINE.split(), LINE.strip()
    lines = {
        "as it is": LINE,
        "words shuffled": " ".join(shuffle(words, len(words))) + "\n",
        "letters shuffled": "".join(shuffle(letters, len(letters))) + "\n",
    }
    bits = [costs.score.bits_per_char for costs in ModelScorer(network).score_lines(list(lines.values()))]
    say("")
    say("A line of Hamlet, bits a character:")
    for (name, line), cost in zip(lines.items(), bits, strict=True):
        say(f"  {cost:5.2f}  {name:16}  {line.strip()}")
    return dict(zip(lines, bits, strict=True))
