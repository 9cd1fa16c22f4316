import numpy as np
import pytest

from searchlib.errors import InvalidSettings
from searchlib.hypervolume import hypervolume


def volume_by_inclusion_and_exclusion(values, reference):
    total, n = 0.0, len(values)
    for subset in range(1, 2**n):
        rows = [row for row in range(n) if subset >> row & 1]
        sides = np.maximum(reference - values[rows].max(axis=0), 0)
        total += (-1) ** (len(rows) + 1) * sides.prod()
    return total


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_it_is_the_volume_of_the_union_of_boxes(m):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        values = rng.random((9, m)) if seed % 2 else rng.integers(4, size=(9, m)).astype(float)
        reference = np.full(m, 0.9 if seed % 2 else 3.0)
        expected = volume_by_inclusion_and_exclusion(values, reference)
        assert hypervolume(values, reference) == pytest.approx(expected)


@pytest.mark.parametrize("m", [2, 3, 4])
def test_it_is_pymoos(m):
    indicators = pytest.importorskip("pymoo.indicators.hv")
    for seed in range(3):
        rng = np.random.default_rng(seed)
        values = np.abs(rng.standard_normal((120, m)))
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        theirs = indicators.HV(ref_point=np.full(m, 1.1))(values)
        assert hypervolume(values, np.full(m, 1.1)) == pytest.approx(theirs, rel=1e-12)


def test_directions_are_the_callers_own():
    values = np.random.default_rng(0).random((20, 2))
    turned = hypervolume(values * [1, -1], [1.0, -1.0], ("minimize", "maximize"))
    assert turned == pytest.approx(hypervolume(values, [1.0, 1.0]))
    assert turned > 0


def test_rows_behind_the_reference_and_rows_with_nan_count_nothing():
    values = [[1.0, 1.0], [np.nan, 0.0], [0.0, 3.0], [2.0, 2.0]]
    assert hypervolume(values, [2.0, 2.0]) == 1.0
    assert hypervolume([[3.0, 3.0]], [2.0, 2.0]) == 0.0
    assert hypervolume(np.empty((0, 2)), [2.0, 2.0]) == 0.0


@pytest.mark.parametrize("reference", [[1.0], [1.0, np.inf], [[1.0, 1.0]]])
def test_a_reference_that_is_no_point_is_refused(reference):
    with pytest.raises(InvalidSettings, match="2 finite numbers"):
        hypervolume([[0.0, 0.0]], reference)
