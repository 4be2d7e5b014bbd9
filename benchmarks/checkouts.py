"""Training of nanoGPT and of PyTorch's word_language_model from checkouts of their repositories.

A copy of the checkout is used for training; the checkout itself is never changed.
"""

import importlib.util
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.heldout import Scorer, recurrent_costs, rows_scorer, sliding_costs
from benchmarks.peers import Curves, PeerError, Task, Trained, count_parameters, run_to_end, smooth, timed_lines

PROBE_SECONDS, PROBE_SHARE = 4.0, 0.08
"""A program that counts steps or epochs is timed before the training: for this many seconds, or for this share of the
training time if that is longer."""

NANOGPT_DEMO: Mapping[str, Any] = {
    "device": "cpu",
    "compile": False,
    "eval_iters": 20,
    "log_interval": 1,
    "block_size": 64,
    "batch_size": 12,
    "n_layer": 4,
    "n_head": 4,
    "n_embd": 128,
    "dropout": 0.0,
}
"""Settings in nanoGPT's README for a demonstration on a CPU, on top of config/train_shakespeare_char.py. There the
training has 2,000 iterations."""

NANOGPT_TUNED: Mapping[str, Any] = {
    **NANOGPT_DEMO,
    "n_layer": 2,
    "n_embd": 96,
    "learning_rate": 5e-3,
    "min_lr": 5e-4,
}
"""Better settings for 40 seconds on two cores, chosen on tiny Shakespeare's validation text from fifteen.

Loss after 60 s of one thread on a busy machine: 2.18 with `NANOGPT_DEMO`; with a learning rate of 3e-3 1.99, with two
layers as well 1.76. Two layers at 5e-3: 1.71 (96 units, chosen), 1.72 (64 units); at 8e-3: 1.71. Three layers of 96
units: 1.81; two layers of 192: 1.87; half the batch: 1.77; 6 blocks of 128: 1.86.
"""

NANOGPT_GPU: Mapping[str, Any] = {"block_size": 256, "batch_size": 64, "compile": False, "log_interval": 5}
"""The settings of config/train_shakespeare_char.py, which is made for a GPU, but without compilation, which takes half
a minute."""

NANOGPT_VALIDATE_EVERY, NANOGPT_MAX_VALIDATIONS, NANOGPT_WARMUP = 250, 8, 100
"""Iterations between validations, number of validations and iterations of warm-up in that recipe."""

NANOGPT_SEED = 1337
"""Seed in nanoGPT's train.py, where it is a constant."""

LINE_END = "<eos>"
"""Token of word_language_model for the end of a line."""

WORD_MODEL_SEED = 1110
"""Added to the number of the training to get word_language_model's seed."""


def nanogpt(task: Task, checkout: Path, settings: Mapping[str, Any] = NANOGPT_DEMO) -> Trained:
    """Run nanoGPT with as many iterations as fit in the time. It saves its best model."""
    folder = task.folder / "nanoGPT"
    ignored = shutil.ignore_patterns(".git", "assets", "out*", "*.bin", "*.pkl", "*.ipynb")
    shutil.copytree(checkout, folder, ignore=ignored)
    if task.seed > 1:
        source = (folder / "train.py").read_text(encoding="utf-8")
        changed = source.replace(f"manual_seed({NANOGPT_SEED}", f"manual_seed({NANOGPT_SEED - 1 + task.seed}")
        task.write("nanoGPT/train.py", changed)
    prepare = "data/shakespeare_char/prepare.py"
    source = (folder / prepare).read_text(encoding="utf-8")
    task.write(f"nanoGPT/{prepare}", source.replace("int(n*0.9)", str(len(task.texts.train))))
    task.write("nanoGPT/data/shakespeare_char/input.txt", task.texts.seen)
    task.write("nanoGPT/data/shakespeare_char/requests.py", "")  # prepare.py imports requests for a download
    list(timed_lines([sys.executable, prepare], folder))
    iterations, interval = nanogpt_iterations(settings, folder, task.seconds)
    finished = run_to_end(nanogpt_command(settings, iterations, interval), folder)
    curves: Curves = defaultdict(list)
    for seconds, line in finished.lines:
        if found := re.match(r"iter \d+: loss ([\d.]+)", line):
            curves["training"].append((seconds, float(found[1])))
        elif found := re.match(r"step \d+: .*val loss ([\d.]+)", line):
            curves["validation"].append((seconds, float(found[1])))
    curves["training"] = smooth(curves["training"])
    model, score = load_nanogpt(folder, task.texts.seen)
    return Trained(
        seconds=finished.seconds,
        cpu_seconds=finished.cpu_seconds,
        parameters=count_parameters(model),
        chars=iterations * settings["batch_size"] * settings["block_size"],
        curves=curves,
        score=score,
    )


def nanogpt_command(settings: Mapping[str, Any], iterations: int, interval: int) -> list[str]:
    """Return the command for a training whose learning rate reaches its minimum at the last iteration.

    Args:
        settings: Settings of nanoGPT.
        iterations: Number of iterations.
        interval: Iterations between validations.
    """
    settings = {
        **settings,
        "max_iters": iterations,
        "lr_decay_iters": iterations,
        "eval_interval": interval,
        "warmup_iters": min(NANOGPT_WARMUP, iterations // 20),
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "train.py", "config/train_shakespeare_char.py", *options]


def nanogpt_iterations(settings: Mapping[str, Any], folder: Path, seconds: float) -> tuple[int, int]:
    """Return the number of iterations that fit in a time, validations included, and the interval of validations.

    The last validation is at the last iteration. The speed is measured with a short training.
    """
    times: dict[str, float] = {}  # seconds of each line by the words before its colon, such as "iter 5"
    probe = max(PROBE_SECONDS, PROBE_SHARE * seconds)
    with closing(timed_lines(nanogpt_command(settings, 10**6, 10**6), folder)) as lines:
        for now, line in lines:
            times[line.split(":")[0]] = now
            number = int(line.split(":")[0][5:]) if line.startswith("iter ") else 0
            if number > 10 and now - times["iter 5"] >= probe:
                break
    per_iteration = (now - times["iter 5"]) / (number - 5)
    ready = times["step 0"]
    per_validation = ready - times["using fused AdamW"]
    count = max(20, int((seconds - ready - per_validation) / per_iteration))
    validations = max(1, min(NANOGPT_MAX_VALIDATIONS, count // NANOGPT_VALIDATE_EVERY))
    interval = max(20, int((seconds - ready - validations * per_validation) / per_iteration)) // validations
    return interval * validations, interval


def load_nanogpt(folder: Path, text: str) -> tuple[nn.Module, Scorer]:
    """Return the model that nanoGPT saved, and its scorer.

    In the scorer, a character has more than half a block of context, fewer only at the start of a text.
    """
    path = folder / "out-shakespeare-char" / "ckpt.pt"
    if not path.is_file():
        raise PeerError("nanogpt saved no model because its validation loss is not a number")
    # nanoGPT's own format; weights_only runs no code
    saved = torch.load(path, weights_only=True, map_location="cpu")  # noqa: TID251
    module = import_file(folder / "model.py", "nanogpt_model")
    model = module.GPT(module.GPTConfig(**saved["model_args"]))
    model.load_state_dict({name.removeprefix("_orig_mod."): part for name, part in saved["model"].items()})
    model.eval()
    char_ids = {char: index for index, char in enumerate(sorted(set(text)))}  # as in nanoGPT's prepare.py

    def read(ids: Tensor) -> Tensor:
        ids = ids.contiguous()
        logits: Tensor = model(ids, ids)[0]  # without targets, nanoGPT returns the logits of the last token only
        return logits

    score = rows_scorer(
        sliding_costs(read, saved["model_args"]["block_size"]), lambda text: [char_ids[char] for char in text]
    )
    return model, score


def word_language_model(task: Task, checkout: Path) -> Trained:
    """Run PyTorch's example with its LSTM and its default settings, on characters as words.

    Its learning rate falls when the validation loss has not fallen, so the number of epochs matters. The training has
    the number of whole epochs whose time is closest to the minutes. It saves the model of the best epoch.
    """
    folder = task.folder / "word_language_model"
    folder.mkdir()
    for name in ("main.py", "data.py", "model.py"):
        shutil.copy(checkout / name, folder)
    for name, text in (("train", task.texts.train), ("valid", task.texts.valid), ("test", task.texts.valid[:1000])):
        task.write(f"word_language_model/chars/{name}.txt", chars_as_words(text))
    seed = str(WORD_MODEL_SEED + task.seed)
    command = [sys.executable, "main.py", "--data", "chars", "--save", "model.pt", "--seed", seed]
    epochs = word_language_model_epochs(command, folder, task.seconds)
    curves: Curves = defaultdict(list)
    finished = run_to_end([*command, "--epochs", str(epochs)], folder)
    for seconds, line in finished.lines:
        if found := re.search(r"valid loss +([\d.]+)", line):
            curves["validation"].append((seconds, float(found[1])))
        elif found := re.search(r"batches .* loss +([\d.]+)", line):
            curves["training"].append((seconds, float(found[1])))
    word_ids = import_file(folder / "data.py", "word_language_model_data").Corpus(folder / "chars").dictionary.word2idx
    model = load_word_language_model(folder)

    def read(ids: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, object]:
        log_probs, state = model(ids.T, state or model.init_hidden(len(ids)))  # (T * R, V)
        return log_probs.view(ids.shape[1], len(ids), -1).transpose(0, 1), state

    score = rows_scorer(recurrent_costs(read), lambda text: [word_ids[char_as_word(char)] for char in text])
    return Trained(
        seconds=finished.seconds,
        cpu_seconds=finished.cpu_seconds,
        parameters=count_parameters(model),
        chars=epochs * len(task.texts.train),
        curves=curves,
        score=score,
    )


def char_as_word(char: str) -> str:
    """Return the word for a character: `<eos>` for a newline, `<32>` for a space, otherwise the character."""
    return LINE_END if char == "\n" else f"<{ord(char)}>" if char.isspace() else char


def chars_as_words(text: str) -> str:
    """Return a text whose words are the characters of `text`. Newlines stay: word_language_model adds `<eos>`."""
    return "\n".join(" ".join(map(char_as_word, line)) for line in text.split("\n"))


def word_language_model_epochs(command: Sequence[str], folder: Path, seconds: float) -> int:
    """Return the number of epochs, at least one, whose time is closest to `seconds`.

    The speed is measured with a short training. The validation after each epoch is estimated as 5 % of its time.
    """
    probe = max(PROBE_SECONDS, PROBE_SHARE * seconds)
    reports = []  # seconds, number of batches done, number of batches per epoch
    with closing(timed_lines([*command, "--epochs", "1", "--log-interval", "5"], folder)) as lines:
        for now, line in lines:
            if found := re.match(r"\| epoch +1 \| +(\d+)/ *(\d+) batches", line):
                reports.append((now, int(found[1]), int(found[2])))
                if now - reports[0][0] >= probe:
                    break
    if len(reports) < 2:
        raise PeerError("word_language_model: the text is too short to measure the speed")
    (first, first_done, batches), (last, last_done, _) = reports[0], reports[-1]
    per_epoch = 1.05 * batches * (last - first) / (last_done - first_done)
    return max(1, round((seconds - first) / per_epoch))


def load_word_language_model(folder: Path) -> Any:  # noqa: ANN401 - a class of the checkout
    """Return the model that word_language_model saved as a whole object. Only classes of the network are unpickled."""
    module = import_file(folder / "model.py", "word_language_model_model")
    classes: list[Any] = [nn.Dropout, nn.Linear, nn.LSTM, nn.Embedding, (module.RNNModel, "model.RNNModel")]
    with torch.serialization.safe_globals(classes):
        model = torch.load(folder / "model.pt", weights_only=True)  # noqa: TID251 - its own format
    model.rnn.flatten_parameters()
    return model.eval()


def import_file(path: Path, name: str) -> ModuleType:
    """Import a file as a module of a given name."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "the file is a Python file"
    assert spec.loader is not None, "a Python file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
