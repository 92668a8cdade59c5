"""Folders of networks that are damaged: each kind of damage ends in one clear error and no network."""

import json
import os
import pickle
import struct

import numpy as np
import pytest
import safetensors.numpy

from hcrot.files.json_and_arrays import write_arrays
from hcrot.models.unet_2d import UNet2dModel
from support.safetensors_files import safetensors_bytes
from support.small_unets import tiny_model

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
INDEX = WEIGHTS + ".index.json"


def damage_arrays(change):
    def damage(folder):
        arrays = safetensors.numpy.load_file(folder / WEIGHTS)
        change(arrays)
        write_arrays(folder / WEIGHTS, arrays)

    return damage


def header_of(text):
    return struct.pack("<Q", len(text)) + text


TWICE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'

WEIGHTS_DAMAGE = {
    "missing tensor": (damage_arrays(lambda a: a.pop("conv_out.bias")), "missing conv_out.bias"),
    "unexpected tensor": (damage_arrays(lambda a: a.update(more=np.zeros(1, np.float32))), "unexpected more"),
    "misshaped tensor": (
        damage_arrays(lambda a: a.update({"conv_out.bias": np.zeros(2, np.float32)})),
        r"conv_out.bias has shape \(2,\), expected \(1,\)",
    ),
    "tensor of integers": (damage_arrays(lambda a: a.update({"conv_out.bias": np.zeros(1, np.int64)})), "conv_out.bias has dtype int64"),
    "an old and a new name": (
        damage_arrays(lambda a: a.update({"mid_block.attentions.0.query.bias": np.zeros(8, np.float32)})),
        "holds mid_block.attentions.0.to_q.bias twice, once under an old name",
    ),
    "empty": (lambda folder: os.truncate(folder / WEIGHTS, 0), "is damaged"),
    "truncated": (lambda folder: os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1), "is damaged"),
    "longer than it says": (lambda folder: (folder / WEIGHTS).open("ab").write(b"0"), "is damaged"),
    "header of 2^60 bytes": (lambda folder: (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**60) + b"{}"), "is damaged"),
    "header that is no JSON": (lambda folder: (folder / WEIGHTS).write_bytes(header_of(b"hello")), "is damaged"),
    "nested header": (lambda folder: (folder / WEIGHTS).write_bytes(header_of(b'{"a":' + b"[" * 10**5)), "is damaged"),
    "a name twice": (lambda folder: (folder / WEIGHTS).write_bytes(header_of(TWICE) + b"\0" * 4), "the key 'a' comes twice"),
    "a pickle under this name": (lambda folder: (folder / WEIGHTS).write_bytes(pickle.dumps({"conv_in.bias": [0.0] * 9})), "is damaged"),
    "8-bit floats": (
        lambda folder: (folder / WEIGHTS).write_bytes(safetensors_bytes({"a": ("F8_E4M3", (1,), b"0")})),
        "a has numbers of type F8_E4M3, expected one of F64, F32, F16, BF16",
    ),
    "no numbers in an unheard-of shape": (
        lambda folder: (folder / WEIGHTS).write_bytes(safetensors_bytes({"a": ("F32", (0, 2**63), b"")})),
        "is damaged",
    ),
    "no tensors": (lambda folder: (folder / WEIGHTS).write_bytes(header_of(b"{}")), "holds 0"),
}


@pytest.mark.parametrize("kind", WEIGHTS_DAMAGE)
def test_damaged_weights(tmp_path, kind):
    damage, message = WEIGHTS_DAMAGE[kind]
    tiny_model().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=rf"diffusion_pytorch_model\.safetensors .*{message}"):
        UNet2dModel.from_pretrained(tmp_path)


def rewrite_index(**changes):
    def rewrite(folder):
        index = json.loads((folder / INDEX).read_text())
        (folder / INDEX).write_text(json.dumps({**index, **{k: v(index[k]) if callable(v) else v for k, v in changes.items()}}))

    return rewrite


FIRST = "diffusion_pytorch_model-00001-of-00003.safetensors"
INDEX_DAMAGE = {
    "no map": (rewrite_index(weight_map=None), "index.json holds no weight_map"),
    "a map to numbers": (rewrite_index(weight_map=lambda places: dict.fromkeys(places, 3)), "index.json holds no weight_map"),
    "an array that is not there": (rewrite_index(weight_map=lambda places: places | {"more": FIRST}), f"{FIRST} does not hold .* more"),
    "an array that it does not know": (
        rewrite_index(weight_map=lambda places: {name: file for name, file in places.items() if name != "conv_in.bias"}),
        f"{FIRST} does not hold what .* they differ in conv_in.bias",
    ),
    "a file elsewhere": (rewrite_index(weight_map=lambda places: places | {"more": "../secret.safetensors"}), "index.json names the file"),
    "a pickle": (rewrite_index(weight_map=lambda places: places | {"more": "pytorch_model.bin"}), "pytorch_model.bin is a pickle"),
    "a truncated shard": (lambda folder: os.truncate(folder / FIRST, 900), f"{FIRST} is damaged"),
    "a whole file as well": (lambda folder: (folder / WEIGHTS).write_bytes(b""), f"holds both {WEIGHTS} and {INDEX}"),
    "no JSON": (lambda folder: (folder / INDEX).write_text("{"), "index.json is damaged or no JSON"),
    "no list of names": (
        lambda folder: (folder / CONFIG).write_text('{"_use_default_values": 2}'),
        "config.json: .*_use_default_values is 2, expected a list of names",
    ),
    "another network": (
        lambda folder: (folder / CONFIG).write_text(json.dumps(tiny_model(num_class_embeds=4).config)),
        r"index.json does not fit config.json: .*class_embedding.weight has shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", INDEX_DAMAGE)
def test_damaged_shards(tmp_path, kind):
    damage, message = INDEX_DAMAGE[kind]
    tiny_model().save_pretrained(tmp_path, max_shard_size=18_000)
    assert (tmp_path / FIRST).exists()
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        UNet2dModel.from_pretrained(tmp_path)


def test_a_missing_shard(tmp_path):
    tiny_model().save_pretrained(tmp_path, max_shard_size=18_000)
    (tmp_path / FIRST).unlink()
    with pytest.raises(FileNotFoundError, match=f"there is no file .*{FIRST}"):
        UNet2dModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is damaged or no JSON"),
        ("\udcff", "config.json is damaged or no JSON"),
        ('{"a":' + "[" * 10**5, "config.json is damaged or no JSON: nested too deeply"),
        ('{"in_channels": 1, "in_channels": 3}', "config.json is damaged or no JSON: the key 'in_channels' comes twice"),
        ("3", "config.json holds no JSON object but 3"),
        ('{"_class_name": "UNet2DConditionModel"}', "config.json describes a 'UNet2DConditionModel', expected a UNet2DModel"),
        ('{"norm_num_groups": 5}', "config.json: .*is not divisible by norm_num_groups 5"),
        ('{"block_out_channels": 8}', "config.json: "),
        ('{"_use_default_values": "norm_eps"}', "config.json: .*_use_default_values is 'norm_eps', expected a list of names of arguments"),
        ("{}", r"config.json describes a network of over \d+ numbers, .*diffusion_pytorch_model.safetensors holds \d+"),
        ('{"block_out_channels": [1000000, 1000000, 64, 64], "norm_num_groups": 2}', "config.json describes a network of over"),
        ('{"layers_per_block": 1000000000, "norm_num_groups": 2, "block_out_channels": [8, 8, 8, 8]}', "layers_per_block must be at most"),
        ('{"in_channels": 1' + "0" * 400 + "}", "config.json: "),
    ],
)
def test_bad_configuration(tmp_path, text, message):
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / CONFIG).write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match=message):
        UNet2dModel.from_pretrained(tmp_path)


def test_configuration_that_hcrot_does_not_have(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps(tiny_model().config | {"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}))
    with pytest.raises(NotImplementedError, match="config.json: UNet2dModel: down_block_types: there is no SkipDownBlock2D"):
        UNet2dModel.from_pretrained(tmp_path)


def test_no_network(tmp_path):
    with pytest.raises(FileNotFoundError, match="UNet2dModel.from_pretrained: there is no folder .*nowhere"):
        UNet2dModel.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="there is no file .*config.json"):
        UNet2dModel.from_pretrained(tmp_path)
    (tmp_path / "model.ckpt").write_bytes(pickle.dumps(print))
    with pytest.raises(ValueError, match="model.ckpt is a pickle, .* never opened, expected a folder"):
        UNet2dModel.from_pretrained(tmp_path / "model.ckpt")


def test_pickled_weights_are_not_opened(tmp_path):
    tiny_model().save_pretrained(tmp_path / "m")
    os.remove(tmp_path / "m" / WEIGHTS)
    trap, bait = tmp_path / "trapped", tmp_path / "m" / "diffusion_pytorch_model.bin"
    bait.write_bytes(b"cos\nmkdir\n(S'" + str(trap).encode() + b"'\ntR.")
    with pytest.raises(FileNotFoundError, match=r"diffusion_pytorch_model.safetensors; diffusion_pytorch_model.bin is a pickle"):
        UNet2dModel.from_pretrained(tmp_path / "m")
    assert not trap.exists()
    pickle.loads(bait.read_bytes())
    assert trap.exists()  # the trap works
