"""A loss on cases as what a model is worth."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from searchlib import Split
from searchlib.errors import InvalidSettings
from searchlib.objectives.generated_images import GeneratedImages
from searchlib.objectives.image_scores import ImageReward
from searchlib.objectives.model_judges import CaseLoss, ModelJudge
from searchlib.objectives.noise_cases import NoiseCases


def classification(model, cases):
    inputs, labels = torch.stack([x for x, _ in cases]), torch.tensor([y for _, y in cases])
    return cross_entropy(model(inputs), labels, reduction="none")


@pytest.fixture
def cases():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(3, generator=generator), i % 2) for i in range(6)]


def test_the_mean_over_cases_is_the_loss_of_the_batch(cases):
    model = torch.nn.Linear(3, 2)
    judge = CaseLoss(classification, {"search": cases[:4], "holdout": cases[4:]})
    value = judge.aggregate(judge.observe(model, judge.cases(Split.SEARCH))[None])[0, 0]
    inputs, labels = torch.stack([x for x, _ in cases[:4]]), torch.tensor([y for _, y in cases[:4]])
    assert value == pytest.approx(cross_entropy(model(inputs), labels).item())


def test_judges_of_both_kinds_are_judges():
    images = GeneratedImages(lambda m, n, c: n, ImageReward(lambda x, c: x[:, 0]), NoiseCases(2, 0), shape=(1,))
    assert isinstance(images, ModelJudge)
    assert isinstance(CaseLoss(classification, {"search": [1]}), ModelJudge)


def test_the_fingerprint_tells_cases_apart_and_is_the_same_for_equal_ones(cases):
    prints = [CaseLoss(classification, {"search": part}).fingerprint() for part in (cases, list(cases), cases[1:])]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("given", "direction", "words"),
    [({}, "minimize", "SEARCH"), ({"serach": [1]}, "minimize", "serach"), ({"search": [1]}, "down", "'down'")],
)
def test_wrong_splits_and_directions_are_refused(given, direction, words):
    with pytest.raises(InvalidSettings, match=words):
        CaseLoss(classification, given, direction=direction)


def test_a_loss_of_the_wrong_shape_is_refused(cases):
    judge = CaseLoss(lambda model, batch: torch.tensor(1.0), {"search": cases})
    with pytest.raises(InvalidSettings, match="6 numbers"):
        judge.observe(None, judge.cases(Split.SEARCH))
