from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from searchlib.errors import InvalidSettings, UnsupportedModel  # noqa: E402
from searchlib.objectives.checkpoint_store import CheckpointStore, blocks_by_prefix  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")

K = 4
ROWS = np.random.default_rng(0).normal(1 / K, 0.5, (6, K))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("cache", torch.ones(3), persistent=False)

    def forward(self, ids):
        return self.head(self.norm(self.embed(ids))) * self.scale


def built(seed):
    torch.manual_seed(seed)
    model = Tied().eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape))
        model.norm.num_batches_tracked.fill_(10 * seed)
    return model


def copied(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(params=["state dicts", "safetensors"])
def store(request, tmp_path):
    given = [copied(built(seed)) for seed in range(1, K + 1)]
    if request.param == "state dicts":
        return CheckpointStore.open(given)
    paths = [tmp_path / f"{number}.safetensors" for number in range(K)]
    for path, state in zip(paths, given, strict=True):
        del state["head.weight"]  # as transformers saves tied weights
        save_file(state, path)
    return CheckpointStore.open(paths)


@pytest.fixture
def model():
    return built(99)


def expected(row):
    """The live model that a loop in float64 makes."""
    models = [built(seed) for seed in range(1, K + 1)]
    result = built(99)
    with torch.no_grad():
        for name, tensor in result.state_dict().items():
            sources = [m.state_dict()[name] for m in models]
            if tensor.is_floating_point() and "running" not in name:
                tensor.copy_(sum(float(w) * source.double() for w, source in zip(row, sources, strict=True)))
            else:
                tensor.copy_(sources[-1])
    return result


def close(model, row):
    wanted = expected(row).state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name].to(tensor.dtype), rtol=1e-5, atol=1e-6, msg=name)
    ids = torch.arange(7)
    torch.testing.assert_close(model(ids), expected(row)(ids), rtol=1e-4, atol=1e-4)


def traces(model):
    """Everything that must be as before: objects, memory and bits."""
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    return {name: (id(t), t.data_ptr(), t.stride(), t.requires_grad, t.detach().numpy().tobytes())
            for name, t in tensors.items()}  # fmt: skip


def test_what_is_written_is_live_and_gone_afterwards(store, model):
    before = traces(model)
    with store.bind(model) as live:
        for row in ROWS:
            live.write(row)
            close(model, row)
            assert model.head.weight is model.embed.weight
            assert model.cache.tolist() == [1, 1, 1]
    assert traces(model) == before


def test_the_model_is_itself_again_after_an_exception(store, model):
    before = traces(model)

    def fail():
        with store.bind(model) as live:
            live.write(ROWS[0])
            close(model, ROWS[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert traces(model) == before


def test_the_model_is_itself_again_after_training_inside(store, model):
    before = traces(model)
    with store.bind(model) as live:
        live.write(ROWS[0])
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        model(torch.arange(7)).sum().backward()
        optimizer.step()
        live.write(ROWS[1])
        model.eval()
        close_weights = expected(ROWS[1]).state_dict()
        torch.testing.assert_close(model.embed.weight.detach(), close_weights["embed.weight"], rtol=1e-5, atol=1e-6)
    assert traces(model) == before


def test_training_inside_does_not_reach_the_checkpoints(store, model):
    first = store.combine(ROWS)
    with store.bind(model) as live, torch.no_grad():
        live.write(np.eye(K)[-1])
        for tensor in model.state_dict().values():
            tensor.zero_()
    assert torch.equal(store.combine(ROWS), first)
    assert store.layout.newest["norm.running_var"].abs().sum() > 0


def test_a_batch_is_computed_at_once_and_shown_one_by_one(store, model):
    before = traces(model)
    with store.bind(model) as live:
        assert live.batch(ROWS) == len(ROWS)
        for index in (3, 0, 5, 3):
            live.use(index)
            close(model, ROWS[index])
        live.write(ROWS[1])
        close(model, ROWS[1])
        live.use(2)
        close(model, ROWS[2])
        assert live.batch(ROWS[::-1]) == len(ROWS)
        live.use(0)
        close(model, ROWS[-1])
        assert live.batch(ROWS[:2]) == 2
        with pytest.raises(IndexError):
            live.use(2)
    assert traces(model) == before


def test_parameters_are_views_of_the_combined_vector(store, model):
    with store.bind(model) as live:
        live.write(ROWS[0])
        storages = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        assert len(storages) == 1
        assert model.embed.weight.untyped_storage().nbytes() == 4 * store.parameters


def test_a_model_of_mixed_precision_keeps_its_types(store, model):
    model.embed.bfloat16()
    model.scale = model.scale.double()
    before = {name: (t.dtype, t.data_ptr()) for name, t in model.state_dict().items()}
    with store.bind(model) as live:
        for row in ROWS[:2]:
            live.write(row)
            wanted = expected(row).state_dict()
            for name, tensor in model.state_dict().items():
                assert tensor.dtype == before[name][0]
                tolerance = 1e-2 if tensor.dtype == torch.bfloat16 else 1e-5
                torch.testing.assert_close(
                    tensor.double(), wanted[name].double(), rtol=tolerance, atol=tolerance, msg=name
                )
    assert {name: (t.dtype, t.data_ptr()) for name, t in model.state_dict().items()} == before


def test_a_loaded_store_writes_the_same(store, model):
    with store.load().bind(model) as live:
        live.write(ROWS[0])
        close(model, ROWS[0])


def test_additions_stay_close_to_what_is_computed_anew():
    rng = np.random.default_rng(0)
    states = [{"weight": torch.from_numpy(rng.standard_normal((30, 40)).astype(np.float32))} for _ in range(20)]
    store = CheckpointStore.open(states)
    model = nn.Linear(40, 30, bias=False)
    row, worst, largest = rng.normal(0.05, 0.1, 20), 0.0, 0.0
    with store.bind(model, increments=16) as live:
        for _ in range(200):
            live.write(row)
            exact = np.einsum("k,kij->ij", row, np.stack([state["weight"].double().numpy() for state in states]))
            worst = max(worst, np.abs(model.weight.detach().numpy() - exact).max())
            largest = max(largest, np.abs(exact).max())
            moved = rng.choice(20, 3, replace=False)
            row = row.copy()
            row[moved] += rng.normal(0, 0.1, 3)
    assert 0 < worst < 1e-6 * largest


def test_additions_read_only_what_changed_and_end_after_so_many(monkeypatch):
    states = [{"weight": torch.full((2, 2), float(number))} for number in range(8)]
    store = CheckpointStore.open(states)
    calls = []
    combine, update = CheckpointStore.combine, CheckpointStore.update
    monkeypatch.setattr(CheckpointStore, "combine", lambda *a, **b: calls.append("combine") or combine(*a, **b))
    monkeypatch.setattr(CheckpointStore, "update", lambda *a, **b: calls.append("update") or update(*a, **b))
    row = np.full(8, 0.125)
    with store.bind(nn.Linear(2, 2, bias=False), increments=2) as live:
        for step in range(4):
            live.write(row + np.eye(8)[step % 2] * 0.1)
        live.write(-row)
    assert calls == ["combine", "update", "update", "combine", "combine"]
    calls.clear()
    with store.bind(nn.Linear(2, 2, bias=False)) as live:
        for step in range(3):
            live.write(row + np.eye(8)[step % 2] * 0.1)
    assert calls == ["combine"] * 3, "additions are opt-in"


def test_writing_the_same_again_undoes_what_was_done_to_the_weights(store, model):
    with store.bind(model) as live, torch.no_grad():
        live.write(ROWS[0])
        model.embed.weight.zero_()
        live.write(ROWS[0])
        close(model, ROWS[0])


def test_every_block_of_the_model_has_its_own_coefficients(model):
    given = [copied(built(seed)) for seed in range(1, K + 1)]
    names = CheckpointStore.open(given).names
    store = CheckpointStore.open(given, blocks=blocks_by_prefix(names, [("embed", "head", "scale"), "norm"]))
    with store.bind(model) as live:
        live.write(ROWS[:2])
        first, second = expected(ROWS[0]), expected(ROWS[1])
        torch.testing.assert_close(model.embed.weight, first.embed.weight, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(model.norm.weight, second.norm.weight, rtol=1e-5, atol=1e-6)


# --- what does not fit ---


def test_a_module_of_another_shape_or_name_is_refused_before_anything_is_touched(store, model):
    model.norm = nn.BatchNorm1d(6)
    with pytest.raises(
        UnsupportedModel, match=r"'norm\.weight' must have the checkpoints' shape \(5,\), but has \(6,\)"
    ):
        store.bind(model)
    del model.norm
    with pytest.raises(UnsupportedModel, match=r"must have every tensor of the checkpoints, but lacks 'norm\."):
        store.bind(model)
    other = built(1)
    other.extra = nn.Parameter(torch.ones(2))
    with pytest.raises(UnsupportedModel, match="must have every tensor of the module, but lack 'extra'"):
        store.bind(other)


def test_a_module_without_memory_is_refused(store):
    with torch.device("meta"):
        model = Tied()
    with pytest.raises(UnsupportedModel, match="is on the meta device; load the model first"):
        store.bind(model)


def test_nothing_can_be_written_outside_of_the_context(store, model):
    live = store.bind(model)
    for call in (lambda: live.write(ROWS[0]), lambda: live.batch(ROWS), lambda: live.use(0)):
        with pytest.raises(InvalidSettings, match="must be bound for that"):
            call()
    with live, pytest.raises(InvalidSettings, match="bound already"), live:
        pass
