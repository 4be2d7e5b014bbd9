import math
import signal
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.engine.rnn import START, RecurrentNetwork
from charlm.engine.scorer import Costs, Mixture, ModelScorer, Score, mix, score_text, token_texts
from charlm.errors import ConfigError
from charlm.text.tokenizer import UNKNOWN_ID, Ids
from tests.conftest import VERSE, make_checkpoint

LINES = VERSE.splitlines(keepends=True)
MODEL, CHECKPOINT = make_checkpoint(num_layers=2)
ENGINE = RecurrentNetwork(CHECKPOINT)
SCORER = ModelScorer(ENGINE)


def torch_nats(text: str) -> list[float]:
    ids = torch.from_numpy(ENGINE.tokenizer.encode(START + text).astype("int64"))
    with torch.no_grad():
        logits, _ = MODEL(ids[None, :-1])
    return torch.nn.functional.cross_entropy(logits[0], ids[1:], reduction="none").tolist()


@given(st.lists(st.text(alphabet="To be,\N{SNOWMAN}", max_size=30).map(lambda text: text + "\n"), max_size=9))
@settings(max_examples=30)
def test_lines_together_cost_what_torch_says_of_each(lines: list[str]) -> None:
    for line, costs in zip(lines, SCORER.score_lines(lines), strict=True):
        assert costs.text == line
        np.testing.assert_allclose(costs.nats, torch_nats(line), atol=1e-5)


def test_many_lines_cost_what_each_costs_alone() -> None:
    lines = [line * repeats for repeats in (1, 9, 3) for line in LINES * 8]
    for line, costs in zip(lines, SCORER.score_lines(lines), strict=True):
        assert costs.score.nll_nats == pytest.approx(score_text(ENGINE, line).nll_nats, abs=1e-3)


@pytest.mark.parametrize("rows", [2, 128])
def test_threads_that_share_lines_out_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.engine.scorer.ROWS", rows)
    lines = [line * repeats for repeats in (1, 9, 3) for line in LINES]
    for count in (0, 1, 2, 7, len(lines)):
        together = ModelScorer(ENGINE, threads=3).score_lines(lines[:count])
        assert [costs.text for costs in together] == lines[:count]
        for one, other in zip(together, SCORER.score_lines(lines[:count]), strict=True):
            np.testing.assert_allclose(one.nats, other.nats, atol=1e-5)


def test_ctrl_c_does_not_wait_for_threads_with_long_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def step_ragged(sequences: list[Ids]) -> Iterator[tuple[None, npt.NDArray[np.float32]]]:
        for _ in sequences[0]:
            time.sleep(1e-3)
            yield None, np.zeros((len(sequences), ENGINE.config.hidden_size), dtype=np.float32)

    monkeypatch.setattr(ENGINE, "step_ragged", step_ragged)
    scorer = ModelScorer(ENGINE, threads=2)
    began = time.monotonic()
    timer = threading.Timer(0.2, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        scorer.score_lines(["a" * 10**5 + "\n"] * 2)
    monkeypatch.undo()
    lines = LINES[:2]  # what was broken off leaves no trace
    for one, other in zip(scorer.score_lines(lines), SCORER.score_lines(lines), strict=True):
        np.testing.assert_allclose(one.nats, other.nats, atol=1e-5)
    scorer._pool.shutdown()
    assert time.monotonic() - began < 50  # of a hundred seconds


@given(st.lists(st.integers(0, len(VERSE)), max_size=5))
@settings(max_examples=20)
def test_a_text_in_parts_costs_what_the_whole_does(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(VERSE)]
    follower = SCORER.follow()
    parts = [follower.feed(VERSE[begin:end]) for begin, end in pairwise(places)]
    np.testing.assert_allclose(np.concatenate([part.nats for part in parts]), torch_nats(VERSE), atol=1e-5)


def test_a_long_text_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.engine.scorer.BLOCK", 700)
    np.testing.assert_allclose(SCORER.follow().feed(VERSE).nats, torch_nats(VERSE), atol=1e-5)


def test_figures_are_what_their_names_say() -> None:
    score = Score(nll_nats=6 * math.log(2), tokens=3, unknowns=1, unknown_nats=2 * math.log(2), chars=4, bytes=6)
    assert score.bits_per_char == pytest.approx(1.5)
    assert score.bits_per_byte == pytest.approx(1)
    assert score.bits_per_token == pytest.approx(2)
    assert score.perplexity == pytest.approx(4)
    assert score.perplexity_of_known == pytest.approx(4)
    assert math.isnan(Score(nll_nats=1, tokens=1, unknowns=1, unknown_nats=1, chars=1, bytes=1).perplexity_of_known)
    assert (score + score).nats_per_token == pytest.approx(score.nats_per_token)


def test_unknown_characters_are_counted_and_cost_what_the_unknown_token_does() -> None:
    text = "a\N{SNOWMAN}\udc80b\n"
    costs = SCORER.follow().feed(text)
    assert (costs.ids == UNKNOWN_ID).tolist() == [False, True, True, False, False]
    score = costs.score
    assert (score.unknowns, score.chars, score.bytes) == (2, 5, 7)
    assert score.unknown_nats == pytest.approx(sum(torch_nats(text)[1:3]), abs=1e-5)


@given(st.floats(0, 1))
@settings(max_examples=20)
def test_a_mixture_has_the_weighted_mean_of_the_probabilities(weight: float) -> None:
    other = ModelScorer(RecurrentNetwork(make_checkpoint(VERSE + "@", hidden_size=5, embedding_dim=3)[1]))
    mixture = Mixture(SCORER, other, weight)
    (one,), (two,), (both,) = (scorer.score_lines(["To be?\n"]) for scorer in (SCORER, other, mixture))
    wanted = -np.log((1 - weight) * np.exp(-one.nats.astype(float)) + weight * np.exp(-two.nats.astype(float)))
    np.testing.assert_allclose(both.nats, wanted, atol=1e-5)
    np.testing.assert_allclose(mixture.follow().feed("To be?\n").nats, wanted, atol=1e-5)


def test_models_that_cut_text_otherwise_do_not_mix() -> None:
    one, two = (Costs("ab", np.zeros(size, np.uint8), np.zeros(size, np.float32)) for size in (2, 1))
    with pytest.raises(ConfigError, match=r"--mix: .* cut text alike"):
        mix(one, two, 0.5)


def test_an_empty_text_has_no_score() -> None:
    with pytest.raises(ValueError, match="empty"):
        score_text(ENGINE, "")


class Words:
    """As much of a tokenizer of words as is needed here."""

    kind = "word"
    tokens = ("<unk>", "the", "cat", ".", "\n")


@given(
    st.lists(st.sampled_from(["the", "cat", ".", "\n", "zebra", "then"]), min_size=1), st.sampled_from(["", " ", "  "])
)
def test_the_stretches_of_all_tokens_make_up_the_text(words: list[str], space: str) -> None:
    known = [Words.tokens.index(word) if word in Words.tokens else UNKNOWN_ID for word in words]
    text = (space or " ").join(words) + space
    stretches = token_texts(Words(), Costs(text, np.array(known, dtype=np.uint8), np.zeros(len(known), np.float32)))  # type: ignore[arg-type]
    assert "".join(stretches) == text
    assert len(stretches) == len(words)
    assert stretches[0].startswith(words[0][:3])
