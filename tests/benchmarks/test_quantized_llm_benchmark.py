"""The benchmark of quantized language models, as short as it gets, and what its claims are made of."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks.__main__ import main
from benchmarks.quantization_claims import claim_searches, plain_name
from benchmarks.quantization_runs import ADDITIVE, BEST_UNIFORM, EVOLUTION, OURS, RANDOM, UNIFORM, copied, held_out
from benchmarks.table import Table
from searchlib.objectives import QuantizationPlan, TokenCase
from searchlib.objectives.quantized_llm import _smoke_model
from searchlib.spaces import BitPlan

RIVALS = (UNIFORM, BEST_UNIFORM, RANDOM, ADDITIVE, EVOLUTION)


@pytest.mark.slow
def test_the_smoke_preset_prints_all_rows_and_writes_its_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["quantized_llm", "--preset", "smoke", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "quantized_llm.json").read_text())
    rows = {(row["task"], row["method"]): row["metrics"] for row in written["rows"]}
    tasks = sorted({task for task, _ in rows if task.endswith("memory of 4 bits")})
    assert len(tasks) == 2
    for task in tasks:
        memory = rows[task, UNIFORM]["kilobytes"]["mean"]
        for method in (*RIVALS, OURS):
            assert 0 < rows[task, method]["kilobytes"]["mean"] <= memory * (1 + 1e-9)
        assert rows[task, EVOLUTION]["evaluations"] == rows[task, OURS]["evaluations"]  # the profile's counted in
        assert rows[task, OURS]["evaluations"]["mean"] == rows[task, ADDITIVE]["evaluations"]["mean"] + 12
    grid = {method for task, method in rows if task.endswith("grid")}
    assert {"rtn W2", "rtn W4A4", "rtn KV2", "gptq W4A8"} <= grid
    mine = [claim for claim in written["claims"] if claim["preset"] == "smoke"]
    assert [claim["holds"] for claim in mine] == [True]
    assert len(written["claims"]) > 20
    assert "W2 by rtn collapses" in capsys.readouterr().out


def test_the_full_preset_says_what_it_needs(tmp_path):
    with pytest.raises(SystemExit, match="--model and --text"):
        main(["quantized_llm", "--preset", "full", "--out", str(tmp_path)])


@pytest.mark.slow
def test_the_full_preset_takes_a_model_and_a_text_of_ones_own(tmp_path, capsys):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    _smoke_model().save_pretrained(tmp_path / "model")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(40)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path / "model")
    numbers = np.random.default_rng(0).integers(40, size=1000)
    (tmp_path / "text.txt").write_text(" ".join(f"w{i}" for i in numbers), encoding="utf-8")
    own = ["--model", str(tmp_path / "model"), "--text", str(tmp_path / "text.txt"), "--out", str(tmp_path / "out")]
    size = ["--length", "16", "--sequences", "4", "--group", "16", "--tokens", "64", "--budget", "9", "--bits", "4"]
    assert main(["quantized_llm", "--preset", "full", "--methods", "rtn", *own, *size]) == 0
    assert OURS in capsys.readouterr().out
    found = QuantizationPlan.load(tmp_path / "out" / "bits-4-0.json")
    assert 2 <= found.mean_bits <= 6
    with found.attached(_smoke_model()):
        pass
    with pytest.raises(SystemExit, match="pass a longer --text"):
        main(["quantized_llm", "--preset", "full", *own, *size, "--sequences", "400"])


def test_a_copied_sequence_ends_with_what_stood_further_up_and_counts_what_can_be_known():
    tokens = np.random.default_rng(0).integers(1000, size=80)
    case = copied(tokens.tolist(), np.random.default_rng(1))
    row = np.array(case.tokens)
    assert np.array_equal(row[:60], tokens[:60])
    assert any(np.array_equal(row[60:], tokens[start : start + 20]) for start in range(41))
    assert np.flatnonzero(case.response).tolist() == list(range(68, 80))


def test_equal_plans_have_equal_rows_and_full_precision_loses_nothing():
    rng = np.random.default_rng(0)
    cases = {"text": [TokenCase.whole(rng.integers(40, size=12).tolist()) for _ in range(3)]}
    model = _smoke_model()
    name = "model.layers.0.mlp.up_proj"
    plans = [BitPlan(weight={name: 2}), BitPlan(), BitPlan(weight={name: 2})]
    own, full = held_out(SimpleNamespace(batch=4), model, plans, cases)
    assert own["text"].shape == (3, 3, 3)
    assert np.array_equal(own["text"][0], own["text"][2])
    assert np.array_equal(own["text"][1], full["text"])
    assert not np.allclose(own["text"][0, :, 1], 0)


def test_names_are_the_papers_whatever_the_group_size():
    assert [plain_name(name) for name in ("W4@32", "W4@128A8", "KV3", "W8A8")] == ["W4", "W4A8", "KV3", "W8A8"]


def test_a_search_that_is_better_by_chance_only_is_not_said_to_be_better():
    rng = np.random.default_rng(0)
    for gain, holds in ((0.5, True), (0.0, False), (-0.5, False)):
        losses = {}
        for seed in range(6):
            base = rng.normal(size=50)
            losses["model", seed] = {OURS: base, **{name: base + gain + rng.normal(size=50) / 9 for name in RIVALS}}
        table = Table("quantized_llm", "paper", 6)
        claim_searches(table, 4, losses)
        assert len(table.claims) == 2 * len(RIVALS)
        if holds:
            assert all(claim.holds for claim in table.claims)
        else:
            assert sum(claim.holds for claim in table.claims) <= 2 * (gain == 0)
