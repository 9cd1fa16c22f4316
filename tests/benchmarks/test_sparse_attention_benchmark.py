"""The benchmark of sparse attention, as short as it gets."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks import attention_runs  # noqa: E402
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.attention_runs import Preset, copy_cases, rules_of  # noqa: E402
from benchmarks.sparse_attention import reach_of  # noqa: E402
from searchlib.objectives import SparseAttention  # noqa: E402
from searchlib.spaces import AttentionPlan  # noqa: E402


@pytest.mark.slow
def test_the_smoke_preset_prints_all_rows_and_writes_its_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["sparse_attention", "--preset", "smoke", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "sparse_attention.json").read_text())
    rows = {(row["task"], row["method"]): row["metrics"] for row in written["rows"]}
    names = {method for task, method in rows if task == "density 0.25"}
    assert names == {
        "uniform window + sinks", "hetero-layer", "hetero-head, fixed windows", "elastic, masking profile",
        "elastic, attention mass", "elastic, Taylor", "random, best of 4", "ours", "elastic, two rules per layer",
    }  # fmt: skip
    assert names == {method for task, method in rows if task == "density 0.5"}
    longest = 64
    for (task, method), metrics in rows.items():
        if task.startswith("density"):
            assert 0 < metrics["kept"]["mean"] <= float(task.split()[1]) * longest, method
            assert 0 < metrics[f"copies_{longest}"]["mean"] < 10
    dense, two = rows["dense", "dense"], rows["density 0.25", "elastic, two rules per layer"]
    assert dense["kept"]["mean"] == longest
    # one key per head less: the next query brings its own
    assert dense["kv_measured_kib"]["mean"] == pytest.approx(dense["kv_kib"]["mean"] * 63 / 64)
    assert two["kv_measured_kib"]["mean"] == pytest.approx(two["kv_kib"]["mean"], rel=0.1)
    (speed,) = (metrics for (task, _), metrics in rows.items() if task.startswith("decoding"))
    assert speed["grouped_per_second"]["mean"] > 0
    assert "effective context" in capsys.readouterr().out


def test_half_of_the_copies_are_random_characters_and_lie_where_they_should():
    cases = copy_cases(6, 100, "search", chunk=20, seed=3, distance=45)
    for i, case in enumerate(cases):
        tokens = np.array(case.tokens)
        assert np.array_equal(tokens[80:], tokens[35:55])
        assert sum(case.response) == 12
        assert (32 not in tokens[80:]) or i >= 3
    assert len({case.tokens for case in cases}) == 6
    assert cases[0] != copy_cases(6, 100, "search", chunk=20, seed=4, distance=45)[0]


def test_the_rules_allow_full_spans_for_a_few_heads_at_the_tightest_density():
    preset = Preset()
    rules = rules_of(preset)
    assert (0.0, 1.0) in rules
    assert (2.0, 0.0) in rules
    plan = [[(0.0, 1.0)] * 2 + [(2.0, 0.0)] * 6] * 4
    alphas, betas = ([[rule[i] for rule in row] for row in plan] for i in (0, 1))
    for length in preset.lengths:
        assert AttentionPlan(alphas, betas, sink=4).density(length) < 0.32


def test_reach_ends_at_the_first_distance_that_is_lost():
    preset = Preset()
    dense = np.full(len(preset.distances), 0.8)
    assert reach_of(preset, dense, dense) == preset.distances[-1]
    gap = dense.copy()
    gap[3] = 0.7  # less than nine tenths; later ones do not count
    assert reach_of(preset, gap, dense) == preset.distances[2]
    assert reach_of(preset, 0 * dense, dense) == 0


def test_the_full_preset_searches_a_checkpoint_of_ones_own(tmp_path, capsys):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    with SparseAttention.smoke() as objective:
        objective.model.save_pretrained(tmp_path / "model")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(20)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    draw = [f"w{i}" for i in rng.integers(2, 20, size=300)]
    (tmp_path / "text.txt").write_text(" ".join(draw))
    lines = [{"prompt": " ".join(draw[i : i + 9]), "answer": " w3 w4"} for i in range(8)]
    (tmp_path / "cases.jsonl").write_text("\n".join(map(json.dumps, lines)))
    model, plan = ["--model", str(tmp_path / "model")], tmp_path / "plan.json"
    short = ["--sink", "1", "--block", "1", "--budget", "6"]
    text = ["--text", str(tmp_path / "text.txt"), "--lengths", "16", "24", "--response", "4", "--each", "2"]
    for given in ([*text, "--plan", str(plan)], ["--cases", str(tmp_path / "cases.jsonl"), "--profile", "masking"]):
        assert main(["sparse_attention", "--preset", "full", "--out", str(tmp_path), *model, *short, *given]) == 0
        written = json.loads((tmp_path / "sparse_attention.json").read_text())
        assert {row["method"] for row in written["rows"]} == {"best", "dense", "uniform"}
    assert AttentionPlan.load(plan).density(36) <= 0.5
    assert all(len(rules) <= 2 for rules in AttentionPlan.load(plan).distinct_rules())
    with pytest.raises(SystemExit, match="do not fit"):
        main(["sparse_attention", "--preset", "full", "--out", str(tmp_path), *model, *text, "--lengths", "300"])


def test_the_full_preset_names_the_options_that_are_missing(tmp_path):
    with pytest.raises(SystemExit, match="--model"):
        main(["sparse_attention", "--preset", "full", "--out", str(tmp_path)])


def test_what_is_measured_is_what_is_computed_but_for_the_newest_key():
    with SparseAttention.smoke() as objective:
        model = objective.model
    plan = AttentionPlan.uniform(2, 4, alpha=10, sink=2, kv_groups=2)
    head_dim = 4
    # two key-value heads in two layers, keys and values; the next query brings its own key
    expected = 2 * 2 * 2 * (2 + 10 - 1) * head_dim * 2
    assert attention_runs.measured_bytes(model, plan, 32) == expected
