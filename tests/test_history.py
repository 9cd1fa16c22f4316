import hashlib

import numpy as np
import pytest

from searchlib import Status
from searchlib.history import History, Told
from searchlib.seeded_population import bits_of
from searchlib.spaces import Real

SPACE = Real(0, 1, length=3)
COLUMNS = ("ids", "population", "values", "secondary", "standard_error", "status", "fresh", "stopped", "cached")


def told(rng, n, first, plain):
    """A batch; a plain one says the same of everybody wherever it can."""
    failed = np.zeros(n, bool) if plain else rng.random(n) < 0.2
    values = np.where(failed[:, None], np.nan, rng.random((n, 2)))
    return Told(
        np.arange(first, first + n), rng.random((n, 3)), values, np.full(n, np.nan) if plain else rng.random(n),
        np.full((n, 2), np.nan) if plain else rng.random((n, 2)),
        np.where(failed, Status.FAILED, Status.DONE).astype(np.int8),
        np.ones(n, bool) if plain else rng.random(n) < 0.5,
        tuple(f"no {i}" if bad else "" for i, bad in enumerate(failed)),
        None if plain else rng.random(n) < 0.5, None if plain else rng.random(n) < 0.5,
    )  # fmt: skip


@pytest.mark.parametrize("plain", [True, False])
def test_a_history_of_many_batches_is_what_was_appended(monkeypatch, plain):
    monkeypatch.setattr("searchlib.history._BLOCK", 50)
    rng, history, batches, first = np.random.default_rng(0), History(SPACE, 2), [], 0
    for n in (1, 3, 64, 0, 7, 49, 50, 51, 2, 2, 120, 5):
        batches.append(told(rng, n, first, plain))
        first += n
        history.append(batches[-1])
        assert len(history) == first
    for name in COLUMNS:
        whole = np.concatenate([getattr(batch, name) for batch in batches])
        rows = np.array([0, first - 1, 70, 3, 3, 200, 68])
        some = history.at(name, rows)  # before anybody has looked at all of it
        assert np.array_equal(some, whole[rows], equal_nan=whole.dtype.kind == "f")
        found = getattr(history, name)
        assert found.dtype == whole.dtype
        assert np.array_equal(found, whole, equal_nan=whole.dtype.kind == "f")
        assert not found.flags.writeable
        assert np.array_equal(history.at(name, rows), some, equal_nan=whole.dtype.kind == "f")
    assert history.errors == tuple(error for batch in batches for error in batch.errors)
    assert history.batch.tolist() == [number for number, batch in enumerate(batches) for _ in batch.ids]
    assert history.failures == (0 if plain else sum(error != "" for error in history.errors) or -1)
    assert np.array_equal(np.array(list(history.rows())), history.population)
    assert history.digest == digest_of(batches)


def digest_of(batches):
    """The fingerprint as it was when every batch was kept by itself: studies are compared by it."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("ids", "population", "values", "secondary", "standard_error", "status", "fresh"):
        if name == "population":
            for batch in batches:
                digest.update(bits_of(batch.population))
        else:
            digest.update(np.concatenate([getattr(batch, name) for batch in batches]).tobytes())
    digest.update(np.repeat(np.arange(len(batches)), [len(batch.ids) for batch in batches]).tobytes())
    return digest.hexdigest()


def test_an_empty_history_has_empty_columns():
    history = History(SPACE, 2)
    assert [getattr(history, name).shape for name in COLUMNS] == [
        (0,), (0, 3), (0, 2), (0,), (0, 2), (0,), (0,), (0,), (0,)
    ]  # fmt: skip
    assert history.errors == ()
    assert history.batch.shape == (0,)
