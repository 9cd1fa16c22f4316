"""Populations kept as the numbers of their noise."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from searchlib.errors import InvalidSettings, StudyError
from searchlib.noise_table import noise
from searchlib.seeded_population import SeededPopulation, bits_of, read_bits


def population(d=50_000):
    rng = np.random.default_rng(0)
    center, sigma = (rng.normal(size=d).astype(np.float32) for _ in range(2))
    return SeededPopulation(center, np.abs(sigma), np.array([5, 5, 9, 0]), np.array([1, -1, 1, 0]))


def test_noise_is_standard_normal_and_its_vectors_are_nearly_orthogonal():
    vectors = np.stack([noise(number, 100_000) for number in range(12)])
    assert all(scipy.stats.kstest(vector, "norm").pvalue > 1e-4 for vector in vectors)
    products = np.corrcoef(vectors)[np.triu_indices(12, 1)]
    assert len(products) == 66
    assert np.abs(products).max() < 5 / np.sqrt(100_000)


def test_rows_are_center_plus_signed_noise():
    several = population()
    rows = np.asarray(several)
    for row, seed, sign in zip(rows, [5, 5, 9, 0], [1, -1, 1, 0], strict=True):
        expected = several.center + sign * several.sigma * noise(seed, 50_000)
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(rows[3], several.center)


@pytest.mark.parametrize("part", [slice(1, 3), np.array([True, False, True, True]), np.array([2, 0])], ids=str)
def test_a_part_is_the_part_of_the_rows_bit_for_bit(part):
    several = population()
    np.testing.assert_array_equal(np.asarray(several[part]), np.asarray(several)[part])


def test_rows_can_be_written_into_a_given_array():
    several, out = population(), np.empty((4, 50_000), np.float32)
    assert several.rows(out) is out
    np.testing.assert_array_equal(out, np.asarray(several))


def test_keys_are_equal_exactly_for_equal_rows():
    several = population()
    other = SeededPopulation(several.center, 0.5, np.array([5, 7]), np.array([1, 0]))
    keys = several.keys() + other.keys()
    assert len(set(keys)) == 6
    assert several[np.array([0, 2])].keys() == [several.keys()[0], several.keys()[2]]


def test_bits_come_back_without_the_center():
    several = population()
    back = read_bits(bits_of(several), several.shape, several.dtype)
    assert back.keys() == several.keys()
    assert bits_of(back) == bits_of(several.without_center()) == bits_of(several)
    with pytest.raises(StudyError, match="seeds"):
        np.asarray(back)
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(read_bits(bits_of(plain), (3, 4), plain.dtype), plain)


@pytest.mark.parametrize(("seeds", "signs"), [([1, 2], [1]), ([-1], [1]), ([1], [2])])
def test_members_that_cannot_be_are_refused(seeds, signs):
    with pytest.raises(InvalidSettings):
        SeededPopulation(np.zeros(3, np.float32), 1.0, np.array(seeds), np.array(signs))
