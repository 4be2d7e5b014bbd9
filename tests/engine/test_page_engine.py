"""The script of the exported page, run by V8, compared with the Python code that it repeats."""

import base64
import json
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from py_mini_racer import MiniRacer

from charlm.config import CELLS
from charlm.engine.checkpoint import Checkpoint, tensor_shapes
from charlm.engine.decoding import log_softmax, random_numbers, relative_probabilities
from charlm.engine.gate import NUM_FEATURES, Gate
from charlm.engine.mixture import open_predictor
from charlm.engine.page_export import PAGE_FOLDER, describe_model
from charlm.engine.predictor import log_of_probs, softmax
from charlm.engine.sampler import Sampler, next_tokens
from charlm.engine.scorer import ModelScorer
from charlm.engine.spelling import SpellingModel
from charlm.engine.word_scores import word_scores
from charlm.sample_config import SampleConfig
from charlm.text.spans import token_texts
from charlm.text.tokenizer import CharTokenizer, Tokenizer, WhitespaceTokenizer, WordTokenizer
from charlm.text.word_rules import WORD_RULES, CharacterClasses
from tests.conftest import VERSE, make_checkpoint, make_counts, make_mixture, make_ngram_model

GLUE = """
const test = {
  open(header, numbers) { this.model = new Model(header, numbers); },
  tokenize(data, texts) {
    const tokenizer = makeTokenizer(data);
    return texts.map((text) => {
      const ids = tokenizer.encode(text);
      const parts = tokenTexts(tokenizer, text, ids);
      return { ids, parts, decoded: tokenizer.decode(ids), unknown: tokenizer.unknownIn(text),
        prompt: tokenizer.encodePrompt(text) };
    });
  },
  classes(text) {
    const chars = Array.from(text);
    const [letterRule, rule] = [new LetterRule(), new UnicodeRule()];
    const shape = chars.map((char) => rule.classOf(char)).join("");
    const letters = chars.filter((char) => letterRule.isWord(char)).join("");
    return { shape, letters, spaces: chars.filter((char) => ONLY_WHITESPACE.test(char)).join("") };
  },
  logProbs(ids) {
    const reader = this.model.predictor.start();
    return ids.map((id) => { reader.advance(id); return Array.from(reader.logProbs()); });
  },
  score(text) {
    const tokens = [...scoreTokens(this.model, text)];
    return { tokens, words: wordsOf(tokens.map((token) => token.text)) };
  },
  write(prompt, seed, settings, length) {
    const generation = new Generation(this.model, { prompt, seed });
    let text = "";
    for (let token = 0; token < length; token++) text += generation.next(settings);
    return text;
  },
  ranking(prompt) { return new Generation(this.model, { prompt, seed: 0 }).ranking(); },
  uniforms(seed, count) {
    const numbers = new RandomNumbers(BigInt(seed));
    return Array.from({ length: count }, () => numbers.next());
  },
  pairwiseSum,
  gated(gate, network, ngram) {
    const part = (probs) => ({ start: () => ({ probs: () => Float64Array.from(probs) }) });
    return Array.from(new Mixture(part(network), part(ngram), { gate }).start().logProbs());
  },
  relativeProbs(logProbs, settings) { return Array.from(relativeProbs(Float64Array.from(logProbs), settings)); },
};
"""


class Script:
    """The script of the page in V8, without its view."""

    def __init__(self) -> None:
        self._v8 = MiniRacer()
        for name in ("text.js", "engine.js", "generation.js"):
            self._v8.eval((PAGE_FOLDER / name).read_text(encoding="utf-8"))
        self._v8.eval(GLUE)

    def call(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - any JSON value
        values = ", ".join(json.dumps(argument) for argument in arguments)
        return json.loads(self._v8.eval(f"JSON.stringify(test.{function}({values}) ?? null)"))

    def open(self, checkpoint: Checkpoint) -> None:
        header, numbers = describe_model(checkpoint, "test")
        self.call("open", header, base64.b64encode(numbers).decode())

    def close(self) -> None:
        self._v8.close()


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    running = Script()
    yield running
    running.close()  # its threads would keep Python from exiting


def halved(checkpoint: Checkpoint) -> Checkpoint:
    """A model whose weights are rounded as those of its page are."""
    return replace(checkpoint, tensors={name: array.astype(np.float16) for name, array in checkpoint.tensors.items()})


def word_checkpoint(tokenizer: Tokenizer, *, spelling: bool = True, **config: object) -> Checkpoint:
    """A small untrained model of a tokenizer's words."""
    rng = np.random.default_rng(3)
    model_config = replace(make_checkpoint(**config)[1].config, vocab_size=tokenizer.vocab_size)
    tensors = {
        name: rng.normal(scale=0.5, size=shape).astype(np.float16)
        for name, shape in tensor_shapes(model_config).items()
    }
    words = {token: 1 for token in tokenizer.tokens if token.isalpha()}
    return Checkpoint(
        config=model_config,
        tokenizer=tokenizer,
        tensors=tensors,
        spelling=SpellingModel.estimate(words) if spelling and tokenizer.kind == "word" else None,
    )


SHAPES: list[dict[str, Any]] = [{}, {"tie_weights": True}, {"skip_connections": True}]
NETWORKS = {
    f"{cell}-{num_layers}-{index}": make_checkpoint(
        cell=cell, num_layers=num_layers, hidden_size=13, embedding_dim=13, **shape
    )[1]
    for cell in CELLS
    for num_layers in (1, 2, 3)
    for index, shape in enumerate(SHAPES)
}
WITH_COUNTS = {
    "mixture": make_mixture(num_layers=2),
    "mixture-of-order-1": make_mixture(order=1, weight=0.9),
    "ngram": make_ngram_model(order=5),
}


def with_gate(checkpoint: Checkpoint, coefficients: npt.ArrayLike) -> Checkpoint:
    """A mixture whose weights are those of a gate."""
    assert checkpoint.counts is not None
    return replace(checkpoint, counts=replace(checkpoint.counts, gate=Gate(coefficients)))


def sure_network(checkpoint: Checkpoint) -> Checkpoint:
    """A model whose network is sure of tokens that the n-grams do not expect."""
    bias = np.random.default_rng(5).normal(scale=8, size=checkpoint.config.vocab_size)
    return replace(checkpoint, tensors=checkpoint.tensors | {"decoder.bias": bias.astype(np.float32)})


EXTREME_GATES = {
    "network": [[-30, 0, 0, 0], [-30, 0, 0, 0]],
    "ngram": [[30, 0, 0, 0], [0, 0, 0, 0]],
    "both": [[0, 0, 0, 0], [30, 0, 0, 0]],
    "surer": [[0, 30, -30, 0], [-30, 30, -30, 30]],
    "unsurer": [[0, -30, 30, 0], [30, -30, 30, -30]],
    "distance": [[30, 0, 0, -30], [-30, 0, 0, 30]],
}
GATED = {
    **{f"gate-{seed}": np.random.default_rng(seed).normal(scale=2, size=(2, NUM_FEATURES)) for seed in range(3)},
    **{f"gate-{name}": coefficients for name, coefficients in EXTREME_GATES.items()},
}
WITH_GATES = {name: with_gate(make_mixture(), coefficients) for name, coefficients in GATED.items()}
WITH_GATES |= {f"{name}-disagreeing": sure_network(model) for name, model in WITH_GATES.items()}


def both_log_probs(script: Script, checkpoint: Checkpoint) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Log-probabilities of the tokens after each one of a text, by the page and by the engine."""
    checkpoint = halved(checkpoint)
    script.open(checkpoint)
    predictor = open_predictor(checkpoint)
    ids = predictor.tokenizer.encode(VERSE[:60] + "zzzTo")  # "zzz" is in no n-gram
    reader, expected = predictor.read([ids[:1]]), []
    for next_id in [*ids[1:], 0]:
        expected.append(log_softmax(reader.logits())[0])
        reader.advance(np.array([next_id]))
    return np.array(script.call("logProbs", ids.tolist())), np.array(expected)


@pytest.mark.parametrize("name", [*NETWORKS, *WITH_COUNTS])
def test_log_probabilities_equal_those_of_the_engine(script: Script, name: str) -> None:
    found, expected = both_log_probs(script, (NETWORKS | WITH_COUNTS)[name])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", WITH_GATES)
def test_log_probabilities_with_a_gate_equal_those_of_the_engine(script: Script, name: str) -> None:
    found, expected = both_log_probs(script, WITH_GATES[name])
    np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-4)  # a coefficient of 30 multiplies the rounding errors


# The engine computes in single precision, in which products of smaller probabilities are 0.
LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=7, max_size=7)
COEFFICIENTS = st.lists(st.floats(-30, 30), min_size=2 * NUM_FEATURES, max_size=2 * NUM_FEATURES)


@given(logits=st.tuples(LOGITS, LOGITS), coefficients=COEFFICIENTS)
@example(logits=([40, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 40]), coefficients=[0, 30, -30, 0, -30, 0, 0, 30])
@example(logits=([0] * 7, [0] * 7), coefficients=[30, -30, 30, -30, -30, 30, -30, 30])
def test_gates_equal_those_of_the_engine(
    script: Script, logits: tuple[list[float], list[float]], coefficients: list[float]
) -> None:
    rows = [coefficients[:NUM_FEATURES], coefficients[NUM_FEATURES:]]
    network, ngram = (softmax(np.float32([part]))[0] for part in logits)
    found = script.call("gated", rows, network[0].tolist(), ngram[0].tolist())
    expected = Gate(rows).interpolate(network, ngram)[0]
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-5)
    np.testing.assert_allclose(found, log_of_probs(expected), atol=1e-4)


SPOKEN = "O Romeo, Romeo! wherefore art thou (Romeo)?\nDon't deny thy father;  it's 1,200.50 -- 'tis l'été...\n"

CHARACTERS = st.characters(exclude_categories=["Cs", "Cn"])
"""Characters that this Python knows. A browser can know more."""

UNUSUAL_CHARS = (
    " \n\t\r\0\x1c\x85\u2028\u3000'\u2019.,!-_<>&\"sSt\u017fİiKÅßﬁΣςé\u0301\u200d\u0345½٣ﷺⅧ\ufeff\u200b\U0001d49c"
)
UNUSUAL_PARTS = (
    "n't don't 'll 각 \u1100\u1161\u11a8 Ⓐⓐ 👩\u200d🚀 👍🏽 🇩🇪 日本 ひら カナ !!! ... 1,200 a\u0308\u0323 "
    "<unk> <eos> <join>"
)
UNUSUAL = st.sampled_from([*UNUSUAL_CHARS, *UNUSUAL_PARTS.split(" ")])
TEXTS = st.lists(st.one_of(UNUSUAL, CHARACTERS, st.sampled_from("abcdefg ,.'")), max_size=40).map("".join)

FOLDINGS: list[dict[str, Any]] = [
    {},
    {"lowercase": True},
    {"normalize": "NFC"},
    {"lowercase": True, "normalize": "NFKC"},
]


def tokenizers(folding: dict[str, Any]) -> list[Tokenizer]:
    text = SPOKEN + "a b c ! , . ' n't <unk> Ⓐ 👩\u200d🚀 日 本 ひ カナ a\u0308 İ ς 1,200 \u0301\n"
    return [
        CharTokenizer.from_pieces([text], **folding),
        WordTokenizer.from_text([text], **folding),
        WordTokenizer.from_text([text], word_rule=1, **folding),
        WhitespaceTokenizer.from_text([text], **folding),
    ]


@pytest.mark.parametrize("folding", FOLDINGS)
@settings(max_examples=15)
@given(texts=st.lists(TEXTS, min_size=10, max_size=10))
def test_tokens_equal_those_of_python(script: Script, folding: dict[str, Any], texts: list[str]) -> None:
    for tokenizer in tokenizers(folding):
        found = script.call("tokenize", tokenizer.to_dict(), texts)
        for text, result in zip(texts, found, strict=True):
            ids = tokenizer.encode(text).tolist()
            assert result["ids"] == ids
            assert result["parts"] == token_texts(tokenizer, text, ids)
            assert result["decoded"] == tokenizer.decode(ids)
            assert result["unknown"] == tokenizer.unknown_in(text)
            prompt, drops_space = tokenizer.encode_prompt(text)
            assert result["prompt"] == {"ids": prompt.tolist(), "dropsSpace": drops_space}


def test_each_character_has_the_class_that_python_gives_it(script: Script) -> None:
    known = [chr(point) for point in range(sys.maxunicode + 1) if unicodedata.category(chr(point)) not in ("Cs", "Cn")]
    found = script.call("classes", "".join(known))
    classes = CharacterClasses()
    assert found["shape"] == "".join(known).translate(classes)
    assert found["letters"] == "".join(char for char in known if WORD_RULES[1].is_word(char))
    assert found["spaces"] == "".join(char for char in known if char.isspace())


def assert_equal_scores(script: Script, checkpoint: Checkpoint, text: str) -> None:
    script.open(checkpoint)
    found = script.call("score", text)
    tokens, words = found["tokens"], found["words"]
    scorer = ModelScorer(open_predictor(checkpoint))
    scores = scorer.start_stream().feed(text)
    parts = token_texts(scorer.tokenizer, text, scores.ids.tolist())
    assert [token["text"] for token in tokens] == parts
    np.testing.assert_allclose([token["nats"] for token in tokens], scores.nats, atol=1e-4)
    assert [token["isUnknown"] for token in tokens] == (scores.ids == 0).tolist()
    expected = word_scores(scorer.tokenizer, scores)
    assert [word["text"] for word in words] == [
        "" if word.is_space else text[word.start : word.end] for word in expected
    ]
    nats = [sum(tokens[index]["nats"] for index in word["tokens"]) for word in words]
    np.testing.assert_allclose(nats, [word.nats for word in expected], atol=1e-3)


@pytest.mark.parametrize("text", ["To be, or not to be", "  Two  spaces ß\n\n", "x", "\n"])
@pytest.mark.parametrize("folding", [{}, {"lowercase": True, "normalize": "NFKC"}])
def test_scores_equal_those_of_the_engine(script: Script, folding: dict[str, Any], text: str) -> None:
    for tokenizer in tokenizers(folding):
        assert_equal_scores(script, word_checkpoint(tokenizer), text)
        counts = make_counts(tokenizer, SPOKEN, order=3)
        mixture = replace(word_checkpoint(tokenizer, spelling=False), counts=counts)
        assert_equal_scores(script, mixture, text)
        assert_equal_scores(script, with_gate(mixture, GATED["gate-0"]), text)


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31 - 1, 2**32, 2**63 - 1, 2**130 + 7])
def test_random_numbers_equal_those_of_numpy(script: Script, seed: int) -> None:
    assert script.call("uniforms", str(seed), 1100) == list(islice(random_numbers(seed), 1100))


@given(
    logits=st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=12),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
)
@example(logits=[-11.5, -0.5, -11.5, -0.5], temperature=0.3, top_p=0.5)
def test_relative_probabilities_equal_those_of_the_engine(
    script: Script, logits: Sequence[float], temperature: float, top_p: float
) -> None:
    expected = relative_probabilities([logits], SampleConfig(temperature=temperature, top_p=top_p))[0]
    found = script.call("relativeProbs", logits, {"temperature": temperature, "topP": top_p})
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [7, 8, 20, 129, 300, 1000])
def test_sums_equal_those_of_numpy(script: Script, size: int) -> None:
    values = np.random.default_rng(size).lognormal(0, 5, size)
    assert script.call("pairwiseSum", values.tolist()) == values.sum()


@pytest.mark.parametrize("prompt", ["", "To be", "To be, or not ", "HAMLET:\n", "wherefore\r\nart "])
def test_the_same_seed_writes_the_text_that_sample_writes(script: Script, prompt: str) -> None:
    checkpoints = [word_checkpoint(tokenizer) for tokenizer in tokenizers({})]
    checkpoints += [replace(checkpoints[1], counts=make_counts(checkpoints[1].tokenizer, SPOKEN)), make_ngram_model()]
    checkpoints.append(with_gate(checkpoints[-2], GATED["gate-0"]))
    checkpoints.append(replace(checkpoints[0], metadata={"items": {"kind": "line", "separator": "\n", "longest": 9}}))
    for checkpoint in checkpoints:
        script.open(checkpoint)
        separator = "\n" if checkpoint.metadata else None
        for seed, temperature, top_p in [(1, 1.0, None), (2, 0.5, 0.8), (3, 0.0, None)]:
            config = SampleConfig(seed=seed, temperature=temperature, top_p=top_p, length=60)
            sampler = Sampler(predictor=open_predictor(checkpoint), config=config, separator=separator)
            expected = "".join(piece for (piece,) in sampler.stream(prompt))
            settings = {"temperature": temperature, "topP": 1 if top_p is None else top_p}
            assert script.call("write", prompt, seed, settings, 60) == expected


def test_the_next_tokens_are_those_of_the_engine(script: Script) -> None:
    checkpoint = word_checkpoint(tokenizers({})[1])
    script.open(checkpoint)
    found = script.call("ranking", "Romeo ")
    expected = next_tokens(open_predictor(checkpoint), "Romeo ")
    assert [entry["token"] for entry in found] == [token for token, _ in expected]
    np.testing.assert_allclose([entry["prob"] for entry in found], [prob for _, prob in expected], atol=1e-6)
