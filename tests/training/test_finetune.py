import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm.engine.checkpoint import Checkpoint
from charlm.text.characters import UNKNOWN_CHAR
from charlm.text.tokenizer import CharTokenizer, Tokenizer, WhitespaceTokenizer, WordTokenizer
from charlm.training.finetune import MAX_NAMED_TOKENS, PretrainedModel, expand_tensors, extend_vocabulary, ids_in
from charlm.training.network import LanguageModel
from tests.conftest import VERSE, make_checkpoint

NEW_TEXT = "Où est la forêt? (Là-bas, à côté.)\n" * 3
MAKERS = [CharTokenizer.from_text, lambda text: WordTokenizer.from_text([text]), WhitespaceTokenizer.from_text]


def counts_of(tokenizer: Tokenizer, text: str = NEW_TEXT) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.bincount(tokenizer.encode(text), minlength=tokenizer.vocab_size)


@pytest.mark.parametrize("make", MAKERS[:2], ids=["char", "word"])
@given(first=st.text(alphabet="ab é(.\n\ufffd", min_size=1), second=st.text(alphabet="abc ö).\n\ufffd€", min_size=1))
def test_an_extended_vocabulary_keeps_its_ids_and_reads_both_texts(make: type, first: str, second: str) -> None:
    known, other = make(first), make(second)
    both = extend_vocabulary(known, other)
    assert list(both.tokens[: known.vocab_size]) == list(known.tokens)
    assert set(both.tokens) == set(known.tokens) | set(other.tokens)
    for text in (first, second):
        assert both.decode(both.encode(text)) == text
    assert extend_vocabulary(both, other).to_dict() == both.to_dict()


def test_added_words_are_spaced_as_their_own_text_has_them_and_come_by_frequency() -> None:
    known = WordTokenizer.from_text(["to be or not\n"])
    other = WordTokenizer.from_text(["(ja) (ja) (nein) to, be\n"])
    both = extend_vocabulary(known, other)
    assert list(both.tokens[known.vocab_size :]) == [token for token in other.tokens if token not in known.tokens]
    assert len(both.encode("(ja)")) == 3  # no sign for the spaces that are not there
    assert list(extend_vocabulary(known, other, known.vocab_size + 1).tokens) == [
        *known.tokens,
        both.tokens[known.vocab_size],
    ]
    assert extend_vocabulary(known, other, 1).to_dict() == known.to_dict()


def test_a_vocabulary_split_at_white_space_stays_one() -> None:
    both = extend_vocabulary(
        WhitespaceTokenizer.from_text(["To be\n"], lowercase=True), WhitespaceTokenizer.from_text(["ja\n"])
    )
    assert isinstance(both, WhitespaceTokenizer)
    assert both.folding.lowercase
    assert both.decode(both.encode("TO ja\n")) == "to ja\n"


def test_tokens_are_told_by_their_text_and_an_unknown_one_is_not_the_sign_for_it() -> None:
    known, shuffled = CharTokenizer(["a", UNKNOWN_CHAR, "c"]), CharTokenizer(["c", "x", "a", UNKNOWN_CHAR])
    assert ids_in(known, shuffled).tolist() == [0, 3, -1, 1, 2]
    assert ids_in(CharTokenizer(["a"]), shuffled).tolist() == [0, -1, -1, 1, -1]


@pytest.mark.parametrize("tied", [False, True])
def test_learnt_rows_are_kept_to_the_bit_in_any_order_of_the_vocabulary(tied: bool, rng: np.random.Generator) -> None:
    _, start = make_checkpoint(tie_weights=tied)
    chars = list(extend_vocabulary(start.tokenizer, CharTokenizer.from_text(NEW_TEXT)).tokens[1:])
    rng.shuffle(chars)
    tokenizer = CharTokenizer(chars)
    grown = expand_tensors(start, tokenizer, counts_of(tokenizer))
    names = ["embedding.weight", "decoder.bias", *([] if tied else ["decoder.weight"])]
    assert set(grown) == set(start.tensors)
    for name in names:
        assert len(grown[name]) == tokenizer.vocab_size
        for place, token in enumerate(start.tokenizer.tokens):
            here = tokenizer.tokens.index(token)
            assert grown[name][here].tobytes() == start.tensors[name][place].tobytes(), (name, token)
    for name in set(grown) - set(names):
        assert grown[name] is start.tensors[name]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_grown_model_says_of_known_tokens_what_it_said_but_for_the_share_of_the_new(cell: str, tied: bool) -> None:
    model, start = make_checkpoint(cell=cell, tie_weights=tied)
    tokenizer = extend_vocabulary(start.tokenizer, CharTokenizer.from_text(NEW_TEXT))
    config = type(start.config).pick({**vars(start.config), "vocab_size": tokenizer.vocab_size})
    larger = LanguageModel(config).eval()
    larger.load_tensors(expand_tensors(start, tokenizer, counts_of(tokenizer)))
    ids = torch.from_numpy(start.tokenizer.encode(VERSE).astype(np.int64))[None]
    with torch.no_grad():
        before, after = (network(ids)[0].log_softmax(-1) for network in (model, larger))
    known = before.shape[-1]
    added = after[..., known:].exp().sum(-1, keepdim=True)
    torch.testing.assert_close(after[..., :known], before + torch.log1p(-added), atol=1e-5, rtol=1e-5)


def test_biases_that_are_log_frequencies_make_those_of_new_tokens_log_frequencies_too() -> None:
    _, start = make_checkpoint()
    tokenizer = extend_vocabulary(start.tokenizer, CharTokenizer.from_text(NEW_TEXT))
    counts = counts_of(tokenizer)
    shares = (counts + 1) / (counts + 1).sum()
    for shift in (0.0, -1.5):  # a softmax is as before if all its logits are shifted
        learnt = (np.log(shares[: start.config.vocab_size]) + shift).astype(np.float32)
        known = Checkpoint(
            config=start.config, tokenizer=start.tokenizer, tensors={**start.tensors, "decoder.bias": learnt}
        )
        bias = expand_tensors(known, tokenizer, counts)["decoder.bias"]
        np.testing.assert_allclose(bias, np.log(shares) + shift, atol=1e-5)


def start_of(checkpoint: Checkpoint) -> PretrainedModel:
    return PretrainedModel(spec="plays", path=Path("plays.safetensors"), sha256="0" * 64, checkpoint=checkpoint)


def test_the_note_names_the_most_frequent_of_the_added_and_escapes_them() -> None:
    _, checkpoint = make_checkpoint("abc")
    start = start_of(checkpoint)
    text = "a" * 10 + "é" * 3 + "\x1b" * 6 + "ß"
    tokenizer = extend_vocabulary(start.tokenizer, CharTokenizer.from_text(text))
    said = start.note(tokenizer, counts_of(tokenizer, text))
    assert said == r"pretrained model plays: 3 characters known, 3 added, 50.00% of the text: '\x1b' 'é' 'ß'"
    assert (
        start.note(start.tokenizer, counts_of(start.tokenizer))
        == "pretrained model plays: 3 characters known, none added"
    )
    many = extend_vocabulary(
        start.tokenizer, CharTokenizer([chr(0x4E00 + place) for place in range(MAX_NAMED_TOKENS + 12)])
    )
    assert start.note(many, np.ones(many.vocab_size, dtype=np.int64)).endswith(" and 12 more")


@pytest.mark.parametrize("corpus", [{"name": "x" * 10_000, "characters": [[]]}, {"name": {"a": {}}}, "corpus", None])
def test_the_story_of_a_stranger_is_cut_short(corpus: object) -> None:
    _, plain = make_checkpoint("abc")
    metadata = {"corpus": corpus, "from": {"from": {}}}
    start = start_of(
        Checkpoint(config=plain.config, tokenizer=plain.tokenizer, tensors=plain.tensors, metadata=metadata)
    )
    assert start.metadata(start.tokenizer) == {
        "model": "plays.safetensors",
        "sha256": "0" * 64,
        "tokens_known": 4,
        "tokens_added": 0,
    }


def test_new_tokens_of_a_text_of_six_characters_have_finite_biases() -> None:
    _, start = make_checkpoint("abc")
    tokenizer = extend_vocabulary(start.tokenizer, CharTokenizer.from_text("€ßöäü!"))
    bias = expand_tensors(start, tokenizer, counts_of(tokenizer, "€ßöäü!"))["decoder.bias"]
    assert all(math.isfinite(value) for value in bias)
