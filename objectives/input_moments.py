"""Second moments of what goes into layers: what rounding a weight changes in the layer's output.

The squared change of the outputs, summed over inputs x, when rows ``W`` become ``V`` is ``tr((W - V) H (W - V)ᵀ)`` with
``H = Σ x xᵀ``. AWQ searches its scales by it, GPTQ spreads errors by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, final

from torch import Tensor, nn

from searchlib.errors import InvalidSettings
from searchlib.objectives.quantizable_layers import in_features
from searchlib.objectives.watched_layers import watch_inputs

__all__ = ["InputMoments", "measure_moments", "output_error"]


@final
class InputMoments(NamedTuple):
    """What went into one layer.

    Arguments:
        second: ``Σ x xᵀ / n``, shape ``(channels, channels)``, in double precision.
        magnitude: mean of |x|, shape ``(channels,)``.
    """

    second: Tensor
    magnitude: Tensor


def measure_moments(layers: Mapping[str, nn.Module], run: Callable[[], Any]) -> dict[str, InputMoments]:
    """Moments of the inputs of linear layers while ``run()`` runs.

    They take ``8 · channels²`` bytes per layer.

    Raises:
        InvalidSettings: a convolution, or a layer that did not run.
    """
    convolutions = [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d)]
    if convolutions:
        raise InvalidSettings(f"{convolutions[0]} is a convolution, whose inputs have no moments here")
    sums: dict[str, list[Any]] = {name: [0.0, 0.0, 0] for name in layers}

    def see(name: str, layer: nn.Module, x: Tensor) -> None:
        rows, known = x.reshape(-1, in_features(layer)).double(), sums[name]
        known[0] = known[0] + rows.T @ rows
        known[1] = known[1] + rows.abs().sum(dim=0)
        known[2] += len(rows)

    watch_inputs(layers, run, see)
    return {name: InputMoments(second / n, magnitude / n) for name, (second, magnitude, n) in sums.items()}


def output_error(rows: Tensor, rounded: Tensor, second: Tensor) -> Tensor:
    """The mean squared change of a layer's outputs, summed over outputs, when its rows are rounded."""
    apart = (rows - rounded).double()
    return (apart @ second * apart).sum()
