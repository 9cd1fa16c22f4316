"""Bits of a language model's weights, inputs and caches: losses, the grid, and the search."""

import copy
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib import Candidates, Split, search  # noqa: E402
from searchlib.cases import Cases  # noqa: E402
from searchlib.errors import InvalidSettings, UnsupportedModel  # noqa: E402
from searchlib.objectives.channel_balancing import ChannelBalancing  # noqa: E402
from searchlib.objectives.fake_quantize import fake_quantize  # noqa: E402
from searchlib.objectives.quantized_llm import QuantizedLLM, _smoke_model  # noqa: E402
from searchlib.objectives.quantized_model import QuantizationPlan  # noqa: E402
from searchlib.objectives.token_cases import TokenCase  # noqa: E402
from searchlib.objectives.token_losses import METRICS  # noqa: E402
from searchlib.objectives.uniform_grid import (  # noqa: E402
    GridRow,
    QuantizationTable,
    quantization_grid,
    recommended_bits,
)
from searchlib.objectives.uniform_plans import uniform_plans  # noqa: E402
from searchlib.spaces import BitPlan, BitWidths  # noqa: E402
from searchlib.testing import check_objective  # noqa: E402


def sequences(n=6, length=12, seed=0):
    rng = np.random.default_rng(seed)
    return [TokenCase.whole(tuple(rng.integers(40, size=length + i % 3).tolist())) for i in range(n)]


def objective(model=None, **settings):
    made = sequences(12)
    cases = {"search": made[:6], "select": made[6:8], "holdout": made[8:]}
    return QuantizedLLM(model or _smoke_model(), cases, batch=4, **({"weight": (2, 4, 8)} | settings))


def test_the_objective_keeps_the_contract():
    check_objective(QuantizedLLM.smoke())


def test_losses_are_those_of_the_model_itself():
    model, made = _smoke_model(), [*sequences(3), TokenCase.answered((1, 2, 3), (4, 5))]
    with objective(model) as opened:
        table = opened.observe([BitPlan()], Cases.of(made))[0]
    for row, case in zip(table, made, strict=True):
        ids = torch.tensor([case.tokens])
        labels = ids.masked_fill(~torch.tensor([case.response]), -100)
        with torch.inference_mode():
            loss = model(ids, labels=labels).loss
        assert row[0] == pytest.approx(float(loss), rel=1e-5)
    assert np.allclose(table[:, 1:], 0, atol=1e-6)


def test_divergence_and_disagreement_are_those_of_a_quantized_copy():
    model, made = _smoke_model(), sequences(3)
    twin = copy.deepcopy(model)
    with objective(model) as opened:
        plan = opened.space.uniform(weight=2)
        table = opened.observe([plan], Cases.of(made))[0]
        for name in opened.layers:
            layer = twin.get_submodule(name)
            layer.weight.data = fake_quantize(layer.weight.data, 2)
    for row, case in zip(table, made, strict=True):
        ids = torch.tensor([case.tokens])
        with torch.inference_mode():
            full, own = (m(ids).logits[0, :-1].log_softmax(-1) for m in (model, twin))
        divergence = torch.nn.functional.kl_div(own, full, log_target=True, reduction="batchmean")
        assert row[1] == pytest.approx(float(divergence), rel=1e-4)
        assert row[2] == pytest.approx(float((own.argmax(-1) != full.argmax(-1)).double().mean()))
    assert table[:, 1].min() > 1e-4


def test_caches_with_few_bits_change_a_single_pass_and_16_change_nothing():
    with objective(kv=(2, 4, 16)) as opened:
        cases = opened.cases(Split.SEARCH)
        table = opened.observe([opened.space.uniform(kv=bits) for bits in (16, 8, 4, 2)], cases)
    divergence = table[:, :, 1].mean(axis=1)
    assert divergence[0] == pytest.approx(0, abs=1e-7)
    assert 1e-7 < divergence[1] < divergence[2] < divergence[3]


def test_the_model_is_bit_identical_afterwards():
    model = _smoke_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with objective(model, activation=(4,), kv=(2,), balancing=ChannelBalancing()) as opened:
        opened.evaluate(
            Candidates(opened.space, opened.space.sample(np.random.default_rng(0), 2)), opened.cases(Split.SEARCH)
        )
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_memory_counts_weights_and_the_cache_of_a_context():
    opened = objective(kv=(4, 16), tokens=1000)
    weights = sum(layer.weight.numel() for layer in opened.layers.values())
    rows = sum(layer.out_features for layer in opened.layers.values())
    cache = 2 * 1000 * 1 * (8 + 8)  # layers × tokens × heads × (key + value)
    assert opened.space.memory_at() == 2 * (weights + cache)
    four = opened.space.uniform(weight=4, kv=4).memory(opened.tensors)
    assert four == (4 * (weights + cache) + (rows + cache / 8) * 20) / 8
    assert opened.space.memory_at(weight=4, kv=4) == four


def test_heads_and_routers_stay_and_fused_experts_are_refused():
    assert not any("lm_head" in name for name in objective().layers)
    config = transformers.MixtralConfig(
        vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=4, pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    mixtral = transformers.MixtralForCausalLM(config).eval()
    with pytest.raises(UnsupportedModel, match=r"model\.layers\.0\.mlp\.experts: .* many experts"):
        objective(mixtral)
    attention_only = objective(mixtral, full=r"(.+\.)?(lm_head|gate|experts)")
    assert sorted(attention_only.layers) == [f"model.layers.0.self_attn.{n}_proj" for n in "koqv"]


def test_exact_allocation_is_better_than_uniform_bits():
    from searchlib import measure_profile

    opened = objective(metric="kl", weight=(2, 3, 4, 8), mean_bits=3)
    profile = measure_profile(opened)
    found = opened.space.decode(profile.allocate().choice)
    assert found.memory(opened.tensors) <= opened.space.memory
    with opened:
        table = opened.observe([found, opened.best_uniform()], opened.cases(Split.HOLDOUT))
    assert opened.best_uniform() == opened.space.uniform(weight=3)
    assert table[0, :, 1].mean() < 0.8 * table[1, :, 1].mean()


def test_seeds_are_the_uniform_plans_with_most_bits_within_the_budget():
    opened = objective(weight=(2, 3, 4), kv=(2, 4, 16), tokens=200, memory=8000)
    plans = uniform_plans(opened.space)
    every = {
        (w, k): opened.space.uniform(weight=w, kv=k).memory(opened.tensors) <= 8000
        for w, k in itertools.product((2, 3, 4), (2, 4, 16))
    }
    best = {
        pair for pair, fits in every.items()
        if fits and not any(f and o != pair and o[0] >= pair[0] and o[1] >= pair[1] for o, f in every.items())
    }  # fmt: skip
    name = "model.layers.0.self_attn"
    found = {(plan.weight_bits(f"{name}.q_proj").bits, plan.kv_bits(name)[0].bits) for plan in plans}
    assert found == best != set()
    assert len(opened.seeds()) == len(best)


def test_long_prompts_of_large_vocabularies_get_logits_only_where_predictions_count(monkeypatch):
    from searchlib.objectives import token_losses

    model = _smoke_model().eval()
    (batch,) = token_losses.batches(sequences(3), 4, "cpu")
    with torch.inference_mode():
        everywhere = token_losses.log_probabilities(model, batch)
        monkeypatch.setattr(token_losses, "_LOGITS", 0)
        kept = []
        own = model.lm_head.register_forward_hook(lambda layer, given, made: kept.append(made.shape[1]))
        few = token_losses.log_probabilities(model, batch)
        own.remove()
    torch.testing.assert_close(few, everywhere)
    assert kept == [len(batch.places.unique())]
    assert kept[0] < batch.ids.shape[1]


def test_the_winner_is_saved_loaded_and_applied(tmp_path):
    opened = objective(kv=(4, 16))
    found = opened.artifact(opened.space.decode(opened.space.sample(np.random.default_rng(1), 1)[0]))
    found.save(tmp_path / "bits.json")
    loaded = QuantizationPlan.load(tmp_path / "bits.json")
    assert (loaded.plan, loaded.tensors, loaded.memory) == (found.plan, found.tensors, found.memory)
    ids = torch.tensor([sequences(1)[0].tokens])
    model = _smoke_model()
    with torch.inference_mode():
        own = model(ids).logits
        with loaded.attached(model):
            fewer = model(ids).logits
        assert torch.equal(model(ids).logits, own)
        assert loaded.apply(model) is model
        assert torch.equal(model(ids).logits, fewer)  # for good
    assert not torch.allclose(fewer, own, atol=1e-3)
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(InvalidSettings, match="holds no quantization plan"):
        QuantizationPlan.load(tmp_path / "none.json")


def test_the_grid_has_the_papers_rows_and_collapses_at_the_ends():
    with torch.random.fork_rng():
        model = _smoke_model()
    methods = ("rtn", "smoothquant", "awq", "gptq")
    table = quantization_grid(model, {"a": sequences(6), "b": sequences(6, seed=1)}, methods=methods)
    names = [row.name for row in table.rows if row.family == "a" and row.method == "rtn"]
    assert names == ["W8", "W4", "W3", "W2", "W8A8", "W4A8", "W4A4", "KV8", "KV4", "KV3", "KV2"]
    assert [r.name for r in table.rows if r.family == "b" and r.method == "smoothquant"] == ["W8A8", "W4A8", "W4A4"]
    kl = [table.row(name, family="a").mean("kl") for name in ("W8", "W4", "W3", "W2")]
    assert kl == sorted(kl)
    assert table.row("KV8", family="b").mean("kl") < table.row("KV2", family="b").mean("kl")
    # Calibrated on the family "a", both change its predictions less than the nearest levels do.
    for method in ("awq", "gptq"):
        assert table.row("W3", family="a", method=method).mean("kl") < table.row("W3", family="a").mean("kl")
    assert len(table.to_json()) == len(table.rows) == 2 * (11 + 3 + 7 + 7)
    json.dumps(table.to_json("kl"), allow_nan=False)
    assert "W4A8" in str(table)


def test_the_interval_of_an_increase_is_students_paired_one():
    from scipy import stats

    row = quantization_grid(_smoke_model(), sequences(8), weights=(3,), weight_activations=(), kv=()).rows[0]
    apart = row.observations[:, 0] - row.full[:, 0]
    low, high = stats.t.interval(0.95, 7, apart.mean(), stats.sem(apart))
    assert row.increase() == pytest.approx((apart.mean(), low, high))


def test_what_is_recommended_is_known_to_be_good_enough():
    table = quantization_grid(_smoke_model(), sequences(8), weights=(12, 8, 4, 2), kv=(8, 2))
    chosen = recommended_bits(table, within=0.02)
    for kind, name in chosen.items():
        rows = [row for row in table.rows if row.kind == kind]
        full = float(rows[0].full[:, 0].mean())
        good = {row.name for row in rows if row.increase()[2] <= 0.02 * full}
        assert (name in good) if good else name is None
    assert recommended_bits(table, within=1e9)["weight"] == "W2"
    assert recommended_bits(table, within=-1e9) == {"weight": None, "weight and activation": None, "kv": None}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "accuracy"}, "metric must be"),
        ({"rounding": "up"}, "rounding must be"),
        ({"rounding": "gptq", "balancing": ChannelBalancing()}, "pass one of the two"),
        ({"cases": {"train": sequences()}}, "by split"),
        ({"cases": {"holdout": sequences()}}, "no SEARCH cases"),
        ({"cases": {"search": ["text"]}}, "must be TokenCase or Case"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    arguments = {"cases": {"search": sequences()}, "weight": (2, 4)} | settings
    with pytest.raises(InvalidSettings, match=message):
        QuantizedLLM(_smoke_model(), **arguments)


def test_a_front_has_one_value_per_metric():
    opened = objective(metric=("nll", "disagreement"))
    assert opened.direction == ("minimize", "minimize")
    assert opened.aggregate(np.arange(12.0).reshape(1, 4, 3)).tolist() == [[4.5, 6.5]]
    assert METRICS[2] == "disagreement"


TABLES = Path(__file__).parents[3] / "shared" / "data" / "qllm_eval_tables.json"


def test_the_size_of_a_model_is_read_off_its_name():
    from searchlib.objectives.quantization_tables import parameters_of

    assert parameters_of("OPT_125M") == 125e6
    assert parameters_of("Bloom_7B1") == 7.1e9
    assert parameters_of("Mixtral_8x7B") == 46.7e9
    with pytest.raises(InvalidSettings, match="does not say"):
        parameters_of("a model")


def test_a_search_over_published_tables_is_brute_force():
    from searchlib.objectives.quantization_tables import QuantizedModels, parameters_of

    if not TABLES.exists():
        pytest.skip("the tables of the paper are not here (../shared/data/qllm_eval_tables.json)")
    scores = json.loads(TABLES.read_text())["tables"]["basic/assets/lambada_w_only"]
    assert len(scores) == 29
    larger = 0
    for memory in (0.5e9, 1e9, 4e9, 10e9, 40e9, 100e9, 400e9):
        objective = QuantizedModels({"LAMBADA": scores}, memory=memory)
        best, place = -math.inf, None
        for name, row in scores.items():
            for bits, score in zip((16, 8, 4, 3, 2), row, strict=True):
                scales = (16 + bits) / 128 if bits < 16 else 0
                if parameters_of(name) * (bits + scales) / 8 <= memory and score > best:
                    best, place = score, (name, bits)
        result = search(objective, budget=2000, seed=0)
        assert result.best == objective.best() == place, memory
        full = [parameters_of(name) for name in scores if 2 * parameters_of(name) <= memory]
        larger += parameters_of(place[0]) > max(full, default=0)
    assert larger >= 5  # nearly always a larger model at fewer bits
    check_objective(objective)
    assert [step[1] for step in objective.front()] == sorted({step[1] for step in objective.front()})


def test_only_layers_within_the_expression_have_fewer_options():
    opened = objective(only=((r".*down_proj", (8,)),))
    assert isinstance(opened.space, BitWidths)
    plans = [opened.space.decode(row) for row in opened.space.sample(np.random.default_rng(0), 20)]
    assert {plan.weight_bits("model.layers.0.mlp.down_proj").bits for plan in plans} == {8}


def dropping():
    """A model in training mode, in which one module is not."""
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=40, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None,
    )).train()  # fmt: skip
    model.transformer.drop.eval()
    return model


def test_every_module_is_in_its_own_mode_afterwards():
    model = dropping()
    modes = [module.training for module in model.modules()]
    with objective(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes


def test_calibration_drops_nothing():
    model, layer = dropping(), "transformer.h.0.mlp.c_proj"
    made = [objective(model, balancing=ChannelBalancing(0.5)).artifact(BitPlan()).balances for _ in range(2)]
    assert torch.equal(*(balances[layer].scale for balances in made))


def test_fewer_scales_are_recommended_before_more_whatever_the_order_of_the_rows():
    same = np.ones((4, 3))
    for option in ("weight", "kv"):
        rows = [
            GridRow("text", "rtn", option, **({"weight": 16, "activation": 16, "kv": 16} | {option: bits}),
                    observations=same, full=same)
            for bits in ("4@8", "4@16", 4, "4@32")
        ]  # fmt: skip
        assert recommended_bits(QuantizationTable(tuple(rows)))[option] == ("W4" if option == "weight" else "KV4")
        assert recommended_bits(QuantizationTable(tuple(rows[:2])))[option].endswith("4@16")


def test_sizes_with_a_decimal_point_are_read():
    from searchlib.objectives.quantization_tables import parameters_of

    assert [parameters_of(name) for name in ("Qwen2-0.5B", "Qwen2.5-1.5B-Instruct", "Qwen1.5-7B")] == [5e8, 1.5e9, 7e9]


@pytest.mark.parametrize(
    ("settings", "name"), [({"balancing": ChannelBalancing(0.5)}, "balances"), ({"rounding": "gptq"}, "rounding")]
)
def test_a_saved_plan_is_not_loaded_without_what_was_measured(tmp_path, settings, name):
    opened = objective(**settings)
    found = opened.artifact(opened.space.uniform(weight=4))
    found.save(tmp_path / "bits.json")
    with pytest.raises(InvalidSettings, match=name):
        QuantizationPlan.load(tmp_path / "bits.json")
    loaded = QuantizationPlan.load(tmp_path / "bits.json", **{name: getattr(found, name)})
    model, ids = _smoke_model(), torch.tensor([sequences(1)[0].tokens])
    with torch.inference_mode():
        with found.attached(model):
            expected = model(ids).logits
        with loaded.attached(model):
            assert torch.equal(model(ids).logits, expected)


def test_other_weights_are_another_objective():
    model = _smoke_model()
    before = objective(model).fingerprint()
    assert before == objective(_smoke_model()).fingerprint()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.1)
    assert objective(model).fingerprint() != before


def test_what_is_no_model_is_refused():
    with pytest.raises(InvalidSettings, match="model must be a module"):
        QuantizedLLM("gpt2", {"search": sequences(2)}, weight=(4,))
