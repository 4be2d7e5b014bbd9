"""Predictors: networks, n-gram models and mixtures, against plain references and against each other."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.engine.gate import Gate
from charlm.engine.mixture import GatedMixture, GatedStream, Mixture, open_predictor
from charlm.engine.ngram_predictor import NGramPredictor, NGramStream
from charlm.engine.predictor import START, Predictor
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.sampler import Sampler
from charlm.sample_config import SampleConfig
from tests.conftest import GATE, VERSE, make_mixture, make_ngram_model
from tests.engine.test_ngram import Reference

WEIGHT, ORDER = 0.4, 4
MIXTURE = make_mixture(num_layers=2)
assert MIXTURE.counts is not None
GATED = replace(MIXTURE, counts=replace(MIXTURE.counts, gate=GATE))
NETWORK = RecurrentNetwork(MIXTURE)
PREDICTORS: dict[str, Predictor] = {
    "network": open_predictor(replace(MIXTURE, counts=None)),
    "ngram": open_predictor(make_ngram_model()),
    "mixture": open_predictor(MIXTURE),
    "unigrams": open_predictor(make_ngram_model(order=1)),
    "gated": open_predictor(GATED),
}
TEXTS = ["\nTo be, or not to be", "\n", "\nqzx % To", "\nHAMLET:\nThe sl"]
ENCODED = [NETWORK.tokenizer.encode(text) for text in TEXTS]

predictors = pytest.mark.parametrize("predictor", PREDICTORS.values(), ids=PREDICTORS)


def softmax(logits: np.ndarray) -> np.ndarray:
    exact = logits.astype(float)
    weights = np.exp(exact - exact.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def network_logits(ids: Sequence[int]) -> np.ndarray:
    """The logits after each token, by the operations of the network."""
    return NETWORK.logits(NETWORK.outputs(np.array([ids]), NETWORK.zero_state()))[0]


def plain_parts(ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The distributions after tokens by plain implementations of the network and of the n-gram model."""
    reference = Reference([NETWORK.tokenizer.encode("\n" + VERSE).tolist()], [1], ORDER, NETWORK.tokenizer.vocab_size)
    context = tuple(ids[-(ORDER - 1) :])
    counts = [reference.prob(context, token) for token in range(NETWORK.tokenizer.vocab_size)]
    return softmax(network_logits(ids)[-1]), np.array(counts)


def plain_gate(coefficients: np.ndarray, network: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The gated distribution and the weights, by the formula in double precision."""
    overlap = np.sqrt(network * counts).sum()
    numbers = np.array([1, -math.log((network**2).sum()), -math.log((counts**2).sum()), -math.log(overlap)])
    odds = np.exp([0, *(coefficients @ numbers)])
    weights = odds / odds.sum()
    return weights @ np.stack([network, counts, np.sqrt(network * counts) / overlap]), weights.tolist()


def test_a_model_file_decides_which_predictor_is_opened() -> None:
    kinds = {name: type(predictor) for name, predictor in PREDICTORS.items()}
    assert kinds == {
        "network": RecurrentNetwork,
        "ngram": NGramPredictor,
        "mixture": Mixture,
        "unigrams": NGramPredictor,
        "gated": GatedMixture,
    }


@pytest.mark.parametrize("text", [*TEXTS, "\n%%%%%", "\nxyzzy"])
def test_the_mixture_interpolates_plain_implementations_of_its_parts(text: str) -> None:
    ids = NETWORK.tokenizer.encode(text).tolist()
    found = PREDICTORS["mixture"].read([np.array(ids)]).probs()[0]
    network, counts = plain_parts(ids)
    expected = (1 - WEIGHT) * network + WEIGHT * counts
    np.testing.assert_allclose(found, expected, atol=2e-4)  # the weights of the counts are rounded


def test_the_gated_mixture_interpolates_plain_implementations_of_its_parts() -> None:
    shares = []
    for text in [*TEXTS, "\n%%%%%", "\nxyzzy", "\nThe slings and arrows of outrageous fortun"]:
        ids = NETWORK.tokenizer.encode(text).tolist()
        expected, weights = plain_gate(GATE.coefficients, *plain_parts(ids))
        shares.append(weights)
        found = PREDICTORS["gated"].read([np.array(ids)]).probs()[0]
        np.testing.assert_allclose(found, expected, atol=5e-4)  # the weights of the counts are rounded
    assert np.ptp(shares, axis=0).min() > 0.1, "the weights hardly vary"


@pytest.mark.parametrize("num_sequences", [3, 40])
def test_gates_of_one_part_give_this_part(num_sequences: int) -> None:
    network, ngram = PREDICTORS["network"], PREDICTORS["ngram"]
    assert isinstance(network, RecurrentNetwork)
    assert isinstance(ngram, NGramPredictor)
    sequences = [ENCODED[row % len(ENCODED)] for row in range(num_sequences)]
    parts = [part.read(sequences).probs() for part in (network, ngram)]
    roots = np.sqrt(parts[0].astype(float) * parts[1])
    third = roots / roots.sum(axis=-1, keepdims=True)
    for constants, expected in zip([(-1000, -1000), (1000, -1000), (-1000, 1000)], [*parts, third], strict=True):
        mixture = GatedMixture(network, ngram, Gate([[constant, 0, 0, 0] for constant in constants]))
        np.testing.assert_allclose(mixture.read(sequences).probs(), expected, atol=1e-6, rtol=1e-5)
        costs = mixture.score([ENCODED[0]]).nats[0]
        if expected is not third:
            alone = (network if expected is parts[0] else ngram).score([ENCODED[0]]).nats[0]
            np.testing.assert_allclose(costs, alone, atol=1e-5)


@predictors
@given(contexts=st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=9), min_size=1, max_size=5))
def test_probabilities_sum_to_one_in_every_context(predictor: Predictor, contexts: list[list[int]]) -> None:
    reader = predictor.read([np.array(context) for context in contexts])
    probs = reader.probs()
    assert probs.min() > 0
    np.testing.assert_allclose(probs.sum(axis=-1, dtype=float), 1, atol=1e-5)
    np.testing.assert_allclose(softmax(reader.logits()), probs, atol=1e-6)


def raw_nats(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The cost of each target by the operations that scoring has always used."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=-1)) - logits[np.arange(len(targets)), targets]


def test_a_model_without_counts_computes_bit_for_bit_what_the_network_computes() -> None:
    predictor = PREDICTORS["network"]
    for ids in ENCODED:
        outputs = NETWORK.outputs(ids[None], NETWORK.zero_state())
        np.testing.assert_array_equal(predictor.read([ids]).logits(), NETWORK.logits(outputs[:, -1]))
        expected = raw_nats(network_logits(ids[:-1].tolist()), ids[1:]) if len(ids) > 1 else []
        np.testing.assert_array_equal(predictor.start_stream().score(ids[1:]).nats, expected)
    sequences = sorted(ENCODED, key=len, reverse=True)
    found = predictor.score(sequences).nats
    for time, (_, outputs) in enumerate(NETWORK.step_ragged([ids[:-1] for ids in sequences])):
        targets = np.array([ids[time + 1] for ids in sequences[: len(outputs)]])
        np.testing.assert_array_equal(found[: len(outputs), time], raw_nats(NETWORK.logits(outputs), targets))


@predictors
@given(data=st.data())
def test_readers_equal_new_readers_of_the_whole_sequences(predictor: Predictor, data: st.DataObject) -> None:
    tokens = st.integers(0, predictor.tokenizer.vocab_size - 1)
    sequences = data.draw(st.lists(st.lists(tokens, min_size=1, max_size=6), min_size=1, max_size=4))
    start = predictor.tokenizer.encode(START).tolist()
    reader = predictor.read([np.array(ids) for ids in sequences])
    for action in data.draw(st.lists(st.sampled_from(["advance", "select", "restart"]), max_size=6)):
        rows = data.draw(st.lists(st.integers(0, len(sequences) - 1), min_size=1, max_size=4))
        if action == "select":
            sequences = [list(sequences[row]) for row in rows]
            reader.select(np.array(rows))
        elif action == "restart":
            rows = sorted(set(rows))
            sequences = [list(start) if row in rows else ids for row, ids in enumerate(sequences)]
            reader.restart(rows)
        else:
            ids = data.draw(st.lists(tokens, min_size=len(sequences), max_size=len(sequences)))
            sequences = [[*sequence, token] for sequence, token in zip(sequences, ids, strict=True)]
            reader.advance(np.array(ids))
    assert reader.rows == len(sequences)
    expected = np.concatenate([predictor.read([np.array(ids)]).logits() for ids in sequences])
    np.testing.assert_allclose(reader.logits(), expected, atol=1e-4)


@predictors
def test_many_sequences_are_read_as_each_alone(predictor: Predictor) -> None:
    sequences = [predictor.tokenizer.encode("\n" + VERSE[begin : begin + begin % 7]) for begin in range(40)]
    reader = predictor.read(sequences)
    last = np.arange(40) % predictor.tokenizer.vocab_size
    reader.advance(last)
    expected = np.concatenate(
        [predictor.read([np.append(ids, token)]).probs() for ids, token in zip(sequences, last, strict=True)]
    )
    np.testing.assert_allclose(reader.probs(), expected, atol=1e-6)
    reader.restart([3])
    reader.select(np.array([39, 3, 0, 39]))
    start = predictor.read([predictor.tokenizer.encode(START)]).probs()
    np.testing.assert_allclose(reader.probs(), [expected[39], start[0], expected[0], expected[39]], atol=1e-6)


@predictors
def test_given_tokens_cost_what_the_distributions_say(predictor: Predictor) -> None:
    sequences = sorted(ENCODED, key=len, reverse=True)
    plain, with_entropy = predictor.score(sequences), predictor.score(sequences, with_entropy=True)
    assert plain.entropy_nats is None
    assert with_entropy.entropy_nats is not None
    for row, ids in enumerate(sequences):
        probs = [predictor.read([ids[:end]]).probs()[0].astype(float) for end in range(1, len(ids))]
        nats = [-math.log(part[token]) for part, token in zip(probs, ids[1:].tolist(), strict=True)]
        entropy = [-float((part * np.log(part)).sum()) for part in probs]
        for costs in (plain.nats[row], with_entropy.nats[row]):
            np.testing.assert_allclose(costs[: len(nats)], nats, atol=1e-4)
            assert not costs[len(nats) :].any()
        np.testing.assert_allclose(with_entropy.entropy_nats[row, : len(nats)], entropy, atol=1e-4)


@predictors
@pytest.mark.parametrize("with_entropy", [False, True])
def test_a_stream_in_parts_costs_what_the_whole_costs(
    predictor: Predictor, with_entropy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = predictor.tokenizer.encode("\n" + VERSE[:120])
    whole = predictor.score([ids], with_entropy=with_entropy)
    stream = predictor.start_stream(with_entropy=with_entropy)
    if isinstance(stream, NGramStream | GatedStream):
        monkeypatch.setattr(stream, "_block_tokens", 7)
    parts = [stream.score(part) for part in np.split(ids[1:], [0, 1, 2, 50])]
    np.testing.assert_allclose(np.concatenate([part.nats for part in parts]), whole.nats[0], atol=1e-4)
    entropies = [part.entropy_nats for part in parts if part.entropy_nats is not None]
    assert len(entropies) == with_entropy * len(parts)
    if with_entropy:
        np.testing.assert_allclose(np.concatenate(entropies), whole.entropy_nats[0], atol=1e-4)


@predictors
@pytest.mark.parametrize("num_sequences", [1, 7, 40])
@pytest.mark.parametrize("max_step_numbers", [1, 300, 2**18])
def test_distributions_of_given_tokens_are_those_of_readers(
    predictor: Predictor, num_sequences: int, max_step_numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-gram model computes one step, a few steps or all steps at a time."""
    monkeypatch.setattr("charlm.engine.ngram_predictor.MAX_STEP_NUMBERS", max_step_numbers)
    texts = ["\n" + VERSE[begin : begin + begin % 6] for begin in range(num_sequences)]
    sequences = sorted(map(predictor.tokenizer.encode, texts), key=len, reverse=True)
    steps = list(predictor.step_probs(sequences))
    assert len(steps) == len(sequences[0]) - 1
    for time, probs in enumerate(steps, start=1):
        rows = [ids for ids in sequences if len(ids) > time]
        np.testing.assert_allclose(probs, predictor.read([ids[:time] for ids in rows]).probs(), atol=1e-6)


def test_blocks_of_a_stream_limit_the_numbers_of_both_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gates of a large network need more memory than the distributions of a small vocabulary."""
    limits = {"charlm.engine.rnn": 48 * 5, "charlm.engine.mixture": 8 * NETWORK.tokenizer.vocab_size * 3}
    blocks = []
    for small in limits:
        for module, limit in limits.items():
            monkeypatch.setattr(f"{module}.MAX_BLOCK_NUMBERS", limit if module == small else 2**22)
        stream = PREDICTORS["gated"].start_stream()
        assert isinstance(stream, GatedStream)
        sizes: list[int] = []
        probs = stream.probs
        monkeypatch.setattr(stream, "probs", lambda ids, sizes=sizes, probs=probs: sizes.append(len(ids)) or probs(ids))
        stream.score(ENCODED[0][1:])
        blocks.append(max(sizes))
    assert blocks == [240 // max(48, NETWORK.tokenizer.vocab_size), 3]


def test_scoring_stops_on_request() -> None:
    for predictor in PREDICTORS.values():
        assert predictor.score(ENCODED[:1], with_entropy=True, stop=lambda: True).nats.sum() == 0


def test_weights_of_probabilities_of_zero_and_one_give_one_part() -> None:
    parts = [PREDICTORS["network"], PREDICTORS["ngram"]]
    for index, weights in enumerate([(1.0, 0.0), (0.0, 1.0)]):
        mixture = Mixture(parts, weights)
        np.testing.assert_allclose(
            mixture.read(ENCODED).probs(), parts[index].read(ENCODED).probs(), atol=1e-6, rtol=1e-5
        )
        np.testing.assert_allclose(mixture.score(ENCODED[:1]).nats, parts[index].score(ENCODED[:1]).nats, atol=1e-5)


@pytest.mark.parametrize("name", ["mixture", "gated"])
def test_a_repeat_penalty_has_the_same_strength_beside_counts(name: str) -> None:
    logits = [PREDICTORS[kind].read(ENCODED).logits().astype(float) for kind in ("network", name)]
    totals = [np.logaddexp.reduce(part, axis=-1) for part in logits]
    np.testing.assert_allclose(totals[1], totals[0], atol=1e-4)


@pytest.mark.parametrize("name", ["network", "ngram", "mixture", "gated"])
def test_sampled_frequencies_are_the_probabilities(name: str) -> None:
    predictor, num_samples = PREDICTORS[name], 4000
    config = SampleConfig(temperature=1.0, length=1, count=num_samples, seed=1, allow_unknown=True)
    sampler = Sampler(predictor=predictor, config=config)
    (pieces,) = sampler.generate(sampler.start(["To b"]))
    ids = predictor.tokenizer.encode("".join(pieces))
    counts = np.bincount(ids, minlength=predictor.tokenizer.vocab_size)
    expected = num_samples * predictor.read([predictor.tokenizer.encode("\nTo b")]).probs()[0].astype(float)
    groups = np.where(expected >= 5, np.arange(len(expected)), 0)  # rare tokens count together with the unknown one
    observed, wanted = np.bincount(groups, counts), np.bincount(groups, expected)
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    chi_square = float(((observed - wanted) ** 2 / wanted).sum())
    degrees = len(wanted) - 1
    # Wilson and Hilferty: the cube root of chi-square over its degrees of freedom is almost normal.
    normal = ((chi_square / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / math.sqrt(2 / (9 * degrees))
    assert abs(normal) < 4
