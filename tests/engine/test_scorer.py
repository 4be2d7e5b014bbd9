import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.engine.predictor import START
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.scorer import ModelScorer, ScorerMixture, score_text
from charlm.engine.scores import Score, TokenScores
from charlm.engine.unknown import WordCounts
from charlm.errors import ConfigError
from charlm.text.tokenizer import UNKNOWN_ID, CharTokenizer, Ids, Tokenizer, WhitespaceTokenizer, WordTokenizer
from tests.conftest import VERSE, make_checkpoint

LINES = VERSE.splitlines(keepends=True)
MODEL, CHECKPOINT = make_checkpoint(num_layers=2)
NETWORK = RecurrentNetwork(CHECKPOINT)
SCORER = ModelScorer(NETWORK)


def torch_nats(text: str) -> list[float]:
    """Return the negative log-probability of each token of a text by torch, in nats."""
    ids = torch.from_numpy(NETWORK.tokenizer.encode(START + text).astype("int64"))
    with torch.no_grad():
        logits, _ = MODEL(ids[None, :-1])
    return torch.nn.functional.cross_entropy(logits[0], ids[1:], reduction="none").tolist()


@given(st.lists(st.text(alphabet="To be,\N{SNOWMAN}", max_size=30).map(lambda text: text + "\n"), max_size=9))
@settings(max_examples=30)
def test_line_scores_equal_the_cross_entropy_of_torch(lines: list[str]) -> None:
    for line, scores in zip(lines, SCORER.score_lines(lines), strict=True):
        assert scores.text == line
        np.testing.assert_allclose(scores.token_nats, torch_nats(line), atol=1e-5)


def test_score_of_a_line_does_not_depend_on_other_lines() -> None:
    lines = [line * repeats for repeats in (1, 9, 3) for line in LINES * 8]
    for line, scores in zip(lines, SCORER.score_lines(lines), strict=True):
        assert scores.score.nll_nats == pytest.approx(score_text(NETWORK, line).nll_nats, abs=1e-3)


@pytest.mark.parametrize("max_batch_lines", [2, 128])
def test_scores_do_not_depend_on_the_number_of_threads(max_batch_lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.engine.scorer.MAX_BATCH_LINES", max_batch_lines)
    lines = [line * repeats for repeats in (1, 9, 3) for line in LINES]
    for num_lines in (0, 1, 2, 7, len(lines)):
        threaded = ModelScorer(NETWORK, threads=3).score_lines(lines[:num_lines])
        assert [scores.text for scores in threaded] == lines[:num_lines]
        for one, other in zip(threaded, SCORER.score_lines(lines[:num_lines]), strict=True):
            np.testing.assert_allclose(one.nats, other.nats, atol=1e-5)


def test_ctrl_c_stops_threads_that_score_long_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def step_ragged(sequences: list[Ids]) -> Iterator[tuple[None, npt.NDArray[np.float32]]]:
        for _ in sequences[0]:
            time.sleep(1e-3)
            yield None, np.zeros((len(sequences), NETWORK.config.hidden_size), dtype=np.float32)

    monkeypatch.setattr(NETWORK, "step_ragged", step_ragged)
    scorer = ModelScorer(NETWORK, threads=2)
    began = time.monotonic()
    timer = threading.Timer(0.2, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        scorer.score_lines(["a" * 10**5 + "\n"] * 2)
    monkeypatch.undo()
    lines = LINES[:2]  # the interruption has no effect on later calls
    for one, other in zip(scorer.score_lines(lines), SCORER.score_lines(lines), strict=True):
        np.testing.assert_allclose(one.nats, other.nats, atol=1e-5)
    scorer._pool.shutdown()
    assert time.monotonic() - began < 50  # scoring the long lines would take 100 s


@given(st.lists(st.integers(0, len(VERSE)), max_size=5))
@settings(max_examples=20)
def test_text_in_parts_has_the_scores_of_the_whole_text(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(VERSE)]
    stream = SCORER.start_stream()
    parts = [stream.feed(VERSE[begin:end]) for begin, end in pairwise(places)]
    np.testing.assert_allclose(np.concatenate([part.nats for part in parts]), torch_nats(VERSE), atol=1e-5)


def test_scores_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.engine.scorer.MAX_BLOCK_NUMBERS", 700)
    np.testing.assert_allclose(SCORER.start_stream().feed(VERSE).nats, torch_nats(VERSE), atol=1e-5)


def test_measures_of_a_score_follow_their_definitions() -> None:
    score = Score(
        nll_nats=6 * math.log(2), num_tokens=3, num_unknown=1, unknown_nats=2 * math.log(2), num_chars=4, num_bytes=6
    )
    assert score.bits_per_char == pytest.approx(1.5)
    assert score.bits_per_byte == pytest.approx(1)
    assert score.bits_per_token == pytest.approx(2)
    assert score.perplexity == pytest.approx(4)
    assert score.perplexity_of_known == pytest.approx(4)
    all_unknown = Score(nll_nats=1, num_tokens=1, num_unknown=1, unknown_nats=1, num_chars=1, num_bytes=1)
    assert math.isnan(all_unknown.perplexity_of_known)
    assert (score + score).nats_per_token == pytest.approx(score.nats_per_token)


def test_perplexity_is_infinite_if_a_float_cannot_hold_it() -> None:
    assert Score(nll_nats=1e4, num_tokens=1, num_chars=1, num_bytes=1).perplexity == math.inf


def test_unknown_characters_are_counted_and_scored_as_the_unknown_token() -> None:
    text = "a\N{SNOWMAN}\udc80b\n"
    scores = SCORER.start_stream().feed(text)
    assert (scores.ids == UNKNOWN_ID).tolist() == [False, True, True, False, False]
    score = scores.score
    assert (score.num_unknown, score.num_chars, score.num_bytes) == (2, 5, 7)
    assert score.unknown_nats == pytest.approx(sum(torch_nats(text)[1:3]), abs=1e-5)


@given(st.floats(0, 1))
@settings(max_examples=20)
def test_mixture_has_the_weighted_mean_of_the_probabilities(weight: float) -> None:
    other = ModelScorer(RecurrentNetwork(make_checkpoint(VERSE, hidden_size=5, embedding_dim=3)[1]))
    mixture = ScorerMixture([SCORER, other], [1 - weight, weight])
    (one,), (two,), (both,) = (scorer.score_lines(["To be?\n"]) for scorer in (SCORER, other, mixture))
    expected = -np.log((1 - weight) * np.exp(-one.nats.astype(float)) + weight * np.exp(-two.nats.astype(float)))
    np.testing.assert_allclose(both.nats, expected, atol=1e-5)
    np.testing.assert_allclose(mixture.start_stream().feed("To be?\n").nats, expected, atol=1e-5)


CHARACTER_TOKENIZERS = [CharTokenizer(chars) for chars in ("abc", "cde", "ef")]
WHITESPACE_TOKENIZERS = [
    WhitespaceTokenizer.from_text([text]) for text in ("b c a a\n", "c d e\n", "<unk> e f\n")
]  # fmt: skip


@pytest.mark.parametrize("tokenizers", [CHARACTER_TOKENIZERS, WHITESPACE_TOKENIZERS], ids=["char", "word"])
def test_probabilities_of_a_mixture_of_unequal_vocabularies_add_up_to_1(
    tokenizers: list[Tokenizer], rng: np.random.Generator
) -> None:
    distributions = [rng.dirichlet(np.ones(tokenizer.vocab_size)) for tokenizer in tokenizers]
    mixture = ScorerMixture(
        [FixedScorer(*pair) for pair in zip(tokenizers, distributions, strict=True)], [0.5, 0.3, 0.2]
    )  # fmt: skip
    events = [*"abcdef", "z"] + ["\n"] * (mixture.tokenizer.kind == "word")  # z stands for all other tokens
    scores = mixture.score_lines(events)
    assert sum(np.exp(-float(part.nats[0])) for part in scores) == pytest.approx(1, abs=1e-6)
    assert [part.score.num_unknown for part in scores] == [event == "z" for event in events]
    assert [mixture.tokenizer.tokens[part.ids[0]] for part in scores[:6]] == list("abcdef")


class FixedScorer:
    """Scorer whose tokens have the same probabilities everywhere."""

    spells_unknown_tokens = False

    def __init__(self, tokenizer: Tokenizer, probabilities: np.ndarray) -> None:
        self.tokenizer = tokenizer
        self.unknown_words = WordCounts()
        self._nats = -np.log(probabilities).astype(np.float32)

    def score_lines(self, lines: Sequence[str]) -> list[TokenScores]:
        return [self.feed(line) for line in lines]

    def start_stream(self) -> "FixedScorer":
        return self

    def feed(self, text: str) -> TokenScores:
        ids = self.tokenizer.encode(text)
        return TokenScores(text, ids, self._nats[ids])


@pytest.mark.parametrize(
    ("tokenizers", "message"),
    [
        ([CharTokenizer("ab"), WordTokenizer.from_text(["a b\n"])], "kind 'char' and another has 'word'"),
        ([WordTokenizer.from_text(["a b\n"]), WordTokenizer.from_text(["a c\n"])], "different vocabularies"),
        ([WordTokenizer.from_text(["a b\n"]), WordTokenizer.from_text(["a, b"])], "different vocabularies"),
        (
            [WhitespaceTokenizer.from_text(["a"]), WhitespaceTokenizer.from_text(["a"], lowercase=True)],
            "lowercase False and another has True",
        ),
    ],
)
def test_mixture_of_models_with_different_tokens_is_an_error(tokenizers: list[Tokenizer], message: str) -> None:
    scorers = [FixedScorer(tokenizer, np.ones(tokenizer.vocab_size)) for tokenizer in tokenizers]
    with pytest.raises(ConfigError, match=message) as caught:
        ScorerMixture(scorers, [0.5, 0.5])
    assert caught.value.fields == ("mix",)


def test_empty_text_has_no_score() -> None:
    with pytest.raises(ValueError, match="empty"):
        score_text(NETWORK, "")
