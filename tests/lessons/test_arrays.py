import numpy as np

from charlm.lessons.arrays import format_matrix, format_row, max_difference


def test_row_with_decimals_has_columns_of_equal_width() -> None:
    assert format_row([0.1, -0.25]) == " 0.100 -0.250"
    assert format_row([1, 0, 0], 0) == "1 0 0"


def test_matrix_has_its_name_once_and_aligned_rows() -> None:
    matrix = np.array([[1.0, -2.0], [10.0, 0.5]])
    assert format_matrix("X", matrix, 1).splitlines() == ["  X = [ 1.0 -2.0]", "      [10.0  0.5]"]


def test_vector_is_a_matrix_of_one_row() -> None:
    assert format_matrix("b", [0.5, 0.25]) == "  b = [0.500 0.250]"


def test_max_difference_is_absolute() -> None:
    assert max_difference([1.0, 2.0], [1.5, 0.0]) == 2
