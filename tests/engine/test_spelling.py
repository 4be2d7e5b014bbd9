"""Spelling of unknown words and characters, and its part in the scores."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm.config import ModelConfig
from charlm.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.scorer import ModelScorer, ScorerMixture, score_text
from charlm.engine.scores import Score, TokenScores
from charlm.engine.spelling import MAX_NGRAMS, NUM_CODE_POINTS, SpellingModel
from charlm.errors import CheckpointError
from charlm.text.tokenizer import UNKNOWN_ID, Tokenizer, WhitespaceTokenizer, WordTokenizer
from charlm.training.network import LanguageModel
from tests.conftest import VERSE, make_checkpoint

WORDS = {"slings": 1, "arrows": 1, "and": 1, "fortune": 1, "outrageous": 2}
SPELLING = SpellingModel.estimate(WORDS)


def word_checkpoint(tokenizer: Tokenizer, spelling: SpellingModel | None = SPELLING) -> Checkpoint:
    """Return a small untrained word model."""
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=8, embedding_dim=8)
    model = LanguageModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return Checkpoint(config=config, tokenizer=tokenizer, tensors=model.to_tensors(), spelling=spelling)


def words_of(text: str = VERSE, **limits: object) -> WordTokenizer:
    return WordTokenizer.from_text([text], **limits)  # type: ignore[arg-type]


def test_the_probabilities_of_all_words_sum_to_one() -> None:
    model = SpellingModel.estimate({"ab": 1, "ba": 1, "abba": 1})
    others = NUM_CODE_POINTS - len("ab\n")
    total = math.exp(-float(model.nats([""])[0]))
    for length in range(1, 9):
        # The characters other than a and b are equally probable: one of them stands for all.
        words = ["".join(chars) for chars in itertools.product("ab?", repeat=length)]
        total += sum(
            math.exp(-float(nats)) * others ** word.count("?")
            for word, nats in zip(words, model.nats(words), strict=True)
        )
    assert 0.98 < total <= 1 + 1e-5


@given(st.lists(st.text(st.characters(blacklist_characters="\n"), min_size=1, max_size=9), max_size=5))
def test_every_word_has_a_probability_that_does_not_depend_on_other_words(words: list[str]) -> None:
    nats = SPELLING.nats(words)
    assert np.isfinite(nats).all()
    assert all(nats >= 0)
    for word, expected in zip(words, nats, strict=True):
        assert float(SPELLING.nats([word])[0]) == pytest.approx(float(expected), rel=1e-5)


def test_likely_spellings_cost_less_than_unlikely_ones() -> None:
    known, similar, random, foreign = SPELLING.nats(["outrageous", "outrage", "goeutuorsa", "日本"])
    assert known < similar < random
    assert foreign > 2 * math.log(NUM_CODE_POINTS - 40)


def test_many_words_have_a_smaller_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.engine.spelling.MAX_NGRAMS", 40)
    small = SpellingModel.estimate(WORDS)
    assert small.order < SPELLING.order
    assert sum(len(array) for name, array in small.to_tensors().items() if name.startswith("weights")) <= 40
    assert MAX_NGRAMS * 3.5 < 2**20


def test_an_unknown_word_costs_its_token_and_its_spelling() -> None:
    network = RecurrentNetwork(word_checkpoint(words_of()))
    text = "To be, or xyzzy: Slumber!\n"
    (scores,) = ModelScorer(network).score_lines([text])
    plain = RecurrentNetwork(word_checkpoint(words_of(), spelling=None))
    (without,) = ModelScorer(plain).score_lines([text])
    plain_network_nats = network_nats(network, text)
    unknown = scores.ids == UNKNOWN_ID
    assert scores.unknown_words == ("xyzzy", "Slumber", "!")
    np.testing.assert_allclose(scores.token_nats, plain_network_nats, atol=1e-5)
    np.testing.assert_allclose(scores.nats[~unknown], plain_network_nats[~unknown], atol=1e-5)
    added = SPELLING.nats(["xyzzy", "Slumber", "!"])
    np.testing.assert_allclose(scores.nats[unknown], plain_network_nats[unknown] + added, rtol=1e-5)
    score = scores.score
    assert score.spelling_nats == pytest.approx(float(added.sum()), rel=1e-5)
    assert score.bits_per_char == pytest.approx(score.nll_nats / math.log(2) / len(text))
    assert score.nats_per_token == pytest.approx(float(plain_network_nats.mean()), rel=1e-5)
    assert score.unknown_nats == pytest.approx(float(plain_network_nats[unknown].sum()), rel=1e-5)
    assert without.unknown_words == scores.unknown_words
    assert without.score.spelling_nats == 0


def network_nats(network: RecurrentNetwork, text: str) -> np.ndarray:
    """Return the negative log-probability of each token by the network alone."""
    ids = network.tokenizer.encode("\n" + text)
    logits = network.logits(network.outputs(ids[None, :-1], network.zero_state()))[0].astype(float)
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return -log_probs[np.arange(len(ids) - 1), ids[1:]]


def test_lines_streams_and_threads_have_the_same_spelling() -> None:
    network = RecurrentNetwork(word_checkpoint(words_of()))
    lines = ["A blorf znarg.\n", "To be\n", "znarg\n"] * 60
    expected = [score_text(network, line) for line in lines]
    for threads in (1, 2):
        for found, score in zip(ModelScorer(network, threads).score_lines(lines), expected, strict=True):
            assert found.score.spelling_nats == pytest.approx(score.spelling_nats)
            assert found.score.nll_nats == pytest.approx(score.nll_nats, rel=1e-4)
    stream = ModelScorer(network).start_stream()
    total = sum((stream.feed("".join(lines[begin : begin + 30])).score for begin in range(0, 180, 30)), Score())
    assert total.spelling_nats == pytest.approx(sum(score.spelling_nats for score in expected))


def test_lower_case_and_the_unknown_token_itself_are_spelt_as_the_tokenizer_reads_them() -> None:
    words = WhitespaceTokenizer.from_text(["to be <unk> or not\n"], lowercase=True)
    (scores,) = ModelScorer(RecurrentNetwork(word_checkpoint(words))).score_lines(["To  SLEEP <unk> or\n"])
    assert scores.unknown_words == ("sleep", "<unk>")
    assert scores.score.spelling_nats == pytest.approx(float(SPELLING.nats(["sleep", "<unk>"]).sum()))


def test_an_unknown_character_costs_a_uniform_share_of_the_other_code_points() -> None:
    _, checkpoint = make_checkpoint()
    network = RecurrentNetwork(checkpoint)
    (scores,) = ModelScorer(network).score_lines(["a日\udc80b\n"])
    share = math.log(NUM_CODE_POINTS - (network.config.vocab_size - 1))
    np.testing.assert_allclose(scores.spelling_nats, [0, share, share, 0, 0], rtol=1e-6)
    assert scores.unknown_words == ("日", "\udc80")


def test_a_mixture_of_word_models_interpolates_the_probabilities_of_the_words() -> None:
    other_spelling = SpellingModel.estimate({"xyzzy": 3, "and": 1})
    models = [word_checkpoint(words_of()), word_checkpoint(words_of(), other_spelling)]
    one, two = (ModelScorer(RecurrentNetwork(model)) for model in models)
    (first,), (second,), (both,) = (
        scorer.score_lines(["To xyzzy\n"]) for scorer in (one, two, ScorerMixture([one, two], [0.7, 0.3]))
    )
    np.testing.assert_allclose(np.exp(-both.nats), 0.7 * np.exp(-first.nats) + 0.3 * np.exp(-second.nats), rtol=1e-3)
    plain = 0.7 * np.exp(-first.token_nats) + 0.3 * np.exp(-second.token_nats)
    np.testing.assert_allclose(np.exp(-both.token_nats), plain, rtol=1e-3)
    assert both.unknown_words == ("xyzzy",)
    (only_first,) = ScorerMixture([one, two], [1.0, 0.0]).score_lines(["To xyzzy\n"])
    np.testing.assert_allclose(only_first.nats, first.nats, rtol=1e-6)
    unspelt = ModelScorer(RecurrentNetwork(word_checkpoint(words_of(), spelling=None)))
    (scores,) = ScorerMixture([one, unspelt], [0.5, 0.5]).score_lines(["To xyzzy\n"])
    assert (scores.unknown_words, scores.score.spelling_nats) == (("xyzzy",), 0)


def test_a_mixture_spells_only_what_no_model_knows() -> None:
    one = ModelScorer(RecurrentNetwork(make_checkpoint(VERSE + "@")[1]))
    two = ModelScorer(RecurrentNetwork(make_checkpoint(VERSE + "#%")[1]))
    (scores,) = ScorerMixture([one, two], [0.5, 0.5]).score_lines(["@#%日\n"])
    assert scores.unknown_words == ("日",)
    assert scores.spelling_nats is not None
    assert (scores.spelling_nats > 0).tolist() == [False, False, False, True, False]


def test_scores_without_spelling_have_none() -> None:
    plain = TokenScores("ab", np.array([0, 1], np.uint8), np.array([2, 1], np.float32))
    assert (plain.score.nll_nats, plain.score.spelling_nats, plain.score.token_nats) == (3, 0, 3)


def test_a_file_contains_the_spelling_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved = word_checkpoint(words_of(VERSE * 2, min_count=3))
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    assert loaded.spelling is not None
    assert loaded.tensors.keys() == saved.tensors.keys()
    words = ["slumber", "outrageous", "%"]
    np.testing.assert_array_equal(loaded.spelling.nats(words), SPELLING.nats(words))
    assert score_text(RecurrentNetwork(loaded), "To slumber\n").spelling_nats > 10


def test_a_damaged_spelling_model_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"

    class Changed(SpellingModel):
        chars = SPELLING.chars[:-1] + "\n"

    for spelling, message in (
        (Changed(SPELLING.chars, SPELLING._ngrams), "damaged spelling model .*distinct"),
        (None, "unknown tensor 'spelling/weights.1'"),
    ):
        checkpoint = word_checkpoint(words_of(), spelling)
        if spelling is None:
            tensors = {**checkpoint.tensors, "spelling/weights.1": np.zeros(3, np.float16)}
            checkpoint = Checkpoint(**{**vars(checkpoint), "tensors": tensors})
        save_checkpoint(path, checkpoint)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(path)
    save_checkpoint(path, Checkpoint(**{**vars(make_checkpoint()[1]), "spelling": SPELLING}))
    with pytest.raises(CheckpointError, match="no characters of the spelling model, or no words"):
        load_checkpoint(path)
