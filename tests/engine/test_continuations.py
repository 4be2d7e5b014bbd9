import numpy as np
import pytest

from charlm.engine.continuations import continuation
from charlm.engine.scores import TokenScores
from charlm.text.characters import CharTokenizer
from charlm.text.tokenizer import Tokenizer
from charlm.text.word_tokenizers import WordTokenizer

TEXT = "office \u00bd cafe\u0301 (ok) Ij"
CHARS = [
    CharTokenizer.from_text(TEXT),
    CharTokenizer.from_pieces([TEXT], normalize="NFC"),
    CharTokenizer.from_pieces([TEXT], normalize="NFKC", lowercase=True),
]
WORDS = WordTokenizer.from_text([TEXT], normalize="NFKC")
BETWEEN_WORDS = [("o\ufb03ce", " abc"), ("\u00bd", " ok"), ("cafe\u0301", " \ufb01 cafe\u0301")]
WITHIN_A_WORD = [("\u00bd", "\u00bd"), ("\u0130", "j"), ("cafe\u0301 ", "\ufb01")]


@pytest.mark.parametrize(
    ("tokenizer", "context", "rest"),
    [
        *((tokenizer, *texts) for tokenizer in CHARS for texts in BETWEEN_WORDS + WITHIN_A_WORD),
        *((WORDS, *texts) for texts in BETWEEN_WORDS),
    ],
)
def test_tokens_of_a_folded_context_are_left_out(tokenizer: Tokenizer, context: str, rest: str) -> None:
    ids = tokenizer.encode(context + rest)
    scores = TokenScores(context + rest, ids, np.arange(len(ids), dtype=np.float32))
    found = continuation(tokenizer, scores, len(context))
    num_context = len(tokenizer.encode(context))
    assert found.text == rest
    assert found.ids.tolist() == ids[num_context:].tolist()
    assert found.nats.tolist() == list(range(num_context, len(ids)))
