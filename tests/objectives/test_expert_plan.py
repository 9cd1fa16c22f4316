from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors import safe_open  # noqa: E402

from searchlib.errors import InvalidSettings, UnsupportedModel  # noqa: E402
from searchlib.objectives.expert_matrices import one_hot_matrices  # noqa: E402
from searchlib.objectives.expert_plan import ExpertPlan  # noqa: E402
from searchlib.objectives.moe_model import MoeModel  # noqa: E402

E = 8
SHARED = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
DEEPSEEK = {
    "intermediate_size": 40,
    "moe_intermediate_size": 24,
    "n_routed_experts": E,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
QWEN = {"intermediate_size": 48, "moe_intermediate_size": 24, "num_experts": E, "num_key_value_heads": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {"intermediate_size": 48, "num_local_experts": E, "num_key_value_heads": 2}),
    "mixtral-tied": (
        "Mixtral",
        {"intermediate_size": 48, "num_local_experts": E, "num_key_value_heads": 2, "tie_word_embeddings": True},
    ),
    "qwen2-moe": (
        "Qwen2Moe",
        QWEN | {"norm_topk_prob": True, "shared_expert_intermediate_size": 40, "mlp_only_layers": [0]},
    ),
    "qwen3-moe": ("Qwen3Moe", QWEN | {"norm_topk_prob": True, "head_dim": 8}),
    "qwen3-moe-unnormalized": ("Qwen3Moe", QWEN | {"norm_topk_prob": False, "head_dim": 8}),
    "olmoe": ("Olmoe", {"intermediate_size": 24, "num_experts": E, "norm_topk_prob": True, "num_key_value_heads": 2}),
    "deepseek-v2": ("DeepseekV2", DEEPSEEK),
    "deepseek-v3": ("DeepseekV3", DEEPSEEK | {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.5}),
    "deepseek-v3-all-groups": ("DeepseekV3", DEEPSEEK | {"n_group": 4, "topk_group": 4, "norm_topk_prob": False}),
}
UNSLICEABLE = {"qwen3-moe-unnormalized", "deepseek-v2"}
SLICEABLE = [name for name in FAMILIES if name not in UNSLICEABLE]


@pytest.fixture(autouse=True)
def _one_thread():
    """Tensors this small lose more to waiting threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(family="mixtral"):
    name, settings = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SHARED | settings)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if path.endswith("gate.weight"):
                parameter.normal_()
            elif ".experts." in path:
                parameter.normal_(std=0.3)
        for path, buffer in model.named_buffers():
            if path.endswith("e_score_correction_bias"):
                buffer.normal_(std=0.3)
    return model.eval()


@pytest.fixture
def tokens():
    return torch.randint(1, 48, (4, 9), generator=torch.Generator().manual_seed(1))


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens).logits


def pruned(keep=4, seed=0, top_k=2):
    """One-hot, equal matrices for two groups of layers."""
    rng = np.random.default_rng(seed)
    kept = [rng.permutation(E)[:keep] for _ in range(2)]
    return {"router": one_hot_matrices(kept, E), "merging": one_hot_matrices(kept, E), "top_k": top_k}


def merged(keep=4, seed=0, top_k=2):
    """The same router, dense merging."""
    noise = np.random.default_rng(seed + 1).normal(scale=0.1, size=(2, keep, E)).astype(np.float32)
    plan = pruned(keep, seed, top_k)
    return plan | {"merging": plan["merging"] + noise}


def dense(keep=4, seed=0, top_k=2):
    """Dense router and dense merging."""
    plan = merged(keep, seed, top_k)
    return plan | {"router": plan["router"] + np.float32(0.05)}


def search_result(model, tokens, matrices):
    """The plan, and the logits of the model while the search holds it."""
    with MoeModel(model) as moe:
        groups = [0] + [1] * (len(moe.layers) - 1)
        moe.apply(layer_groups=groups, **matrices)
        expected = logits(model, tokens)
        plan = ExpertPlan.of(moe, layer_groups=groups, **matrices) if matrices["merging"].max() == 1 else None
    with_full_model = MoeModel(model)
    plan = plan or ExpertPlan.of(with_full_model, layer_groups=groups, **matrices)
    assert not torch.allclose(expected, logits(model, tokens), atol=1e-2)
    return plan, expected


def snapshot(model):
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    plain = {
        (name, key): value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (bool, int, float, str))
    }
    hooks = {name: len(module._forward_hooks) for name, module in model.named_modules()}
    return {key: (t.data_ptr(), t.detach().clone()) for key, t in tensors.items()}, plain, hooks, model.config.to_dict()


def assert_untouched(model, before):
    tensors, *rest = snapshot(model)
    assert tensors.keys() == before[0].keys()
    for key, (place, value) in before[0].items():
        assert tensors[key][0] == place, key
        assert torch.equal(tensors[key][1], value), key
    assert rest == list(before[1:])


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("matrices", [pruned(), merged(), merged(top_k=1)], ids=["pruned", "merged", "merged-top-1"])
@pytest.mark.parametrize("family", SLICEABLE)
def test_a_stock_checkpoint_reloads_to_the_searched_model(family, matrices, tokens, tmp_path):
    model = build(family)
    plan, expected = search_result(model, tokens, matrices)
    before = snapshot(model)
    assert plan.save_pretrained(model, tmp_path) is True
    assert_untouched(model, before)
    assert not list(tmp_path.glob("expert_plan*"))
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(loaded) is type(model)
    torch.testing.assert_close(logits(loaded.eval(), tokens), expected, atol=1e-5, rtol=1e-5)
    layer = MoeModel(loaded).layers[0]
    assert len(layer.experts.get_parameter("gate_up_proj")) == len(layer.router.get_parameter("weight")) == 4
    assert layer.router.top_k == plan.top_k
    assert size(loaded) < size(model)


@pytest.mark.parametrize("matrices", [pruned(), merged(top_k=1)], ids=["pruned", "merged-top-1"])
@pytest.mark.parametrize("family", SLICEABLE)
def test_apply_makes_a_stock_model_that_saves_itself(family, matrices, tokens, tmp_path):
    model = build(family)
    plan, expected = search_result(model, tokens, matrices)
    assert plan.stock_obstacle(model) is None
    assert plan.apply(model) is model
    torch.testing.assert_close(logits(model, tokens), expected, atol=1e-5, rtol=1e-5)
    assert not any(module._forward_hooks for module in model.modules())
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(loaded, tokens), expected, atol=1e-5, rtol=1e-5)
    counts = {"num_experts", "num_experts_per_tok", "top_k", "num_group", "topk_group"}
    for (name, module), twin in zip(loaded.named_modules(), model.modules(), strict=True):
        for key in counts & vars(module).keys():
            assert vars(module)[key] == vars(twin)[key], (name, key)
    if family == "mixtral":
        with torch.no_grad():
            assert model(tokens, output_router_logits=True, labels=tokens).loss.isfinite()


@pytest.mark.parametrize(
    ("family", "matrices"),
    [
        ("mixtral", dense()),
        ("deepseek-v3", dense(top_k=1)),
        ("qwen3-moe-unnormalized", pruned()),
        ("qwen3-moe-unnormalized", merged()),
        ("deepseek-v2", dense()),
        ("mixtral", pruned() | {"router": pruned(seed=5)["router"] * np.float32(1.5)}),
    ],
)
def test_other_plans_live_beside_the_base_checkpoint(family, matrices, tokens, tmp_path):
    model = build(family)
    plan, expected = search_result(model, tokens, matrices)
    before = snapshot(model)
    with pytest.raises(InvalidSettings, match="save the plan beside the base checkpoint with stock=False"):
        plan.save_pretrained(model, tmp_path, stock=True)
    assert plan.save_pretrained(model, tmp_path) is False
    assert_untouched(model, before)
    assert [path.name for path in tmp_path.iterdir()] == ["expert_plan.safetensors"]
    full = size(model)
    ExpertPlan.load(tmp_path).apply(model)
    torch.testing.assert_close(logits(model, tokens), expected, atol=1e-5, rtol=1e-5)
    assert size(model) < full
    generated = model.generate(tokens[:, :4], max_new_tokens=3, do_sample=False)
    assert torch.equal(logits(model, generated)[:, 3:-1].argmax(-1), generated[:, 4:])
    with pytest.raises(UnsupportedModel, match="to match its router"):
        MoeModel(model)


@pytest.mark.parametrize(("family", "matrices"), [("mixtral", dense(keep=E)), ("qwen3-moe-unnormalized", pruned())])
def test_a_model_that_runs_with_hooks_refuses_to_lose_them(family, matrices, tokens, tmp_path):
    model = build(family)
    plan, expected = search_result(model, tokens, matrices)
    with pytest.raises(InvalidSettings, match=r"would not hold what its routers do.*plan\.save"):
        plan.apply(model).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    assert torch.equal(logits(copy.deepcopy(model), tokens), logits(model, tokens))
    torch.testing.assert_close(logits(model, tokens), expected, atol=1e-5, rtol=1e-5)


def test_a_plan_is_applied_once(tokens):
    model = build()
    plan, expected = search_result(model, tokens, dense(keep=E))
    plan.apply(model)
    for again in (plan.apply, plan.stock_obstacle):
        with pytest.raises(InvalidSettings, match="steered already"):
            again(model)
    torch.testing.assert_close(logits(model, tokens), expected, atol=1e-5, rtol=1e-5)


def test_router_and_experts_may_be_pruned_differently(tokens, tmp_path):
    model = build()
    matrices = pruned() | {"merging": pruned(seed=7)["merging"]}
    plan, expected = search_result(model, tokens, matrices)
    assert plan.save_pretrained(model, tmp_path) is True
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(loaded, tokens), expected, atol=1e-5, rtol=1e-5)


def test_quantized_experts_are_pruned_by_the_router_alone(tokens):
    model = build()
    plan, expected = search_result(model, tokens, pruned())
    for layer in model.model.layers:
        layer.mlp.experts.down_proj.quant_state = "4 bit"
    assert "down_proj is quantized" in plan.stock_obstacle(model)
    with pytest.raises(UnsupportedModel, match="can be pruned but not merged"):
        ExpertPlan.of(MoeModel(model), layer_groups=[0, 1, 1], **merged()).apply(model)
    places = [parameter.data_ptr() for parameter in model.parameters()]
    plan.apply(model)
    torch.testing.assert_close(logits(model, tokens), expected, atol=1e-5, rtol=1e-5)
    assert [parameter.data_ptr() for parameter in model.parameters()] == places


def test_a_plan_survives_its_file(tmp_path):
    plan = ExpertPlan.of(MoeModel(build()), layer_groups=[0, 1, 1], **dense())
    path = plan.save(tmp_path / "new" / "folder")
    for source in (path, path.parent):
        loaded = ExpertPlan.load(source)
        assert np.array_equal(loaded.router, plan.router)
        assert np.array_equal(loaded.merging, plan.merging)
        assert (loaded.layer_groups, loaded.top_k, loaded.base) == (plan.layer_groups, plan.top_k, plan.base)
    with safe_open(path, framework="numpy") as file:
        assert file.metadata()["version"] == "1"


def test_a_plan_names_the_checkpoint_it_was_searched_on(tmp_path):
    build().save_pretrained(tmp_path / "base")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    plan = ExpertPlan.of(MoeModel(model), layer_groups=[0, 1, 1], **dense())
    plan.save(tmp_path)
    assert ExpertPlan.load(tmp_path).base.name == str(tmp_path / "base")
    assert plan.base.layers == tuple(f"model.layers.{i}.mlp" for i in range(3))


def test_files_that_are_no_plans_are_refused(tmp_path):
    with pytest.raises(InvalidSettings, match="there is no file"):
        ExpertPlan.load(tmp_path)
    (tmp_path / "expert_plan.safetensors").write_bytes(b"not a plan at all")
    with pytest.raises(InvalidSettings, match="is not a safetensors file"):
        ExpertPlan.load(tmp_path)
    build().save_pretrained(tmp_path)
    with pytest.raises(InvalidSettings, match=r"must be a 'searchlib expert plan' of version 1, got format 'pt'"):
        ExpertPlan.load(tmp_path / "model.safetensors")


def test_a_plan_for_another_model_is_refused():
    plan = ExpertPlan.of(MoeModel(build()), layer_groups=[0, 1, 1], **pruned())
    with pytest.raises(InvalidSettings, match="whose architecture is 'MixtralForCausalLM', got 'OlmoeForCausalLM'"):
        plan.apply(build("olmoe"))


def test_impossible_plans_are_refused():
    plan = ExpertPlan.of(MoeModel(build()), layer_groups=[0, 1, 1], **pruned())
    with pytest.raises(InvalidSettings, match="top_k must lie between 1 and the 4 slots, got 5"):
        dataclasses.replace(plan, top_k=5)
    with pytest.raises(InvalidSettings, match="must agree in shape"):
        dataclasses.replace(plan, merging=plan.merging[:, :3])
    with pytest.raises(InvalidSettings, match=r"finite numbers of shape \(groups, keep, 8\)"):
        dataclasses.replace(plan, router=plan.router * np.nan)
    with pytest.raises(InvalidSettings, match="every group from 0 to 1"):
        dataclasses.replace(plan, layer_groups=(0, 0, 0))
    with pytest.raises(ValueError, match="read-only"):
        plan.router[0, 0, 0] = 2


def test_kept_experts_are_listed_per_layer(tmp_path):
    matrices = pruned()
    plan = ExpertPlan.of(MoeModel(build("deepseek-v3")), layer_groups=[0, 1], **matrices)
    first, second = matrices["merging"].argmax(axis=2).tolist()
    assert plan.kept == [first, second]
    plan.to_json(tmp_path / "experts.json")
    # Layer 0 of this model is dense, so its mixture-of-experts layers are 1 and 2.
    assert json.loads((tmp_path / "experts.json").read_text()) == {"1": sorted(first), "2": sorted(second)}
    plan.to_json(tmp_path / "experts.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "experts.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [["1"], ["2"]]
    assert lines[0]["1"][:4] == sorted(first)
    assert sorted(lines[0]["1"]) == list(range(E))


def test_a_plan_shows_its_kept_experts_by_decoder_layer_and_no_matrices(tmp_path):
    matrices = pruned()
    first, second = matrices["merging"].argmax(axis=2).tolist()
    plan = ExpertPlan.of(MoeModel(build("deepseek-v3")), layer_groups=[0, 1], **matrices)
    assert repr(plan) == f"ExpertPlan(4 of 8 experts in 2 layers, top_k=2; layer 1: {first}; layer 2: {second})"
    moe = MoeModel(build())
    assert f"; layers 0, 2: {first}; layer 1: {second})" in repr(ExpertPlan.of(moe, layer_groups=[0, 1, 0], **matrices))
    whole = {name: matrices[name][:1] for name in ("router", "merging")}
    assert f"; layers 0-2: {first})" in repr(ExpertPlan.of(moe, layer_groups=[0, 0, 0], **whole))
    shape = "matrices of shape (2, 4, 8)"
    dense = ExpertPlan.of(moe, layer_groups=[0, 1, 1], **merged())
    assert repr(dense) == f"ExpertPlan(4 of 8 experts in 3 layers, top_k=2; experts merged, router and merging {shape})"
    other = ExpertPlan.of(moe, layer_groups=[0, 1, 1], **matrices | {"router": matrices["router"] * 0.5})
    assert f"router mapped by other {shape}; layer 0: {first}" in repr(other)


def test_merged_experts_are_listed_only_when_asked(tmp_path):
    plan = ExpertPlan.of(MoeModel(build()), layer_groups=[0, 1, 1], **merged())
    assert plan.kept is None
    with pytest.raises(InvalidSettings, match=r"a slot merges several experts.*pass dominant=True"):
        plan.to_json(tmp_path / "experts.json")
    plan.to_json(tmp_path / "experts.json", dominant=True)
    expected = np.sort(pruned()["merging"].argmax(axis=2), axis=1).tolist()
    assert json.loads((tmp_path / "experts.json").read_text()) == dict(
        zip("012", [expected[0], expected[1], expected[1]], strict=True)
    )
    twice = np.ones((1, 2, E), np.float32)
    repeated = ExpertPlan.of(MoeModel(build()), twice, twice, [0, 0, 0])
    with pytest.raises(InvalidSettings, match=r"layers \[0, 1, 2\] use one expert twice"):
        repeated.to_json(tmp_path / "experts.json", dominant=True)
