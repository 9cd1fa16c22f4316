"""Reading the checkpoints of a training run without loading them: every tensor is a view of a mapped file.

Safetensors files and folders, as transformers and diffusers write them, sharded ones too; torch files as far as
``torch.load(weights_only=True, mmap=True)`` reads them, so that no file can run code; adapters of peft; state dicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from searchlib.arguments import shown
from searchlib.errors import InvalidSettings
from searchlib.json_data import json_object, parsed_json, read_json
from searchlib.objectives.checkpoint_lora import LoraAdapter, LoraProduct, is_lora, lora_tensors

__all__ = ["Checkpoint", "Source", "read_checkpoint", "source_name"]

#: What a checkpoint is read from.
Source = str | Path | Mapping[str, Tensor] | LoraAdapter


@final
@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The tensors of one checkpoint.

    Arguments:
        tensors: by name, in the order in which they lie in their file.
        files: mapped files that hold them as they are, where they are such.
    """

    tensors: dict[str, Tensor | LoraProduct]
    files: tuple[np.memmap[Any, Any], ...] = ()


_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
# The names of a model's weights in a folder, in the order of transformers and diffusers.
_STEMS = ("model", "diffusion_pytorch_model", "pytorch_model")


def read_checkpoint(source: Source, *, key: str | None = None, prefix: str = "") -> Checkpoint:
    """The tensors of one checkpoint by name, as views of mapped files or of the given state dict.

    Arguments:
        source: a safetensors or torch file; a folder of transformers or diffusers with a model's weights, whole or
            sharded, or of an adapter of peft; a state dict; a :class:`LoraAdapter`.
        key: where the state dict stands in a torch file or mapping that holds more, such as ``"state_dict"``.
        prefix: only names that begin so count, without it (``"module."``, ``"ema_model."``).

    Raises:
        InvalidSettings: nothing there, not such a file, or one that cannot be read without running its code.
    """
    if isinstance(source, LoraAdapter):
        return Checkpoint(lora_tensors(source.state, source.config))
    if isinstance(source, Mapping):
        return Checkpoint(_state_dict(source, "the mapping", key, prefix))
    path = Path(source)
    if path.is_dir():
        if (path / "adapter_config.json").is_file():
            return _adapter(path)
        files = _weight_files(path)
    elif path.is_file():
        files = {path: None}
    else:
        raise InvalidSettings(f"a checkpoint must be a file, a folder or a state dict, but there is no {path}")
    tensors: dict[str, Tensor | LoraProduct] = {}
    mapped = []
    for file, names in files.items():
        state, memory = _read(file)
        missing = sorted((names or set()) - state.keys())
        if missing:
            raise InvalidSettings(f"{file} must hold {missing[0]!r} according to the index beside it, but does not")
        tensors |= _state_dict(state, str(file), key if memory is None else None, prefix)
        mapped += [memory] if memory is not None else []
    return Checkpoint(tensors, tuple(mapped))


def source_name(source: Source, index: int) -> str:
    """How messages call the ``index``-th checkpoint."""
    return f"checkpoint {index} ({source})" if isinstance(source, str | Path) else f"checkpoint {index}"


def _read(path: Path) -> tuple[Any, np.memmap[Any, Any] | None]:
    """The state dict of a file, and the mapped file where it holds the tensors as they are."""
    return _mapped_safetensors(path) if path.suffix == ".safetensors" else (_mapped_torch(path), None)


def _state_dict(state: Any, where: str, key: str | None, prefix: str) -> dict[str, Tensor | LoraProduct]:
    """The tensors of a state dict, checked to be one."""
    if key is not None:
        if not isinstance(state, Mapping) or key not in state:
            raise InvalidSettings(f"{where} must hold a state dict at {key!r}, but holds {_contents(state)}")
        state = state[key]
    if isinstance(state, Mapping):
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        nested = [name for name, value in state.items() if isinstance(value, Mapping)]
        if tensors and not nested:
            chosen = {
                str(name)[len(prefix) :]: value for name, value in tensors.items() if str(name).startswith(prefix)
            }
            if not chosen:
                raise InvalidSettings(f"{where} has no tensor whose name begins with {prefix!r}: {_contents(tensors)}")
            if any(map(is_lora, chosen)):
                raise InvalidSettings(
                    f"{where} is a LoRA adapter without its settings, which scale it; pass the folder with its "
                    "adapter_config.json, or LoraAdapter(state, config)"
                )
            return {name: value.detach() for name, value in chosen.items()}
    raise InvalidSettings(
        f"{where} must be a state dict, a flat mapping of names to tensors, but holds {_contents(state)}; "
        "key='...' says which of its entries is"
    )


def _contents(state: Any) -> str:
    if not isinstance(state, Mapping):
        return f"a {type(state).__name__}"
    shown = ", ".join(f"{name!r}: {type(value).__name__}" for name, value in list(state.items())[:5])
    return f"{{{shown}{', …' if len(state) > 5 else ''}}}"


def _mapped_safetensors(path: Path) -> tuple[dict[str, Tensor], np.memmap[Any, Any]]:
    """Views of one mapping of the file, in the order of the file, so that neighbors can be read as one piece."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as checked:  # its checks of the header: sizes, overlaps, holes
            names = checked.offset_keys()
    except (SafetensorError, TypeError, ValueError, OSError) as reason:
        raise InvalidSettings(f"{path} must be a safetensors file, but cannot be read as one: {reason}") from reason
    # Copy on write: torch wants writable memory, and whatever is written never reaches the file.
    raw = np.memmap(path, np.uint8, mode="c")
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    header = json_object(str(path), parsed_json(str(path), raw[8:start].tobytes()))
    body = torch.from_numpy(raw)[start:]
    return {name: _viewed(body, header[name], f"{path}: {name}") for name in names}, raw


def _viewed(body: Tensor, entry: Mapping[str, Any], where: str) -> Tensor:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise InvalidSettings(f"{where} must have one of the types {', '.join(_DTYPES)}, but has {entry['dtype']}")
    begin, end = entry["data_offsets"]
    piece = body[begin:end]
    if piece.storage_offset() % dtype.itemsize:
        piece = piece.clone()  # written by hand without the usual padding of the header
    return piece.view(dtype).reshape(entry["shape"])


def _mapped_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as reason:  # torch says in many ways that a file is damaged, or no file of its own
        first = str(reason).strip().splitlines()[0] if str(reason).strip() else type(reason).__name__
        raise InvalidSettings(
            f"{path} cannot be read by torch.load(weights_only=True, mmap=True), the only way that runs no code from "
            f"it: {first} If you trust it, load it yourself and pass the state dict, or save that as safetensors"
        ) from reason


def _weight_files(folder: Path) -> dict[Path, set[str] | None]:
    """The files with the weights of the model in a folder, each with the names that an index expects in it."""
    for kind in ("safetensors", "bin"):
        index = _one(folder, sorted(folder.glob(f"*.{kind}.index.json")), f"{kind}.index.json")
        if index is not None:
            return _shards(folder, index)
        file = _one(folder, sorted(folder.glob(f"*.{kind}")), kind)
        if file is not None:
            return {file: None}
    hint = "; it is a pipeline: pass the folder of a component" if (folder / "model_index.json").exists() else ""
    raise InvalidSettings(f"{folder} must hold the weights of a model as *.safetensors or *.bin, but does not{hint}")


def _one(folder: Path, files: list[Path], ending: str) -> Path | None:
    if len(files) > 1:
        files = [folder / f"{stem}.{ending}" for stem in _STEMS if folder / f"{stem}.{ending}" in files] or files
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise InvalidSettings(f"{folder} must hold one model, but holds {names}; pass one of the files")
    return files[0] if files else None


def _shards(folder: Path, index: Path) -> dict[Path, set[str] | None]:
    names: dict[str, set[str]] = {}
    weight_map = _json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise InvalidSettings(f"{index} must say which file has which tensor in its 'weight_map', but does not")
    for name, file in weight_map.items():
        names.setdefault(file if isinstance(file, str) else shown(file), set()).add(name)
    for file in names:
        if Path(file).name != file or not (folder / file).is_file():
            raise InvalidSettings(f"{index} must name files beside it, but there is no {file!r}")
    return {folder / file: expected for file, expected in sorted(names.items())}


def _json(path: Path) -> dict[str, Any]:
    return json_object(str(path), read_json(path))


def _adapter(folder: Path) -> Checkpoint:
    config = _json(folder / "adapter_config.json")
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        if (folder / name).is_file():
            return Checkpoint(lora_tensors(_read(folder / name)[0], config))
    raise InvalidSettings(f"{folder} must hold adapter_model.safetensors beside adapter_config.json, but does not")
