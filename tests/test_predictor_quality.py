"""The picture of a predictor's quality."""

import matplotlib
import pytest

from searchlib import PredictorGuided, search
from searchlib.errors import InvalidSettings
from searchlib.spaces import Subset

matplotlib.use("Agg")

from searchlib.report import plot_predictor_quality


def test_every_judged_stage_is_a_mark_and_trusted_ones_are_filled():
    result = search(sum, PredictorGuided(population=8, stage=4), space=Subset(12, k=3), budget=24, seed=0)
    stages = [stage for stage in result.notes["stages"] if stage["tau"] is not None]
    assert len(stages) > 1
    axes = plot_predictor_quality(result.notes)
    (marks,) = axes.collections
    assert marks.get_offsets().tolist() == [[stage["evaluations"], stage["tau"]] for stage in stages]
    filled = [face[3] > 0 for face in marks.get_facecolors()] if len(marks.get_facecolors()) else [False] * len(stages)
    assert filled == [stage["guided"] for stage in stages]


def test_several_searches_share_a_name_and_a_color():
    stage = {"evaluations": 8, "tau": 0.5, "guided": True}
    notes = {"stages": [stage, stage | {"tau": None}]}
    axes = plot_predictor_quality({"ours": [notes, notes]})
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["ours"]
    assert len({line.get_color() for line in axes.lines[:2]}) == 1


def test_notes_of_another_algorithm_are_refused():
    with pytest.raises(InvalidSettings, match="stages"):
        plot_predictor_quality({"steps": 3, "taken": 2})
