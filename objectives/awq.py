"""AWQ: weights of channels with large inputs are scaled up before they are rounded, and down again.

*AWQ: Activation-aware Weight Quantization for On-Device LLM Compression and Acceleration*, Lin et al., MLSys 2024,
arXiv 2306.00978, section 3.2, equations 4 and 5: ``s_j = (mean |x_j|)^α``, normalized, with the α of a grid that
changes the layer's output least. Here every layer has a grid of its own and its scale is not folded into the layer
before, so the result is the layer that AWQ's kernel would compute. Not reproduced: the search of clipped ranges.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from searchlib.objectives.fake_quantization import Rounding
from searchlib.objectives.fake_quantize import fake_quantize
from searchlib.objectives.input_moments import InputMoments, output_error
from searchlib.spaces.bit_plan import Bits

__all__ = ["awq"]

#: Values of α; 0 is round to nearest.
GRID = 20


def awq(moments: Mapping[str, InputMoments], *, symmetric: bool = False) -> Rounding:
    """A rounding for :class:`~searchlib.objectives.fake_quantization.FakeQuantization`.

    Arguments:
        moments: of the inputs of every layer.
        symmetric: whether weights have no zero point.
    """

    def rounding(name: str, rows: Tensor, bits: Bits) -> Tensor:
        known, own = moments[name], rows.dtype
        rows = rows.float()  # rounded once, at the end
        magnitude = known.magnitude.clamp(min=1e-4).to(rows)
        best, least = rows, None
        for step in range(GRID):
            scale = magnitude ** (step / GRID)
            scale = scale / (scale.max() * scale.min()).sqrt()
            rounded = fake_quantize(rows * scale, bits.bits, group=bits.group, symmetric=symmetric) / scale
            error = output_error(rows, rounded, known.second)
            if least is None or bool(error < least):
                best, least = rounded, error
        return best.to(own)

    return rounding
