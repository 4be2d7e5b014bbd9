from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from charlm.config import ModelConfig, TokenizerConfig, TrainConfig
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.runs import Run
from charlm.errors import ConfigError
from charlm.text.characters import CharTokenizer
from charlm.text.corpus import CorpusReader
from charlm.text.items import ItemFormat
from charlm.training import token_losses
from charlm.training.callbacks import Callbacks
from charlm.training.dataset import Dataset, TextSources, read_dataset
from charlm.training.items import IGNORED, ItemBatches, Items, ItemSplit
from charlm.training.loss import sampled_softmax_loss
from charlm.training.network import LanguageModel
from charlm.training.planner import ItemLengths, plan
from charlm.training.throughput import Machine
from charlm.training.token_losses import item_nats
from charlm.training.trainer import Trainer
from tests.training.test_trainer import assert_same_run, stop_after

START = 200
LINES = ItemFormat(kind="line", separator="\n")
NAMES = [f"{first}{second}{third}" for first in "ABCDE" for second in ("ri", "o", "elma") for third in ("n", "tte", "")]
TEXT = "".join(f"{name}\n" for name in NAMES)
WORDS = TokenizerConfig(tokenizer="word", min_count=1)
TOKENIZER = CharTokenizer.from_text(TEXT)


def make_items(lengths: list[int]) -> Items:
    """Return items of given lengths in an array with gaps; the tokens of item i are 100 * i, 100 * i + 1 and so on."""
    array = np.concatenate([np.append(100 * index + np.arange(length), 7) for index, length in enumerate(lengths)])
    ends = np.cumsum(np.array(lengths) + 1) - 1
    return Items(array.astype(np.uint32), ends - lengths, np.array(lengths))


def name_items(names: list[str] = NAMES) -> Items:
    lengths = np.array([len(name) + 1 for name in names])
    ids = TOKENIZER.encode("".join(f"{name}\n" for name in names))
    return Items(ids, np.cumsum(lengths) - lengths, lengths)


def read_epoch(batches: ItemBatches, epoch: int) -> list[tuple[list[int], list[int]]]:
    """Read an epoch as a network would: keep what each row has read since its last reset. Return the complete items."""
    steps = int(batches.steps_per_epoch)
    rows: list[tuple[list[int], list[int]]] = []
    found = []
    for step in range(epoch * steps, (epoch + 1) * steps):
        inputs, targets = batches.inputs_and_targets(step)
        resets = batches.resets(step)
        assert inputs.shape == targets.shape
        assert len(resets) == len(inputs)
        if resets.all():
            found += rows
            rows = [([], []) for _ in inputs]
        assert resets.all() or not resets.any()
        for row, own_inputs, own_targets in zip(rows, inputs.tolist(), targets.tolist(), strict=True):
            count = len(own_targets) - own_targets.count(IGNORED)
            assert own_targets[count:] == [IGNORED] * (len(own_targets) - count)
            row[0].extend(own_inputs[:count])
            row[1].extend(own_targets[:count])
    return [row for row in found + rows if row[1]]


@hypothesis.given(
    st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 12), st.integers(0, 5)
)
def test_each_epoch_reads_each_item_once_from_the_start_token(
    lengths: list[int], batch_size: int, seq_len: int, seed: int
) -> None:
    items = make_items(lengths)
    batches = ItemBatches(items, batch_size, seq_len, start_id=START, seed=seed)
    for epoch in (0, 2):
        read = sorted(read_epoch(batches, epoch), key=lambda row: row[1])
        tokens = [(100 * index + np.arange(length)).tolist() for index, length in enumerate(lengths)]
        assert [targets for _, targets in read] == tokens
        assert [inputs for inputs, _ in read] == [[START, *own[:-1]] for own in tokens]
    assert batches.tokens_per_step * batches.steps_per_epoch == pytest.approx(sum(lengths))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    items = make_items([3, 4, 2, 5] * 20)
    one, other = (ItemBatches(items, 8, 16, start_id=START, seed=3) for _ in range(2))
    expected = [one.inputs_and_targets(step) for step in range(30)]
    for step in (29, 3, 17, 0):
        for left, right in zip(other.inputs_and_targets(step), expected[step], strict=True):
            np.testing.assert_array_equal(left, right)
    assert any(
        (expected[step][0] != expected[step + 10][0]).any()
        for step in range(10)
        if expected[step][0].shape == expected[step + 10][0].shape
    )
    changed = ItemBatches(items, 8, 16, start_id=START, seed=4).inputs_and_targets(0)
    assert changed[0].tolist() != expected[0][0].tolist()


@pytest.mark.parametrize("workers", [2, 3])
def test_shards_have_the_rows_of_the_whole(workers: int) -> None:
    items = make_items([1, 4, 9, 3, 12, 2, 2, 25] * 5)
    whole = ItemBatches(items, 2 * workers, 8, start_id=START, seed=1)
    parts = [whole.shard(rank, workers) for rank in range(workers)]
    for step in range(25):
        for index in range(2):
            together = np.concatenate([part.inputs_and_targets(step)[index] for part in parts])
            np.testing.assert_array_equal(together, whole.inputs_and_targets(step)[index])
        np.testing.assert_array_equal(np.concatenate([part.resets(step) for part in parts]), whole.resets(step))
    assert parts[0].num_targets * workers == whole.num_targets


def test_gathered_items_have_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.training.items.GATHERED_ITEMS", 3)
    items = make_items([3, 1, 6, 2, 2]).select(np.array([4, 0, 2, 3]))
    copy = items.gathered()
    assert copy.ids.tolist() == [400, 401, 0, 1, 2, 200, 201, 202, 203, 204, 205, 300, 301]
    rows = np.arange(4)
    for one, other in zip(items.window(rows, 1, 4, START), copy.window(rows, 1, 4, START), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(make_items([2]).select(np.arange(0)).gathered()) == 0


def make_model(**shape: object) -> LanguageModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "embedding_dim": 8, "vocab_size": TOKENIZER.vocab_size} | shape
    return LanguageModel(ModelConfig(**sizes))


def nats_by_hand(model: LanguageModel, names: list[str]) -> list[float]:
    """Return the losses of all tokens of items, each item read by itself."""
    losses = []
    for name in names:
        ids = torch.from_numpy(TOKENIZER.encode(f"\n{name}\n").astype(np.int64))[None]
        log_probs = torch.log_softmax(model(ids[:, :-1])[0][0], dim=-1)
        losses += (-log_probs[torch.arange(ids.shape[1] - 1), ids[0, 1:]]).tolist()
    return losses


@pytest.mark.parametrize("seq_len", [4, 64])
def test_the_mean_loss_of_an_epoch_is_that_of_items_read_alone(seq_len: int) -> None:
    model, items = make_model(), name_items()
    batches = ItemBatches(items, 4, seq_len, start_id=int(TOKENIZER.encode("\n")[0]))
    state, losses = model.core.zero_state(4), []
    for step in range(int(batches.steps_per_epoch)):
        ids, targets = map(torch.from_numpy, batches.inputs_and_targets(step))
        state = model.core.zero_state(4) if batches.resets(step).all() else state
        loss, state = model.loss(ids, targets, state, num_targets=batches.num_targets)
        losses.append(loss.item())
    assert np.mean(losses) == pytest.approx(np.mean(nats_by_hand(model, NAMES)), abs=1e-5)


def test_a_process_without_items_has_no_loss_and_gradients_of_zero() -> None:
    model = make_model()
    targets = torch.full((2, 3), IGNORED)
    loss, _ = model.loss(torch.zeros((2, 3), dtype=torch.int64), targets, model.core.zero_state(2), num_targets=5.0)
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())


def test_the_sampled_softmax_counts_targets_alone() -> None:
    model = make_model()
    ids = torch.tensor([[1, 2, 3], [4, 5, 0]])
    targets = torch.tensor([[2, 3, 4], [5, IGNORED, IGNORED]])
    torch.manual_seed(5)
    loss, _ = model.loss(ids, targets, model.core.zero_state(2), samples=3, num_targets=8.0)
    outputs, _ = model.read(ids, model.core.zero_state(2))
    kept = torch.cat([outputs[0], outputs[1, :1]])
    torch.manual_seed(5)
    expected = sampled_softmax_loss(kept, torch.tensor([2, 3, 4, 5]), model.decoder.weight, model.decoder.bias, 3) / 2
    torch.testing.assert_close(loss, expected)


def test_the_validation_loss_is_that_of_items_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_losses, "ITEM_ROWS", 7)
    monkeypatch.setattr(token_losses, "BLOCK_STEPS", 3)
    model = make_model(num_layers=2, dropout=0.5)
    start = int(TOKENIZER.encode("\n")[0])
    model.eval()
    expected = nats_by_hand(model, NAMES)
    model.train()
    np.testing.assert_allclose(item_nats(model, name_items(), start), expected, atol=1e-5)
    assert model.training
    assert item_nats(model, name_items(), start, lambda: True) is None


def make_trainer(run: str, *, resume: bool = False, config: TrainConfig | None = None, **callbacks: object) -> Trainer:
    config = config or TrainConfig(steps=30, batch_size=4, seq_len=5)
    model, folder = make_model(dropout=0.2), Run(Path(run))
    folder.path.mkdir(exist_ok=True)
    train, held_out = name_items(NAMES[:40]), name_items(NAMES[40:])
    split = ItemSplit(form=LINES, train=train, validation=held_out)
    dataset = Dataset(tokenizer=TOKENIZER, train_ids=train.ids, val_ids=held_out.ids, items=split)
    made = Trainer(model, dataset, config, run=folder, metadata={}, callbacks=Callbacks(**callbacks), machine=Machine())
    if resume:
        made.resume(load_checkpoint(folder.last, with_resume=True))
    return made


@pytest.mark.parametrize("calls", [1, 8, 13])
def test_a_resumed_training_on_items_equals_an_uninterrupted_one(calls: int) -> None:
    make_trainer("whole").train()
    assert make_trainer("parts", stop=stop_after(calls)).train().fraction < 1
    make_trainer("parts", resume=True).train()
    assert_same_run("whole", "parts")


def test_with_a_time_limit_validation_reads_fewer_items() -> None:
    seconds = iter(np.arange(0, 10**6, 0.25))
    trainer = make_trainer("run", config=TrainConfig(minutes=0.5, batch_size=4, seq_len=5))
    object.__setattr__(trainer._machine, "clock", lambda: float(next(seconds)))
    assert trainer._validator.num_tokens == name_items(NAMES[40:]).num_tokens
    short = trainer._validator._first(trainer._validator.data, 1)  # type: ignore[arg-type]
    assert len(short) == 1


def read(text: str, config: TokenizerConfig | None = None, held_out: str = "", **sources: object) -> Dataset:
    Path("list.txt").write_text(text, encoding="utf-8")
    with CorpusReader(["list.txt"]) as corpus:
        if held_out:
            Path("held-out.txt").write_text(held_out, encoding="utf-8")
            sources["validation"] = CorpusReader(["held-out.txt"])
        return read_dataset(TextSources(corpus=corpus, cache=Path("cache"), **sources), config or TokenizerConfig())


def texts_of(dataset: Dataset, items: Items) -> list[str]:
    """Return the items as text."""
    pairs = zip(items.starts.tolist(), items.lengths.tolist(), strict=True)
    return [dataset.tokenizer.decode(items.ids[start : start + length]) for start, length in pairs]


def test_a_sorted_list_is_detected_and_shuffled_before_it_is_split() -> None:
    names = sorted(f"{first}{second}" for first in "ABCDEFGHIJKLMNOPQRST" for second in ("ri", "o", "elma", "uz", "i"))
    text = "".join(f"{name}\n" for name in names)
    dataset = read(text, items=None)
    assert dataset.items is not None
    assert dataset.items.detected
    train, held_out = texts_of(dataset, dataset.items.train), texts_of(dataset, dataset.items.validation)
    assert (len(train), len(held_out)) == (90, 10)
    assert len({name[0] for name in held_out}) > 5
    assert sorted(train + held_out) == [f"{name}\n" for name in names]
    assert dataset.num_train_tokens == len("".join(train))
    assert "one per line: 90 to train on and 10 to validate on" in dataset.notes()[0]
    assert read(text, items="none").items is None


def test_the_vocabulary_of_words_is_that_of_the_training_items() -> None:
    dataset = read("".join(f"number {number}\n" for number in range(100, 150)), WORDS, items="line")
    assert dataset.items is not None
    assert set(texts_of(dataset, dataset.items.validation)) == {"number <unk>\n"}
    assert len(set(texts_of(dataset, dataset.items.train))) == 45


def test_the_same_list_in_a_file_larger_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n\n".join(f"{name}\n{name.upper()}" for name in NAMES)
    whole = read(text, items="blank", seed=3)
    monkeypatch.setattr("charlm.text.corpus.MAX_CHARS_IN_MEMORY", 50)
    mapped = read(text, items="blank", seed=3)
    assert mapped.cache_files
    assert not whole.cache_files
    assert whole.items is not None
    assert mapped.items is not None
    for one, other in ((whole.items.train, mapped.items.train), (whole.items.validation, mapped.items.validation)):
        assert texts_of(whole, one) == texts_of(mapped, other)
    assert whole.items.metadata() == mapped.items.metadata()
    assert whole.items.metadata()["separator"] == "\n\n"


def test_a_separate_validation_list_is_used_whole() -> None:
    dataset = read(TEXT, held_out="Bo\nAn\n\nEl", items="line")
    assert dataset.items is not None
    assert len(dataset.items.train) == len(NAMES)
    assert sorted(texts_of(dataset, dataset.items.validation)) == ["An\n", "Bo\n", "El\n"]


def test_the_characters_per_word_are_those_of_the_held_out_items() -> None:
    text = "".join(f"{'the ' * count}cat\n" for count in range(50))
    dataset = read(text, WORDS, items="line")
    assert dataset.items is not None
    held_out = texts_of(dataset, dataset.items.validation)
    assert dataset.chars_per_token == len("".join(held_out)) / len(dataset.val_ids)


def test_items_that_cannot_be_divided_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"val_fraction 0\.1 of 1 items leaves none"):
        read("abc" * 100, items="line", val_fraction=0.1)


def test_the_plan_has_whole_items_and_as_many_tokens_per_update_as_a_text() -> None:
    machine = Machine()
    planned = plan(200_000, 30, {"steps": 10}, machine, items=ItemLengths(count=25_000, longest=16)).train
    assert (planned.batch_size, planned.seq_len) == (128, 16)
    long = plan(200_000, 30, {"steps": 10}, machine, items=ItemLengths(count=40, longest=9000)).train
    assert (long.batch_size, long.seq_len) == (16, 256)
    words = plan(
        20_000, 90, {"steps": 10, "batch_size": 50}, machine, words=True, items=ItemLengths(count=30, longest=9)
    )
    assert (words.train.batch_size, words.train.seq_len) == (30, 9)
    assert words.epochs == pytest.approx(10 * 30 * 9 / 20_000)
