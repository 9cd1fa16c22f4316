"""Keys and values with few bits, inside the attention function of a loaded transformers model.

A quantized cache is not seen by a single pass over a text: it gives the new keys and values back in full precision, and
rounds what it stores (``QuantizedCache``: the logits of a prompt differ by exactly 0). So keys and values are rounded
where attention reads them, after the rotary embedding, as in *Evaluating Quantized Large Language Models*
(arXiv 2402.18158). Scales belong to one token each, so that it makes no difference whether a cache held the rounded
numbers or they are rounded when they are read.

No class is rewritten, and no other attention is chosen: the entry of the model's own attention in transformers'
``AttentionInterface`` is replaced while the context is open. (Under a name of its own, an attention needs a mask
function of that name, too: without one the model gets no mask at all, and sees the future without a word.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, final

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from searchlib.errors import InvalidSettings, UnsupportedModel
from searchlib.objectives.fake_quantize import fake_quantize
from searchlib.spaces.bit_plan import BitPlan

__all__ = ["QuantizedAttention"]

_MISSING = object()


@final
class QuantizedAttention:
    """Rounds keys and values by a plan; a context manager. Other models in the process are not affected.

    Keys and values are rounded asymmetrically, with one scale for every token and head, or for every ``group`` numbers
    of a head.

    Arguments:
        model: a transformers model, with any of its attention implementations.

    Attributes:
        shapes: of every attention layer that ran so far: heads of keys and values, and their sizes.

    Raises:
        UnsupportedModel: no transformers model; or, from :meth:`check`, attention that is not looked up by name.
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, PreTrainedModel):
            raise UnsupportedModel(f"{type(model).__name__} is no transformers model, so its cache is not quantized")
        self.model = model
        self.shapes: dict[str, tuple[int, int, int]] = {}
        self._names: dict[int, str] = {}
        self._plan = BitPlan()
        self._undo = ExitStack()
        self._open = False

    def __enter__(self) -> Self:
        if self._open:
            raise InvalidSettings("this attention is quantized already; leave the first with-block before")
        self._names = {id(module): name for name, module in self.model.named_modules()}
        mapping = AttentionInterface._global_mapping
        with ExitStack() as undo:
            for implementation in sorted({config._attn_implementation or "eager" for config in _configs(self.model)}):
                around = _Around(self, mapping.get(implementation, _MISSING))
                undo.callback(_take_out, mapping, implementation, around)
                AttentionInterface.register(implementation, around)
            self._undo = undo.pop_all()
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._undo.close()
        self._plan = BitPlan()

    def set(self, plan: BitPlan) -> None:
        """Round by this plan from now on; names are those of attention modules."""
        if not self._open:
            raise InvalidSettings("enter the quantization first: with QuantizedAttention(model) as quantized: …")
        known = set(self._names.values())
        for name in plan.changed["kv"]:
            if name not in known and name.removesuffix(".key").removesuffix(".value") not in known:
                raise InvalidSettings(f"the plan has bits for the cache of {name!r}, which is no module of the model")
        self._plan = plan

    def check(self) -> None:
        """Whether all attention layers that the plan names have been met since the model ran.

        Raises:
            UnsupportedModel: one has not, so that its bits meant nothing.
        """
        for name in self._plan.changed["kv"]:
            if name not in self.shapes and name.removesuffix(".key").removesuffix(".value") not in self.shapes:
                raise UnsupportedModel(
                    f"{name} of {type(self.model).__name__} does not look up its attention by name, so its keys and "
                    f"values cannot be quantized"
                )

    def rounded(self, module: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """What the attention of a module reads; of other models, as it is."""
        name = self._names.get(id(module))
        if name is None or not self._open:
            return key, value
        self.shapes[name] = (key.shape[1], key.shape[-1], value.shape[-1])
        keys, values = self._plan.kv_bits(name)
        key = fake_quantize(key, keys.bits, group=keys.group)
        return key, fake_quantize(value, values.bits, group=values.group)


@final
class _Around:
    """An entry of the interface that rounds what the entry before it reads."""

    def __init__(self, owner: QuantizedAttention, own: Any) -> None:
        self.owner, self.own = owner, own

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **settings: Any
    ) -> Any:
        function = _eager(module) if self.own is _MISSING else self.own
        return function(module, query, *self.owner.rounded(module, key, value), *rest, **settings)


def _eager(module: nn.Module) -> Callable[..., Any]:
    """The eager attention that the module's family defines beside it; it is no entry of the interface."""
    for cls in type(module).__mro__:
        function = getattr(sys.modules.get(cls.__module__), "eager_attention_forward", None)
        if function is not None:
            return function
    raise UnsupportedModel(f"{type(module).__name__} has no eager attention that could be called")


def _take_out(mapping: dict[str, Any], name: str, around: _Around) -> None:
    """Put the entry before back; another model's, which was opened later and is still open, stays around it."""
    outer = mapping.get(name)
    if outer is not around:
        while isinstance(outer, _Around) and outer.own is not around:
            outer = outer.own
        if isinstance(outer, _Around):
            outer.own = around.own
    elif around.own is _MISSING:
        del mapping[name]
    else:
        mapping[name] = around.own


def _configs(model: nn.Module) -> Iterator[Any]:
    """The configurations of the model and of the models inside it."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            yield module.config
