from __future__ import annotations

import json
import pickle
import struct

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from searchlib.errors import InvalidSettings  # noqa: E402
from searchlib.objectives.checkpoint_files import read_checkpoint  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(5, 7, generator=generator),
        "a.bias": torch.randn(5, generator=generator),
        "half": torch.randn(3, generator=generator).half(),
        "brain": torch.randn(9, generator=generator).bfloat16(),
        "double": torch.randn(2, 2, generator=generator).double(),
        "scalar": torch.tensor(2.5),
        "steps": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "nothing": torch.empty(0, 3),
    }


def same(read, expected):
    assert read.tensors.keys() == expected.keys()
    assert len(expected) > 0
    for name, tensor in expected.items():
        got = read.tensors[name]
        assert got.dtype == tensor.dtype
        assert torch.equal(got, tensor), name


def test_a_safetensors_file_is_read_as_safetensors_reads_it(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(tensors(), path, metadata={"step": "100"})
    same(read_checkpoint(path), load_file(path))


def test_reading_a_file_maps_it_and_writing_to_a_tensor_leaves_it_alone(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(tensors(), path)
    before = path.read_bytes()
    read = read_checkpoint(str(path))
    (memory,) = read.files
    for name in ("a.weight", "half"):
        assert 0 <= read.tensors[name].data_ptr() - memory.ctypes.data < memory.nbytes
    read.tensors["a.weight"].zero_()
    assert path.read_bytes() == before


def test_a_header_without_padding_is_read_too(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    header += b" " * (5 - len(header) % 4)
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1.5, -2.0))
    assert (8 + len(header)) % 4, "the numbers must lie across their natural places"
    assert read_checkpoint(path).tensors["w"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("content", [b"", b"text without tensors, of some length", struct.pack("<Q", 10**12) + b"{}"])
def test_another_file_called_safetensors_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidSettings, match=r"model\.safetensors must be a safetensors file, but cannot be read"):
        read_checkpoint(path)


def test_a_torch_file_is_mapped(tmp_path):
    torch.save(tensors(), tmp_path / "model.pt")
    read = read_checkpoint(tmp_path / "model.pt")
    same(read, tensors())
    with open("/proc/self/maps") as maps:
        assert any(line.rstrip().endswith("model.pt") for line in maps)


def test_a_state_dict_inside_of_a_training_checkpoint_is_found_by_its_key_and_prefix(tmp_path):
    state = {f"module.{name}": tensor for name, tensor in tensors().items()}
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {}}, tmp_path / "last.ckpt")
    same(read_checkpoint(tmp_path / "last.ckpt", key="state_dict", prefix="module."), tensors())
    with pytest.raises(InvalidSettings, match=r"holds \{'epoch': int, 'state_dict': dict.* key="):
        read_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(InvalidSettings, match="must hold a state dict at 'model'"):
        read_checkpoint(tmp_path / "last.ckpt", key="model")
    with pytest.raises(InvalidSettings, match=r"no tensor whose name begins with 'ema\.'"):
        read_checkpoint(tmp_path / "last.ckpt", key="state_dict", prefix="ema.")


class Bomb:
    def __reduce__(self):
        return print, ("this must not run",)


def test_a_pickle_that_would_run_code_is_refused_without_running_it(tmp_path, capsys):
    torch.save({"weight": torch.ones(2), "bomb": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(InvalidSettings, match=r"bomb\.pt cannot be read by torch\.load\(weights_only.*as safetensors"):
        read_checkpoint(tmp_path / "bomb.pt")
    (tmp_path / "plain.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InvalidSettings, match=r"plain\.bin cannot be read"):
        read_checkpoint(tmp_path / "plain.bin")
    assert capsys.readouterr().out == ""


def test_a_whole_module_and_an_old_torch_file_are_refused_with_the_reason(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(InvalidSettings, match=r"module\.pt cannot be read .* load it yourself and pass the state dict"):
        read_checkpoint(tmp_path / "module.pt")
    torch.save(tensors(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InvalidSettings, match=r"old\.pt cannot be read .*mmap"):
        read_checkpoint(tmp_path / "old.pt")


def test_a_path_to_nothing_is_named(tmp_path):
    with pytest.raises(InvalidSettings, match=r"there is no .*missing"):
        read_checkpoint(tmp_path / "missing")
    with pytest.raises(InvalidSettings, match=r"must hold the weights of a model as \*\.safetensors"):
        read_checkpoint(tmp_path)


def unet():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip


@pytest.mark.parametrize("settings", [{}, {"max_shard_size": "20KB"}, {"safe_serialization": False}], ids=str)
def test_a_folder_of_diffusers_is_read_whole_and_sharded(tmp_path, settings):
    model = unet()
    model.save_pretrained(tmp_path, **settings)
    if "max_shard_size" in settings:
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
    same(read_checkpoint(tmp_path), model.state_dict())


def test_a_folder_of_transformers_is_read(tmp_path, mixtral):
    mixtral.save_pretrained(tmp_path, max_shard_size="100KB")
    from safetensors import safe_open

    expected = {}
    for file in tmp_path.glob("*.safetensors"):
        with safe_open(file, "pt") as shard:
            expected |= {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
    same(read_checkpoint(tmp_path), expected)


def test_an_index_that_names_a_file_elsewhere_or_a_missing_tensor_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"w": torch.ones(2)}, tmp_path / "outside.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "../outside.safetensors"}}))
    with pytest.raises(InvalidSettings, match=r"must name files beside it, but there is no '\.\./outside"):
        read_checkpoint(folder)
    save_file({"w": torch.ones(2)}, folder / "one.safetensors")
    index.write_text(json.dumps({"weight_map": {"w": "one.safetensors", "v": "one.safetensors"}}))
    with pytest.raises(InvalidSettings, match=r"one\.safetensors must hold 'v' according to the index"):
        read_checkpoint(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_an_index_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(InvalidSettings, match=r"model\.safetensors\.index\.json must"):
        read_checkpoint(tmp_path)


def test_a_folder_of_two_models_or_of_a_pipeline_asks_which(tmp_path):
    for name in ("first", "second"):
        save_file({"w": torch.ones(2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(InvalidSettings, match=r"holds first\.safetensors, second\.safetensors; pass one of the files"):
        read_checkpoint(tmp_path)
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    with pytest.raises(InvalidSettings, match="it is a pipeline: pass the folder of a component"):
        read_checkpoint(tmp_path / "pipeline")


def test_the_usual_name_wins_beside_another_file(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    save_file({"v": torch.ones(2)}, tmp_path / "optimizer.safetensors")
    same(read_checkpoint(tmp_path), {"w": torch.ones(2)})


def test_a_state_dict_is_taken_as_it_is():
    model = nn.Linear(2, 3)
    read = read_checkpoint(model.state_dict())
    assert read.tensors["weight"].data_ptr() == model.weight.data_ptr()
    with pytest.raises(InvalidSettings, match="a flat mapping of names to tensors"):
        read_checkpoint({"lr": 0.1})
