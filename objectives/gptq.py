"""GPTQ: weights are rounded column by column, and the columns that are left make up for the error.

*GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers*, Frantar et al., ICLR 2023, arXiv
2210.17323, Algorithm 1 (without its blocks, which only make it faster on graphics processors), with two options of the
released code on: columns are rounded in the order of how large their inputs are (``act_order``), and scales and zero
points are those of round to nearest (``static_groups``).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from searchlib.objectives.fake_quantization import Rounding
from searchlib.objectives.fake_quantize import quantize
from searchlib.objectives.input_moments import InputMoments
from searchlib.spaces.bit_plan import Bits

__all__ = ["gptq"]


def gptq(moments: Mapping[str, InputMoments], *, damping: float = 0.01, symmetric: bool = False) -> Rounding:
    """A rounding for :class:`~searchlib.objectives.fake_quantization.FakeQuantization`.

    Arguments:
        moments: of the inputs of every layer.
        damping: share of the mean diagonal that is added to the diagonal (the paper's 1 %).
        symmetric: whether weights have no zero point.
    """

    def rounding(name: str, rows: Tensor, bits: Bits) -> Tensor:
        second = moments[name].second.clone()
        dead = second.diagonal() == 0
        second[dead, dead] = 1.0
        second.diagonal().add_(damping * float(second.diagonal().mean()))
        # Columns that meet large inputs first, as long as there are others to make up for them.
        order = second.diagonal().argsort(descending=True)
        # The upper factor of H⁻¹ = UᵀU: row j is what rounding column j does to the columns after it.
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(second[order][:, order]))
        upper = torch.linalg.cholesky(inverse, upper=True)
        codes = quantize(rows.double(), bits.bits, group=bits.group, symmetric=symmetric)
        size = min(bits.group or rows.shape[1], rows.shape[1])
        low, high = (1 - 2 ** (bits.bits - 1), 2 ** (bits.bits - 1) - 1) if symmetric else (0, 2**bits.bits - 1)
        left = rows.double()[:, order]
        rounded = torch.empty_like(left)
        for place, column in enumerate(order.tolist()):
            scale, zero = codes.scale[:, column // size, 0], codes.zero[:, column // size, 0]
            own = left[:, place]
            rounded[:, place] = ((own / scale).round().add(zero).clamp(low, high) - zero) * scale
            error = (own - rounded[:, place]) / upper[place, place]
            left[:, place:] -= error[:, None] * upper[place, place:]
        return rounded[:, order.argsort()].to(rows.dtype)

    return rounding
