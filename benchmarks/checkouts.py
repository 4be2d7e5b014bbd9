"""Peers that are run from checkouts: of each a copy is trained, and a checkout itself is only read."""

import importlib.util
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.heldout import Scorer, recurrent_costs, rows_scorer, sliding_costs
from benchmarks.peers import Curves, PeerError, Task, Trained, count_parameters, means, stamped_lines

PROBE_SECONDS, PROBE_SHARE = 4.0, 0.08
"""How long a peer that counts its steps is timed beforehand: so many seconds, and such a share of the minutes."""

NANOGPT_RECIPE: dict[str, Any] = {
    "device": "cpu", "compile": False, "eval_iters": 20, "log_interval": 1, "block_size": 64, "batch_size": 12,
    "n_layer": 4, "n_head": 4, "n_embd": 128, "dropout": 0.0,
}  # fmt: skip
"""Its README's, for a CPU, upon config/train_shakespeare_char.py; with 2,000 iterations, 100 of them warm-up."""

NANOGPT_VALIDATE_EVERY, NANOGPT_MOST_VALIDATIONS, NANOGPT_WARMUP = 250, 8, 100
"""Iterations, as in that file, and how often that is in the recipe."""


def nanogpt(task: Task, checkout: Path) -> Trained:
    """Run nanoGPT's recipe for a CPU, with as many iterations as fill the minutes; it keeps its best model."""
    folder = task.folder / "nanoGPT"
    ignored = shutil.ignore_patterns(".git", "assets", "out*", "*.bin", "*.pkl", "*.ipynb")
    shutil.copytree(checkout, folder, ignore=ignored)
    if task.seed > 1:  # its seed is no option
        source = (folder / "train.py").read_text(encoding="utf-8")
        task.write("nanoGPT/train.py", source.replace("manual_seed(1337", f"manual_seed({1336 + task.seed}"))
    task.write("nanoGPT/data/shakespeare_char/input.txt", task.text)
    task.write("nanoGPT/data/shakespeare_char/requests.py", "")  # imported for the download, which is not needed
    list(stamped_lines([sys.executable, "data/shakespeare_char/prepare.py"], folder))
    iterations, interval = nanogpt_iterations(folder, task.seconds)
    lines = list(stamped_lines(nanogpt_command(iterations, interval), folder))
    curves: Curves = defaultdict(list)
    for seconds, line in lines:
        if found := re.match(r"iter \d+: loss ([\d.]+)", line):
            curves["training"].append((seconds, float(found[1])))
        elif found := re.match(r"step \d+: .*val loss ([\d.]+)", line):
            curves["validation"].append((seconds, float(found[1])))
    curves["training"] = means(curves["training"])
    model, score = nanogpt_model(folder, task.text)
    chars = iterations * NANOGPT_RECIPE["batch_size"] * NANOGPT_RECIPE["block_size"]
    return Trained(seconds=lines[-1][0], parameters=count_parameters(model), chars=chars, curves=curves, score=score)


def nanogpt_command(iterations: int, interval: int) -> list[str]:
    """Train for so many iterations, at the end of which the rate has fallen, and validate at intervals."""
    settings = NANOGPT_RECIPE | {
        "max_iters": iterations,
        "lr_decay_iters": iterations,
        "eval_interval": interval,
        "warmup_iters": min(NANOGPT_WARMUP, iterations // 20),
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "train.py", "config/train_shakespeare_char.py", *options]


def nanogpt_iterations(folder: Path, seconds: float) -> tuple[int, int]:
    """How many iterations fill the time, validations at such an interval included, the last of them at the end."""
    stamps: dict[str, float] = {}
    probe = max(PROBE_SECONDS, PROBE_SHARE * seconds)
    with closing(stamped_lines(nanogpt_command(10**6, 10**6), folder)) as lines:
        for stamp, line in lines:
            stamps[line.split(":")[0]] = stamp
            number = int(line.split(":")[0][5:]) if line.startswith("iter ") else 0
            if number > 10 and stamp - stamps["iter 5"] >= probe:
                break
    an_iteration = (stamp - stamps["iter 5"]) / (number - 5)
    ready = stamps["step 0"]
    a_validation = ready - stamps["using fused AdamW"]
    count = max(20, int((seconds - ready - a_validation) / an_iteration))
    validations = max(1, min(NANOGPT_MOST_VALIDATIONS, count // NANOGPT_VALIDATE_EVERY))
    interval = max(20, int((seconds - ready - validations * a_validation) / an_iteration)) // validations
    return interval * validations, interval


def nanogpt_model(folder: Path, text: str) -> tuple[nn.Module, Scorer]:
    """The model that it kept, and how it scores: a character has 33 to 64 before it, where a text has so many."""
    path = folder / "out-shakespeare-char" / "ckpt.pt"
    if not path.is_file():
        raise PeerError("nanogpt kept no model, its validation loss is no number")
    kept = torch.load(path, weights_only=True)  # noqa: TID251 - its own format; weights_only runs no code
    module = imported(folder / "model.py", "nanogpt_model")
    model = module.GPT(module.GPTConfig(**kept["model_args"]))
    model.load_state_dict(kept["model"])
    model.eval()
    numbers = {char: index for index, char in enumerate(sorted(set(text)))}  # as its prepare.py has it

    def read(ids: Tensor) -> Tensor:
        ids = ids.contiguous()
        logits: Tensor = model(ids, ids)[0]  # without targets it answers at the end alone
        return logits

    score = rows_scorer(
        sliding_costs(read, kept["model_args"]["block_size"]), lambda text: [numbers[char] for char in text]
    )
    return model, score


LINE_END = "<eos>"
"""word_language_model's own token for it."""


def word_language_model(task: Task, checkout: Path) -> Trained:
    """PyTorch's example, its LSTM and all its defaults; each character is a word, and each line ends with its <eos>.

    Its rate falls when the validation loss does not, so that it trains as many whole epochs as come nearest to the
    minutes. It keeps the best epoch.
    """
    folder = task.folder / "word_language_model"
    folder.mkdir()
    for name in ("main.py", "data.py", "model.py"):
        shutil.copy(checkout / name, folder)
    for name, text in (("train", task.train), ("valid", task.valid), ("test", task.valid[:1000])):
        task.write(f"word_language_model/chars/{name}.txt", spaced(text))
    command = [sys.executable, "main.py", "--data", "chars", "--save", "model.pt", "--seed", str(1110 + task.seed)]
    epochs = word_language_model_epochs(command, folder, task.seconds)
    curves: Curves = defaultdict(list)
    for seconds, line in stamped_lines([*command, "--epochs", str(epochs)], folder):
        if found := re.search(r"valid loss +([\d.]+)", line):
            curves["validation"].append((seconds, float(found[1])))
        elif found := re.search(r"batches .* loss +([\d.]+)", line):
            curves["training"].append((seconds, float(found[1])))
    numbers = imported(folder / "data.py", "word_language_model_data").Corpus(folder / "chars").dictionary.word2idx
    model = word_language_model_model(folder)

    def read(ids: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, object]:
        answers, state = model(ids.T, state or model.init_hidden(len(ids)))
        return answers.view(ids.shape[1], len(ids), -1).transpose(0, 1), state

    score = rows_scorer(recurrent_costs(read), lambda text: [numbers[as_word(char)] for char in text])
    chars, parameters = epochs * len(task.train), count_parameters(model)
    return Trained(seconds=seconds, parameters=parameters, chars=chars, curves=curves, score=score)


def as_word(char: str) -> str:
    """What stands for a character: itself, a line end's token, or the number of a white one in brackets."""
    return LINE_END if char == "\n" else f"<{ord(char)}>" if char.isspace() else char


def spaced(text: str) -> str:
    """A text with its characters as words, line by line; the end of a line is left to the reader."""
    return "\n".join(" ".join(map(as_word, line)) for line in text.split("\n"))


def word_language_model_epochs(command: Sequence[str], folder: Path, seconds: float) -> int:
    """How many epochs come nearest to a time, one at least; a twentieth is added for the validation after each."""
    probe, stamps = max(PROBE_SECONDS, PROBE_SHARE * seconds), []
    with closing(stamped_lines([*command, "--epochs", "1", "--log-interval", "5"], folder)) as lines:
        for stamp, line in lines:
            if found := re.match(r"\| epoch +1 \| +(\d+)/ *(\d+) batches", line):
                stamps.append((stamp, int(found[1]), int(found[2])))
                if stamp - stamps[0][0] >= probe:
                    break
    if len(stamps) < 2:
        raise PeerError("word_language_model: the text is too short to time it")
    (first, begin, batches), (last, end, _) = stamps[0], stamps[-1]
    an_epoch = 1.05 * batches * (last - first) / (end - begin)
    return max(1, round((seconds - first) / an_epoch))


def word_language_model_model(folder: Path) -> Any:  # noqa: ANN401 - a class of its own
    """The model that it kept, whole; nothing but the network's own classes is let in."""
    module = imported(folder / "model.py", "word_language_model_model")
    known: list[Any] = [nn.Dropout, nn.Linear, nn.LSTM, nn.Embedding, (module.RNNModel, "model.RNNModel")]
    with torch.serialization.safe_globals(known):
        model = torch.load(folder / "model.pt", weights_only=True)  # noqa: TID251 - its own format
    model.rnn.flatten_parameters()
    return model.eval()


def imported(path: Path, name: str) -> ModuleType:
    """A peer's module, under a name of its own."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "a file of Python"
    assert spec.loader is not None, "it can be loaded"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
