import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks import small_llamas  # noqa: E402
from benchmarks.small_llamas import CUE, Recipe, copies, losses, plain, text, trained  # noqa: E402
from searchlib.errors import InvalidSettings  # noqa: E402

TINY = Recipe(steps=100, tokens=256, length=64, layers=2, heads=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_a_short_run_learns_and_is_trained_once(cache, monkeypatch):
    model = trained(TINY, cache)
    first, *_ = losses(TINY, cache)
    assert first["step"] == 100
    with torch.inference_mode():
        tokens = torch.from_numpy(plain(8, 64, "holdout"))
        assert float(model(tokens, labels=tokens).loss) < np.log(128) - 0.5
    assert not model.training
    monkeypatch.setattr(small_llamas, "_train", None)  # a second run would fail
    again = trained(TINY, cache)
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))


def test_every_setting_of_the_recipe_makes_another_model():
    changes = [{"seed": 1}, {"layers": 5}, {"steps": 10}, {"muon_rate": 0.1}, {"copied": 1}]
    keys = {dataclasses.replace(Recipe(), **change).key() for change in [{}, *changes]}
    assert len(keys) == 1 + len(changes)


def test_pieces_are_text_of_their_split_only():
    parts = {split: text(split).tobytes() for split in ("search", "select", "holdout", None)}
    assert min(map(len, parts.values())) > 100_000
    piece = plain(1, 2000, "select", seed=3)[0].astype(np.uint8).tobytes()
    assert piece in parts["select"]
    assert not any(piece in part for split, part in parts.items() if split != "select")
    assert max(max(part) for part in parts.values()) < 128


@pytest.mark.parametrize("distance", [40, 100, None])
def test_copies_end_with_what_stood_further_up(distance):
    tokens, known = copies(20, 160, "search", distance=distance)
    assert tokens.shape == known.shape == (20, 160)
    assert known.sum(axis=1).tolist() == [40 - CUE] * 20
    assert known[:, 120 + CUE :].all()
    found = [
        [back for back in range(40, 121) if np.array_equal(row[120:], row[120 - back : 160 - back])] for row in tokens
    ]
    assert all(found)
    if distance is None:
        assert len({backs[0] for backs in found}) > 5
    else:
        assert all(distance in backs for backs in found)


def test_copies_that_do_not_fit_are_refused():
    for settings in ({"chunk": CUE}, {"chunk": 60}, {"distance": 20}, {"distance": 90}):
        with pytest.raises(InvalidSettings, match="must be longer than"):
            copies(1, 100, "search", **settings)
    with pytest.raises(InvalidSettings, match="split must be one of"):
        text("train")
