"""Tasks to train on."""

from __future__ import annotations

import numpy as np
import pytest

from searchlib.errors import InvalidSettings
from searchlib.spaces import CurriculumTasks
from searchlib.testing import check_space

TASKS = CurriculumTasks(("speed", "size"), (0.0, 1.0), (1.0, 3.0))


class Upper(CurriculumTasks):
    """Only tasks above the diagonal make sense."""

    def valid(self, rows):
        return rows[:, 1] - 1 >= 2 * rows[:, 0] - 1e-9


class Nowhere(CurriculumTasks):
    """The middle is not among them."""

    def valid(self, rows):
        return np.abs(rows[:, 0] - 0.5) > 0.1


def test_a_subclass_says_which_vectors_are_tasks_and_all_operators_keep_to_it():
    check_space(Upper(("speed", "size"), (0.0, 1.0), (1.0, 3.0)))


def test_moved_tasks_stay_within_their_reach_and_the_bounds():
    rng = np.random.default_rng(0)
    rows = TASKS.sample(rng, 500)
    moved = TASKS.near(rng, rows, 0.1)
    assert TASKS.contains(moved).all()
    apart = np.abs(TASKS.unit(moved) - TASKS.unit(rows))
    assert 0.09 < apart.max() <= 0.1 + 1e-12


def test_a_moved_task_that_makes_no_sense_is_drawn_again():
    space = Upper(("speed", "size"), (0.0, 1.0), (1.0, 3.0))
    rng = np.random.default_rng(0)
    rows = space.sample(rng, 500)
    moved = space.near(rng, rows, 0.3)
    assert space.valid(moved).all()
    assert (moved != rows).any(axis=1).mean() > 0.95


@pytest.mark.parametrize(
    "arguments",
    [
        ((), (), ()),
        (("a", "a"), (0.0, 0.0), (1.0, 1.0)),
        (("a", "b"), (0.0,), (1.0, 1.0)),
        (("a",), (2.0,), (1.0,)),
        (("a",), 0.0, 1.0),
        ("a", (0.0,), (1.0,)),
        (("a",), (-1e308,), (1e308,)),
        (("a",), (0.0,), (float("inf"),)),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments):
    with pytest.raises(InvalidSettings):
        CurriculumTasks(*arguments)


def test_a_middle_that_is_no_task_is_refused():
    with pytest.raises(InvalidSettings, match=r"Nowhere\.middle"):
        Nowhere(("a",), (0.0,), (1.0,))
