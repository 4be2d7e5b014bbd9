"""What many tests share: small texts, small models, and the real command line."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from charlm.config import NGRAM_CELL, ModelConfig
from charlm.engine.checkpoint import Checkpoint, NGramPart, save_checkpoint
from charlm.engine.gate import Gate
from charlm.engine.kneser_ney import estimate
from charlm.text.tokenizer import CharTokenizer, Tokenizer
from charlm.training.network import LanguageModel
from tests.server import Done, Server, pipe

hypothesis.settings.register_profile(
    "charlm", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)  # a machine that is busy is no failure
hypothesis.settings.load_profile("charlm")

torch.set_num_threads(1)  # small models are faster with one, above all on a busy machine

# What a shell starts in the background ignores Ctrl-C, and so does what that starts: tests would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

VERSE = """\
HAMLET:
To be, or not to be: that is the question:
Whether 'tis nobler in the mind to suffer
The slings and arrows of outrageous fortune,
Or to take arms against a sea of troubles,
And by opposing end them? To die: to sleep;
No more; and by a sleep to say we end
The heart-ache and the thousand natural shocks
That flesh is heir to, 'tis a consummation
Devoutly to be wish'd.

OPHELIA:
Good my lord, how does your honour for this many a day?
"""

Charlm = Callable[..., Done]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in an empty folder, so that ./checkpoints is its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Random numbers are the same in every run, and whatever a test does to them ends with it."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)  # torch.manual_seed is slower: it seeds absent GPUs later
        yield
    torch.set_flush_denormal(False)  # charlm train sets it for its process


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Process that runs command lines without the time that imports take."""
    running = Server()
    yield running
    running.close()


@pytest.fixture
def charlm(server: Server) -> Charlm:
    """Runs the real command line in a process of its own with real pipes: `charlm("score", stdin="a line")`."""

    def run(*args: str | Path, stdin: str = "", timeout: float = 120) -> Done:
        environment = {"NO_COLOR": "1", "COLUMNS": "100"}
        with pipe(stdin) as path:
            return server.run(list(map(str, args)), stdin=path, environment=environment, timeout=timeout)

    return run


def make_checkpoint(text: str = VERSE, **config: object) -> tuple[LanguageModel, Checkpoint]:
    """A small untrained model of a text's characters, as torch has it and as its file would have it."""
    tokenizer = CharTokenizer.from_text(text)
    shape = {"hidden_size": 12, "embedding_dim": 12, **config}
    model_config = ModelConfig.pick({**shape, "vocab_size": tokenizer.vocab_size})
    model = LanguageModel(model_config).eval()
    with torch.no_grad():  # away from the zeros that a fresh model's biases have
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return model, Checkpoint(config=model_config, tokenizer=tokenizer, tensors=model.to_tensors())


GATE = Gate([[-0.9, 0.9, -1.2, -0.5], [-1.0, -0.1, 0.5, 0.6]])
"""A gate whose three weights vary from token to token in the small models of these tests."""


def make_counts(
    tokenizer: Tokenizer, text: str = VERSE, *, order: int = 4, weight: float = 0.4, gate: Gate | None = None
) -> NGramPart:
    """The counts of a text's n-grams, as a model file stores them."""
    ids = tokenizer.encode("\n" + text)
    ngram = estimate(ids, order=order, vocab_size=tokenizer.vocab_size, dtype=np.float16)
    return NGramPart(ngram=ngram, weight=weight, gate=gate)


def make_mixture(
    text: str = VERSE, *, order: int = 4, weight: float = 0.4, gate: Gate | None = None, **config: object
) -> Checkpoint:
    """A small untrained network of a text's characters, and the counts of its n-grams."""
    _, checkpoint = make_checkpoint(text, **config)
    counts = make_counts(checkpoint.tokenizer, text, order=order, weight=weight, gate=gate)
    return replace(checkpoint, counts=counts)


def make_ngram_model(text: str = VERSE, *, order: int = 4) -> Checkpoint:
    """The counts of a text's n-grams, without a network."""
    tokenizer = CharTokenizer.from_text(text)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, cell=NGRAM_CELL)
    counts = make_counts(tokenizer, text, order=order, weight=1.0)
    return Checkpoint(config=config, tokenizer=tokenizer, tensors={}, counts=counts)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """The file of a small untrained model of `VERSE`, as the run `tiny`."""
    path = tmp_path / "checkpoints" / "tiny" / "model.safetensors"
    save_checkpoint(path, make_checkpoint()[1])
    return path


@pytest.fixture
def tally() -> Callable[[str], None]:
    """Notes what a test has lived through, for benchmarks/torture.py, which says where."""

    def note(line: str) -> None:
        if path := os.environ.get("CHARLM_TALLY"):
            with open(path, "a", encoding="utf-8") as file:
                file.write(line + "\n")

    return note


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(0)
