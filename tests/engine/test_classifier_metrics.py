import numpy as np
import pytest

from charlm.engine.classifier_metrics import measure_quality


def test_measures_equal_those_by_hand() -> None:
    probs = np.array([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    quality = measure_quality(np.log(probs), np.array([0, 1, 1, 0]), ("a", "b", "c"))
    assert quality.accuracy == 0.5
    assert quality.confusion.tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    a, b, c = quality.classes.values()
    assert (a.precision, a.recall, a.f1, a.count) == (0.5, 0.5, 0.5, 2)
    assert (b.precision, b.recall) == (1, 0.5)
    assert (c.precision, c.recall, c.count) == (0, 0, 0)
    assert quality.macro_f1 == pytest.approx((0.5 + 2 / 3 + 0) / 3)
    assert quality.log_loss == pytest.approx(-np.log([0.9, 0.7, 0.3, 0.1]).mean())
    # groups: 0.9 (right), 0.7 (one right, one wrong), 0.6 (wrong)
    assert quality.calibration_error == pytest.approx((0.1 + 0.4 + 0.6) / 4)


def test_a_class_that_does_not_occur_is_left_out_of_macro_f1() -> None:
    quality = measure_quality(np.log([[0.8, 0.1, 0.1]]), np.array([0]), ("a", "b", "c"))
    assert quality.macro_f1 == 1


def test_a_probability_of_zero_has_a_finite_loss() -> None:
    with np.errstate(divide="ignore"):
        log_probs = np.log([[1.0, 0.0]])
    assert measure_quality(log_probs, np.array([1]), ("a", "b")).log_loss == pytest.approx(-np.log(1e-15))
