"""The weight bits that MixDQ released (arXiv 2405.17873) are the optimum of its own sensitivities."""

from pathlib import Path

import numpy as np
import pytest

from searchlib.knapsack import Knapsack, solve

DATA = Path(__file__).parents[3] / "shared" / "data" / "mixdq"
BITS = (2, 4, 8)


def table(name):
    """A file of ``name: number`` or ``name:`` and a list of numbers, which is all of YAML that these files use."""
    if not DATA.exists():
        pytest.skip("the tables of MixDQ are not here (../shared/data/mixdq)")
    values: dict[str, list[float]] = {}
    for line in (DATA / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("- "):
            values[layer].append(float(line[2:]))  # noqa: F821
        else:
            layer, _, number = line.partition(":")
            values[layer] = [float(number)] if number.strip() else []
    return values


def groups(mean):
    """Of the content and of the quality group: bits, the layers' released bits and shares, and the losses."""
    released = {layer: int(bits) for layer, (bits,) in table(f"weight_{mean}.yaml").items()}
    sizes = {layer: size for layer, (size,) in table("weight_sizes.yaml").items()}
    assert len(released) == 794
    for sensitivity, content, bits in (("ssim", True, (2, 4, 8)), ("sqnr", False, (4, 8))):
        quality = table(f"weight_sensitivity_{sensitivity}.yaml")
        layers = [layer for layer in released if ("ff" in layer or "attn2" in layer) == content]
        assert len(layers) == (420 if content else 374)
        size = np.array([sizes[layer] for layer in layers])
        loss = -np.array([[quality[layer][BITS.index(b)] for b in bits] for layer in layers])
        yield np.array(bits), np.array([released[layer] for layer in layers]), size / size.sum(), loss


@pytest.mark.parametrize("mean", ["3.66", "4.00", "4.08", "5.02", "8.00"])
def test_the_released_bits_are_the_optimum_at_their_own_mean(mean):
    agreeing = 0
    for bits, released, share, loss in groups(mean):
        spent = float(share @ released)
        cost = share[:, None] * bits
        found = solve(Knapsack(loss, [cost, -cost], [spent, 0.0005 - spent]), gap=0)
        assert found.optimal
        agreeing += int((bits[found.choice] == released).sum())
    assert agreeing == 794


@pytest.mark.parametrize("mean", ["3.66", "4.00", "4.08", "5.02", "8.00"])
def test_a_window_above_that_mean_buys_one_more_layer_at_most(mean):
    """0.0005 is more than a small content layer takes from 2 to 4 bits; a program that stops at 1e-4 misses it."""
    differing = 0
    for bits, released, share, loss in groups(mean):
        spent = float(share @ released)
        cost = share[:, None] * bits
        problem = Knapsack(loss, [cost, -cost], [spent + 0.0005, 0.0005 - spent])
        found = solve(problem, gap=0)
        assert found.optimal
        theirs = float(problem.loss_of(np.searchsorted(bits, released)))
        assert theirs * (1 - 1e-12) >= found.loss >= theirs * (1 + 2e-6)
        differing += int((bits[found.choice] != released).sum())
    assert differing <= 1
