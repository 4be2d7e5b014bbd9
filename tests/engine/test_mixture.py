"""Predictors: networks, n-gram models and mixtures, against plain references and against each other."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from charlm.engine.checkpoint import Checkpoint, NGramPart, load_checkpoint, num_parameters, save_checkpoint
from charlm.engine.mixture import Mixture, open_predictor
from charlm.engine.ngram_predictor import NGramPredictor, NGramStream
from charlm.engine.predictor import START, Predictor
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.sampler import Sampler
from charlm.engine.tensorfile import TensorFile
from charlm.errors import CheckpointError
from charlm.sample_config import SampleConfig
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import VERSE, make_checkpoint, make_counts, make_mixture, make_ngram_model
from tests.engine.test_ngram import Reference

WEIGHT, ORDER = 0.4, 4
MIXTURE = make_mixture(num_layers=2)
NETWORK = RecurrentNetwork(MIXTURE)
PREDICTORS: dict[str, Predictor] = {
    "network": open_predictor(replace(MIXTURE, counts=None)),
    "ngram": open_predictor(make_ngram_model()),
    "mixture": open_predictor(MIXTURE),
    "unigrams": open_predictor(make_ngram_model(order=1)),
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


def expected_probs(ids: Sequence[int]) -> np.ndarray:
    """The distribution after tokens by plain implementations of the network and of the n-gram model."""
    reference = Reference([NETWORK.tokenizer.encode("\n" + VERSE).tolist()], [1], ORDER, NETWORK.tokenizer.vocab_size)
    context = tuple(ids[-(ORDER - 1) :])
    counts = [reference.prob(context, token) for token in range(NETWORK.tokenizer.vocab_size)]
    return (1 - WEIGHT) * softmax(network_logits(ids)[-1]) + WEIGHT * np.array(counts)


def test_a_model_file_decides_which_predictor_is_opened() -> None:
    kinds = {name: type(predictor) for name, predictor in PREDICTORS.items()}
    assert kinds == {
        "network": RecurrentNetwork,
        "ngram": NGramPredictor,
        "mixture": Mixture,
        "unigrams": NGramPredictor,
    }


@pytest.mark.parametrize("text", [*TEXTS, "\n%%%%%", "\nxyzzy"])
def test_the_mixture_interpolates_plain_implementations_of_its_parts(text: str) -> None:
    ids = NETWORK.tokenizer.encode(text).tolist()
    found = PREDICTORS["mixture"].read([np.array(ids)]).probs()[0]
    np.testing.assert_allclose(found, expected_probs(ids), atol=2e-4)  # the weights of the counts are rounded


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
    if isinstance(stream, NGramStream):
        monkeypatch.setattr(stream, "_block_tokens", 7)
    parts = [stream.score(part) for part in np.split(ids[1:], [0, 1, 2, 50])]
    np.testing.assert_allclose(np.concatenate([part.nats for part in parts]), whole.nats[0], atol=1e-4)
    entropies = [part.entropy_nats for part in parts if part.entropy_nats is not None]
    assert len(entropies) == with_entropy * len(parts)
    if with_entropy:
        np.testing.assert_allclose(np.concatenate(entropies), whole.entropy_nats[0], atol=1e-4)


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


def test_a_repeat_penalty_has_the_same_strength_beside_counts() -> None:
    logits = [PREDICTORS[name].read(ENCODED).logits().astype(float) for name in ("network", "mixture")]
    totals = [np.logaddexp.reduce(part, axis=-1) for part in logits]
    np.testing.assert_allclose(totals[1], totals[0], atol=1e-4)


@pytest.mark.parametrize("checkpoint", [MIXTURE, make_ngram_model()], ids=["mixture", "ngram"])
def test_a_file_keeps_the_counts(checkpoint: Checkpoint) -> None:
    path = Path("model.safetensors")
    save_checkpoint(path, checkpoint)
    loaded = load_checkpoint(path)
    assert loaded.counts is not None
    assert checkpoint.counts is not None
    assert loaded.counts.weight == checkpoint.counts.weight
    assert loaded.tensors.keys() == checkpoint.tensors.keys()
    before, after = open_predictor(checkpoint), open_predictor(loaded)
    np.testing.assert_array_equal(before.score(ENCODED[:1]).nats, after.score(ENCODED[:1]).nats)
    np.testing.assert_array_equal(before.read(ENCODED).logits(), after.read(ENCODED).logits())


def test_a_file_without_counts_says_nothing_of_them() -> None:
    path = Path("model.safetensors")
    save_checkpoint(path, replace(MIXTURE, counts=None))
    assert b"ngram" not in path.read_bytes()


def test_a_model_without_a_network_has_no_weights() -> None:
    checkpoint = make_ngram_model()
    assert num_parameters(checkpoint.config) == 0
    assert num_parameters(MIXTURE.config) > 0


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan, math.inf])
def test_a_weight_out_of_range_is_an_error(weight: float) -> None:
    path = Path("model.safetensors")
    save_checkpoint(path, make_mixture(weight=weight))
    with pytest.raises(CheckpointError, match=r"the weight of the n-gram model is .*, not from 0 to 1"):
        load_checkpoint(path)


def test_files_whose_parts_do_not_fit_are_errors() -> None:
    path = Path("model.safetensors")
    counts = make_counts(CharTokenizer.from_text("abc"), "abcabc")
    save_checkpoint(path, replace(MIXTURE, counts=counts))
    with pytest.raises(CheckpointError, match=r"damaged n-gram model .4 tokens for a vocabulary of"):
        load_checkpoint(path)
    ngram_only = make_ngram_model()
    save_checkpoint(path, replace(ngram_only, counts=None))
    with pytest.raises(CheckpointError, match="neither a network nor an n-gram model"):
        load_checkpoint(path)
    save_checkpoint(path, replace(ngram_only, counts=make_counts(ngram_only.tokenizer, weight=0.5)))
    with pytest.raises(CheckpointError, match=r"is 0\.5, not 1 without a network"):
        load_checkpoint(path)
    save_checkpoint(path, replace(ngram_only, tensors=make_checkpoint()[1].tensors))
    with pytest.raises(CheckpointError, match="unknown tensor"):
        load_checkpoint(path)


def damaged(name: str, index: int, value: float) -> Checkpoint:
    """A mixture with one number of its n-gram model changed, as no text gives it."""
    counts = make_mixture().counts
    assert counts is not None
    tensors = {key: array.copy() for key, array in counts.ngram.to_tensors().items()}
    tensors[name] = tensors[name].astype(np.int32 if tensors[name].dtype.kind == "u" else tensors[name].dtype)
    tensors[name][index] = value
    ngrams = SimpleNamespace(to_tensors=lambda: tensors)
    return replace(MIXTURE, counts=NGramPart(ngram=ngrams, weight=counts.weight))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [
        ("tokens.2", 2, 0),
        ("tokens.3", 0, 99),
        ("counts.2", 1, 40),
        ("counts.4", 0, -1),
        ("counts.3", 0, 2**31 - 1),
        ("weights.1", 3, math.nan),
        ("weights.2", 0, 1.0),
        ("weights.4", 0, -0.5),
        ("weights.4", 0, math.inf),
    ],
)
def test_files_with_damaged_counts_are_errors(name: str, index: int, value: float) -> None:
    path = Path("model.safetensors")
    save_checkpoint(path, damaged(name, index, value))
    with pytest.raises(CheckpointError, match=rf"^model\.safetensors: damaged n-gram model \({name}: "):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "entry", ["", "null", "[]", "{}", '{"weight": true}', '{"weight": "0.5"}', '{"weight": 0.5, "more": 1}', "{"]
)
def test_headers_without_a_weight_are_errors(entry: str) -> None:
    path = Path("model.safetensors")
    save_checkpoint(path, MIXTURE)
    with path.open("rb") as stream:
        file = TensorFile(stream, path)
        tensors = {name: file.read(name) for name in file.names}
    path.write_bytes(save(tensors, {**file.metadata, "ngram": entry}))
    with pytest.raises(CheckpointError, match=r"^model\.safetensors: (damaged|not a model file, or a damaged) header"):
        load_checkpoint(path)


def test_an_absent_array_of_the_counts_is_an_error() -> None:
    path = Path("model.safetensors")
    save_checkpoint(path, MIXTURE)
    with path.open("rb") as stream:
        file = TensorFile(stream, path)
        tensors = {name: file.read(name) for name in file.names}
    for name in list(tensors):
        if name.startswith("ngram/"):
            path.write_bytes(save({key: array for key, array in tensors.items() if key != name}, file.metadata))
            with pytest.raises(CheckpointError, match="damaged n-gram model"):
                load_checkpoint(path)
    without_key = {key: text for key, text in file.metadata.items() if key != "ngram"}
    path.write_bytes(save(tensors, without_key))
    with pytest.raises(CheckpointError, match="unknown tensor 'ngram/"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["network", "ngram", "mixture"])
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
