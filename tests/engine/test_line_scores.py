from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.engine.line_scores import LineScorer, score_stream
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.scorer import ModelScorer, score_text
from charlm.errors import CorpusError
from charlm.text.lines import Lines, split_lines
from tests.conftest import VERSE, make_checkpoint

TEXT = VERSE[:200]
NETWORK = RecurrentNetwork(make_checkpoint()[1])
SCORER = ModelScorer(NETWORK)
OTHER = ModelScorer(RecurrentNetwork(make_checkpoint(VERSE + "@", hidden_size=5)[1]))


def blocks_of(text: str, cuts: list[int]) -> list[Lines]:
    """Return a text in blocks, cut at the given places."""
    blocks = []
    for begin, end in pairwise(sorted({0, *cuts, len(text)})):
        block = Lines(text[begin:end].splitlines(keepends=True))
        block.ends_mid_line = end < len(text) and text[end - 1] != "\n"
        blocks.append(block)
    return blocks


@given(st.lists(st.integers(0, len(TEXT)), max_size=8))
@settings(max_examples=30)
def test_line_scores_do_not_depend_on_the_blocks(cuts: list[int]) -> None:
    line_scorer = LineScorer([SCORER, OTHER])
    texts, nats = [""], [[0.0, 0.0]]
    for block in blocks_of(TEXT, cuts):
        for part in line_scorer.score_block(block):
            texts[-1] += part.scores[0].text
            nats[-1] = [old + scores.score.nll_nats for old, scores in zip(nats[-1], part.scores, strict=True)]
            if part.ends_line:
                texts, nats = [*texts, ""], [*nats, [0.0, 0.0]]
    lines = TEXT.splitlines(keepends=True)
    assert texts == [*lines, ""]
    expected = [
        [scores.score.nll_nats for scores in pair]
        for pair in zip(SCORER.score_lines(lines), OTHER.score_lines(lines), strict=True)
    ]
    np.testing.assert_allclose(nats[:-1], expected, atol=1e-3)
    assert (line_scorer.num_tokens, line_scorer.num_unknown) == (len(TEXT), 0)


def test_unknown_tokens_of_the_first_model_are_counted() -> None:
    line_scorer = LineScorer([SCORER, OTHER])
    list(line_scorer.score_block(Lines(["@@\n", "To\n"])))
    assert (line_scorer.num_tokens, line_scorer.num_unknown) == (6, 2)


@given(st.lists(st.integers(0, len(TEXT)), max_size=8))
@settings(max_examples=20)
def test_stream_score_is_that_of_the_whole_text(cuts: list[int]) -> None:
    (score,) = score_stream([SCORER], blocks_of(TEXT, cuts))
    assert score.nll_nats == pytest.approx(score_text(NETWORK, TEXT).nll_nats, abs=1e-3)
    assert score.num_chars == len(TEXT)


def test_carriage_returns_of_line_ends_count_as_characters_and_as_bytes() -> None:
    text = "To be\r\nor\rnot\r\n\nto\r"
    cuts = [list(range(len(text))), [], [6], [7]]
    for cut in cuts:
        blocks = list(split_lines(text[begin:end] for begin, end in pairwise(sorted({0, *cut, len(text)}))))
        parts = [part.scores[0] for block in blocks for part in LineScorer([SCORER]).score_block(block)]
        assert [part.text for part in parts] == ["To be\n", "or\rnot\n", "\n", "to\r"]
        assert [part.score.num_chars for part in parts] == [7, 8, 1, 3]
        assert [part.score.num_bytes for part in parts] == [7, 8, 1, 3]
        assert [part.score.num_tokens for part in parts] == [6, 7, 1, 3]
        (total,) = score_stream([SCORER], blocks)
        assert (total.num_chars, total.num_bytes, total.num_tokens) == (len(text), len(text), len(text) - 2)
    assert score_text(NETWORK, text).num_chars == len(text)
    assert score_text(NETWORK, text).nll_nats == pytest.approx(total.nll_nats)
    assert score_text(NETWORK, "To\r\n").nll_nats == pytest.approx(score_text(NETWORK, "To\n").nll_nats)


def test_empty_text_is_an_error() -> None:
    with pytest.raises(CorpusError, match="the text is empty"):
        score_stream([SCORER], [])
