import numpy as np
import pytest

from searchlib.objectives.expert_released_loop import ReleasedLoop


def recorded(loop, *, keep=3, groups=2, experts=6, seed=0):
    seen = []

    def score(matrices):
        seen.append(matrices)
        return float(np.clip(0.5 + 0.01 * matrices.merging[:, :, 0].sum(), 0, 1))

    best_first, accuracies = loop.search(
        score, experts=experts, keep=keep, groups=groups, rng=np.random.default_rng(seed)
    )
    return seen, best_first, accuracies


def one_hot(matrices):
    rows = matrices.merging.reshape(-1, matrices.merging.shape[-1])
    return bool(((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all())


def test_it_makes_402_evaluations_of_which_101_prune():
    seen, best_first, accuracies = recorded(ReleasedLoop())
    assert len(seen) == len(best_first) == len(accuracies) == 402
    assert all(one_hot(matrices) for matrices in seen[:101])
    assert not all(one_hot(matrices) for matrices in seen[101:])
    first = [matrices.merging.tobytes() for matrices in seen[:31]]
    assert len(set(first)) == 31


def test_while_pruning_rows_are_distinct_and_router_follows():
    seen, _, _ = recorded(ReleasedLoop())
    for matrices in seen[:101]:
        np.testing.assert_array_equal(matrices.router, matrices.merging)
        assert (matrices.merging.sum(axis=1) <= 1).all()


def test_the_best_training_accuracy_wins():
    _, best_first, accuracies = recorded(ReleasedLoop(total=120))
    score = 0.5 + 0.01 * best_first[0].merging[:, :, 0].sum()
    assert float(np.clip(score, 0, 1)) == pytest.approx(max(accuracies))


def test_steps_have_the_released_size_and_rate():
    loop = ReleasedLoop(total=3000, discrete=1, initial=1, crossover_rate=0.0, normalize_rate=0.0, mutation_margin=0.0)
    flat = ReleasedLoop(total=3000, discrete=1, initial=1, crossover_rate=0.0, normalize_rate=0.0, mutation_margin=0.0)
    assert loop == flat
    rng, parent = np.random.default_rng(0), np.zeros((2, 2, 3, 6))
    children = np.stack([loop._blend(rng, [parent], np.array([0]), [0.5]) for _ in range(3000)])
    moved = children != 0
    touched = moved.any(axis=(-2, -1))
    # A matrix is touched with probability 0.25, given that at least one of the four is.
    assert touched.mean() == pytest.approx(0.25 / (1 - 0.75**4), abs=0.02)
    assert moved[touched].mean() == pytest.approx(0.25, abs=0.01)
    assert children[moved].std() == pytest.approx(0.065, rel=0.02)


def test_fewer_candidates_than_initial_ones_do_not_hang_it():
    seen, _, _ = recorded(ReleasedLoop(total=40), keep=5, groups=1)
    assert len(seen) == 40
