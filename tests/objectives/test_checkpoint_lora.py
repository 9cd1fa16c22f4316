from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("transformers")

from torch import nn  # noqa: E402
from transformers.pytorch_utils import Conv1D  # noqa: E402

from searchlib.errors import InvalidSettings  # noqa: E402
from searchlib.objectives.checkpoint_lora import LoraAdapter  # noqa: E402
from searchlib.objectives.checkpoint_store import CheckpointStore  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")

ROW = np.array([0.7, -0.9, 1.2])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, 4, bias=False)
        self.conv = nn.Conv2d(2, 3, 3)
        self.transposed = Conv1D(5, 4)


def net():
    torch.manual_seed(0)
    return Net()


CASES = {
    "linear": {"target_modules": ["first", "second"], "r": 2, "lora_alpha": 5},
    "convolution": {"target_modules": ["conv"], "r": 3, "lora_alpha": 4},
    "embedding": {"target_modules": ["embed", "first"], "r": 2, "lora_alpha": 3},
    "rank-stabilized": {"target_modules": ["first"], "r": 4, "lora_alpha": 3, "use_rslora": True},
    "patterns": {
        "target_modules": ["first", "second"], "r": 2, "lora_alpha": 3, "alpha_pattern": {"second": 7},
        "rank_pattern": {"^first": 5},
    },
    "transposed": {"target_modules": ["transposed"], "r": 2, "lora_alpha": 4, "fan_in_fan_out": True},
}  # fmt: skip


def adapters(settings, ranks=(None, None, None)):
    """Peft models of the same base model, their factors random."""
    made = []
    for seed, rank in enumerate(ranks):
        config = peft.LoraConfig(**settings | ({} if rank is None else {"r": rank}))
        model = peft.get_peft_model(net(), config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
        made.append(model)
    return made


def merged(models, row):
    """What peft itself merges, combined tensor by tensor in float64."""
    states = [copy.deepcopy(model).merge_and_unload().state_dict() for model in models]
    return {
        name: sum(weight * state[name].double() for weight, state in zip(row, states, strict=True))
        for name in states[0]
    }


def close(state, expected):
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name].double(), tensor, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_adapters_of_a_folder_are_combined_as_the_models_that_peft_merges(case, tmp_path):
    models = adapters(CASES[case])
    for number, model in enumerate(models):
        model.save_pretrained(tmp_path / str(number))
    store = CheckpointStore.open([tmp_path / str(number) for number in range(3)])
    base = net()
    expected = merged(models, ROW)
    with store.bind(base) as live:
        live.write(ROW)
        close(base.state_dict(), expected)
        assert live.batch([ROW[::-1], ROW]) == 2
        live.use(1)
        close(base.state_dict(), expected)
    close(store.state_dict(ROW, base=base.state_dict()), expected)
    changed = [name for name in expected if not torch.allclose(base.state_dict()[name].double(), expected[name])]
    assert set(changed) == set(store.names)


def test_adapters_of_different_ranks_are_combined_exactly():
    models = adapters(CASES["linear"], ranks=(1, 4, 2))
    sources = [
        LoraAdapter(peft.get_peft_model_state_dict(model), model.peft_config["default"].to_dict()) for model in models
    ]
    base = net()
    with CheckpointStore.open(sources).bind(base) as live:
        live.write(ROW)
        close(base.state_dict(), merged(models, ROW))


def test_averaging_the_factors_would_be_something_else():
    models = adapters(CASES["linear"])
    states = [peft.get_peft_model_state_dict(model) for model in models]
    factors = {name: sum(w * state[name] for w, state in zip(ROW, states, strict=True)) for name in states[0]}
    peft.set_peft_model_state_dict(models[0], factors)
    wrong = models[0].merge_and_unload().state_dict()["first.weight"].double()
    right = merged(adapters(CASES["linear"]), ROW)["first.weight"]
    assert (wrong - right).abs().max() > 0.1


def test_a_live_peft_models_own_state_dict_is_an_adapter_too():
    models = adapters(CASES["linear"])
    states = [{name: tensor for name, tensor in m.state_dict().items() if "lora_" in name} for m in models]
    sources = [LoraAdapter(state, {"lora_alpha": 5}) for state in states]
    base = net()
    with CheckpointStore.open(sources).bind(base) as live:
        live.write(ROW)
        close(base.state_dict(), merged(models, ROW))


def test_a_head_that_is_saved_beside_the_adapter_replaces_the_models(tmp_path):
    settings = {"target_modules": ["first"], "modules_to_save": ["second"], "r": 2, "lora_alpha": 5}
    models = adapters(settings)
    for number, model in enumerate(models):
        with torch.no_grad():
            model.base_model.model.second.modules_to_save["default"].weight.add_(number)
        model.save_pretrained(tmp_path / str(number))
    store = CheckpointStore.open([tmp_path / str(number) for number in range(3)])
    assert set(store.names) == {"first.weight", "second.weight"}
    base = net()
    with store.bind(base) as live:
        live.write(ROW)
        close(base.state_dict(), merged(models, ROW))


def test_loaded_adapters_and_incremental_writes_give_the_same():
    models = adapters(CASES["linear"])
    sources = [LoraAdapter(peft.get_peft_model_state_dict(model), {"lora_alpha": 5}) for model in models]
    store = CheckpointStore.open(sources)
    rows = np.random.default_rng(0).normal(size=(6, 3))
    torch.testing.assert_close(store.load().combine(rows), store.combine(rows), rtol=1e-5, atol=1e-5)
    vector = store.combine(rows[:1])
    change = store.coefficients(rows[1:2]) - store.coefficients(rows[:1])
    change[..., 1] = 0
    moved = rows[:1] + change[:, 0].numpy()
    torch.testing.assert_close(store.update(change, vector), store.combine(moved), rtol=1e-5, atol=1e-5)


def test_a_half_precision_base_gets_the_product_rounded_once():
    models = adapters(CASES["linear"])
    sources = [LoraAdapter(peft.get_peft_model_state_dict(model), {"lora_alpha": 5}) for model in models]
    base = net().to(torch.bfloat16)
    expected = base.first.weight.double() + (merged(models, ROW)["first.weight"] - net().first.weight.double())
    with CheckpointStore.open(sources).bind(base) as live:
        live.write(ROW)
        assert base.first.weight.dtype == torch.bfloat16
        torch.testing.assert_close(base.first.weight.double(), expected, rtol=2**-8, atol=1e-4)


LINEAR = {"lin.lora_A.weight": torch.ones(2, 3), "lin.lora_B.weight": torch.ones(4, 2)}


@pytest.mark.parametrize(
    ("state", "config", "sentence"),
    [
        (LINEAR, {}, "must say lora_alpha"),
        (LINEAR, {"lora_alpha": 1, "use_dora": True}, "is DoRA; merge it first"),
        (LINEAR, {"lora_alpha": 1, "peft_type": "LOHA"}, "is LOHA; merge it first"),
        (LINEAR | {"lin.lora_magnitude_vector": torch.ones(4)}, {"lora_alpha": 1}, "but has 'lin.lora_magn"),
        (LINEAR | {"lin.lora_B.bias": torch.ones(4)}, {"lora_alpha": 1}, "but has 'lin.lora_B.bias'"),
        ({"lin.lora_A.weight": torch.ones(2, 3)}, {"lora_alpha": 1}, "'lin' must have both .* has only lora_A"),
        (LINEAR | {"lin.lora_A.weight": torch.ones(3, 3)}, {"lora_alpha": 1}, "must meet lora_B in the rank"),
    ],
)
def test_what_is_no_plain_adapter_is_refused(state, config, sentence):
    with pytest.raises(InvalidSettings, match=sentence):
        CheckpointStore.open([LoraAdapter(state, config)])


def test_a_state_dict_of_factors_alone_asks_for_its_settings():
    with pytest.raises(InvalidSettings, match=r"a LoRA adapter without its settings.*LoraAdapter\(state, config\)"):
        CheckpointStore.open([LINEAR])


def test_an_adapter_needs_the_base_model_for_a_state_dict():
    store = CheckpointStore.open([LoraAdapter(LINEAR, {"lora_alpha": 1})])
    with pytest.raises(InvalidSettings, match=r"base must be the base model's state dict.*lacks 'lin\.weight'"):
        store.state_dict([1.0])
