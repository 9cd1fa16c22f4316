"""The corrected Fréchet distance: what it equals, what it is for, what it refuses."""

import numpy as np
import pytest
import torch

from searchlib.errors import InvalidSettings
from searchlib.objectives import ControlledFrechetDistance, FrechetDistance
from searchlib.testing import check_objective


def flat(images):
    return images.flatten(1)


@pytest.fixture
def draw():
    return torch.Generator().manual_seed(0)


def slow(noise, conditions):
    """A sampler of a curved family."""
    del conditions
    return torch.stack([noise[:, 0] + 0.3 * noise[:, 1] ** 2, 1.5 * noise[:, 1], noise[:, 2].sinh()], dim=1)


def quick(noise):
    """Makes nearly the same of each noise, a little off."""
    return slow(noise, None) * 0.9 + 0.1 * noise + 0.2


def values(score, samples, noise):
    return score.aggregate(score.observe(samples, noise, [None] * len(noise))[None])[0]


def test_on_the_noises_that_stand_for_all_it_is_the_plain_distance(draw):
    noise, data = torch.randn(400, 3, generator=draw), torch.randn(500, 3, generator=draw)
    plain, controlled = FrechetDistance(flat, data), ControlledFrechetDistance(flat, data, slow, noise)
    assert values(controlled, quick(noise), noise) == pytest.approx(values(plain, quick(noise), noise), rel=1e-9)


def test_few_noises_say_what_many_do_with_a_tenth_of_the_error(draw):
    many, data = torch.randn(20_000, 3, generator=draw), slow(torch.randn(3000, 3, generator=draw), None)
    plain, controlled = FrechetDistance(flat, data), ControlledFrechetDistance(flat, data, slow, many)
    truth = values(plain, quick(many), many)
    parts = torch.randn(30, 60, 3, generator=draw)
    errors = {
        score: np.sqrt(np.mean([(values(score, quick(part), part) - truth) ** 2 for part in parts]))
        for score in (plain, controlled)
    }
    assert errors[controlled] < 0.1 * errors[plain]


def test_the_slope_is_that_of_finite_differences(draw):
    noise, data = torch.randn(40, 3, generator=draw), torch.randn(300, 3, generator=draw)
    score = ControlledFrechetDistance(flat, data, slow, torch.randn(2000, 3, generator=draw))
    own = score.observe(quick(noise), noise, [None] * 40)
    value, slope = score.slope(own)
    assert value == pytest.approx(score.aggregate(own[None])[0], rel=1e-12)
    moves = np.zeros((120, 40, 6))
    moves[np.arange(120), np.arange(120) // 3, np.arange(120) % 3] = 1e-5
    differences = (score.aggregate(own + moves) - score.aggregate(own - moves)) / 2e-5
    np.testing.assert_allclose(slope[:, :3].ravel(), differences, rtol=1e-5, atol=1e-8)
    assert (slope[:, 3:] == 0).all()


def test_the_slow_sampler_makes_every_image_once(draw):
    calls = []

    def counted(noise, conditions):
        calls.append((len(noise), list(conditions)))
        return slow(noise, conditions)

    data, noise = torch.randn(50, 3, generator=draw), torch.randn(8, 3, generator=draw)
    score = ControlledFrechetDistance(flat, data, counted, torch.randn(4, 3, generator=draw), conditions=list("abcd"))
    for part in (noise[:5], noise, noise[3:]):
        score.observe(quick(part), part, ["x"] * len(part))
    assert calls == [(4, list("abcd")), (5, ["x"] * 5), (3, ["x"] * 3)]


def test_what_it_cannot_correct_is_refused(draw):
    noise, data = torch.randn(4, 3, generator=draw), torch.randn(50, 3, generator=draw)
    with pytest.raises(InvalidSettings, match="1 noises and 1 conditions"):
        ControlledFrechetDistance(flat, data, slow, noise[:1])
    with pytest.raises(InvalidSettings, match="4 noises and 2 conditions"):
        ControlledFrechetDistance(flat, data, slow, noise, conditions=["a", "b"])
    with pytest.raises(InvalidSettings, match="needs the noise of every image"):
        ControlledFrechetDistance(flat, data, slow, noise).observe(noise, None, [None] * 4)


def test_a_search_of_schedules_takes_it_as_its_score(draw):
    from searchlib.objectives import NoiseCases, SolverSearch
    from searchlib.objectives.solver_search import _as_they_are, _smoke_model, _smoke_samples

    data = _smoke_samples(torch.randn(200, 2, generator=draw), None)
    score = ControlledFrechetDistance(flat, data, _smoke_samples, torch.randn(200, 2, generator=draw))
    objective = SolverSearch(
        _smoke_model, 3, score, NoiseCases(search=8, holdout=0), shape=(2,), to_images=_as_they_are
    )
    check_objective(objective)
