from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.torch import load_file, save_file  # noqa: E402

from searchlib.errors import InvalidSettings  # noqa: E402
from searchlib.objectives import checkpoint_panels, checkpoint_sums  # noqa: E402
from searchlib.objectives.checkpoint_store import CheckpointStore, blocks_by_prefix  # noqa: E402
from searchlib.spaces import CheckpointCoefficients  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")

K = 5
SHAPES = {"conv.weight": (6, 3, 3, 3), "conv.bias": (6,), "wide.weight": (130, 300), "norm.scale": (), "none": (0, 4)}
ROWS = np.random.default_rng(0).normal(1 / K, 0.5, (9, K))


def states(dtype=torch.float32, count=K, shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    return [
        {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
        | {"steps": torch.tensor(100 * number), "mask": torch.tensor([number % 2 == 0])}
        for number in range(count)
    ]


def saved(folder, given, kind="safetensors"):
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.{kind}" for number in range(len(given))]
    for path, state in zip(paths, given, strict=True):
        save_file(state, path) if kind == "safetensors" else torch.save(state, path)
    return paths


def looped(given, row, name):
    """One tensor, combined in a loop in float64."""
    return sum(float(weight) * state[name].double() for weight, state in zip(row, given, strict=True))


def check(store, given, rows, combined):
    """Each row of the result against the loop, within float32 rounding of its largest term."""
    assert combined.shape == (len(rows), store.parameters)
    assert combined.dtype == torch.float32
    assert len(rows) > 0
    for row, vector in zip(rows, combined, strict=True):
        for name, tensor in store.views(vector):
            expected = looped(given, row, name)
            largest = max((float(state[name].abs().max()) for state in given if state[name].numel()), default=0)
            bound = 1e-6 * np.abs(row).max() * max(1, largest)
            torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=float(bound), msg=name)


def opened(source, given, tmp_path):
    if source == "state dicts":
        return CheckpointStore.open(given)
    if source == "loaded":
        return CheckpointStore.open(given).load()
    return CheckpointStore.open(saved(tmp_path, given, source))


SOURCES = ["state dicts", "loaded", "safetensors", "pt"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("batch", [1, 3, 9])
def test_combinations_are_those_of_a_loop_over_tensors_in_float64(source, dtype, batch, tmp_path):
    given = states(dtype)
    given = [{name: tensor for name, tensor in state.items() if tensor.numel()} for state in given]
    store = opened(source, given, tmp_path)
    check(store, given, ROWS[:batch], store.combine(ROWS[:batch]))


def test_empty_tensors_have_their_place():
    store = CheckpointStore.open(states())
    assert store.parameters == 6 * 27 + 6 + 130 * 300 + 1
    assert store.state_dict(ROWS[0])["none"].shape == (0, 4)


def test_files_of_equal_layout_are_one_matrix_in_place(tmp_path):
    paths = saved(tmp_path, states())
    store = CheckpointStore.open(paths)
    assert store.combine(np.eye(K)[:0]).shape == (0, store.parameters)
    (panel,) = store._panels
    assert isinstance(panel.rows, torch.Tensor)
    assert panel.rows.shape == (K, store.parameters)
    assert panel.rows.untyped_storage().nbytes() >= K * paths[0].stat().st_size


def test_files_of_unequal_headers_are_combined_too(tmp_path):
    given = states()
    paths = saved(tmp_path, given)
    save_file(given[2], paths[2], metadata={"note": "a longer header, so that all numbers stand elsewhere"})
    store = CheckpointStore.open(paths)
    check(store, given, ROWS, store.combine(ROWS))


def test_where_files_cannot_be_mapped_side_by_side_the_result_is_the_same(tmp_path, monkeypatch):
    given = states()
    paths = saved(tmp_path, given)
    expected = CheckpointStore.open(paths).combine(ROWS)
    monkeypatch.setattr(checkpoint_panels, "_side_by_side", lambda files: None)
    store = CheckpointStore.open(paths)
    assert not any(isinstance(panel.rows, torch.Tensor) for panel in store._panels)
    torch.testing.assert_close(store.combine(ROWS), expected, rtol=1e-6, atol=1e-6)


def test_a_closed_store_gives_its_mappings_back(tmp_path):
    paths = saved(tmp_path / "mapped", states())

    def mappings():
        with open("/proc/self/maps") as maps:
            return sum(str(tmp_path) in line for line in maps)

    store = CheckpointStore.open(paths)
    kept = store.combine(ROWS)
    assert mappings() >= K
    del store
    gc.collect()
    assert mappings() == 0
    assert bool(torch.isfinite(kept).all())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("batch", [1, 3, 9])
def test_results_depend_on_chunk_boundaries_by_rounding_only_and_not_at_all_on_threads(
    source, batch, tmp_path, monkeypatch
):
    given = states(shapes={"a": (70_001,), "b": (333, 100)})
    store = opened(source, given, tmp_path)
    whole = store.combine(ROWS[:batch])
    for name, value in {"_DIRECT": 1111, "_SCALED": 999, "_GATHERED": 2048, "_MULTIPLIED": 512}.items():
        monkeypatch.setattr(checkpoint_sums, name, value)
    pieces = store.combine(ROWS[:batch])
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-6)
    torch.set_num_threads(3)
    assert torch.equal(store.combine(ROWS[:batch]), pieces)
    assert torch.equal(store.combine(ROWS[:batch]), pieces)


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_a_long_tensor_gives_the_same_bits_with_any_number_of_threads(batch):
    store = CheckpointStore.open(states(count=20, shapes={"a": (300_001,)})).load()
    rows = np.random.default_rng(0).normal(0.05, 0.1, (batch, 20))
    alone = store.combine(rows)
    torch.set_num_threads(3)
    assert torch.equal(store.combine(rows), alone)


def test_a_combination_hardly_depends_on_its_company(tmp_path):
    store = CheckpointStore.open(saved(tmp_path, states()))
    together = store.combine(ROWS)
    for row, vector in zip(ROWS, together, strict=True):
        torch.testing.assert_close(store.combine(row[None])[0], vector, rtol=0, atol=2e-6)


def test_updates_add_what_changed():
    given = states()
    store = CheckpointStore.open(given)
    vector = store.combine(ROWS[:1])
    moved = ROWS[:1].copy()
    moved[0, [1, 3]] += [0.3, -0.3]
    updated = store.update(store.coefficients(moved) - store.coefficients(ROWS[:1]), vector)
    check(store, given, moved, updated)


# --- blocks ---


def test_every_block_has_coefficients_of_its_own(tmp_path):
    given = states()
    names = list(SHAPES)
    blocks = blocks_by_prefix(names, ["wide", ("conv", "norm"), ""])
    assert blocks == {"conv.weight": 1, "conv.bias": 1, "wide.weight": 0, "norm.scale": 1, "none": 2}
    space = CheckpointCoefficients(K, blocks=3)
    rows = space.sample(np.random.default_rng(0), 4)
    for sources in (given, saved(tmp_path, given)):
        store = CheckpointStore.open(sources, blocks=blocks)
        assert store.blocks == 3
        for given_rows in (rows, space.by_block(rows)):
            for row, vector in zip(space.by_block(rows), store.combine(given_rows), strict=True):
                for name, tensor in store.views(vector):
                    expected = looped(given, row[blocks[name]], name)
                    torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-5)


def test_one_set_of_coefficients_serves_all_blocks():
    given = states()
    store = CheckpointStore.open(given, blocks=blocks_by_prefix(SHAPES, ["wide", ""]))
    check(store, given, ROWS, store.combine(ROWS))


@pytest.mark.parametrize(
    ("prefixes", "sentence"),
    [
        (["conv"], "must begin with one of the prefixes, but 'wide.weight' does not"),
        (["conv", "wid", ""], "'wid' begins none"),
    ],
)
def test_prefixes_must_fit(prefixes, sentence):
    with pytest.raises(InvalidSettings, match=sentence):
        blocks_by_prefix(SHAPES, prefixes)


def test_the_longest_prefix_counts_whatever_the_order():
    names = ["up.0.weight", "up.1.weight", "upper.weight"]
    assert list(blocks_by_prefix(names, ["up", "up.1.", ""]).values()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("blocks", "sentence"),
    [({"conv.weight": 0}, "has none for 'conv.bias'"), (dict.fromkeys(SHAPES, 1), r"without a gap, but are \[1\]")],
)
def test_blocks_must_cover_every_tensor(blocks, sentence):
    with pytest.raises(InvalidSettings, match=sentence):
        CheckpointStore.open(states(), blocks=blocks)


# --- coefficients ---


@pytest.mark.parametrize("rows", [ROWS[0], ROWS[:, :3], 0.5, [[[[0.2] * K]]]], ids=["row", "few", "scalar", "deep"])
def test_coefficients_of_another_shape_are_refused(rows):
    with pytest.raises(InvalidSettings, match=r"coefficients must have shape \(n, 5\) or \(n, 1, 5\), but have"):
        CheckpointStore.open(states()).combine(rows)


def test_coefficients_that_are_not_finite_are_refused():
    with pytest.raises(InvalidSettings, match="must be finite"):
        CheckpointStore.open(states()).combine([[np.nan] * K])


# --- state dicts ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_state_dict_has_the_types_of_the_checkpoints_and_the_newest_whole_numbers(dtype, tmp_path):
    given = states(dtype)
    state = CheckpointStore.open(given).state_dict(ROWS[0])
    assert state.keys() == given[0].keys()
    assert state["steps"] == 400
    assert state["mask"].tolist() == [True]
    for name in SHAPES:
        assert state[name].dtype == dtype
        bound = 1e-5 if dtype == torch.float32 else 5e-3
        torch.testing.assert_close(state[name].double(), looped(given, ROWS[0], name), rtol=bound, atol=bound)
    save_file(state, tmp_path / "best.safetensors")
    assert load_file(tmp_path / "best.safetensors").keys() == state.keys()


def test_statistics_of_batch_normalization_come_from_the_newest_unless_told_otherwise():
    shapes = {"weight": (3,), "bn.running_var": (3,), "bn.running_mean": (3,)}
    given = states(shapes=shapes)
    store = CheckpointStore.open(given)
    assert store.names == ("weight",)
    assert torch.equal(store.state_dict(ROWS[0])["bn.running_var"], given[-1]["bn.running_var"])
    everything = CheckpointStore.open(given, newest=())
    check(everything, given, ROWS, everything.combine(ROWS))
    assert set(everything.names) == set(shapes)


def test_tied_tensors_are_combined_once():
    given = states()
    for state in given:
        state["tied.weight"] = state["wide.weight"]
    store = CheckpointStore.open(given)
    assert "tied.weight" not in store.names
    state = store.state_dict(ROWS[0])
    assert state["tied.weight"].data_ptr() == state["wide.weight"].data_ptr()


def test_tensors_that_are_tied_in_some_checkpoints_only_are_combined_apart():
    given = states()
    for state in given:
        state["tied.weight"] = state["wide.weight"]
    given[1]["tied.weight"] = given[1]["tied.weight"] + 1
    store = CheckpointStore.open(given)
    check(store, given, ROWS, store.combine(ROWS))
    assert "tied.weight" in store.names


# --- what does not fit together ---


def spoiled(number, **changes):
    given = states()
    given[number] |= changes
    return given


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            spoiled(3, **{"conv.bias": torch.ones(7)}),
            r"'conv\.bias' of checkpoint 3 must have shape \(6,\) as in checkpoint 0, but has \(7,\)",
        ),
        (
            spoiled(2, **{"conv.bias": torch.ones(6).half()}),
            r"'conv\.bias' of checkpoint 2 must have dtype torch\.float32 as in checkpoint 0, but has torch\.float16",
        ),
        (
            spoiled(4, surplus=torch.ones(1)),
            "checkpoint 4 must have the tensors of checkpoint 0, but also has 'surplus'",
        ),
        (spoiled(0, missed=torch.ones(1)), "checkpoint 1 must have the tensors of checkpoint 0, but lacks 'missed'"),
        ([{"steps": torch.tensor(1)}], "must have floating-point tensors to combine"),
        ([], "sources must be a sequence of checkpoints"),
        ("model.safetensors", "sources must be a sequence of checkpoints"),
    ],
)
def test_the_first_difference_between_checkpoints_is_named(given, sentence):
    with pytest.raises(InvalidSettings, match=sentence):
        CheckpointStore.open(given)


def test_a_difference_between_files_names_the_file(tmp_path):
    given = spoiled(3, **{"conv.bias": torch.ones(7)})
    with pytest.raises(InvalidSettings, match=r"'conv\.bias' of checkpoint 3 \(.*3\.safetensors\) must have shape"):
        CheckpointStore.open(saved(tmp_path, given))


def test_state_dicts_of_a_model_that_trained_on_are_noticed():
    model = torch.nn.Linear(3, 2)
    with pytest.raises(InvalidSettings, match=r"checkpoint 1 must have memory of its own.*tensor\.clone\(\)"):
        CheckpointStore.open([model.state_dict(), model.state_dict()])


def test_frozen_tensors_may_be_shared_between_checkpoints():
    given = states()
    for state in given[1:]:
        state["conv.weight"] = given[0]["conv.weight"]
    store = CheckpointStore.open(given)
    check(store, given, ROWS, store.combine(ROWS))


def test_quantized_weights_are_refused():
    given = [{"scale": torch.ones(2), "weight": torch.full((2, 3), number, dtype=torch.int8)} for number in range(2)]
    with pytest.raises(InvalidSettings, match="quantized weights must be dequantized first"):
        CheckpointStore.open(given)


# --- identity ---


def test_the_digest_is_of_the_numbers_and_not_of_where_they_come_from(tmp_path):
    given = states()
    stores = [opened(source, given, tmp_path / source) for source in SOURCES]
    assert len({store.digest for store in stores}) == 1
    assert len(stores[0].digest) == 32


@pytest.mark.parametrize(
    "other",
    [
        states()[::-1],
        states()[:-1],
        spoiled(2, **{"wide.weight": torch.zeros(130, 300)}),
        spoiled(4, steps=torch.tensor(1)),
        states(torch.float16),
        [{name.replace("conv", "convolution"): tensor for name, tensor in state.items()} for state in states()],
    ],
    ids=["other order", "one less", "other weights", "other count of steps", "other type", "other name"],
)
def test_other_checkpoints_have_another_digest(other):
    assert CheckpointStore.open(other).digest != CheckpointStore.open(states()).digest


# --- memory ---


def anonymous_bytes():
    """Resident memory that is not a file's."""
    with open("/proc/self/statm") as file:
        _, resident, shared = map(int, file.read().split()[:3])
    return 4096 * (resident - shared)


def peak(work):
    """How far such memory rises while ``work`` runs, looked at all the time."""
    gc.collect()
    before, highest, done = anonymous_bytes(), [0], threading.Event()

    def watch():
        while not done.is_set():
            highest[0] = max(highest[0], anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return highest[0] - before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_checkpoints_are_never_in_memory_together(dtype, tmp_path):
    count, shapes = 24, {"a": (1000, 1000), "b": (500,)}
    paths = saved(tmp_path, states(dtype, count, shapes))
    row = np.full((1, count), 1 / count)
    opening, results = [], []
    rise = peak(lambda: opening.append(CheckpointStore.open(paths)))
    for rows in (row, row.repeat(4, axis=0)):
        rise = max(rise, peak(lambda rows=rows: results.append(opening[0].combine(rows))))
    wanted = sum(result.nbytes for result in results)
    assert wanted > 0
    assert rise < wanted + count * 1_000_500 * dtype.itemsize / 4
