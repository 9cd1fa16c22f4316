"""The benchmark of mixed precision, as short as it gets, its judges, and its path for pipelines of one's own."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("sklearn")

from benchmarks import mixed_precision as benchmark  # noqa: E402
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.precision_runs import DECOUPLED, METRICS, OURS, TASKS, ConditionDrift, Outcome  # noqa: E402
from benchmarks.small_transformers import conditions, frame_changes, log_probabilities, videos  # noqa: E402
from benchmarks.table import Table  # noqa: E402
from searchlib.objectives.mixed_precision import _smoke_model  # noqa: E402


@pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="a whole benchmark in small: make soak")
@pytest.mark.slow
def test_the_smoke_preset_prints_all_rows_and_writes_its_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["mixed_precision", "--preset", "smoke", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "mixed_precision.json").read_text())
    rows = {(row["task"], row["method"]): row["metrics"] for row in written["rows"]}
    for kind, task in TASKS.items():
        uniform = {method: metrics for (name, method), metrics in rows.items() if name == f"{task}: uniform"}
        assert len(uniform) == 1 + 3 * 3
        assert uniform["full precision"]["quality"]["mean"] == pytest.approx(0, abs=1e-9)
        errors = [uniform[name]["quality"]["mean"] for name in ("W8A8", "W6A6", "W4A8")]
        assert 0 < errors[0] < errors[1] < errors[2]
        for bits in (4, 3):
            mine = {method: metrics for (name, method), metrics in rows.items() if name == f"{task}: {bits} bits"}
            assert {"uniform", "MSE only", "alignment only", "random, best of 30", OURS, DECOUPLED} <= set(mine)
            assert ("temporal only" in mine) == (kind == "video")
            assert mine["uniform"]["aggregate"]["mean"] == pytest.approx(1)
            for metrics in mine.values():
                assert metrics["bits"]["mean"] <= bits + 0.01
                assert all(metrics[name]["mean"] > 0 for name in METRICS[kind])
    printed = capsys.readouterr().out
    assert all(method in printed for _, method in rows)
    claims = written["claims"]
    assert {claim["preset"] for claim in claims} == {"smoke", "paper"}
    assert all(claim["holds"] for claim in claims if claim["preset"] == "smoke")


def outcome(ours, theirs):
    """One model, with these losses of ours and of everything else."""
    task = f"{TASKS['digits']}: 4 bits"
    others = {"uniform", "MSE only", "alignment only", "random, best of 30", "sum of all metrics", DECOUPLED}
    rows = {(task, name): {"quality": theirs, "alignment": theirs, "aggregate": theirs} for name in others}
    rows[task, OURS] = {"quality": ours, "alignment": 2 * ours, "aggregate": ours}
    return Outcome(rows, {}, {}, {})


def claimed(outcomes):
    table = Table("demonstration", "paper", 3)
    benchmark._claim_better(table, "digits", 4.0, outcomes)
    return {claim.claim.partition(": ")[2]: claim for claim in table.claims}


def test_claims_hold_only_where_every_model_agrees_and_on_the_metrics_that_they_name():
    claims = claimed([outcome(0.7, 1.0), outcome(0.75, 1.0), outcome(0.72, 1.0)])
    aggregate = claims["4 bits: ours is better than uniform on the aggregate (held out)"]
    assert aggregate.holds
    assert aggregate.value == pytest.approx((0.7 * 0.75 * 0.72) ** (-1 / 3))
    assert 1 < aggregate.interval[0] < aggregate.value
    each = claims["4 bits: ours is better than uniform on each of quality, alignment (held out)"]
    assert not each.holds
    assert each.value == pytest.approx(aggregate.value / 2)
    unsure = claimed([outcome(0.5, 1.0), outcome(1.1, 1.0), outcome(0.9, 1.0)])
    assert not unsure["4 bits: ours is better than uniform on the aggregate (held out)"].holds


def test_lossless_is_an_interval_within_one_percent():
    rng = np.random.default_rng(0)
    full = rng.uniform(1, 2, 500)
    for factor, holds in ((1.001, True), (1.03, False)):
        table = Table("demonstration", "paper", 1)
        noisy = full * factor + rng.normal(0, 0.01, 500)
        benchmark._claim_lossless(table, "digits", [Outcome({}, {}, {"class NLL": (full, noisy)}, {})])
        (claim,) = table.claims
        assert claim.holds == holds
        assert claim.interval[0] <= claim.value <= claim.interval[1]
        assert claim.value == pytest.approx(factor - 1, abs=2e-3)


def test_the_judges_know_the_data_and_are_bounded_below():
    images, classes = videos()
    told = log_probabilities("video")(images)
    assert torch.equal(told.argmax(dim=1), classes)
    assert float(told.min()) >= np.log(0.05 / 8) - 1e-6
    backwards = log_probabilities("video")(images.flip(2).roll(1, 2))  # the same shape, in from the other side
    assert torch.equal(backwards.argmax(dim=1), classes ^ 2)
    assert set(classes.tolist()) == set(conditions("video"))


def test_drift_is_nothing_for_the_same_images_and_counts_both_ways():
    judge = log_probabilities("video")
    images = videos()[0][::8]
    drift = ConditionDrift(lambda noise, told: images, judge=judge)
    noise = torch.zeros(8, 1)
    labels = list(range(8))
    assert drift.observe(images, noise, labels) == pytest.approx(0)
    there = drift.observe(images.flip(2), noise, labels)
    back = ConditionDrift(lambda noise, told: images.flip(2), judge=judge).observe(images, noise, labels)
    assert (there > 0).all()
    assert there == pytest.approx(back)


def test_still_videos_do_not_change():
    assert float(frame_changes(torch.ones(2, 1, 8, 8, 8)).abs().sum()) == 0
    assert frame_changes(videos()[0][:1]).abs().sum() > 0


REWARD = """
def brightness(images, labels):
    assert len(labels) == len(images)
    return images.mean(dim=(1, 2, 3))
"""


def test_a_pipeline_of_ones_own_is_searched(tmp_path, monkeypatch):
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=1, block_out_channels=(8,), norm_num_groups=4, sample_size=8
    )
    pipe = diffusers.DiTPipeline(_smoke_model(), vae, diffusers.DDIMScheduler())
    pipe.save_pretrained(tmp_path / "pipeline")
    (tmp_path / "labels.txt").write_text("1\n2\n")
    (tmp_path / "my_rewards.py").write_text(REWARD)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = {
        "pipeline": tmp_path / "pipeline", "prompts": tmp_path / "labels.txt", "argument": "class_labels",
        "shape": "1,8,8", "steps": 1, "noises": 2, "budget": 3, "options": "4,8", "bits": 5, "out": tmp_path,
        "reward": "my_rewards:brightness",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    assert main(["mixed_precision", "--preset", "full", *words]) == 0
    rows = json.loads((tmp_path / "mixed_precision.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"best", "full precision", "best uniform"}
    weights = json.loads((tmp_path / "plan-0.json").read_text())["plan"]["weight"]
    assert len(weights) == 12
    assert set(weights.values()) <= {4, 8}


def test_a_full_run_without_its_files_says_what_it_needs(tmp_path):
    with pytest.raises(SystemExit, match="--pipeline FOLDER and --prompts FILE"):
        main(["mixed_precision", "--preset", "full", "--out", str(tmp_path)])
