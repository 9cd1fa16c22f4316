"""Numbers rounded to the few levels that b bits have, and back: what quantization does to values, in full precision.

The quantizers of ViDiT-Q (arXiv 2406.02540, ``qdiff/quantizer/base_quantizer.py``) and of *Evaluating Quantized Large
Language Models* (arXiv 2402.18158, ``quant_funcs.py``): min-max, round to nearest. Where the released code differs:

* The range always holds 0 (as in ViDiT-Q). The code for language models leaves it out, and cuts off values of a group
  that has one sign.
* A group that is constant 0 has a scale of its own, 1. In ViDiT-Q one dead channel sets the scale of all channels to
  the least number there is, which destroys the layer; in the code for language models scales have a floor of 1e-5.
"""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor

from searchlib.spaces.bit_plan import FULL

__all__ = ["Codes", "fake_quantize", "fake_quantize_within", "quantize"]


@final
class Codes(NamedTuple):
    """A quantized tensor.

    Arguments:
        codes: whole numbers, shape ``(…, groups, group)``, from 0 to 2^bits - 1; symmetric: from -(2^(bits-1) - 1) on.
        scale: step between levels, shape ``(…, groups, 1)``.
        zero: the code of the number 0, shape ``(…, groups, 1)``.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor


def quantize(x: Tensor, bits: int, *, group: int | None = None, symmetric: bool = False) -> Codes:
    """Codes of the rows of ``x``: one scale and zero point for every ``group`` neighbors along the last axis.

    Asymmetric: ``scale = (max - min) / (2^bits - 1)`` with min ≤ 0 ≤ max, ``zero = round(-min / scale)``, ``code =
    clamp(round(x / scale) + zero)``. Symmetric: ``scale = max|x| / (2^(bits-1) - 1)``, ``zero = 0``.

    Arguments:
        x: any floating tensor of shape ``(…, columns)``.
        bits: 2 to 15.
        group: numbers per scale; the last group of a row may be shorter. None: the whole row.

    Example:
        >>> codes = quantize(torch.tensor([[-1.0, 0.0, 0.5, 2.0]]), 2)
        >>> codes.codes.tolist(), codes.scale.item(), codes.zero.item()
        ([[[0.0, 1.0, 1.0, 3.0]]], 1.0, 1.0)
    """
    grouped = _grouped(_wide(x), group)
    scale, zero, low, high = _grid(grouped, bits, symmetric)
    return Codes((grouped / scale).round_().add_(zero).clamp_(low, high), scale, zero)


def fake_quantize(x: Tensor, bits: int, *, group: int | None = None, symmetric: bool = False) -> Tensor:
    """``x`` rounded to the levels of :func:`quantize`; 16 bits are full precision and give ``x`` itself.

    The error is at most half a scale, and values that are levels stay.

    Arguments:
        x, bits, group, symmetric: as for :func:`quantize`. To share one scale over a whole tensor, flatten it.

    Example:
        >>> fake_quantize(torch.tensor([[-1.0, 0.0, 0.5, 2.0]]), 2).tolist()
        [[-1.0, 0.0, 0.0, 2.0]]
    """
    if bits >= FULL:
        return x
    grouped = _grouped(_wide(x), group)
    scale, zero, low, high = _grid(grouped, bits, symmetric)
    rounded = (grouped / scale).round_().add_(zero).clamp_(low, high).sub_(zero).mul_(scale)
    return rounded.flatten(-2)[..., : x.shape[-1]].to(x.dtype)


def fake_quantize_within(x: Tensor, bits: int, low: float, high: float) -> Tensor:
    """``x`` rounded to 2^bits levels from ``low`` to ``high``, a static range that was measured before; cut outside.

    Example:
        >>> fake_quantize_within(torch.tensor([-9.0, 0.4, 1.6]), 2, -1.0, 2.0).tolist()
        [-1.0, 0.0, 2.0]
    """
    if bits >= FULL:
        return x
    levels = 2**bits - 1
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / levels or 1.0
    zero = round(-low / scale)
    return (_wide(x) / scale).round_().add_(zero).clamp_(0, levels).sub_(zero).mul_(scale).to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    """At least single precision: in half precision, codes of many bits could not be told apart."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _grouped(x: Tensor, group: int | None) -> Tensor:
    """Shape ``(…, groups, group)``. Zeros fill up the last group: they lie within every range."""
    columns = x.shape[-1]
    size = columns if group is None else min(group, columns)
    missing = -columns % size
    if missing:
        x = torch.nn.functional.pad(x, (0, missing))
    return x.unflatten(-1, (x.shape[-1] // size, size))


def _grid(grouped: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor, int, int]:
    """Scale, zero, and the least and greatest code."""
    if symmetric:
        levels = 2 ** (bits - 1) - 1
        scale = grouped.abs().amax(-1, keepdim=True) / levels
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return scale, torch.zeros_like(scale), -levels, levels
    levels = 2**bits - 1
    low, high = torch.aminmax(grouped, dim=-1, keepdim=True)
    low = low.clamp(max=0)
    scale = (high.clamp(min=0) - low) / levels
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return scale, (-low / scale).round(), 0, levels
