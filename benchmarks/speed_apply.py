"""Applying one candidate of the expert search: searchlib against the released way, on layers of real size.

The model is a Mixtral with as many layers as memory allows, random weights (their values do not matter for time), and
next to no attention and vocabulary, so that only the experts count. Candidates are those of real searches on the
small Mixtral, which has as many experts, in the order in which they were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.initialization import no_init_weights

from benchmarks.speed_clock import Spent, peak_megabytes, timed
from benchmarks.speed_released import ReleasedWeights
from benchmarks.table import Table
from searchlib.objectives.moe_model import MoeModel

__all__ = ["PHASES", "Applied", "ApplySize", "candidates", "measure", "mixtral"]

PHASES = ("prune", "merge", "merge, all anew")

_EXPERTS, _KEEP = 8, 4  # Mixtral 8x7B, and the paper's larger budget
_BLOCK = 1 << 22


@dataclass(frozen=True)
class ApplySize:
    """How large the model is, and how many candidates are applied per repetition and phase.

    Arguments:
        layers, hidden, intermediate: of the model; Mixtral 8x7B has 32, 4096 and 14336.
        candidates: by searchlib, where the time depends on which layers change.
        released: by the released way, where it does not; the first ones of the same sequence.
        dtype: of the weights.
    """

    layers: int
    hidden: int = 4096
    intermediate: int = 14336
    candidates: int = 16
    released: int = 3
    dtype: torch.dtype = torch.bfloat16


class Applied(NamedTuple):
    """What the claims need.

    Arguments:
        cpu_seconds: per candidate by (phase, method), one per repetition.
        difference: largest one between the two ways' weights, in units of the largest weight.
        lazy_layers: peak extra memory of merging lazily, in layers; None where it cannot be measured.
    """

    cpu_seconds: dict[tuple[str, str], list[float]]
    difference: float
    lazy_layers: float | None


def measure(table: Table, size: ApplySize, histories: Sequence[NDArray[np.float32]]) -> Applied:
    """Add the rows of this part to the table, one value for each history (see :func:`candidates`)."""
    model = mixtral(size)
    spent: dict[tuple[str, str], list[float]] = {}
    differences = []
    for repetition, history in enumerate(histories):
        sequences = candidates(size, history, repetition)
        released, expected = _released(model, sequences, size)
        ours, got = _ours(model, sequences, size)
        differences.append(float(np.abs(got - expected).max() / np.abs(expected).max()))
        for phase in PHASES:
            task = f"apply a candidate, {phase}"
            for method, measured in (("released way", released[phase]), ("searchlib", ours[phase])):
                spent.setdefault((phase, method), []).append(measured["cpu_seconds"])
                table.add(task, method, **measured)
            table.add(task, "ratio, released way", ratio=released[phase]["cpu_seconds"] / ours[phase]["cpu_seconds"])
        copy = _copy_speed(model)
        table.add(task, "plain copy of memory", gigabytes_per_second=copy)
        table.add(task, "ratio, searchlib to plain copy", ratio=ours[phase]["gigabytes_per_second"] / copy)
    return Applied(spent, max(differences), _lazy(table, model, candidates(size, histories[0], 0)["merge"][:2]))


def mixtral(size: ApplySize) -> MixtralForCausalLM:
    """The model, in evaluation mode."""
    config = MixtralConfig(
        vocab_size=32, hidden_size=size.hidden, intermediate_size=size.intermediate, num_hidden_layers=size.layers,
        num_attention_heads=1, num_key_value_heads=1, head_dim=8, num_local_experts=_EXPERTS, num_experts_per_tok=2,
        max_position_embeddings=32, pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(size.dtype)
    try:
        with no_init_weights():
            model = MixtralForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    # One block of noise over and over: drawing every number of a large model would take longer than the benchmark.
    noise = (size.hidden**-0.5 * torch.randn(_BLOCK, generator=torch.Generator().manual_seed(0))).to(size.dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.fill_(1)
                continue
            # A prime offset, so that no two experts begin alike.
            for i, part in enumerate(parameter.view(-1).split(_BLOCK - 4099)):
                part.copy_(noise[(i * 389) % 4099 :][: len(part)])
    return model


def candidates(size: ApplySize, history: NDArray[np.float32], repetition: int) -> dict[str, NDArray[np.float32]]:
    """Both matrices of consecutive candidates per phase, each ``(candidates + 1, 2, layers, keep, experts)``.

    Which layers change from one candidate to the next is what the time depends on, so the order is that of the search:
    the end of its first quarter, which prunes, and the middle of the rest, which merges. "merge, all anew" is the worst
    case: every entry is another one every time.

    Arguments:
        size: how many of each.
        history: all candidates of a search, in order, ``(evaluations, 2, groups, keep, experts)``.
        repetition: another one gives the model's layers other groups.
    """
    groups = (repetition + np.arange(size.layers)) % history.shape[2]
    n, pruned = size.candidates + 1, len(history) // 4
    middle = (pruned + len(history)) // 2
    if n > pruned:
        raise ValueError(f"a search of {4 * n} candidates or more is needed, but there are {len(history)}")
    rng = np.random.default_rng(repetition)
    dense = rng.normal(1 / _EXPERTS, 0.1, (n, 2, size.layers, _KEEP, _EXPERTS)).astype(np.float32)
    return {
        "prune": history[pruned - n : pruned, :, groups],
        "merge": history[middle:][:n, :, groups],
        PHASES[2]: dense,
    }


def _released(model: Any, sequences: dict[str, Any], size: ApplySize) -> tuple[dict[str, Any], NDArray[np.float32]]:
    measured: dict[str, Any] = {}
    weights = []

    def work() -> None:
        with ReleasedWeights(model, _KEEP) as released:
            for phase, sequence in sequences.items():
                measured[phase] = _mean(_each(released.apply, sequence[: size.released + 1]))
            weights.append(_sample([layer.weights() for layer in released.layers]))

    extra = peak_megabytes(work)
    measured[PHASES[-1]]["extra_megabytes"] = extra
    return measured, weights[0]


def _ours(model: Any, sequences: dict[str, Any], size: ApplySize) -> tuple[dict[str, Any], NDArray[np.float32]]:
    measured: dict[str, Any] = {}
    with MoeModel(model) as moe:

        def work() -> None:
            for phase, sequence in sequences.items():
                moe.apply(*sequence[0])
                merges, spent = moe.merges, _each(moe.apply, sequence)
                share = (moe.merges - merges) / size.candidates / size.layers
                measured[phase] = _mean(spent) | {"layers_merged": share}
            quickest = min(one.seconds for one in spent)
            measured[phase]["gigabytes_per_second"] = _moved_bytes(moe) / quickest / 1e9

        extra = peak_megabytes(work)
        measured[PHASES[-1]]["extra_megabytes"] = extra
        moe.apply(*sequences[PHASES[-1]][size.released])  # where the released way left off
        return measured, _sample([layer.weights() for layer in moe.layers])


def _each(apply: Any, sequence: Sequence[NDArray[np.float32]]) -> list[Spent]:
    """Time every candidate but the first, which makes a beginning."""
    apply(*sequence[0])
    return [timed(partial(apply, *candidate)) for candidate in sequence[1:]]


def _mean(spent: Sequence[Spent]) -> dict[str, float]:
    seconds, cpu_seconds = np.mean(spent, axis=0)
    return {"seconds": float(seconds), "cpu_seconds": float(cpu_seconds)}


def _sample(layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> NDArray[np.float32]:
    """Some thousand weights of the kept slots."""
    return np.concatenate([
        weight[:_KEEP].reshape(-1)[:: max(1, weight[:_KEEP].numel() // 4999)].float().numpy()
        for weights in layers for weight in weights
    ])  # fmt: skip


def _moved_bytes(moe: MoeModel) -> float:
    """What a merge of all layers cannot avoid: every expert is read, every slot written."""
    return sum(weight.nbytes / len(weight) for layer in moe.layers for weight in layer.weights()) * (_EXPERTS + _KEEP)


def _copy_speed(model: Any) -> float:
    """Gigabytes per second, read and written, from experts into a buffer as large as merged ones; the best of five."""
    weight = model.model.layers[0].mlp.experts.gate_up_proj.detach()
    source, target = weight[:_KEEP], torch.zeros_like(weight[:_KEEP])
    quickest = min(timed(lambda: target.copy_(source)).seconds for _ in range(5))
    return float(2 * source.nbytes / quickest / 1e9)


def _lazy(table: Table, model: Any, sequence: NDArray[np.float32]) -> float | None:
    """Peak extra memory, in layers, of applying candidates and running the model, which merges as it goes."""
    tokens = torch.arange(8).reshape(2, 4)

    def work() -> None:
        with MoeModel(model, lazy=True) as moe, torch.inference_mode():
            for router, merging in sequence:
                moe.apply(router, merging)
                model(tokens)

    with torch.inference_mode():
        model(tokens)  # what any forward pass leaves behind is not counted
    extra = peak_megabytes(work)
    layer = sum(parameter.nbytes for parameter in model.model.layers[0].mlp.experts.parameters()) / 2**20
    table.add("apply and run a candidate, merge", "searchlib, lazy", extra_megabytes=extra)
    return None if extra is None else extra / layer
