"""A larger model with fewer bits, or a smaller one with more? Published scores of quantized models as an objective.

The tables of *Evaluating Quantized Large Language Models* (arXiv 2402.18158; thu-nics/qllm-eval, MIT) hold a score for
every model and bit-width. A candidate is a model at a bit-width, and its cost is the memory of its weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import instance, listed, numbers, real_number, whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective
from searchlib.space import Candidates
from searchlib.spaces import Allocation

__all__ = ["QuantizedModels", "parameters_of"]

#: Models whose name does not say how many parameters they have.
PARAMETERS = {"Mixtral_8x7B": 46.7e9, "ChatGLM3_6B_32K": 6.2e9}


@final
class QuantizedModels(Objective):
    """Which model at which bit-width is best within a budget of memory.

    Arguments:
        scores: by task and model the scores in the order of ``bits``, higher is better. Models that lack a task are
            left out.
        bits: bits of the weights in each column.
        memory: most bytes of weights, with a scale of 16 bits and a zero point for every ``group``; None: no limit.
        group: weights that share a scale; the paper's is 128.
        parameters: parameters by model; by default read off the names (``OPT_6B7``, ``Bloom_560M``).

    Raises:
        InvalidSettings: scores of another shape, a model of unknown size, or a budget below the smallest.

    Example:
        >>> lambada = {"OPT_1B3": (59.6, 59.6, 56.4), "OPT_2B7": (64.6, 64.8, 61.9), "OPT_6B7": (68.1, 68.0, 65.1)}
        >>> objective = QuantizedModels({"LAMBADA": lambada}, bits=(16, 8, 4), memory=3.5e9)
        >>> objective.best()
        ('OPT_6B7', 4)
    """

    direction = "maximize"
    recomputable = True
    chunk_rows = 4096

    def __init__(
        self,
        scores: Mapping[str, Mapping[str, Sequence[float]]],
        bits: Sequence[int] = (16, 8, 4, 3, 2),
        *,
        memory: float | None = None,
        group: int = 128,
        parameters: Mapping[str, float] | None = None,
    ) -> None:
        instance("scores", scores, Mapping, "scores of models by task")
        for task, table in scores.items():
            instance(f"scores[{task!r}]", table, Mapping, "scores by model")
        sizes = instance("parameters", {} if parameters is None else parameters, Mapping, "numbers by model")
        whole_number("group", group, 1)
        self.tasks = tuple(scores)
        self.bits = tuple(whole_number("each of bits", b, 1, 64) for b in listed("bits", bits))
        if not self.tasks:
            raise InvalidSettings("scores must hold at least one task: {'LAMBADA': {'OPT_1B3': (59.6, 59.6, …), …}}")
        shared = [name for name in scores[self.tasks[0]] if all(name in table for table in scores.values())]
        known = {name: size for name in shared for size in [sizes.get(name) or parameters_of(name)]}
        if not shared:
            raise InvalidSettings("no model has scores for every task")
        self.models = tuple(shared)
        self.table = numbers("scores", [[scores[task][name] for task in self.tasks] for name in shared])
        if self.table.shape != (len(shared), len(self.tasks), len(self.bits)) or not np.isfinite(self.table).all():
            raise InvalidSettings(f"every model must have {len(self.bits)} finite scores per task, one per bit-width")
        names = [f"{name}@{b}" for name in shared for b in self.bits]
        self.bytes = np.array([_bytes(known[name], b, group) for name in shared for b in self.bits])
        costs = () if memory is None else ((tuple(self.bytes.tolist()),),)
        budgets = () if memory is None else (real_number("memory", memory, "(0, inf)"),)
        self.space = Allocation(("model",), tuple(names), costs, budgets)

    def cases(self, split: Split) -> Cases:
        """The tasks; there is nothing to hold out of a published table."""
        return Cases(self.tasks) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        """Published scores ``(n, tasks)``."""
        flat = self.table.transpose(0, 2, 1).reshape(-1, len(self.tasks))
        columns = [self.tasks.index(str(task)) for task in cases.ids]
        return np.asarray(flat[candidates.array[:, 0].astype(np.intp)][:, columns])

    def artifact(self, value: Any) -> tuple[str, int]:
        """The model and its bits."""
        name, _, bits = str(value[0]).rpartition("@")
        return name, int(bits)

    def best(self) -> tuple[str, int]:
        """The winner by looking at every candidate; of equals the first."""
        rows = np.arange(len(self.bytes), dtype=self.space.dtype)[:, None]
        inside = rows[self.space.contains(rows)]
        scores = self.evaluate(Candidates(self.space, inside), self.cases(Split.SEARCH)).mean(axis=1)
        return self.artifact(self.space.decode(inside[int(scores.argmax())]))

    def front(self) -> list[tuple[float, float, str, int]]:
        """What each amount of memory buys at best: (bytes, mean score, model, bits) from small to large."""
        scores = self.table.transpose(0, 2, 1).reshape(-1, len(self.tasks)).mean(axis=1)
        found: list[tuple[float, float, str, int]] = []
        for place in np.lexsort((-scores, self.bytes)).tolist():
            if not found or scores[place] > found[-1][1]:
                name, bits = self.models[place // len(self.bits)], self.bits[place % len(self.bits)]
                found.append((float(self.bytes[place]), float(scores[place]), name, bits))
        return found

    def fingerprint(self) -> Mapping[str, Any]:
        """Models, tasks and bits."""
        return {"objective": "QuantizedModels", "models": list(self.models), "tasks": list(self.tasks),
                "bits": list(self.bits), "sum": float(self.table.sum())}  # fmt: skip


def parameters_of(name: str) -> float:
    """How many parameters a model has, by its name.

    Raises:
        InvalidSettings: the name does not say.

    Example:
        >>> parameters_of("OPT_6B7"), parameters_of("Bloom_560M"), parameters_of("LLaMA2-70B-chat")
        (6700000000.0, 560000000.0, 70000000000.0)
    """
    if name in PARAMETERS:
        return PARAMETERS[name]
    match = re.search(r"(?<![\dx.])(\d+(?:\.\d+)?)(B|M)(\d*)(?![A-Za-z\d])", name, re.IGNORECASE)
    if match is None:
        raise InvalidSettings(f"the name {name!r} does not say how large the model is; pass parameters={{{name!r}: …}}")
    whole, unit, tenths = match.groups()
    return float(f"{whole}.{tenths}" if tenths else whole) * (1e9 if unit.upper() == "B" else 1e6)


def _bytes(parameters: float, bits: int, group: int) -> float:
    """All weights at these bits, with a scale and a zero point for every group; 16 bits have none."""
    return parameters * 2 if bits >= 16 else parameters * (bits + (16 + bits) / group) / 8
