"""By which a study knows weights."""

import pytest

torch = pytest.importorskip("torch")

from searchlib.objectives.weight_sample import weight_sample  # noqa: E402


def test_a_parameter_without_numbers_counts_by_name_and_shape():
    two, three = torch.nn.Linear(4, 2, device="meta"), torch.nn.Linear(4, 3, device="meta")
    assert weight_sample(two) == weight_sample(torch.nn.Linear(4, 2, device="meta"))
    assert weight_sample(two) != weight_sample(three)


def test_the_same_numbers_under_another_name_are_another_model():
    layer = torch.nn.Linear(4, 2)
    assert weight_sample(torch.nn.ModuleDict({"a": layer})) != weight_sample(torch.nn.ModuleDict({"b": layer}))
