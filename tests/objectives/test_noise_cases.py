"""Noises are the same for every candidate, in any company."""

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from searchlib import Split
from searchlib.errors import InvalidSettings
from searchlib.objectives.noise_cases import NoiseCases, generators, noises


def test_noises_are_those_that_diffusers_draws_from_the_same_generators():
    cases = NoiseCases(search=5, holdout=2).of(Split.SEARCH)
    theirs = randn_tensor((5, 3, 4, 4), generator=generators(cases), dtype=torch.float32)
    assert torch.equal(noises(cases, (3, 4, 4)), theirs)


def test_a_noise_depends_on_its_case_alone():
    cases = NoiseCases(search=6, holdout=0).of(Split.SEARCH)
    together = noises(cases, (2, 2))
    alone = noises(cases.take([4]), (2, 2))
    assert torch.equal(together[4:5], alone)
    more = NoiseCases(search=9, holdout=0).of(Split.SEARCH)
    assert torch.equal(noises(more, (2, 2))[:6], together)


def test_splits_and_seeds_share_no_noise():
    chosen = NoiseCases(search=50, select=50, holdout=50)
    seeds = [seed for split in Split for case in chosen.of(split).payload for seed in case.seeds]
    other = [seed for case in NoiseCases(search=50, holdout=0, seed=1).of(Split.SEARCH).payload for seed in case.seeds]
    assert len(set(seeds + other)) == 200


def test_cases_of_several_images_hold_as_many_noises():
    cases = NoiseCases(search=6, holdout=0, images_per_case=3, conditions=("a", "b")).of(Split.SEARCH)
    assert len(cases) == 2
    assert [case.condition for case in cases.payload] == ["a", "b"]
    assert noises(cases, (4,)).shape == (6, 4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"search": 1, "holdout": 0}, "search"),
        ({"search": 4, "holdout": -1}, "holdout"),
        ({"search": 5, "holdout": 0, "images_per_case": 2}, "images_per_case=2"),
    ],
)
def test_counts_that_make_no_cases_are_refused(settings, words):
    with pytest.raises(InvalidSettings, match=words):
        NoiseCases(**settings)
