"""Calls of every operator of a space with valid arguments: what bad candidates are put into."""

import numpy as np

__all__ = ["operator_calls"]


def operator_calls(space):
    """By operator: a maker of its arguments, by name."""
    rows = space.canonical(space.sample(np.random.default_rng(0), 3))
    calls = {
        "sample": lambda: {"rng": np.random.default_rng(0), "n": 2},
        "mutate": lambda: {"rng": np.random.default_rng(0), "population": rows.copy()},
        "crossover": lambda: {"rng": np.random.default_rng(0), "first": rows.copy(), "second": rows[::-1].copy()},
        "encode": lambda: {"values": [space.decode(row) for row in rows]},
        "decode": lambda: {"row": rows[0].copy()},
        "distance": lambda: {"first": rows.copy(), "second": rows[::-1].copy()},
        "from_latent": lambda: {"latent": np.zeros((2, space.latent_dimension))},
        "check": lambda: {"population": rows.copy()},
        "neighbors": lambda: {"row": rows[0].copy()},
    }
    for name in ("repair", "canonical", "contains", "features", "to_latent"):
        calls[name] = lambda: {"population": rows.copy()}
    if hasattr(space, "embed"):
        first = space.first.sample(np.random.default_rng(0), 2)
        calls["embed"] = lambda: {"population": first.copy()}
        calls["restrict"] = lambda: {"population": rows.copy()}
    if hasattr(space, "sample_from"):
        pool = np.arange(space.item_count)
        calls["sample_from"] = lambda: {"rng": np.random.default_rng(0), "n": 2, "pool": pool.copy()}
    return calls
