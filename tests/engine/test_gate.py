"""Gates between a network and an n-gram model, against the formula in double precision."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.engine.gate import MAX_COEFFICIENT, MAX_SINGLE_ROWS, Gate
from charlm.engine.ngram import MIN_PROB
from tests.conftest import GATE

Floats = npt.NDArray[np.float64]

MODERATE = st.lists(st.floats(-5, 5), min_size=8, max_size=8).map(lambda numbers: np.reshape(numbers, (2, 4)))
ANY = st.lists(st.floats(-MAX_COEFFICIENT, MAX_COEFFICIENT), min_size=8, max_size=8).map(
    lambda numbers: np.reshape(numbers, (2, 4))
)
EXTREME = st.lists(st.sampled_from([-MAX_COEFFICIENT, 0, MAX_COEFFICIENT]), min_size=8, max_size=8).map(
    lambda numbers: np.reshape(numbers, (2, 4))
)
ROWS = pytest.mark.parametrize("rows", [1, MAX_SINGLE_ROWS, MAX_SINGLE_ROWS + 1])


@st.composite
def distributions(draw: st.DrawFn, rows: int, *, lowest: float = -40) -> npt.NDArray[np.float32]:
    """Random distributions over 2 to 6 tokens of two models, (2, rows, V), which may agree or be nearly disjoint."""
    vocab_size = draw(st.integers(2, 6))
    logs = st.lists(st.floats(lowest, 0), min_size=vocab_size, max_size=vocab_size)
    probs = np.exp(draw(st.lists(logs, min_size=2 * rows, max_size=2 * rows)))
    return (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32).reshape(2, rows, vocab_size)


@st.composite
def sparse_distributions(draw: st.DrawFn, rows: int) -> npt.NDArray[np.float32]:
    """Random distributions with many probabilities of zero, (2, rows, V), which may be disjoint."""
    vocab_size = draw(st.integers(2, 5))
    counts = st.lists(st.integers(0, 2), min_size=vocab_size, max_size=vocab_size).filter(any)
    probs = np.array(draw(st.lists(counts, min_size=2 * rows, max_size=2 * rows)), dtype=np.float64)
    return (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32).reshape(2, rows, vocab_size)


def plain(coefficients: Floats, network: npt.NDArray[np.float32], ngram: npt.NDArray[np.float32]) -> Floats:
    """Return the interpolated probabilities of one pair of distributions, (V,)."""
    first, second = (np.maximum(probs.astype(float), float(MIN_PROB)) for probs in (network, ngram))
    roots = np.sqrt(first * second)
    numbers = [1, -np.log((first**2).sum()), -np.log((second**2).sum()), -np.log(roots.sum())]
    scores = np.array([0, *(coefficients @ numbers)])
    weights = np.exp(scores - np.logaddexp.reduce(scores))
    found: Floats = weights @ np.stack([first, second, roots / roots.sum()])
    return found


def interpolated(gate: Gate, probs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the interpolated probabilities, and leave the distributions as they were."""
    network, ngram = probs.copy()
    return gate.interpolate(network, ngram)


@ROWS
@given(coefficients=MODERATE, data=st.data())
def test_probabilities_are_those_of_the_formula(rows: int, coefficients: Floats, data: st.DataObject) -> None:
    probs = data.draw(distributions(rows))
    expected = [plain(coefficients, *pair) for pair in zip(*probs, strict=True)]
    np.testing.assert_allclose(interpolated(Gate(coefficients), probs), expected, atol=1e-4)


@given(coefficients=MODERATE | ANY | EXTREME, data=st.data())
def test_rows_alone_equal_many_rows(coefficients: Floats, data: st.DataObject) -> None:
    rows = MAX_SINGLE_ROWS + 3
    probs = data.draw(distributions(rows) | sparse_distributions(rows))
    gate = Gate(coefficients)
    many = interpolated(gate, probs)
    alone = np.concatenate([interpolated(gate, probs[:, row : row + 1]) for row in range(rows)])
    few = np.concatenate([interpolated(gate, part) for part in np.array_split(probs, 3, axis=1)])
    np.testing.assert_array_equal(few, alone)
    # The numbers that a gate depends on are rounded differently. A coefficient magnifies the difference.
    np.testing.assert_allclose(many, alone, atol=2e-6 * (2 + np.abs(coefficients).sum()))


@ROWS
@given(coefficients=MODERATE | ANY | EXTREME, data=st.data())
def test_probabilities_sum_to_one(rows: int, coefficients: Floats, data: st.DataObject) -> None:
    probs = data.draw(distributions(rows, lowest=-87) | sparse_distributions(rows))
    found = interpolated(Gate(coefficients), probs)
    assert found.dtype == np.float32
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1, dtype=float), 1, atol=1e-5)


@ROWS
@pytest.mark.parametrize("small", [0.0, 1e-44, 1e-38, 1e-30, 1e-20])
def test_disjoint_distributions_have_a_geometric_mean(rows: int, small: float) -> None:
    """The products of their probabilities may be too small for 32-bit floats."""
    network, ngram = [[1, small, small, small]] * rows, [[small, small, 0.5, 0.5]] * rows
    probs = np.array([network, ngram], dtype=np.float32)
    only_mean = Gate([[-1000, 0, 0, 0], [1000, 0, 0, 0]])
    found = interpolated(only_mean, probs)
    expected = plain(only_mean.coefficients, probs[0, 0], probs[1, 0])
    np.testing.assert_allclose(found, [expected] * rows, atol=1e-5)
    by_distance = Gate([[0, 0, 0, -1], [-10, 0, 0, 0.3]])
    expected = plain(by_distance.coefficients, probs[0, 0], probs[1, 0])
    np.testing.assert_allclose(interpolated(by_distance, probs), [expected] * rows, atol=1e-4)


@ROWS
def test_equal_distributions_stay_as_they_are(rows: int, rng: np.random.Generator) -> None:
    one = rng.dirichlet(np.ones(300), rows).astype(np.float32)
    np.testing.assert_allclose(interpolated(GATE, np.stack([one, one])), one, rtol=1e-5)


@ROWS
@pytest.mark.parametrize("vocab_size", [2, 20_000])
def test_a_large_vocabulary_has_the_probabilities_of_the_formula(
    rows: int, vocab_size: int, rng: np.random.Generator
) -> None:
    probs = rng.dirichlet(np.full(vocab_size, 0.05), (2, rows)).astype(np.float32)
    expected = [plain(GATE.coefficients, *pair) for pair in zip(*probs, strict=True)]
    np.testing.assert_allclose(interpolated(GATE, probs), expected, atol=1e-6, rtol=1e-4)


def test_no_rows_are_no_probabilities() -> None:
    assert interpolated(GATE, np.zeros((2, 0, 5), dtype=np.float32)).shape == (0, 5)


@given(coefficients=MODERATE | EXTREME, data=st.data())
def test_the_weights_sum_to_one(coefficients: Floats, data: st.DataObject) -> None:
    network, ngram = data.draw(distributions(3))
    sums = (network**2).sum(axis=1), (ngram**2).sum(axis=1), np.sqrt(network * ngram).sum(axis=1)
    weights = Gate(coefficients).weights(*sums)
    assert weights.shape == (3, 3)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-6)


@pytest.mark.parametrize(
    "coefficients",
    [
        [],
        0,
        [1, 2, 3, 4],
        [[1, 2, 3, 4]],
        [[1, 2, 3], [1, 2, 3]],
        [[1, 2, 3, 4, 5]] * 2,
        [[1, 2, 3, 4]] * 3,
        [[[1, 2, 3, 4]] * 2],
        [[1, 2, 3, 4], [1, 2, 3]],
        [[1, 2, 3, np.nan], [1, 2, 3, 4]],
        [[1, 2, 3, 4], [np.inf, 2, 3, 4]],
        [[1, 2, 3, 4], [-np.inf, 2, 3, 4]],
        [[1, 2, 3, 1000.1], [1, 2, 3, 4]],
        [[1, 2, 3, 4], [1, 2, -1e300, 4]],
        [["a", 2, 3, 4], [1, 2, 3, 4]],
    ],
)
def test_invalid_coefficients_are_errors(coefficients: object) -> None:
    with pytest.raises(ValueError, match=r"gate|array|string"):
        Gate(coefficients)  # type: ignore[arg-type]


def test_the_largest_coefficients_are_allowed() -> None:
    assert Gate([[MAX_COEFFICIENT] * 4, [-MAX_COEFFICIENT] * 4]).coefficients.dtype == np.float64


def test_the_example_of_the_class() -> None:
    sure, unsure = np.array([[0.98, 0.01, 0.01]], np.float32), np.array([[0.3, 0.4, 0.3]], np.float32)
    gate = Gate([[0, 2, -2, 0], [-9, 0, 0, 0]])
    assert interpolated(gate, np.stack([sure, unsure]))[0, 0] > 0.8
    assert interpolated(gate, np.stack([unsure, sure]))[0, 0] > 0.8
