import hashlib

import numpy as np
import pytest

from searchlib import key_table
from searchlib.key_table import KeyTable


def made(rng, n, width):
    """Keys of which many come again: some differ in the first, some in the last bytes only."""
    few = rng.integers(0, 9 if width < 5 else 4, (n, width), np.uint8)
    few[:, 2:-2] = 0
    return [row.tobytes() for row in few]


@pytest.mark.parametrize("width", [1, 8, 9, 16, 32])
@pytest.mark.parametrize("recent", [3, 50, 10_000])
def test_a_table_says_what_a_dictionary_says(monkeypatch, width, recent):
    monkeypatch.setattr(key_table, "_RECENT", recent)
    rng, table, truth, asked = np.random.default_rng(width), KeyTable(), {}, 0
    for n in (1, 7, 0, 300, 64, 1000, 3):
        keys = made(rng, n, width)
        expected = []
        for number, key in enumerate(keys, start=asked):
            first = truth.setdefault(key, number)
            expected.append(-1 if first == number else first)
        assert table.add(keys, asked).tolist() == expected
        asked += n
        assert len(table) == len(truth)
    unknown = [hashlib.blake2b(bytes([i]), digest_size=16).digest()[:width].ljust(width, b"x") for i in range(200)]
    every = [*truth, *unknown]
    assert table.find(every).tolist() == [truth.get(key, -1) for key in every]
    assert len(truth) > 4


def test_keys_that_share_half_their_bits_are_told_apart(monkeypatch):
    """The half by which they are sorted never is the same by chance, so it is made so."""
    monkeypatch.setattr(key_table, "_RECENT", 5)
    monkeypatch.setattr(key_table, "_spread", lambda words: words & np.uint64(1))
    keys = [number.to_bytes(16, "big") for number in range(40)]
    table = KeyTable()
    assert table.add(keys, 0).tolist() == [-1] * 40
    assert table.find(keys).tolist() == list(range(40))
    assert table.find([number.to_bytes(16, "big") for number in range(40, 50)]).tolist() == [-1] * 10


def test_numbers_beyond_32_bits_are_kept(monkeypatch):
    monkeypatch.setattr(key_table, "_RECENT", 2)
    table = KeyTable()
    table.add([b"a", b"b"], 2**40)
    table.add([b"c", b"d"], 5)
    assert table.find([b"a", b"b", b"c", b"d", b"e"]).tolist() == [2**40, 2**40 + 1, 5, 6, -1]


@pytest.mark.parametrize("recent", [3, 10_000])
@pytest.mark.parametrize("limit", [None, 5])
def test_what_is_claimed_is_what_a_dictionary_did_not_know_in_order_and_once(monkeypatch, recent, limit):
    monkeypatch.setattr(key_table, "_RECENT", recent)
    rng, table, truth = np.random.default_rng(0), KeyTable(), {}
    for n in (1, 7, 0, 300, 64, 1000, 3):
        keys, expected = made(rng, n, 8), []
        for place, key in enumerate(keys):
            if key not in truth and (limit is None or len(expected) < limit):
                truth[key] = len(truth)
                expected.append(place)
        assert table.claim(keys, limit).tolist() == expected
        assert len(table) == len(truth)
    assert table.find(list(truth)).tolist() == list(truth.values())
    assert len(truth) > 20
