"""N-gram models written as ARPA files, against a plain reader of the format and against KenLM.

An ARPA file has the probability of each n-gram, and the factor for n-grams that are not in it. Both follow from the
weights: the probability is interpolated, and the factor is the backoff of the context.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from charlm.engine.kneser_ney import estimate
from charlm.engine.ngram import NGram
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import VERSE

TOKENIZER = CharTokenizer.from_text(VERSE)
MODEL = estimate(TOKENIZER.encode("\n" + VERSE), order=4, vocab_size=TOKENIZER.vocab_size, dtype=np.float16)
TEXTS = ["To be, or not to be: that is", "xyzzy %%", "HAMLET:\nOPHELIA", "zzzTo sleep%", "q"]

Gram = tuple[int, ...]


def word(token_id: int) -> str:
    return f"w{token_id}" if token_id else "<unk>"


def grams(model: NGram) -> Iterator[list[Gram]]:
    """Yield the n-grams of each order, in the order of their indices."""
    found: list[Gram] = [(token,) for token in range(model.vocab_size)]
    yield found
    for level in model.levels:
        counts = np.diff(level.begins.astype(int))
        contexts = [gram for gram, count in zip(found, counts, strict=True) for _ in range(count)]
        found = [(*context, token) for context, token in zip(contexts, level.tokens.tolist(), strict=True)]
        yield found


def prob(model: NGram, gram: Gram) -> float:
    """Return the probability of the last token of an n-gram after the others."""
    state = model.start()
    for token in gram[:-1]:
        state = model.advance(state, np.array([token]))
    return float(model.probs(state)[0, gram[-1]])


def write_arpa(path: Path, model: NGram) -> None:
    """Write a model as an ARPA file. KenLM needs the marks <s> and </s>, which no text has."""
    by_order = list(grams(model))
    lines = ["\\data\\"]
    lines += [f"ngram {order}={len(found) + 2 * (order == 1)}" for order, found in enumerate(by_order, start=1)]
    for order, found in enumerate(by_order, start=1):
        lines += ["", f"\\{order}-grams:"]
        if order == 1:
            lines += ["-99\t<s>\t0", "-99\t</s>\t0"]
        backoffs = model.levels[order - 1].backoffs if order < model.order else np.ones(len(found))
        for gram, backoff in zip(found, backoffs.tolist(), strict=True):
            factor = f"\t{math.log10(backoff):.7f}" if order < model.order else ""
            lines.append(f"{math.log10(prob(model, gram)):.7f}\t{' '.join(map(word, gram))}{factor}")
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")


class ArpaReader:
    """Plain reader of ARPA files."""

    def __init__(self, path: Path) -> None:
        self.entries: dict[tuple[str, ...], tuple[float, float]] = {}
        self.order = 0
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.endswith("-grams:"):
                self.order = int(line[1 : line.index("-")])
            elif self.order and "\t" in line:
                log_prob, gram, *backoff = line.split("\t")
                self.entries[tuple(gram.split(" "))] = float(log_prob), float(backoff[0]) if backoff else 0.0

    def log_prob(self, context: tuple[str, ...], token: str) -> float:
        """Return the logarithm to the base 10 of the probability of a token."""
        context = context[max(0, len(context) - self.order + 1) :]
        if (*context, token) in self.entries:
            return self.entries[*context, token][0]
        return self.entries.get(context, (0.0, 0.0))[1] + self.log_prob(context[1:], token)


@pytest.fixture(scope="module")
def arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arpa") / "model.arpa"
    write_arpa(path, MODEL)
    return path


@pytest.mark.parametrize("text", TEXTS)
def test_probabilities_are_those_of_a_reader_of_arpa_files(arpa: Path, text: str) -> None:
    reader, ids = ArpaReader(arpa), TOKENIZER.encode("\n" + text)
    words = tuple(map(word, ids.tolist()))
    expected = [reader.log_prob(words[:end], words[end]) for end in range(1, len(words))]
    np.testing.assert_allclose(-MODEL.nats(ids)[1:] / math.log(10), expected, atol=1e-5)


@pytest.mark.parametrize("text", TEXTS)
def test_probabilities_are_those_of_kenlm(arpa: Path, text: str) -> None:
    kenlm = pytest.importorskip("kenlm", reason="kenlm is not installed; it needs a C++ compiler")
    ids = TOKENIZER.encode("\n" + text)
    scores = kenlm.Model(str(arpa)).full_scores(" ".join(map(word, ids.tolist())), bos=False, eos=False)
    expected = [log_prob for log_prob, _, _ in scores][1:]
    np.testing.assert_allclose(-MODEL.nats(ids)[1:] / math.log(10), expected, atol=1e-5)
