import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from charlm.config import ModelConfig, TrainConfig
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.kneser_ney import estimate
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.runs import Run
from charlm.engine.scorer import ModelStreamScorer
from charlm.errors import CheckpointError, TrainingError
from charlm.text.tokenizer import CharTokenizer
from charlm.training import schedule, token_losses, validation
from charlm.training.callbacks import Callbacks
from charlm.training.dataset import Dataset
from charlm.training.loss import sequence_loss
from charlm.training.network import LanguageModel
from charlm.training.optimizer import DECODER_RATE
from charlm.training.progress import Progress
from charlm.training.schedule import learning_rate
from charlm.training.state import random_state, set_random_state
from charlm.training.throughput import Machine
from charlm.training.token_losses import sample_loss, validation_nats
from charlm.training.trainer import Trainer
from tests.conftest import VERSE

TOKENIZER = CharTokenizer.from_text(VERSE)
IDS = TOKENIZER.encode(VERSE * 3)
QUICK = TrainConfig(steps=30, batch_size=4, seq_len=8)


def make_trainer(run: str | Run = "run", config: TrainConfig = QUICK, *, resume: bool = False, **more: Any) -> Trainer:
    """Return a trainer of a tiny model on `VERSE`; `more` are fields of the model, the callbacks or the machine."""
    shape = {"hidden_size": 8, "embedding_dim": 8, "cell": "lstm", "num_layers": 1}
    shape |= {"dropout": 0.0, "recurrent_dropout": 0.0, "tie_weights": False}
    shape |= {name: more.pop(name) for name in shape if name in more}
    ngram = more.pop("ngram", None)
    torch.manual_seed(config.seed)
    machine = Machine(**{name: more.pop(name) for name in ("workers", "clock", "device") if name in more})
    model = LanguageModel(ModelConfig(vocab_size=TOKENIZER.vocab_size, **shape)).to(machine.device)
    cut = len(IDS) - round(0.1 * len(IDS))
    dataset = Dataset(tokenizer=TOKENIZER, train_ids=IDS[:cut], val_ids=IDS[cut:])
    folder = Run(Path(run)) if isinstance(run, str) else run
    folder.path.mkdir(exist_ok=True)
    saved = load_checkpoint(folder.last, with_resume=True) if resume else None
    if saved is not None and saved.counts is not None:
        ngram = saved.counts.ngram
    callbacks = Callbacks(**more)
    made = Trainer(model, dataset, config, run=folder, metadata={}, callbacks=callbacks, machine=machine, ngram=ngram)
    if saved is not None:
        made.resume(saved)
    return made


def mean_nats(model: LanguageModel, ids: np.ndarray, start_id: int = 3) -> float:
    nats = validation_nats(model, ids, start_id)
    assert nats is not None
    return float(nats.mean(dtype=np.float64))


def stop_after(calls: int) -> Callable[[], bool]:
    """Return a stop function that returns True after this number of calls."""
    times = iter(range(10**9))
    return lambda: next(times) >= calls


def log_of(run: str) -> list[dict[str, Any]]:
    """Return the log without the values that depend on time."""
    lines = [json.loads(line) for line in Path(run, "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: line[key] for key in line if key not in {"seconds", "tokens_per_second"}} for line in lines]


def assert_same_run(one: str, other: str) -> None:
    for file in ("model.safetensors", "last.safetensors"):
        checkpoints = [load_checkpoint(Path(run, file), with_resume=True) for run in (one, other)]
        weights = [0 if checkpoint.counts is None else checkpoint.counts.weight for checkpoint in checkpoints]
        assert weights[0] == weights[1]
        gains = [None if one.adaptation is None else one.adaptation.gains.tolist() for one in checkpoints]
        assert gains[0] == gains[1]
        first, second = (checkpoint.tensors for checkpoint in checkpoints)
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], err_msg=f"{file} {name}")
    assert log_of(one) == log_of(other)


@pytest.mark.parametrize(
    ("shape", "calls"),
    [
        ({"cell": "lstm"}, 11),
        ({"cell": "gru"}, 1),
        ({"cell": "rnn"}, 29),
        ({"cell": "lstm", "num_layers": 2, "dropout": 0.3}, 17),
    ],
    ids=["lstm", "gru", "rnn", "dropout"],
)
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(shape: dict[str, Any], calls: int) -> None:
    make_trainer("whole", **shape).train()
    make_trainer("broken", stop=stop_after(calls), **shape).train()
    torch.manual_seed(999)  # as in another process
    make_trainer("broken", resume=True, **shape).train()
    assert_same_run("whole", "broken")


@pytest.mark.parametrize("calls", [1, 12, 26])
def test_a_training_with_ngrams_resumes_exactly(calls: int) -> None:
    ngram = estimate(IDS[:300], order=3, vocab_size=TOKENIZER.vocab_size, dtype=np.float16)
    make_trainer("whole", ngram=ngram).train()
    make_trainer("broken", ngram=ngram, stop=stop_after(calls)).train()
    make_trainer("broken", resume=True).train()
    assert_same_run("whole", "broken")
    last = load_checkpoint(Path("broken/model.safetensors"))
    assert last.counts is not None
    assert 0 < last.counts.weight == last.metadata["metrics"]["ngram_weight"]


def test_until_the_first_validation_the_model_has_the_ngrams_alone() -> None:
    ngram = estimate(IDS[:300], order=3, vocab_size=TOKENIZER.vocab_size, dtype=np.float16)
    made = make_trainer("run", ngram=ngram, stop=stop_after(2))
    made.train()
    first = load_checkpoint(Path("run/model.safetensors"))
    assert first.config.cell == "ngram"
    assert first.counts is not None
    assert first.counts.weight == 1
    held_out = np.concatenate([TOKENIZER.encode("\n"), made._validator.data])
    assert first.metadata["metrics"]["val_nats"] == pytest.approx(float(ngram.nats(held_out)[1:].mean()), abs=1e-6)
    make_trainer("run", resume=True).train()
    assert load_checkpoint(Path("run/model.safetensors")).config.cell == "lstm"


@pytest.mark.parametrize("calls", range(0, 60, 7))
def test_a_training_stopped_anywhere_resumes_exactly_even_during_validation(calls: int) -> None:
    make_trainer("whole").train()
    make_trainer("broken", stop=stop_after(calls)).train()
    while not load_checkpoint(Path("broken/last.safetensors")).metadata["finished"]:
        calls += 5  # a validation calls stop five times
        make_trainer("broken", resume=True, stop=stop_after(calls)).train()
    assert_same_run("whole", "broken")


def test_log_lines_after_the_last_save_are_removed_when_a_killed_run_resumes() -> None:
    make_trainer("whole").train()
    make_trainer("broken", stop=stop_after(15)).train()
    with open("broken/log.jsonl", "a", encoding="utf-8") as log:
        log.write('{"step": 16, "epo')
    make_trainer("broken", resume=True).train()
    assert_same_run("whole", "broken")


def test_the_last_two_saves_are_kept() -> None:
    steps: list[int] = []

    def report(progress: Progress) -> None:
        steps.append(progress.step)

    make_trainer("run", replace(QUICK, save_every=1e-9), report=report).train()
    saves = Run(Path("run")).saves
    assert [load_checkpoint(path).metadata["resume"]["step"] for path in saves] == [30, 29]


def test_a_resumed_training_has_the_rest_of_its_time_limit() -> None:
    time = iter(np.arange(0, 10**6, 0.05))
    clock: dict[str, Any] = {"clock": lambda: float(next(time))}
    config = TrainConfig(minutes=1, batch_size=4, seq_len=8)
    end = make_trainer("run", config, stop=stop_after(150), **clock).train()
    assert 5 < end.seconds < 55
    resumed = make_trainer("run", config, resume=True, **clock).train()
    assert 58 < resumed.seconds < 66
    assert resumed.step > end.step


@pytest.mark.parametrize("jump", [8 * 3600.0, -8 * 3600.0], ids=["computer slept", "clock was set back"])
def test_a_jump_of_the_clock_counts_as_at_most_a_minute(jump: float) -> None:
    times, now = iter(range(10**9)), [0.0]

    def clock() -> float:
        now[0] += jump if next(times) == 300 else 0.2
        return now[0]

    end = make_trainer("run", TrainConfig(minutes=3, batch_size=4, seq_len=8), clock=clock).train()
    assert 170 < end.seconds < 250
    assert end.fraction == 1


def test_time_limit_that_is_over_at_once_still_leaves_some_updates() -> None:
    time = iter(np.arange(0, 10**6, 50.0))  # each look at the clock takes most of a minute
    end = make_trainer("run", TrainConfig(minutes=1, batch_size=4, seq_len=8), clock=lambda: float(next(time))).train()
    assert end.step == schedule.MIN_UPDATES
    assert math.isfinite(end.train_nats)
    assert load_checkpoint(Path("run/model.safetensors")).metadata["metrics"]["step"] == schedule.MIN_UPDATES


def test_training_that_is_stopped_before_its_first_update_has_no_model_but_a_save() -> None:
    make_trainer("whole").train()
    make_trainer("run", stop=lambda: True).train()
    assert not Path("run/model.safetensors").exists()
    make_trainer("run", resume=True).train()
    assert_same_run("whole", "run")


def poison(made: Trainer, steps: set[int]) -> None:
    """Make a weight NaN the first time that one of these steps is reached."""
    batches = made._batches
    original = batches.inputs_and_targets

    def poisoned(step: int) -> tuple[np.ndarray, np.ndarray]:
        if step in steps:
            steps.remove(step)
            next(made.model.parameters()).detach().fill_(math.nan)
        return original(step)

    batches.inputs_and_targets = poisoned  # type: ignore[method-assign]


def test_after_a_nan_loss_the_training_returns_to_an_earlier_state_with_a_smaller_rate() -> None:
    warnings: list[str] = []
    made = make_trainer("run", warn=warnings.append)
    poison(made, {12, 20})
    end = made.train()
    assert end.step == 30
    assert len(warnings) == 2
    assert "step 12" in warnings[0]
    assert "0.3 times the learning rate" in warnings[0]
    saved = load_checkpoint(Path("run/last.safetensors"))
    assert saved.metadata["resume"]["recoveries"] == 2
    assert saved.metadata["resume"]["rate_scale"] == pytest.approx(0.09)
    assert end.learning_rate == pytest.approx(0.09 * learning_rate(QUICK, 29 / 30))


def test_a_training_that_diverges_repeatedly_is_an_error() -> None:
    warnings: list[str] = []
    with pytest.raises(TrainingError, match=r"diverged at step .*; set learning_rate below 1000"):
        make_trainer("run", replace(QUICK, learning_rate=1000.0), warn=warnings.append).train()
    assert len(warnings) == 3


def test_a_full_disk_is_a_warning_during_training_and_an_error_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    full = [False]
    fsync = os.fsync

    def write_to_disk(handle: int) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", write_to_disk)
    warnings: list[str] = []

    def report(progress: Progress) -> None:
        full[0] = 5 <= progress.step < 25

    config = replace(QUICK, save_every=1e-9)
    make_trainer("some", config, report=report, warn=warnings.append).train()
    assert len(warnings) == 1
    assert "No space left" in warnings[0]
    make_trainer("none", config).train()
    assert_same_run("some", "none")

    before = {path.name: path.read_bytes() for path in Path("none").iterdir()}
    full[0] = True
    with pytest.raises(CheckpointError, match="No space left on device"):
        make_trainer("none", config, report=lambda progress: None).train()
    after = {path.name: path.read_bytes() for path in Path("none").iterdir()}
    assert {name: data for name, data in after.items() if name != "log.jsonl"} == {
        name: data for name, data in before.items() if name != "log.jsonl"
    }


def test_the_best_model_stays_in_memory_while_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([2.0, 1.0] + [3.0] * 20)
    monkeypatch.setattr(validation, "validation_nats", lambda model, ids, *more: np.full(len(ids), next(losses)))
    monkeypatch.setattr(schedule, "TRAINING_COST", 1000)  # many validations in few updates
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    whole = make_trainer("whole")
    whole.train()
    losses = iter([2.0, 1.0] + [3.0] * 20)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    def report(progress: Progress) -> None:
        monkeypatch.setattr(os, "fsync", full if 4 <= progress.step < 20 else lambda handle: None)

    make_trainer("run", replace(QUICK, save_every=1e-9), report=report).train()
    best, expected = (load_checkpoint(Path(run, "model.safetensors")) for run in ("run", "whole"))
    assert best.metadata["metrics"]["val_nats"] == 1.0
    np.testing.assert_array_equal(best.tensors["embedding.weight"], expected.tensors["embedding.weight"])


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_random_state_of_a_gpu_is_saved_and_ignored_on_other_devices(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to: list[list[int]] = []
    gpu = torch.tensor([1, 2, 3], dtype=torch.uint8)
    monkeypatch.setattr(getattr(torch, kind), "get_rng_state", lambda *device: gpu)
    monkeypatch.setattr(getattr(torch, kind), "set_rng_state", lambda state, *device: set_to.append(state.tolist()))
    device, cpu = torch.device(kind), torch.device("cpu")
    on_gpu, drawn = random_state(device), torch.rand(3)
    on_cpu, later = random_state(cpu), torch.rand(3)
    for state, here, expected in (
        (on_gpu, device, drawn),
        (on_gpu, cpu, drawn),
        (on_cpu, device, later),
        (on_cpu, cpu, later),
    ):
        set_random_state(here, state)
        assert torch.equal(torch.rand(3), expected)
    assert set_to == [[1, 2, 3]]


@pytest.mark.parametrize("name", ["resume/stream.0", "resume/random", "resume/embedding.weight.exp_avg"])
def test_a_save_with_a_missing_or_misshapen_tensor_is_an_error(name: str) -> None:
    make_trainer("run", stop=stop_after(5)).train()
    saved = load_checkpoint(Path("run/last.safetensors"), with_resume=True)
    tensors = dict(saved.tensors)
    removed = tensors.pop(name)
    with pytest.raises(CheckpointError, match="damaged save"):
        make_trainer("run").resume(replace(saved, tensors=tensors))
    with pytest.raises(CheckpointError, match="damaged save"):
        make_trainer("run").resume(replace(saved, tensors={**tensors, name: removed[..., :-1]}))


@pytest.mark.parametrize("length", [1, 5, 2100, 6001])
def test_validation_in_parallel_streams_equals_one_pass(length: int, rng: np.random.Generator) -> None:
    model = LanguageModel(ModelConfig(vocab_size=9, hidden_size=6, embedding_dim=4))
    ids = rng.integers(9, size=length).astype(np.uint8)
    tokens = torch.from_numpy(np.concatenate([[3], ids]).astype(np.int64))[None]
    with torch.no_grad():
        whole = float(sequence_loss(model(tokens[:, :-1])[0], tokens[:, 1:]))
    assert mean_nats(model, ids) == pytest.approx(whole, abs=1e-5)
    assert validation_nats(model, ids, 3, stop=lambda: True) is None
    assert model.training


def test_loss_of_a_sample_equals_that_of_its_parts_in_one_pass(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(token_losses, "STREAM_TOKENS", 50)
    monkeypatch.setattr(token_losses, "SAMPLE_STREAMS", 4)
    model = LanguageModel(ModelConfig(vocab_size=9, hidden_size=6, embedding_dim=4))
    ids = rng.integers(9, size=1250).astype(np.uint8)
    tokens = torch.from_numpy(np.concatenate([[3], ids]).astype(np.int64))[None]
    with torch.no_grad():
        losses = nn.functional.cross_entropy(model(tokens[:, :-1])[0][0], tokens[0, 1:], reduction="none")
    parts = torch.cat([losses[first : first + 50] for first in (0, 400, 800, 1200)])
    assert sample_loss(model, ids, 3) == pytest.approx(float(parts.mean()), abs=1e-5)
    assert sample_loss(model, ids[:200], 3) == mean_nats(model, ids[:200])


def test_training_loss_at_the_end_is_that_of_the_saved_model_without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([2.0, 1.0, *[3.0] * 50])  # the second validation finds the best model
    with monkeypatch.context() as patch:
        patch.setattr(schedule, "TRAINING_COST", 1000)  # many validations in few updates
        patch.setattr(validation.TextValidator, "token_nats", lambda self, _: np.full(len(self.data), next(losses)))
        trainer = make_trainer("run", dropout=0.5)
        weights = trainer.model.to_tensors()["decoder.weight"]
        end = trainer.train()
    best = load_checkpoint(Path("run/model.safetensors"))
    assert best.metadata["metrics"]["step"] < end.step
    np.testing.assert_array_equal(weights, trainer.model.to_tensors()["decoder.weight"])  # the training's own are back
    text = ModelStreamScorer(RecurrentNetwork(best)).feed(TOKENIZER.decode(trainer._validator._train_data))
    assert end.sample_nats == pytest.approx(float(text.nats.mean()), abs=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_the_decoder_has_a_higher_learning_rate_unless_weights_are_tied(tied: bool) -> None:
    trainer = make_trainer(config=replace(QUICK, steps=1, weight_decay=0.0), tie_weights=tied)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    rate = trainer.train().learning_rate  # the first step of AdamW changes each weight by exactly this
    steps = {
        name: float((weight.detach() - before[name]).abs().max()) for name, weight in trainer.model.named_parameters()
    }
    faster = {name for name, step in steps.items() if step == pytest.approx(DECODER_RATE * rate, rel=0.01)}
    slower = {name for name, step in steps.items() if step == pytest.approx(rate, rel=0.01)}
    assert faster == (set() if tied else {"decoder.weight"})
    assert slower == before.keys() - faster


def test_the_best_model_has_the_averaged_weights() -> None:
    trainer = make_trainer("run", replace(QUICK, steps=96, learning_rate=0.05))
    seen: list[dict[str, torch.Tensor]] = []
    step = trainer._state.optimizer.step

    def keep() -> None:
        step()
        seen.append({name: weight.detach().clone() for name, weight in trainer.model.named_parameters()})

    trainer._state.optimizer.step = keep  # type: ignore[method-assign, assignment]
    trainer.train()
    for name, average in trainer._state.average.weights.items():
        mean = seen[0][name]
        for number, weights in enumerate(seen, start=1):
            if number > 64 and number % 8:
                continue
            fraction, updates = (number - 1) / 96, 1 if number <= 64 else 8
            share = min(
                1.0, updates * 10 / number / (learning_rate(trainer.config, fraction) / trainer.config.learning_rate)
            )
            mean = (1 - share) * mean + share * weights[name]
        torch.testing.assert_close(average, mean)
        torch.testing.assert_close(
            dict(trainer.model.named_parameters())[name].detach(), seen[-1][name], rtol=0, atol=0
        )
    kept = load_checkpoint(Path("run/model.safetensors"))
    figures = [line for line in log_of("run") if line["val_nats"] is not None]
    best = min(line["val_nats"] for line in figures)
    trainer.model.load_tensors(kept.tensors)
    start = int(TOKENIZER.encode("\n")[0])
    assert mean_nats(trainer.model, trainer._validator.data, start) == pytest.approx(best, abs=1e-6)


def test_a_model_in_half_precision_is_validated_as_it_is_stored() -> None:
    trainer = make_trainer("half", replace(QUICK, half=True))
    end = trainer.train()
    kept = load_checkpoint(Path("half/model.safetensors"))
    assert {array.dtype for array in kept.tensors.values()} == {np.dtype(np.float16)}
    assert {array.dtype for array in load_checkpoint(Path("half/last.safetensors")).tensors.values()} == {
        np.dtype(np.float32)
    }
    trainer.model.load_tensors(kept.tensors)
    start = int(TOKENIZER.encode("\n")[0])
    assert mean_nats(trainer.model, trainer._validator.data, start) == pytest.approx(end.best_nats, abs=1e-6)


def test_patience_ends_a_training_whose_validation_loss_stops_falling(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.4, 2.3, *[9.0] * 50])
    monkeypatch.setattr(validation, "validation_nats", lambda model, ids, *more: np.full(len(ids), next(losses)))
    end = make_trainer("run", replace(QUICK, steps=400, patience=3)).train()
    assert end.fraction == 1
    assert end.step == 52  # the fifth of 40 validations, three after the best one
    assert end.best_nats == 2.0
    assert load_checkpoint(Path("run/last.safetensors")).metadata["finished"]


@pytest.mark.parametrize(("steps", "validations"), [(1, 1), (50, 1), (200, 4), (600, 10)])
def test_without_a_time_limit_validation_is_a_small_part_of_the_tokens(
    steps: int, validations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def token_nats(validator: validation.TextValidator, observe: object) -> np.ndarray:
        read.append(validator.num_tokens)
        return np.ones(validator.num_tokens)

    monkeypatch.setattr(validation.TextValidator, "token_nats", token_nats)
    made = make_trainer("run", replace(QUICK, steps=steps))
    made.train()
    assert len(read) == validations
    assert sum(read[:-1]) * 40 <= 3 * steps * made._batches.tokens_per_step


def test_patience_counts_validations_before_a_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.4, 2.3, *[9.0] * 50])
    monkeypatch.setattr(validation, "validation_nats", lambda model, ids, *more: np.full(len(ids), next(losses)))
    config = replace(QUICK, steps=400, patience=3)
    assert make_trainer("run", config, stop=stop_after(35)).train().fraction < 1
    assert make_trainer("run", config, resume=True).train().step == 52


def test_pretrained_model_is_validated_after_few_updates_and_its_best_state_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = {0: 2.0, 1: 1.9, 2: 1.8, 4: 1.5, 8: 2.5}
    made = make_trainer("run", replace(QUICK, steps=200, batch_size=8))
    monkeypatch.setattr(made._schedule, "_num_val_tokens", 10)
    count = made._validator.num_tokens
    monkeypatch.setattr(
        made._validator, "token_nats", lambda _: np.full(count, losses.get(made._state.counters.step, 3.0))
    )
    end = made.train(pretrained=True)
    validated = [line["step"] for line in log_of("run") if line["val_nats"] is not None]
    assert validated[:7] == [0, 1, 2, 4, 8, 16, 28]
    assert end.best_nats == 1.5
    assert load_checkpoint(Path("run/model.safetensors")).metadata["metrics"]["step"] == 4


@pytest.mark.parametrize("calls", [0, 3, 12, 22])
def test_resumed_fine_tuning_equals_an_uninterrupted_one(calls: int) -> None:
    make_trainer("whole").train(pretrained=True)
    assert make_trainer("broken", stop=stop_after(calls)).train(pretrained=True).fraction < 1
    make_trainer("broken", resume=True).train(pretrained=True)
    assert_same_run("whole", "broken")


def test_early_validations_take_a_small_part_of_the_tokens_and_do_not_exhaust_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = iter([1.0, *[2.0] * 100])
    made = make_trainer("run", replace(QUICK, steps=400, patience=3))
    monkeypatch.setattr(made._validator, "token_nats", lambda _: np.full(made._validator.num_tokens, next(losses)))
    assert made.train(pretrained=True).step == 32  # the third of 40 evenly spaced validations
    early = [step for step in range(1000) if made._schedule.is_early_validation(step)]
    assert early == [32, 64, 128, 256, 512]  # 4 times 133 tokens, in updates of 32 tokens
