"""The benchmark of combined checkpoints runs from training to claims, and from folders of one's own."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("sklearn")

from benchmarks import checkpoint_combination as benchmark  # noqa: E402
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.checkpoint_combination import METHODS, PRESETS, SEEDS, TASKS, Scored  # noqa: E402
from benchmarks.small_diffusion import EMA_RATES  # noqa: E402
from benchmarks.table import Table  # noqa: E402

ONLINE = tuple(f"online EMA {rate}" for rate in EMA_RATES)
PLAIN = ("last checkpoint", *ONLINE, "EMA*", "average of all (SWA)", "greedy soup")
FULL = ("full run, last weights", "full run, best online EMA")


@pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="a whole benchmark in small: make soak")
@pytest.mark.slow
def test_the_smoke_preset_prints_all_rows_and_writes_its_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["checkpoint_combination", "--preset", "smoke", "--out", str(tmp_path)]) == 0
    assert list((tmp_path / "cache" / "searchlib" / "smoke").iterdir()), "tiny models must not lie among the real ones"
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "checkpoint_combination.json").read_text())
    assert written["preset"] == "smoke"
    rows = {(row["task"], row["method"]): row["metrics"] for row in written["rows"]}
    methods = (*PLAIN, *METHODS, *FULL)
    assert set(rows) == {(task, method) for task in TASKS.values() for method in methods} | {
        (TASKS["diffusion"], "EMA*, 6 steps")
    }
    for (_, method), metrics in rows.items():
        assert method in printed
        assert set(metrics) == set(Scored._fields)
        assert all(len(summary["values"]) == 1 and summary["mean"] is not None for summary in metrics.values())
        assert metrics["holdout"]["mean"] > 0
    for task, budget in zip(TASKS.values(), PRESETS["smoke"].evaluations.values(), strict=True):
        spent = {method: rows[task, method]["evaluations"]["mean"] for method in methods}
        assert [spent[method] for method in PLAIN[:5]] == [0] * 5
        assert (spent["EMA*"], spent["greedy soup"], spent["ours"]) == (8, 2 * 5 - 1, budget)
        # A mean of a distribution, which nobody has evaluated, is looked at in the end.
        assert all(budget <= spent[method] <= budget + 1 for method in METHODS)
        searched = {method: rows[task, method]["search"]["mean"] for method in methods}
        assert searched["ours"] <= searched["EMA*"] * (1 + 1e-5)
        assert searched["greedy soup"] <= searched["last checkpoint"] * (1 + 1e-5)
    claims = {claim["claim"]: claim for claim in written["claims"]}
    assert any("ours is below LCSC's loop at equal evaluations" in claim for claim in claims)
    assert {claim["holds"] for claim in claims.values() if claim["preset"] == "smoke"} == {True}
    assert {claim["preset"] for claim in claims.values()} == {"smoke", "paper"}
    assert not any(claim["holds"] for claim in claims.values() if claim["preset"] == "paper"), "one run proves nothing"


def scored(value):
    return Scored(value, value, 0.0, value, 200, 1.0)


def claimed(distances):
    """All claims of the diffusion task where methods have these distances, one per run."""
    names = (*METHODS, "EMA*", *FULL, *(f"EMA*, {n} steps" for n in (6, 8, 10)))
    task = TASKS["diffusion"]
    results = {(task, name): [scored(value) for value in distances.get(name, (30.0, 31.0, 29.0))] for name in names}
    table = Table("demonstration", "paper", 3)
    benchmark._claim(table, "diffusion", results, PRESETS["paper"])
    return {claim.claim: claim for claim in table.claims}


def test_claims_hold_only_where_every_run_agrees_and_for_the_steps_that_were_reached():
    claims = claimed({"ours": (15.0, 15.4, 14.6), "EMA*, 8 steps": (14.9, 15.5, 14.6), "EMA*, 10 steps": (9.0,) * 3})
    (over_ema,) = (claim for said, claim in claims.items() if "best EMA (EMA*) on held-out noises" in said)
    assert over_ema.holds
    assert over_ema.value == pytest.approx(math.exp(np.mean(np.log([30 / 15, 31 / 15.4, 29 / 14.6]))))
    assert over_ema.interval is not None
    assert 1 < over_ema.interval[0] < over_ema.value
    steps = {said: claim.holds for said, claim in claims.items() if "ours with 5 steps" in said and "held-out" in said}
    assert sorted(steps.values()) == [False, True]
    assert all("the most steps that it holds for is 6" in said for said in steps)


def test_a_rival_that_is_better_breaks_a_claim_of_the_paper_preset():
    claims = claimed({"ours": (15.0, 15.4, 14.6), "CMA-ES": (14.0, 18.0, 13.0), FULL[1]: (11.0, 12.0, 11.0)})
    broken = {said for said, claim in claims.items() if not claim.holds}
    assert len(broken) == 4
    assert all("CMA-ES" in said or "best online EMA" in said for said in broken)


def test_the_paper_preset_has_both_kinds_and_three_training_runs():
    assert set(PRESETS["paper"].evaluations) == set(TASKS)
    assert PRESETS["paper"].finer == (6, 8, 10)
    assert SEEDS["paper"] == 3


def test_checkpoints_of_ones_own_pipeline_are_combined(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler()).save_pretrained(tmp_path / "pipeline")
    for number in range(3):
        with torch.no_grad():
            for parameter in unet.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        unet.save_pretrained(tmp_path / f"checkpoint-{number}" / "unet")
    clip = transformers.CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, projection_dim=4, num_hidden_layers=1, num_attention_heads=2, image_size=8,
        patch_size=4,
    )  # fmt: skip
    transformers.CLIPVisionModelWithProjection(clip).save_pretrained(tmp_path / "clip")
    images = np.random.default_rng(0).integers(256, size=(40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "reference.npz", images=images)
    options = {
        "pipeline": tmp_path / "pipeline", "checkpoints": tmp_path / "checkpoint-*" / "unet",
        "features": tmp_path / "clip", "reference": tmp_path / "reference.npz", "steps": 2, "noises": 12,
        "budget": 14, "seeds": 1, "out": tmp_path,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    assert main(["checkpoint_combination", "--preset", "full", *words]) == 0
    rows = json.loads((tmp_path / "checkpoint_combination.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"best", "last checkpoint", "average", "best EMA"}
    assert all(row["metrics"]["holdout"]["mean"] > 0 for row in rows)
    pipe = diffusers.DDIMPipeline.from_pretrained(tmp_path / "combined-0")
    combined = pipe.unet.state_dict()
    last = diffusers.UNet2DModel.from_pretrained(tmp_path / "checkpoint-2" / "unet").state_dict()
    assert any(not torch.equal(combined[name], last[name]) for name in last)
    note = json.loads((tmp_path / "combined-0" / "checkpoint_coefficients.json").read_text())
    assert sum(note["coefficients"]) == pytest.approx(1)


def test_a_full_run_without_its_files_says_what_it_needs(tmp_path):
    with pytest.raises(SystemExit, match="needs --pipeline FOLDER, --checkpoints GLOB and --reference NPZ"):
        main(["checkpoint_combination", "--preset", "full", "--out", str(tmp_path)])
