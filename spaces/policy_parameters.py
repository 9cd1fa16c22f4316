"""The weights of a small policy, as one vector of 32-bit floats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import shown
from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import Population, WeightSpace
from searchlib.spaces import arguments, chance

__all__ = ["PolicyParameters"]

#: Larger weights are no weights, and their squares overflow.
_LARGEST = 1e18
#: Spreads with which 32-bit floats have room on either side.
_TINIEST, _WIDEST = 1e-12, 1e12


@final
@dataclass(frozen=True)
class PolicyParameters(WeightSpace):
    """Every weight of a policy network. A value is a dict from tensor names to float32 arrays.

    Rows are the tensors one after the other, as ``torch.nn.utils.parameters_to_vector`` lays them out; they are any
    finite numbers. Samples are normal with standard deviation ``spread``, one per tensor, which is also the unit of the
    relaxation and, times ``scale``, the step of a mutation. Initial weights of one's own are seeds
    (``search(…, seeds=[module.state_dict()])``), around which evolution strategies begin.

    For a million weights, :class:`searchlib.EvolutionStrategy` keeps its generations as seeds of their noise
    (:class:`searchlib.SeededPopulation`): an objective that reads ``candidates.array`` sees ordinary rows, one chunk
    at a time.

    Arguments:
        shapes: (name, shape) of every tensor, in order; or the number of weights of a single one.
        spread: standard deviation of a sample; a number, or one per tensor.
        scale: standard deviation of a mutation in units of ``spread``, in (0, 1].

    Raises:
        InvalidSettings: no tensors, the same name twice, empty shapes, or a spread that is not positive.

    Example:
        >>> space = PolicyParameters((("weight", (2, 3)), ("bias", (2,))), spread=(0.5, 0.1))
        >>> row = space.encode([{"weight": np.eye(2, 3), "bias": [0.0, 1.0]}])[0]
        >>> row.tolist(), space.decode(row)["bias"].tolist()
        ([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0], [0.0, 1.0])
    """

    shapes: Any
    spread: float | tuple[float, ...] = 1.0
    scale: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", _shapes(self.shapes))
        object.__setattr__(self, "scale", arguments.fraction("scale", self.scale))
        given: Any = self.spread
        if isinstance(given, Sequence) and not isinstance(given, str | bytes):
            object.__setattr__(self, "spread", tuple(_spread(one) for one in given))
            if len(self._spreads) != len(self.shapes):
                raise InvalidSettings(
                    f"spread must be one number, or one for each of {len(self.shapes)} tensors, but got "
                    f"(spread={shown(self.spread)})"
                )
        else:
            object.__setattr__(self, "spread", _spread(self.spread))

    @classmethod
    def from_module(cls, module: Any, *, spread: float | None = None) -> PolicyParameters:
        """The parameters of a torch module, by name.

        Arguments:
            module: a ``torch.nn.Module``; nothing of it is kept.
            spread: of all tensors; by default 1/√(inputs of the tensor's layer), as torch initializes linear layers,
                and for vectors (biases, norms) 0.1.
        """
        shapes = tuple((str(name), tuple(map(int, tensor.shape))) for name, tensor in module.named_parameters())
        if spread is not None:
            return cls(shapes, spread)
        return cls(shapes, tuple(0.1 if len(shape) < 2 else 1 / math.sqrt(math.prod(shape[1:])) for _, shape in shapes))

    @property
    def _spreads(self) -> tuple[float, ...]:
        return self.spread if isinstance(self.spread, tuple) else (self.spread,) * len(self.shapes)

    @property
    def tensors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """(name, shape) of every tensor, in order: what ``shapes`` comes to."""
        return tuple(self.shapes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many weights each tensor has."""
        return tuple(math.prod(shape) for _, shape in self.tensors)

    @property
    def unit(self) -> NDArray[np.float32] | np.float32:
        """``spread`` of every weight, shape ``(d,)``; a single number where all are alike."""
        if len(set(self._spreads)) == 1:
            return np.float32(self._spreads[0])
        return np.repeat(np.array(self._spreads, np.float32), self.sizes)

    @property
    def dimension(self) -> int:
        return sum(self.sizes)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    @property
    def size(self) -> float:
        return math.inf

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        return self.repair(rng.standard_normal((n, self.dimension), np.float32) * self.unit)

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        """Add normal noise to all weights."""
        rows = self.canonical(population)
        moved = self.repair(rows + self.sample(rng, len(rows)) * np.float32(self.scale))
        still = (moved == rows).all(axis=1)  # the noise was below the resolution of the weights
        moved[still] = np.nextafter(rows[still], np.float32(0))
        moved[(moved == rows).all(axis=1), 0] = np.nextafter(np.float32(0), np.float32(1))
        return moved

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        """Take each weight from either parent."""
        return np.where(chance.coins(rng, first.shape), first, second)

    def repair(self, population: Population) -> Population:
        wide = population if population.dtype.itemsize >= 4 else population.astype(np.float32)
        return np.clip(wide, -_LARGEST, _LARGEST).astype(np.float32)

    def canonical(self, population: Population) -> Population:
        return np.asarray(population, np.float32) + np.float32(0)  # -0.0 and 0.0 are one candidate

    def contains(self, population: Population) -> NDArray[np.bool_]:
        return np.asarray((np.abs(population) <= np.float32(_LARGEST)).all(axis=1))

    def encode(self, values: Sequence[Any]) -> Population:
        """Rows of dicts from tensor names to arrays or torch tensors, or of flat vectors of d numbers."""
        rows = np.empty((len(values), self.dimension), np.float32)
        for index, value in enumerate(values):
            rows[index] = self._flat(index, value)
        return self.canonical(rows)

    def _flat(self, index: int, value: Any) -> NDArray[np.float32]:
        if not isinstance(value, Mapping):
            return self._checked(index, value, (self.dimension,)).astype(np.float32)
        names = [name for name, _ in self.tensors]
        if missing := [name for name in names if name not in value]:
            raise InvalidCandidate(
                f"values[{index}] lacks tensor(s) {missing[:5]} of this policy; it has {list(value)[:5]}"
            )
        parts = []
        for name, shape in self.tensors:
            tensor = value[name]
            tensor = tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor
            parts.append(self._checked(f"{index}][{name!r}", tensor, shape).ravel())
        return np.asarray(np.concatenate(parts), np.float32)

    def _checked(self, place: Any, given: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        try:
            array = np.asarray(given)
        except (TypeError, ValueError) as error:
            raise InvalidCandidate(f"values[{place}] must be numbers, but is {shown(given)}") from error
        if array.shape != shape or array.dtype.kind not in "biuf":
            raise InvalidCandidate(
                f"values[{place}] must be numbers of shape {shape}, but is {array.dtype} {array.shape}"
            )
        if not (np.abs(array) <= _LARGEST).all():
            raise InvalidCandidate(
                f"values[{place}] must be finite numbers within ±{_LARGEST:g}, but is {shown(array)}"
            )
        return array

    def decode(self, row: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        flat = self.canonical(row)
        edges = np.cumsum([0, *self.sizes])
        return {
            name: flat[start:end].reshape(shape)
            for (name, shape), (start, end) in zip(self.tensors, pairwise(edges), strict=True)
        }

    def features(self, population: Population) -> NDArray[np.float64]:
        """The weights in units of their spread."""
        return self.to_latent(population)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """Euclidean, in units of the spread."""
        apart = (np.asarray(first, np.float64) - second) / self.unit
        return np.asarray(np.linalg.norm(apart, axis=1))

    @property
    def latent_dimension(self) -> int:
        return self.dimension

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        return self.repair(np.asarray(latent) * self.unit)

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return np.asarray(np.asarray(population, np.float64) / self.unit)


def _spread(given: Any) -> float:
    spread = arguments.positive("spread", given)
    if not _TINIEST <= spread <= _WIDEST:
        raise InvalidSettings(f"spread must lie from {_TINIEST:g} to {_WIDEST:g}, but got (spread={given!r})")
    return spread


def _shapes(given: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    if not isinstance(given, Sequence | Mapping):
        return (("weights", (arguments.whole("shapes", given),)),)
    pairs = given.items() if isinstance(given, Mapping) else given
    try:
        shapes = tuple((str(name), tuple(arguments.whole("shapes", size) for size in shape)) for name, shape in pairs)
    except (TypeError, ValueError) as error:
        raise InvalidSettings(
            f"shapes must be a number of weights, or pairs of a name and a shape, but got (shapes={shown(given)})"
        ) from error
    names = [name for name, _ in shapes]
    if not shapes or len(set(names)) < len(names):
        raise InvalidSettings(f"shapes must name one tensor or more, each once, but got (shapes={shown(given)})")
    return shapes
