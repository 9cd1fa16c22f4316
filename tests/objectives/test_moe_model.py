from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib.errors import InvalidSettings, UnsupportedModel  # noqa: E402
from searchlib.objectives.expert_matrices import one_hot_matrices  # noqa: E402
from searchlib.objectives.moe_model import MoeModel  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")

E = 8


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens).logits


def dense_matrices(groups, keep, seed=0):
    rng = np.random.default_rng(seed)
    return (np.eye(E)[:keep] + 0.1 * rng.normal(size=(groups, keep, E))).astype(np.float32)


def state_of(model):
    """Everything that must be the same after the context: values, memory, hooks, numbers, modes."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    plain = {
        (name, key): value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (bool, int, float, str))
    }
    hooks = {
        name: (len(module._forward_hooks), len(module._forward_pre_hooks)) for name, module in model.named_modules()
    }
    return tensors, {key: t.data_ptr() for key, t in tensors.items()}, plain, hooks, model.get_experts_implementation()


def snapshot(model):
    tensors, *rest = state_of(model)
    return {key: tensor.detach().clone() for key, tensor in tensors.items()}, tensors, rest


def assert_untouched(model, before):
    values, objects, rest = before
    tensors, *now = state_of(model)
    assert tensors.keys() == values.keys()
    for key, value in values.items():
        assert tensors[key] is objects[key], key
        assert torch.equal(tensors[key], value), key
    assert now == rest


def test_the_model_is_described_and_left_alone_until_the_context(family, build):
    model = build(family)
    before = snapshot(model)
    moe = MoeModel(model)
    assert (moe.experts, moe.top_k) == (E, 2)
    assert moe.config_field is not None
    assert getattr(model.config, moe.config_field) == E
    assert_untouched(model, before)


def test_identity_matrices_leave_the_outputs_alone(family, tokens, build):
    model = build(family)
    expected = logits(model, tokens)
    identity = one_hot_matrices([range(E)], E)
    with MoeModel(model) as moe:
        groups = [0] * len(moe.layers)
        assert torch.equal(logits(model, tokens), expected)
        moe.apply(identity, identity, groups)
        torch.testing.assert_close(logits(model, tokens), expected, atol=1e-6, rtol=0)
        # A factor that is not 1 in single precision takes the dense path.
        moe.apply(identity, identity * np.float32(1.000001), groups)
        torch.testing.assert_close(logits(model, tokens), expected, atol=1e-5, rtol=0)
        assert moe.merges == len(moe.layers)
    assert torch.equal(logits(model, tokens), expected)


def test_pruning_mixtral_equals_slicing_it_physically(mixtral, tokens, build):
    kept = [[0, 3, 5, 6], [7, 2, 1, 4], [1, 2, 3, 0]]
    sliced = build("mixtral", num_local_experts=4)
    state = mixtral.state_dict()
    for number, index in enumerate(kept):
        for name in ("gate.weight", "experts.gate_up_proj", "experts.down_proj"):
            key = f"model.layers.{number}.mlp.{name}"
            state[key] = state[key][index]
    sliced.load_state_dict(state)
    matrices = one_hot_matrices(kept, E)
    with MoeModel(mixtral) as moe:
        moe.apply(matrices, matrices)
        assert (logits(mixtral, tokens) - logits(sliced, tokens)).abs().max() < 1e-5
        moe.apply(matrices, matrices, top_k=1)
        for layer in sliced.model.layers:
            layer.mlp.gate.top_k = 1
        assert (logits(mixtral, tokens) - logits(sliced, tokens)).abs().max() < 1e-5


@pytest.mark.parametrize("family", ["mixtral", "deepseek-v3"])
def test_fewer_active_experts_equal_a_model_loaded_so(family, tokens, tmp_path, build):
    model = build(family)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, num_experts_per_tok=1).eval()
    expected = logits(loaded, tokens)
    assert not torch.allclose(expected, logits(model, tokens))
    identity = one_hot_matrices([range(E)], E)
    with MoeModel(model) as moe:
        moe.identity(top_k=1)
        torch.testing.assert_close(logits(model, tokens), expected, atol=1e-5, rtol=0)
        moe.apply(identity, identity, [0] * len(moe.layers), top_k=1)
        torch.testing.assert_close(logits(model, tokens), expected, atol=1e-5, rtol=0)
        moe.identity()
        assert torch.equal(logits(model, tokens), logits(build(family), tokens))


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_lazy_merging_is_bit_identical_to_materialized_merging(mixtral, tokens, implementation):
    mixtral.set_experts_implementation(implementation)
    router, merging = dense_matrices(3, 4, seed=1), dense_matrices(3, 4, seed=2)
    with MoeModel(mixtral) as moe:
        moe.apply(router, merging)
        expected = logits(mixtral, tokens)
    before = snapshot(mixtral)
    with MoeModel(mixtral, lazy=True) as moe:
        full = logits(mixtral, tokens)
        moe.apply(router, merging)
        assert torch.equal(logits(mixtral, tokens), expected)
        assert moe.merges == 3
        moe.identity()
        assert torch.equal(logits(mixtral, tokens), full)
    assert_untouched(mixtral, before)


@pytest.mark.parametrize("lazy", [False, True])
def test_leaving_the_context_restores_every_bit(family, lazy, tokens, build):
    model = build(family).train()
    model.model.layers[0].eval()
    before = snapshot(model)
    with MoeModel(model, lazy=lazy) as moe:
        assert not any(module.training for module in model.modules())
        dense = dense_matrices(len(moe.layers), 4)
        moe.apply(dense, dense)
        merged = logits(model, tokens)
        moe.identity(top_k=1)
        assert not torch.allclose(logits(model, tokens), merged)
    assert_untouched(model, before)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_inside_forward_restores_every_bit(mixtral, tokens, error, lazy):
    def explode(module, arguments, output):
        raise error("inside forward")

    before = snapshot(mixtral)
    dense = dense_matrices(3, 4)
    handles = []

    def run():
        with MoeModel(mixtral, lazy=lazy) as moe:
            moe.apply(dense, dense)
            handles.append(moe.layers[1].experts.get_submodule("act_fn").register_forward_hook(explode))
            mixtral(tokens)

    with pytest.raises(error, match="inside forward"):
        run()
    for handle in handles:
        handle.remove()
    assert len(handles) == 1
    assert_untouched(mixtral, before)


def test_an_interrupted_merge_is_done_again(mixtral, tokens, monkeypatch):
    dense = dense_matrices(3, 4)
    before = snapshot(mixtral)
    with MoeModel(mixtral) as moe:
        moe.apply(dense, dense)
        expected = logits(mixtral, tokens)
        moe.apply(2 * dense, 2 * dense)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "mm", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                moe.apply(dense, dense)
        moe.apply(dense, dense)
        assert torch.equal(logits(mixtral, tokens), expected)
    assert_untouched(mixtral, before)


def test_only_changed_groups_are_merged_again(mixtral, tokens):
    dense = dense_matrices(2, 4)
    groups = [0, 0, 1]
    with MoeModel(mixtral) as moe:
        moe.apply(dense, dense, groups)
        assert moe.merges == 3
        first = logits(mixtral, tokens)
        moe.apply(dense.copy(), dense.copy(), groups)
        assert moe.merges == 3
        changed = dense.copy()
        changed[1, 0, 0] += 0.5
        moe.apply(dense, changed, groups)
        assert moe.merges == 4
        moe.apply(changed, changed, groups)
        assert moe.merges == 4
        moe.identity()
        moe.apply(dense, changed, groups)
        assert moe.merges == 4
        moe.apply(dense, dense, groups)
        assert moe.merges == 5
        assert torch.equal(logits(mixtral, tokens), first)


def test_the_caller_may_reuse_its_arrays(mixtral, tokens):
    dense = dense_matrices(3, 4)
    with MoeModel(mixtral, lazy=True) as moe:
        moe.apply(dense, dense)
        expected = logits(mixtral, tokens)
        dense[:] = 0
        assert torch.equal(logits(mixtral, tokens), expected)


def test_slots_may_change_in_number(mixtral, tokens):
    with MoeModel(mixtral) as moe:
        results = []
        for keep in (4, 2, 4):
            moe.apply(dense_matrices(3, keep), dense_matrices(3, keep))
            results.append(logits(mixtral, tokens))
        assert torch.equal(results[0], results[2])
        assert not torch.allclose(results[0], results[1])


@pytest.mark.parametrize("lazy", [False, True])
def test_generation_and_router_logits_work_while_applied(mixtral, tokens, lazy):
    dense = dense_matrices(3, 4)
    with MoeModel(mixtral, lazy=lazy) as moe:
        full = mixtral.generate(tokens[:, :4], max_new_tokens=5, do_sample=False)
        moe.apply(dense, dense)
        merged = mixtral.generate(tokens[:, :4], max_new_tokens=5, do_sample=False)
        with torch.no_grad():
            router_logits = mixtral(tokens, output_router_logits=True).router_logits
        # Greedy decoding with a cache must agree with one pass over its own output.
        assert torch.equal(logits(mixtral, merged)[:, 3:-1].argmax(-1), merged[:, 4:])
    assert merged.shape == (4, 9)
    assert not torch.equal(full, merged)
    assert [tuple(part.shape) for part in router_logits] == [(36, E)] * 3


@pytest.mark.parametrize("lazy", [False, True])
def test_half_precision_models_merge_in_their_own_type(tokens, lazy, build):
    dense = dense_matrices(3, 4)
    with MoeModel(build("mixtral")) as moe:
        moe.apply(dense, dense)
        expected = logits(moe.model, tokens)
    model = build("mixtral", torch.bfloat16)
    before = snapshot(model)
    with MoeModel(model, lazy=lazy) as moe, torch.inference_mode():
        moe.apply(dense, dense)
        output = logits(model, tokens)
        assert output.dtype == torch.bfloat16
        # Close on average only: single tokens may be routed differently after rounding.
        error = (output.float() - expected).abs()
        assert error.median() < 0.1 * expected.abs().median()
    assert_untouched(model, before)


def test_offloaded_experts_are_merged_lazily(mixtral, tokens):
    accelerate = pytest.importorskip("accelerate")
    dense, pruned = dense_matrices(3, 4), one_hot_matrices([[0, 1, 2, 3]] * 3, E)
    full = logits(mixtral, tokens)
    expected = []
    with MoeModel(mixtral) as moe:
        for matrices in (dense, pruned):
            moe.apply(matrices, matrices)
            expected.append(logits(mixtral, tokens))
    accelerate.cpu_offload(mixtral, execution_device=torch.device("cpu"))
    assert {parameter.device.type for parameter in mixtral.parameters()} == {"meta"}
    with MoeModel(mixtral, lazy=True) as moe:
        for matrices, output in zip((dense, pruned), expected, strict=True):
            moe.apply(matrices, matrices)
            assert torch.equal(logits(mixtral, tokens), output)
    with MoeModel(mixtral) as moe:
        moe.apply(pruned, pruned)
        assert torch.equal(logits(mixtral, tokens), expected[1])
        with pytest.raises(InvalidSettings, match=r"can only be merged with MoeModel\(…, lazy=True\)"):
            moe.apply(dense, dense)
    assert torch.equal(logits(mixtral, tokens), full)


def test_batched_mm_is_not_used_on_a_processor(mixtral, tokens):
    mixtral.set_experts_implementation("batched_mm")
    before = snapshot(mixtral)
    with MoeModel(mixtral):
        assert mixtral.get_experts_implementation()[""] == "grouped_mm"
    assert_untouched(mixtral, before)
    mixtral.set_experts_implementation("eager")
    with MoeModel(mixtral):
        assert mixtral.get_experts_implementation()[""] == "eager"


def test_layers_of_different_size_are_refused(mixtral):
    mixtral.model.layers[2].mlp.gate.top_k = 3
    with pytest.raises(UnsupportedModel, match=r"same number of active experts, 2 as in .*got model\.layers\.2\.mlp 3"):
        MoeModel(mixtral)


def test_quantized_experts_can_be_pruned_but_not_merged(mixtral, tokens):
    dense, pruned = dense_matrices(3, 4), one_hot_matrices([[0, 1, 2, 3]] * 3, E)
    with MoeModel(mixtral) as moe:
        moe.apply(pruned, pruned)
        expected = logits(mixtral, tokens)
    for layer in mixtral.model.layers:
        layer.mlp.experts.down_proj.quant_state = "4 bit"
    with MoeModel(mixtral) as moe:
        moe.apply(pruned, pruned)
        assert torch.equal(logits(mixtral, tokens), expected)
        with pytest.raises(
            UnsupportedModel, match=r"mlp: experts can be pruned but not merged: down_proj is quantized"
        ):
            moe.apply(pruned, dense)
        assert torch.equal(logits(mixtral, tokens), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 5}, r"top_k must lie between 1 and the number of slots \(4\), got 5"),
        ({"router": np.ones((3, 4, 7), np.float32)}, r"router must have the shape \(groups, keep, 8\).*\(3, 4, 7\)"),
        ({"merging": np.ones((3, 3, 8), np.float32)}, r"merging must have the shape .*got \(3, 3, 8\)"),
        ({"router": np.full((3, 4, 8), np.nan)}, "router must hold finite numbers"),
        ({"layer_groups": [0, 1]}, "one integer for each of 3 layers"),
        ({"layer_groups": [0, 1, 3]}, "every group from 0 to 2"),
    ],
)
def test_impossible_matrices_are_refused_before_anything_changes(mixtral, tokens, arguments, message):
    dense = dense_matrices(3, 4)
    valid = {"router": dense, "merging": dense, "layer_groups": [0, 1, 2]}
    with MoeModel(mixtral) as moe:
        expected = logits(mixtral, tokens)
        with pytest.raises(InvalidSettings, match=message):
            moe.apply(**valid | arguments)
        assert torch.equal(logits(mixtral, tokens), expected)
        moe.apply(**valid)


def test_wrong_use_of_the_context_is_refused(mixtral):
    moe = MoeModel(mixtral)
    dense = dense_matrices(3, 4)
    with pytest.raises(InvalidSettings, match="only inside the context"):
        moe.apply(dense, dense)
    with moe:
        with pytest.raises(InvalidSettings, match="open already"):
            moe.__enter__()
        moe.apply(dense, dense)
        with pytest.raises(UnsupportedModel, match="to match its router"):
            MoeModel(mixtral)
        with pytest.raises(InvalidSettings, match=r"between 1 and the number of experts \(8\), got 9"):
            moe.identity(top_k=9)
    with moe:
        moe.apply(dense, dense)
