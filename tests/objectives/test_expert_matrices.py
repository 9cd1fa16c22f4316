from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from searchlib.errors import InvalidSettings  # noqa: E402
from searchlib.objectives.expert_matrices import (  # noqa: E402
    consecutive_groups,
    merge_experts,
    one_hot_index,
    one_hot_matrices,
    smaller_experts,
)

E = 8


def test_consecutive_groups_follow_the_paper():
    assert consecutive_groups(32, 4).tolist() == [0] * 8 + [1] * 8 + [2] * 8 + [3] * 8
    assert np.bincount(consecutive_groups(26, 4)).tolist() == [7, 6, 7, 6]
    with pytest.raises(InvalidSettings, match="between 1 and 3 layer groups, got 4"):
        consecutive_groups(3, 4)


def test_one_hot_matrices_hold_the_experts_in_their_order():
    kept = [[6, 1, 3], [0, 7, 2]]
    matrices = one_hot_matrices(kept, E)
    assert matrices.shape == (2, 3, E)
    np.testing.assert_array_equal(np.array([one_hot_index(matrix) for matrix in matrices]), kept)
    assert one_hot_index(matrices[0] * np.float32(1.5)) is None
    with pytest.raises(InvalidSettings, match="expected expert indices from 0 to 7, got 1 to 8"):
        one_hot_matrices([[1, 8]], E)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_merging_rounds_once(dtype):
    torch.manual_seed(0)
    weight = torch.randn(E, 40, 24).to(dtype)
    noise = 0.1 * np.random.default_rng(0).normal(size=(4, E))
    matrix = (np.eye(E)[:4] + noise).astype(np.float32)
    exact = torch.einsum("ke,eab->kab", torch.from_numpy(matrix).to(dtype).double(), weight.double())
    merged = merge_experts(weight, matrix)
    # Within 1 % of half a unit in the last place: the exact sum, rounded once, up to single-precision accumulation.
    half_unit = 2.0 ** (exact.abs().log2().floor()) * torch.finfo(dtype).eps / 2
    assert ((merged.double() - exact).abs() <= half_unit * 1.01 + 1e-6).all()
    step_by_step = torch.zeros(4, 40, 24, dtype=dtype)
    for expert in range(E):
        step_by_step += torch.from_numpy(matrix[:, expert]).to(dtype)[:, None, None] * weight[expert]
    assert (step_by_step.double() - exact).abs().mean() > 1.5 * (merged.double() - exact).abs().mean()


def test_one_hot_rows_slice_the_experts_and_others_merge_them():
    weight = torch.randn(E, 5, 3, generator=torch.Generator().manual_seed(0))
    matrix = one_hot_matrices([6, 1, 3], E)
    assert torch.equal(smaller_experts(weight, matrix), weight[[6, 1, 3]])
    assert torch.equal(smaller_experts(weight, 2 * matrix), 2 * weight[[6, 1, 3]])
