"""Mixtures of models with different vocabularies, against the mixture that scores text."""

import numpy as np
import pytest

from charlm.engine.mixture import open_predictor
from charlm.engine.scorer import ModelScorer, ScorerMixture
from charlm.engine.translation import mix_predictors
from charlm.errors import ConfigError
from tests.conftest import VERSE, make_checkpoint, make_mixture, make_ngram_model
from tests.engine.test_spelling import word_checkpoint, words_of

MODELS = [
    open_predictor(checkpoint)
    for checkpoint in (make_checkpoint("Tobe rnt,\n@#")[1], make_mixture(VERSE), make_ngram_model("a\nb\u4e00"))
]
WEIGHTS = [0.5, 0.3, 0.2]


@pytest.mark.parametrize("text", ["\nTo be, or not", "\n@@#T", "\n\u4e00b", "\n%!\u00e9To", "\n"])
def test_probabilities_are_those_of_the_mixture_that_scores(text: str) -> None:
    mixture = mix_predictors(MODELS, WEIGHTS)
    scorer = ScorerMixture([ModelScorer(model) for model in MODELS], WEIGHTS)
    assert mixture.tokenizer.tokens == scorer.tokenizer.tokens
    probs = mixture.read([mixture.tokenizer.encode(text)]).probs()[0]
    assert probs.sum(dtype=float) == pytest.approx(1, abs=1e-5)
    for token_id, token in enumerate(mixture.tokenizer.tokens):
        (scores,) = scorer.score_lines([text[1:] + token])
        assert scores.ids[-1] == token_id
        assert np.exp(-scores.token_nats[-1]) == pytest.approx(probs[token_id], rel=1e-4)


def test_sequences_are_read_in_parallel() -> None:
    mixture = mix_predictors(MODELS, WEIGHTS)
    texts = [mixture.tokenizer.encode(text) for text in ("\nTo", "\n@b\u4e00%", "\n")]
    reader = mixture.read(texts)
    reader.advance(texts[1][:3])
    reader.select(np.array([2, 0]))
    reader.restart([1])
    expected = [mixture.read([ids]).probs()[0] for ids in (np.append(texts[2], texts[1][2]), texts[2])]
    np.testing.assert_allclose(reader.probs(), expected, atol=1e-6)


def test_models_of_characters_and_of_words_cannot_be_mixed() -> None:
    with pytest.raises(ConfigError, match="split text into the same tokens"):
        mix_predictors([MODELS[0], open_predictor(word_checkpoint(words_of()))], [0.5, 0.5])
