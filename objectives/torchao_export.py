"""A plan of bits as a really quantized model, with torchao (https://github.com/pytorch/ao, BSD-3-Clause).

Weights of 2 to 8 bits with inputs in full precision or in 8 bits; every layer its own (``FqnToConfig``). torchao's
min-max with a zero point is the quantizer that plans are searched with, so weights are the same numbers; its inputs of
8 bits have one scale per token, too.

What is saved: torchao keeps weights of fewer than 8 bits as *one byte each* unless a kernel for the device packs them,
which on processors none does in eager mode (measured: 4-bit layers take as much as 8-bit ones). Packed sizes are
``BitPlan.memory``; what a model takes here is :func:`stored_bytes`.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from searchlib.errors import InvalidSettings, MissingDependency
from searchlib.spaces.bit_plan import BitPlan, Bits

__all__ = ["export", "layer_configs", "stored_bytes"]


def layer_configs(plan: BitPlan, *, symmetric: bool = False) -> OrderedDict[str, Any]:
    """torchao's configuration of every layer that a plan changes, by its name: what ``FqnToConfig`` takes.

    Raises:
        InvalidSettings: bits that torchao has no layers for; the message names the layer.
        MissingDependency: torchao is not installed.
    """
    quantization = _torchao()
    mapping = quantization.quant_primitives.MappingType
    if symmetric:
        raise InvalidSettings("torchao's symmetric weights have other levels; search with symmetric=False to export")
    if plan.changed["kv"]:
        raise InvalidSettings(f"torchao quantizes no caches, but the plan has bits for {plan.changed['kv'][0]!r}")
    configs: OrderedDict[str, Any] = OrderedDict()
    for name in dict.fromkeys((*plan.changed["weight"], *plan.changed["activation"])):
        weight, inputs = plan.weight_bits(name), {plan.activation_bits(name, i) for i in range(len(plan.ranges) + 1)}
        if len(inputs) > 1 or not inputs <= {Bits(16), Bits(8)} or not 2 <= weight.bits <= 8:
            raise InvalidSettings(
                f"{name}: torchao has layers with weights of 2 to 8 bits and inputs of 8 or 16 at all timesteps, but "
                f"the plan has weights of {weight.bits} and inputs of {sorted(bits.bits for bits in inputs)}"
            )
        settings = {
            "weight_dtype": getattr(torch, f"int{weight.bits}"), "weight_mapping_type": mapping.ASYMMETRIC,
        }  # fmt: skip
        granularity = quantization.granularity
        scale = granularity.PerAxis(0) if weight.group is None else granularity.PerGroup(weight.group)
        if inputs == {Bits(8)}:
            configs[name] = quantization.Int8DynamicActivationIntxWeightConfig(weight_granularity=scale, **settings)
        else:
            own = {key.removeprefix("weight_") if "mapping" in key else key: item for key, item in settings.items()}
            configs[name] = quantization.IntxWeightOnlyConfig(granularity=scale, **own)
    return configs


def export(plan: BitPlan, model: nn.Module, *, symmetric: bool = False) -> nn.Module:
    """Quantize the layers of a plan in place, and return the model.

    Such a model is saved with ``torch.save(model.state_dict(), …)`` or, where it comes from transformers or diffusers,
    loaded through their ``TorchAoConfig(FqnToConfig(layer_configs(plan)))``.

    Raises:
        InvalidSettings: layers that the model lacks, or that torchao has no kind for; the model is unchanged then.
        MissingDependency: torchao is not installed.
    """
    configs = layer_configs(plan, symmetric=symmetric)
    modules = dict(model.named_modules())
    for name in configs:
        layer = modules.get(name)
        if not isinstance(layer, nn.Linear):
            kind = "no module of the model" if layer is None else f"a {type(layer).__name__}"
            raise InvalidSettings(f"{name} is {kind}, but torchao quantizes linear layers; leave it in full precision")
        group = plan.weight_bits(name).group
        if group is not None and layer.in_features % group:
            raise InvalidSettings(f"{name}: groups of {group} do not divide its {layer.in_features} inputs")
    quantization = _torchao()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.quantize_(model, quantization.FqnToConfig(configs), filter_fn=None)
    return model


def stored_bytes(model: nn.Module) -> int:
    """What the parameters and buffers of a model take, as they are stored; shared ones count once."""
    seen: dict[int, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        for plain in _plain(tensor.data):
            seen[plain.untyped_storage().data_ptr()] = plain.untyped_storage().nbytes()
    return sum(seen.values())


def _plain(tensor: Tensor) -> Iterator[Tensor]:
    """The plain tensors that a tensor consists of."""
    if type(tensor) is Tensor or not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _plain(getattr(tensor, name))


def _torchao() -> Any:
    try:
        import torchao.quantization
        from torchao.quantization import granularity, quant_primitives
    except ImportError as error:
        raise MissingDependency("exporting a quantized model needs torchao: pip install 'searchlib[quant]'") from error
    del granularity, quant_primitives
    return torchao.quantization
