"""What the speed benchmark times is the same work done in two ways."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest

import benchmarks.__main__ as command_line
from benchmarks.speed_clock import Spent, claim_at_least, claim_at_most, in_turn, peak_megabytes, threads, timed
from benchmarks.table import Table

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pymoo")
pytest.importorskip("nevergrad")

from benchmarks import small_mixtral, speed, speed_allocation, speed_apply, speed_candidates, speed_engine  # noqa: E402
from benchmarks.speed_apply import PHASES, ApplySize, candidates, mixtral  # noqa: E402
from benchmarks.speed_classes import SPACES, ClassSize  # noqa: E402
from benchmarks.speed_released import ReleasedScoring, ReleasedWeights  # noqa: E402
from searchlib.objectives import AnswerScorer  # noqa: E402
from searchlib.objectives.expert_matrices import one_hot_matrices  # noqa: E402
from searchlib.objectives.moe_model import MoeModel  # noqa: E402
from searchlib.spaces import ExpertMerges  # noqa: E402

TINY = ApplySize(2, hidden=32, intermediate=48, candidates=4, released=2, dtype=torch.float32)
TOKENS = torch.arange(24).reshape(3, 8)
DENSE = np.random.default_rng(0).normal(0.125, 0.1, (2, 2, 4, 8)).astype(np.float32)
NEGATIVE = np.abs(DENSE[0]) * [[1], [-1], [-1], [-1]]  # one slot alone has a positive score
KEPT = one_hot_matrices([[0, 3, 5, 6], [1, 2, 4, 7]], 8)


def logits(model):
    with torch.inference_mode():
        return model(TOKENS).logits


@pytest.fixture(autouse=True)
def one_thread():
    """More only wait for each other where the computer is busy."""
    with threads(1):
        yield


@pytest.fixture(scope="module")
def trained():
    return small_mixtral.load(small_mixtral.SMOKE_STEPS)


# --- the released way ---


@pytest.mark.parametrize(
    ("router", "merging"),
    [(KEPT, KEPT), (DENSE[0], DENSE[1]), (NEGATIVE, DENSE[1])],
    ids=["pruning", "merging", "negative scores"],
)
def test_both_ways_make_the_same_model(router, merging):
    model = mixtral(TINY)
    full = logits(model)
    with MoeModel(model) as moe:
        moe.apply(router, merging)
        ours = logits(model)
    with ReleasedWeights(model, 4) as released:
        released.apply(router, merging)
        theirs = logits(model)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    assert (ours - full).abs().max() > 0.01, "the candidate must change something"


def test_the_released_way_merges_each_expert_as_equation_6_says():
    model = mixtral(TINY)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with ReleasedWeights(model, 4) as released:
        released.apply(DENSE[0], DENSE[1])
        for number, layer in enumerate(model.model.layers):
            for name in ("gate_up_proj", "down_proj"):
                full = before[f"model.layers.{number}.mlp.experts.{name}"].double()
                expected = torch.einsum("ke,eab->kab", torch.tensor(DENSE[1, number]).double(), full)
                found = getattr(layer.mlp.experts, name)
                torch.testing.assert_close(found[:4].double(), expected, rtol=1e-5, atol=1e-6)
                torch.testing.assert_close(found[4:].double(), full[4:], rtol=0, atol=0)


def test_the_released_way_starts_every_candidate_from_the_full_model_and_puts_it_back():
    model = mixtral(TINY)
    full = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with ReleasedWeights(model, 4) as released:
        released.apply(DENSE[0], DENSE[1])
        once = logits(model)
        released.apply(KEPT, KEPT)
        released.apply(DENSE[0], DENSE[1])
        assert torch.equal(logits(model), once)
    assert all(torch.equal(tensor, full[name]) for name, tensor in model.state_dict().items())
    assert not any(layer.mlp.gate._forward_hooks for layer in model.model.layers)


def test_layers_of_a_group_share_matrices():
    model = mixtral(TINY)
    with ReleasedWeights(model, 4) as released:
        released.apply(DENSE[0][:1], DENSE[1][:1], [0, 0])
        shared = logits(model)
        released.apply(DENSE[0][[0, 0]], DENSE[1][[0, 0]])
        assert torch.equal(logits(model), shared)


def test_prefill_and_generation_and_the_scorer_agree_on_every_case(trained):
    model, tokenizer = trained
    cases = small_mixtral.cases("extremes", 50)
    scoring = ReleasedScoring(model, tokenizer, cases, end=small_mixtral.END, batch=16)
    expected = AnswerScorer(model, tokenizer, cases, end=small_mixtral.END).score()[0]
    assert 0.1 < expected.mean() < 0.95, "right and wrong answers are needed to tell the ways apart"
    np.testing.assert_array_equal(scoring.prefill(), expected)
    np.testing.assert_array_equal(scoring.generate(), expected)


# --- applying a candidate ---


def history(evaluations: int = 24):
    """A quarter of pruned candidates, then merged ones."""
    space, rng = ExpertMerges(layers=4, experts=8, keep=4, groups=4), np.random.default_rng(0)
    pruned = space.embed(space.first.sample(rng, evaluations // 4))
    merged = space.sample(rng, evaluations - len(pruned))
    return np.concatenate([pruned, merged]).reshape(-1, 2, 4, 4, 8)


def test_candidates_are_those_of_a_search_in_its_order():
    searched = history(40)
    sequences = candidates(TINY, searched, repetition=3)
    assert tuple(sequences) == PHASES
    assert {sequence.shape for sequence in sequences.values()} == {(5, 2, 2, 4, 8)}
    prune, merge, dense = sequences.values()
    np.testing.assert_array_equal(prune, searched[5:10][:, :, [3, 0]])
    np.testing.assert_array_equal(merge, searched[25:30][:, :, [3, 0]])
    assert (dense[1:] != dense[:-1]).all()
    with pytest.raises(ValueError, match="20 candidates or more"):
        candidates(TINY, searched[:16], 0)


def test_the_model_has_finite_distinct_experts():
    model = mixtral(TINY)
    experts = model.model.layers[0].mlp.experts.gate_up_proj
    assert torch.isfinite(logits(model)).all()
    assert all(not torch.equal(experts[0], experts[i]) for i in range(1, 8))
    assert mixtral(ApplySize(1, hidden=8, intermediate=8)).dtype == torch.bfloat16


def test_measuring_leaves_the_model_and_both_ways_merge_alike():
    table = Table("speed", "smoke", 1)
    applied = speed_apply.measure(table, TINY, [history()])
    assert applied.difference < 1e-6
    assert set(applied.cpu_seconds) == {(phase, way) for phase in PHASES for way in ("searchlib", "released way")}
    rows = {(row["task"], row["method"]): row["metrics"] for row in table.rows()}
    merged = [rows[f"apply a candidate, {phase}", "searchlib"]["layers_merged"]["mean"] for phase in PHASES]
    assert merged[0] == 0, "pruning moves no weights"
    assert 0 < merged[1] <= 1
    assert merged[2] == 1


# --- scoring a candidate ---


def test_scoring_measures_the_same_accuracies_for_all_ways(trained):
    table = Table("speed", "smoke", 1)
    size = speed_candidates.CandidatesSize(small_mixtral.SMOKE_STEPS, "extremes", 16, 20, 2)
    scored = speed_candidates.measure(table, size, 1)
    assert scored.difference <= 1 / 16
    (searched,) = scored.histories
    assert searched.shape == (20, 2, 4, 4, 8)
    assert set(np.unique(searched[:5])) == {0, 1}, "a quarter prunes"
    assert not set(np.unique(searched[5:])) <= {0, 1}
    assert {name: len(values) for name, values in scored.cpu_seconds.items()} == {
        "searchlib": 1, speed_candidates.PREFILL: 1, speed_candidates.GENERATE: 1
    }  # fmt: skip


# --- the engines ---


@pytest.mark.filterwarnings("ignore")  # the rivals' own
@pytest.mark.parametrize("name", speed_engine.ENGINES)
def test_every_engine_spends_its_budget_and_searches(name):
    evaluations, best = speed_engine.ENGINES[name](600, 0)
    assert evaluations == 600
    assert best < 128 - 20, "far below the half that random bits have"


def test_importing_searchlib_is_timed_in_a_fresh_process():
    seconds = speed_engine.import_seconds(Table("speed", "smoke", 1), repetitions=2)
    assert len(seconds) == 2
    assert all(0 < value < 5 for value in seconds)


# --- clock and claims ---


def test_works_take_turns_and_each_repetition_begins_with_another():
    calls: list[tuple[str, int]] = []
    works = {name: lambda repetition, name=name: calls.append((name, repetition)) for name in "ab"}
    assert [name for name, _ in in_turn(works, 3)] == [name for name, _ in calls]
    assert calls == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]


def test_time_is_that_of_the_work():
    spent = timed(lambda: sum(range(2_000_000)))
    assert 0 < spent.cpu_seconds <= spent.seconds + 0.05
    assert Spent(3.0, 1.5).per(3) == (1.0, 0.5)


def test_peak_memory_is_seen_although_it_is_given_back():
    extra = peak_megabytes(lambda: np.ones(8_000_000).sum())
    if extra is None:
        pytest.skip("this system does not tell")
    assert 55 < extra < 90


def test_a_part_can_be_measured_alone(tmp_path, monkeypatch):
    quick = dataclasses.replace(speed.PRESETS["smoke"], classes=ClassSize(30, 20, 10, ("genetic",)), repetitions=1)
    monkeypatch.setattr(speed, "PRESETS", {**speed.PRESETS, "smoke": quick})
    assert command_line.main(["speed", "--preset", "smoke", "--part", "classes", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    found = {}
    for row in rows:
        found.setdefault(row["task"], {})[row["method"]] = row["metrics"]["cpu_microseconds"]["mean"]
    assert set(found) == {f"asking and telling, genetic, {space}" for space in SPACES}
    for methods in found.values():
        assert {"Evolution", "pymoo GA", "nevergrad TwoPointsDE"} <= set(methods)
        assert min(methods.values()) > 0


def test_a_claim_compares_medians_and_shows_the_spread():
    table = Table("speed", "paper", 3)
    claim_at_least(table, "faster", [2.0, 4.0, 9.0], [1.0, 1.0, 1.0], 3, "seconds")
    claim_at_least(table, "much faster", [2.0, 4.0, 9.0], [1.0, 1.0, 1.0], 5, "seconds")
    claim_at_most(table, "cheap", [5.0, 1.0, 3.0], 3, "seconds")
    assert [(claim.value, claim.holds, claim.interval) for claim in table.claims] == [
        (4.0, True, (2.0, 9.0)), (4.0, False, (2.0, 9.0)), (3.0, True, (1.0, 5.0))
    ]  # fmt: skip


def test_peak_memory_does_the_work_where_the_system_hides_it(monkeypatch):
    def refuse(*arguments):
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    calls: list[int] = []
    assert peak_megabytes(lambda: calls.append(1)) is None
    assert calls == [1]


# --- the command line ---


@pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="a whole benchmark in small: make soak")
@pytest.mark.filterwarnings("ignore")
def test_the_smoke_preset_runs_with_sanity_claims_only(tmp_path, trained, monkeypatch):
    quick = dataclasses.replace(
        speed.PRESETS["smoke"], apply=TINY, engine=speed_engine.EngineSize(200, 100), repetitions=1,
        allocation=speed_allocation.AllocationSize(16, 2, limit=0.2),
        candidates=speed_candidates.CandidatesSize(small_mixtral.SMOKE_STEPS, "extremes", 16, 20, 2),
        classes=ClassSize(30, 20, 10, ("genetic",)),
    )  # fmt: skip
    monkeypatch.setattr(speed, "PRESETS", {**speed.PRESETS, "smoke": quick, "small": quick})
    scoring = ["speed", "--preset", "smoke", "--part", "candidates", "--out", str(tmp_path)]
    assert command_line.main(scoring) == command_line.OK
    written = json.loads((tmp_path / "speed.json").read_text())
    assert [claim["claim"].split()[:2] for claim in written["claims"]] == [["both", "ways"], ["both", "ways,"]]
    assert command_line.main(["speed", "--preset", "small", "--seeds", "1", "--out", str(tmp_path)]) in (0, 3)
    written = json.loads((tmp_path / "speed.json").read_text())
    assert len(written["claims"]) >= 11


def test_the_presets_measure_real_layers_and_repeat_five_times():
    for name in ("small", "paper"):
        preset = speed.PRESETS[name]
        assert (preset.apply.hidden, preset.apply.intermediate, preset.repetitions) == (4096, 14336, 5)
        assert preset.apply.dtype == torch.bfloat16
        assert (preset.engine.evaluations, preset.candidates.cases) == (20_000, 128)
