"""Cases of a generative model: initial noises, the same ones for every candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from searchlib.arguments import listed, whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings

__all__ = ["NoiseCase", "NoiseCases", "generators", "noises"]


class NoiseCase(NamedTuple):
    """One case: what is drawn, and under which condition.

    Arguments:
        seeds: of the noises, one for every image of the case.
        condition: a prompt, a label, whatever the model is told; None where it is told nothing.
    """

    seeds: tuple[int, ...]
    condition: Any = None


@final
@dataclass(frozen=True)
class NoiseCases:
    """How many noises there are to search on, to select on, and to be held out.

    Every noise has a seed of its own, so that an image depends on nothing but its case: not on the batch it is drawn
    in, nor on how many there are. (A condition that is drawn apart from its noise, as in LCSC's sampler, changes with
    the size of a batch.)

    Arguments:
        search: noises that candidates are compared on. A Fréchet distance is biased by their number, and a search
            overfits few: on small models about 1000 were needed.
        holdout: noises that the winner and the references are compared on at the end.
        select: noises on which the winner is picked from the short list; 0 where the search picks.
        conditions: prompts or labels, dealt out in turn to the cases of each split.
        images_per_case: noises that make one case. With 1 a case's observation is the features of its image. With
            more it is the distance of the whole case: no features are kept, which a study of 50,000 images of 2048
            features each would not hold.
        seed: another seed is other noises.

    Raises:
        InvalidSettings: fewer than 2 noises to search on, or counts that ``images_per_case`` does not divide.

    Example:
        >>> cases = NoiseCases(search=4, holdout=2, conditions=("a cat", "a dog"))
        >>> [case.condition for case in cases.of(Split.SEARCH).payload]
        ['a cat', 'a dog', 'a cat', 'a dog']
        >>> noises(cases.of(Split.HOLDOUT), (1, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
    """

    search: int
    holdout: int
    select: int = 0
    conditions: Sequence[Any] = field(default=())
    images_per_case: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("images_per_case", self.images_per_case, 1)
        whole_number("seed", self.seed, 0)
        for name, least in (("search", 2), ("holdout", 0), ("select", 0)):
            count = whole_number(name, getattr(self, name), least)
            if count % self.images_per_case:
                raise InvalidSettings(
                    f"{name}={count} noises cannot be cut into cases of images_per_case={self.images_per_case}"
                )
        object.__setattr__(self, "conditions", listed("conditions", self.conditions))

    def of(self, split: Split) -> Cases:
        """The cases of a split."""
        each = self.images_per_case
        count = {Split.SEARCH: self.search, Split.SELECT: self.select, Split.HOLDOUT: self.holdout}[split]
        place = list(Split).index(split)
        seeds = np.random.SeedSequence([self.seed, place]).generate_state(max(count, 1), np.uint64) >> np.uint64(1)
        payload = [
            NoiseCase(tuple(int(s) for s in seeds[start : start + each]), self._condition(start // each))
            for start in range(0, count, each)
        ]
        return Cases(tuple(f"{split.value} {i}" for i in range(len(payload))), payload)

    def _condition(self, case: int) -> Any:
        return self.conditions[case % len(self.conditions)] if self.conditions else None


def generators(cases: Cases) -> list[torch.Generator]:
    """A fresh generator for every image of the cases: what a diffusers pipeline takes as ``generator``."""
    return [torch.Generator().manual_seed(seed) for case in _payload(cases) for seed in case.seeds]


def noises(cases: Cases, shape: Sequence[int]) -> Tensor:
    """Standard normal noise for every image of the cases, shape ``(images, *shape)``, float32 on the CPU.

    It is drawn as diffusers' ``randn_tensor`` draws it from :func:`generators`.
    """
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators(cases)])


def _payload(cases: Cases) -> Sequence[NoiseCase]:
    payload = cases.payload or ()
    if not all(isinstance(case, NoiseCase) for case in payload):
        raise InvalidSettings("these cases are no noises; take those of NoiseCases(…).of(split)")
    return payload
