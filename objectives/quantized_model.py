"""A plan of bits in force: layers and caches of a model together, for a while, or as the winner of a search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from torch import nn

from searchlib.arguments import shown
from searchlib.errors import InvalidSettings, UnsupportedModel
from searchlib.json_data import json_object, read_json
from searchlib.objectives.channel_balancing import Balance, InputRanges
from searchlib.objectives.fake_quantization import FakeQuantization, Rounding
from searchlib.objectives.quantizable_layers import find_layers
from searchlib.spaces.bit_plan import BitPlan, SizedTensor

__all__ = ["AppliedPlan", "QuantizationPlan", "QuantizedModel"]

_MEASURED = ("balances", "rounding", "static")


@final
class QuantizedModel:
    """Computes by one plan after the other; a context manager that leaves the model bit-identical.

    Arguments:
        model: any module. Caches are quantized in transformers models only.
        layers: the layers that plans may name.
        settings: of :class:`~searchlib.objectives.fake_quantization.FakeQuantization`.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Module], **settings: Any) -> None:
        self.model = model
        self.layers = FakeQuantization(model, layers, **settings)
        self.attention = _attention(model)
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self.layers)
            if self.attention is not None:
                undo.enter_context(self.attention)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def set(self, plan: BitPlan) -> None:
        """Compute by this plan from now on."""
        self.layers.set(plan)
        if self.attention is not None:
            self.attention.set(plan)
        elif plan.changed["kv"]:
            raise UnsupportedModel(f"{type(self.model).__name__} is no transformers model; its cache is not quantized")


@final
@dataclass(frozen=True, eq=False)
class QuantizationPlan:
    """The winner of a search over bits.

    Arguments:
        plan: bits of every tensor.
        tensors: with their sizes.
        full: expression of the layers that stay in full precision, as it was searched with.
        balances: how channels are balanced, by layer.
        symmetric: whether weights have no zero point.
        rounding: how weights are rounded; None: to the nearest level.
        static: measured ranges of activations; None: every token has its own. Like ``balances`` and ``rounding`` they
            were measured on the model, and are not saved with the plan.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4))
        >>> found = QuantizationPlan(BitPlan(weight={"0": 4}), (SizedTensor("0", "weight", rows=4, columns=4),))
        >>> with found.attached(model):
        ...     fewer = len(model[0].weight[0].unique())
        >>> found.memory, found.mean_bits
        (18.0, 4.0)
    """

    plan: BitPlan
    tensors: tuple[SizedTensor, ...]
    full: str = ""
    balances: Mapping[str, Balance] | None = None
    symmetric: bool = False
    rounding: Rounding | None = None
    static: InputRanges | None = None

    def apply(self, model: nn.Module) -> nn.Module:
        """Let the model compute as if it were quantized from now on, and return it, the same object.

        Numbers are as they would be; memory and speed are not, and ``save_pretrained`` saves rounded weights in full
        size. For the real thing, :meth:`export`; for a while only, :meth:`attached`.
        """
        self.attached(model)
        return model

    def attached(self, model: nn.Module) -> AppliedPlan:
        """As :meth:`apply`, until the result is closed or its with-block ends."""
        found = find_layers(model, self.full)
        settings = {name: getattr(self, name) for name in ("symmetric", *_MEASURED)}
        return AppliedPlan(QuantizedModel(model, found, **settings), self.plan)

    def export(self, model: nn.Module) -> nn.Module:
        """Quantize the model for good, in place, with torchao; see :mod:`searchlib.objectives.torchao_export`."""
        from searchlib.objectives.torchao_export import export

        if self._measured():
            raise InvalidSettings(
                "torchao rounds to the nearest level and knows neither balanced channels nor static inputs; search "
                "without balancing=, rounding= and static= to export"
            )
        return export(self.plan, model, symmetric=self.symmetric)

    @property
    def memory(self) -> float:
        """Bytes of weights and caches, packed, with scales and zero points."""
        return self.plan.memory(self.tensors)

    @property
    def mean_bits(self) -> float:
        """Of the weights, without scales."""
        return self.plan.mean_bits(self.tensors)

    def save(self, path: str | Path) -> None:
        """Write the plan, its tensors and the expression of full layers to a JSON file."""
        sizes = [{name: getattr(tensor, name) for name in SizedTensor.__dataclass_fields__ if name != "_"}
                 for tensor in self.tensors]  # fmt: skip
        told = {"plan": self.plan.to_json(), "tensors": sizes, "full": self.full, "symmetric": self.symmetric,
                "measured": self._measured()}  # fmt: skip
        Path(path).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        balances: Mapping[str, Balance] | None = None,
        rounding: Rounding | None = None,
        static: InputRanges | None = None,
    ) -> QuantizationPlan:
        """Read what :meth:`save` wrote; what was measured on the model must be given again.

        Raises:
            InvalidSettings: another file, or a plan that means nothing without what was measured.
        """
        given = {"balances": balances, "rounding": rounding, "static": static}
        try:
            told = json_object("it", read_json(path))
            tensors = tuple(SizedTensor(**sizes) for sizes in told["tensors"])
            plan, missing = BitPlan.from_json(told["plan"]), [n for n in told.get("measured", ()) if given[n] is None]
            found = cls(plan, tensors, told["full"], symmetric=told["symmetric"], **given)  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidSettings(f"{shown(path)} holds no quantization plan: {error}") from error
        if missing:
            raise InvalidSettings(
                f"{path} was searched with {missing[0]}, which were measured on the model and are not saved; build the "
                f"objective again and pass {missing[0]}=objective.artifact(BitPlan()).{missing[0]}"
            )
        return found

    def _measured(self) -> list[str]:
        """The fields that hold what was measured on the model."""
        return [name for name in _MEASURED if getattr(self, name)]


@final
class AppliedPlan:
    """A plan in force until :meth:`close`, or until the end of a with-block."""

    def __init__(self, quantized: QuantizedModel, plan: BitPlan) -> None:
        with ExitStack() as undo:
            undo.enter_context(quantized)
            quantized.set(plan)
            self._undo = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the plan back; the model is bit-identical to what it was."""
        self._undo.close()


def _attention(model: nn.Module) -> Any:
    """Its quantized attention, where it is a transformers model."""
    try:
        from transformers import PreTrainedModel
    except ImportError:
        return None
    if not isinstance(model, PreTrainedModel):
        return None
    from searchlib.objectives.quantized_attention import QuantizedAttention

    return QuantizedAttention(model)
