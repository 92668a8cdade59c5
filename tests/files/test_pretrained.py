"""Folders of networks: what is written, and what is read. Damaged ones are in ``test_damaged_networks.py``."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import hcrot
from hcrot import pipelines
from hcrot.files.json_and_arrays import write_arrays
from hcrot.files.pretrained import Blank, size_in_bytes
from hcrot.models.unet_2d import UNet2dModel
from support.safetensors_files import safetensors_bytes
from support.small_unets import tiny_model

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
INDEX = WEIGHTS + ".index.json"
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def assert_same(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype and array.tobytes() == theirs[name].tobytes(), name


def old_names(arrays):
    for new, old in OLD.items():
        arrays = {name.replace(f".{new}.", f".{old}."): array for name, array in arrays.items()}
    return arrays


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("size", [2_000, "0.02MB", "10GB"])
def test_round_trip(tmp_path, size):
    model = tiny_model(1)
    model.save_pretrained(tmp_path / "new" / "m", max_shard_size=size)
    loaded = UNet2dModel.from_pretrained(tmp_path / "new" / "m")
    assert loaded.config == model.config and loaded.training
    assert_same(loaded, model)
    x, t, labels = np.random.default_rng(0).normal(size=(2, 1, 5, 6)).astype(np.float32), np.array([3, 9]), np.array([2, 0])
    np.testing.assert_array_equal(loaded(x, t, labels), model(x, t, labels))
    assert not any(parameter.grad.any() for parameter in loaded.parameters())


def test_shards(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "m", max_shard_size="10 KB")
    index = json.loads((tmp_path / "m" / INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    count = len(files)
    assert count > 3 and files == [f"diffusion_pytorch_model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    assert sorted(os.listdir(tmp_path / "m")) == sorted([CONFIG, INDEX, *files])
    state, found = model.state_dict(), {}
    assert index["metadata"] == {"total_size": sum(array.nbytes for array in state.values())}
    for file in files:
        arrays = safetensors.numpy.load_file(tmp_path / "m" / file)
        assert len(arrays) == 1 or sum(array.nbytes for array in arrays.values()) <= 10_000
        assert all(index["weight_map"][name] == file for name in arrays)
        found |= arrays
    assert found.keys() == state.keys()

    model.save_pretrained(tmp_path / "m")
    assert sorted(os.listdir(tmp_path / "m")) == [CONFIG, WEIGHTS]  # nothing is left of the shards


@pytest.mark.parametrize("size", [0, -1, True, 2.5, "", "10", "MB", "10 PB", "0KB", "-1MB", None])
def test_sizes_that_are_none(tmp_path, size):
    with pytest.raises(ValueError, match="max_shard_size must be a positive number of bytes or such as '200MB', got"):
        tiny_model().save_pretrained(tmp_path / "m", max_shard_size=size)
    assert os.listdir(tmp_path) == []


def test_sizes():
    assert [size_in_bytes(size) for size in (7, np.int64(7), "3KB", "1.5 MB", "2GB", "1TB")] == [7, 7, 3000, 1_500_000, 2 * 10**9, 10**12]


def bfloat16(array):
    """The upper halves of float32 numbers, rounded towards zero."""
    return (array.view(np.uint32) >> 16).astype("<u2")


@pytest.mark.parametrize("kind", ["F16", "BF16", "F64", "mixed"])
def test_other_floats_become_float32(tmp_path, kind):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    kinds, tensors, expected = ["F16", "BF16", "F64", "F32"], {}, {}
    for number, (name, array) in enumerate(model.state_dict().items()):
        array = np.ascontiguousarray(array)
        dtype = kinds[number % 4] if kind == "mixed" else kind
        content = bfloat16(array) if dtype == "BF16" else array.astype({"F16": "<f2", "F64": "<f8", "F32": "<f4"}[dtype])
        expected[name] = (content.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else content.astype(np.float32)
        tensors[name] = (dtype, array.shape, content.tobytes())
    (tmp_path / WEIGHTS).write_bytes(safetensors_bytes(tensors))
    loaded = UNet2dModel.from_pretrained(tmp_path).state_dict()
    assert loaded.keys() == expected.keys()
    for name, array in loaded.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_what_is_not_finite_survives_bfloat16(tmp_path):
    bits = np.array([0x7F80, 0xFF80, 0x7FC0, 0x8000, 0x0001], "<u2")
    (tmp_path / "a.safetensors").write_bytes(safetensors_bytes({"a": ("BF16", (5,), bits.tobytes())}))
    array = hcrot.files.json_and_arrays.read_arrays(tmp_path / "a.safetensors")["a"]
    assert array.tolist()[:2] == [np.inf, -np.inf] and np.isnan(array[2]) and np.signbit(array[3]) and array[4] == 2.0**-133


@pytest.mark.parametrize("shards", ["10GB", "10KB"])
def test_old_names_and_missing_arguments(tmp_path, shards):
    model = tiny_model(1)
    model.save_pretrained(tmp_path, max_shard_size=shards)
    for path in tmp_path.glob("*.safetensors"):
        write_arrays(path, old_names(safetensors.numpy.load_file(path)))
    if (tmp_path / INDEX).exists():
        index = json.loads((tmp_path / INDEX).read_text())
        index["weight_map"] = old_names(index["weight_map"])
        (tmp_path / INDEX).write_text(json.dumps(index))
    assert sum(".query." in name for name in old_names(model.state_dict())) == 8
    arguments = json.loads((tmp_path / CONFIG).read_text())
    del arguments["_class_name"], arguments["freq_shift"]
    (tmp_path / CONFIG).write_text(json.dumps(arguments | {"_name_or_path": "x"}))
    assert_same(UNet2dModel.from_pretrained(tmp_path), model)


@pytest.mark.parametrize(
    "options",
    [
        {"time_embedding_type": "fourier", "class_embed_type": "timestep", "num_class_embeds": None},
        {"time_embedding_type": "learned", "num_train_timesteps": 7},
        {"downsample_type": "resnet", "upsample_type": "resnet", "resnet_time_scale_shift": "scale_shift", "mid_block_type": None},
    ],
)
def test_networks_of_other_kinds(tmp_path, options):
    model = tiny_model(**options)
    model.save_pretrained(tmp_path / "m")
    loaded = UNet2dModel.from_pretrained(tmp_path / "m")
    assert loaded.config == model.config
    assert_same(loaded, model)


def test_unknown_keys_are_named_once_and_kept(tmp_path):
    tiny_model().save_pretrained(tmp_path / "m")
    more = {f"of_the_future_{number:02}": number for number in range(12)} | {"decay": 0.5}
    (tmp_path / "m" / CONFIG).write_text(json.dumps(tiny_model().config | more))
    with pytest.warns(UserWarning, match=r"UNet2dModel.from_config: .* ignored: 'decay', 'of_the_future_00', .* and 3 more$") as caught:
        loaded = UNet2dModel.from_pretrained(tmp_path / "m")
    assert len(caught) == 1 and caught[0].filename == __file__
    assert_same(loaded, tiny_model())
    loaded.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / CONFIG).read_text()).items() >= (tiny_model().config | more).items()


def test_numpy_integers_in_the_configuration(tmp_path):
    tiny_model(norm_num_groups=np.int64(2)).save_pretrained(tmp_path / "m")
    assert UNet2dModel.from_pretrained(tmp_path / "m").config["norm_num_groups"] == 2


def test_subfolders(tmp_path):
    model, other = tiny_model(1), tiny_model(2)
    pipelines.save(tmp_path / "p", model, hcrot.DDPMScheduler())
    for options in ({}, {"subfolder": "unet"}):
        assert_same(UNet2dModel.from_pretrained(tmp_path / "p", **options), model)
    other.save_pretrained(tmp_path / "p" / "ema")
    assert_same(UNet2dModel.from_pretrained(tmp_path / "p", subfolder="ema"), other)
    assert_same(UNet2dModel.from_pretrained(str(tmp_path / "p" / "unet")), model)
    with pytest.raises(FileNotFoundError, match="there is no file .*nowhere.config.json"):
        UNet2dModel.from_pretrained(tmp_path / "p", subfolder="nowhere")


@pytest.mark.parametrize("shards", ["10GB", "10KB"])
def test_variants(tmp_path, shards):
    """Weights of float16 under the names that diffusers gives them, alone and beside others."""
    half, full = tiny_model(1), tiny_model(2)
    half.save_pretrained(tmp_path / "m", max_shard_size=shards)
    for path in list((tmp_path / "m").glob("*.safetensors*")):
        if path.suffix == ".json":
            path.write_text(path.read_text().replace("pytorch_model-", "pytorch_model.fp16-"))
            path.rename(path.with_name("diffusion_pytorch_model.safetensors.index.fp16.json"))
        else:
            path.rename(path.with_name(path.name.replace("pytorch_model", "pytorch_model.fp16")))
    with pytest.raises(FileNotFoundError, match=f"there is no file .*{WEIGHTS}; .* holds .*fp16.*; say variant='fp16'$"):
        UNet2dModel.from_pretrained(tmp_path / "m")
    assert_same(UNet2dModel.from_pretrained(tmp_path / "m", variant="fp16"), half)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*model.bf16.safetensors; .*; say variant='fp16'$"):
        UNet2dModel.from_pretrained(tmp_path / "m", variant="bf16")

    full.save_pretrained(tmp_path / "full")
    (tmp_path / "full" / WEIGHTS).rename(tmp_path / "m" / WEIGHTS)
    assert_same(UNet2dModel.from_pretrained(tmp_path / "m"), full)
    assert_same(UNet2dModel.from_pretrained(tmp_path / "m", variant="fp16"), half)


@pytest.mark.parametrize("variant", [16, "", "a/b", "../m", True])
def test_variants_that_are_none(tmp_path, variant):
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="variant is .*, expected the middle of a file's name, such as 'fp16', or None"):
        UNet2dModel.from_pretrained(tmp_path, variant=variant)


def test_weights_under_another_name(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=rf"no file .*{WEIGHTS}; .* holds config.json, model.safetensors, expected weights under"):
        UNet2dModel.from_pretrained(tmp_path)


def test_a_folder_above_the_network_says_where_it_is(tmp_path):
    """``checkpoint-500/`` as diffusers' training script leaves it, and the folder of the run."""
    for name in ("unet", "unet_ema"):
        tiny_model().save_pretrained(tmp_path / "run" / "checkpoint-500" / name)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*checkpoint-500.config.json; say subfolder='unet' or 'unet_ema'$"):
        UNet2dModel.from_pretrained(tmp_path / "run" / "checkpoint-500")
    with pytest.raises(FileNotFoundError, match=r"; say subfolder='checkpoint-500/unet' or 'checkpoint-500/unet_ema'$"):
        UNet2dModel.from_pretrained(tmp_path / "run")
    assert_same(UNet2dModel.from_pretrained(tmp_path / "run", subfolder="checkpoint-500/unet"), tiny_model())
    assert_same(UNet2dModel.from_pretrained(tmp_path / "run", subfolder=Path("checkpoint-500") / "unet"), tiny_model())
    with pytest.raises(TypeError, match="UNet2dModel.from_pretrained: subfolder is 5, expected the name of a folder, or None"):
        UNet2dModel.from_pretrained(tmp_path / "run", subfolder=5)
    (tmp_path / "other" / "logs").mkdir(parents=True)
    (tmp_path / "other" / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*config.json; .*other holds logs/, notes.txt$"):
        UNet2dModel.from_pretrained(tmp_path / "other")


@pytest.mark.parametrize("load", [UNet2dModel.from_pretrained, hcrot.DDPMScheduler.from_pretrained, pipelines.load])
def test_names_of_the_hub(tmp_path, monkeypatch, load):
    monkeypatch.chdir(tmp_path)
    message = "no folder google/ddpm-cat-256. .* hcrot downloads nothing. Type `hf download google/ddpm-cat-256 --local-dir ddpm-cat-256`"
    with pytest.raises(FileNotFoundError, match=message):
        load("google/ddpm-cat-256")
    (tmp_path / "google").mkdir()
    for path in ("google/ddpm-cat-256", "nowhere", "./a/b", "a/b/c", tmp_path / "a" / "b"):
        with pytest.raises(FileNotFoundError, match="there is no folder [^`]*$"):
            load(path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_with_a_word_too_many(tmp_path, prefix):
    model, other = tiny_model(1), tiny_model(2)
    arrays = {prefix + name: array for name, array in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"load_state_dict: every name begins with '{prefix}' .* 'conv_in.weight': load") as error:
        other.load_state_dict(arrays)
    assert_same(other, tiny_model(2))
    typed = str(error.value).partition(": load ")[2]
    other.load_state_dict(eval(typed, {"state": arrays}))
    assert_same(other, model)
    model.save_pretrained(tmp_path)
    write_arrays(tmp_path / WEIGHTS, arrays)
    with pytest.raises(ValueError, match=f"{WEIGHTS} does not fit config.json: .* every name begins with '{prefix}'"):
        UNet2dModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("names", [[], ["conv_in.weight", "conv_in.bias"], ["module.nonsense"]])
def test_names_that_are_only_missing_are_told_as_ever(names):
    with pytest.raises(ValueError, match="missing conv_out.bias"):
        tiny_model().load_state_dict({name: np.zeros(1, np.float32) for name in names})


def test_dropout_of_a_loaded_network(tmp_path):
    model, x = tiny_model(dropout=0.5), np.ones((2, 1, 5, 6), np.float32)
    model.save_pretrained(tmp_path / "m")
    first, again, other, unseeded = (
        UNet2dModel.from_pretrained(tmp_path / "m", generator=generator)
        for generator in (np.random.default_rng(0), 0, np.random.default_rng(1), None)
    )
    outputs = [loaded(x, 3, 1) for loaded in (first, again, other, unseeded)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2]) and not np.array_equal(outputs[0], outputs[3])
    for loaded in (first, unseeded):
        assert not any(isinstance(value, Blank) for module in loaded.modules() for value in vars(module).values())
    with pytest.raises(TypeError, match="^UNet2dModel.from_pretrained: generator must be a numpy.random.Generator or an int .*, got '0'$"):
        UNet2dModel.from_pretrained(tmp_path / "m", generator="0")


def test_other_peoples_files_are_safe(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "thesis.tex").write_text("years")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileExistsError, match=r"UNet2dModel.save_pretrained: .* holds unet/thesis.tex, which would be lost"):
        tiny_model().save_pretrained(tmp_path)
    assert (tmp_path / "unet" / "thesis.tex").read_text() == "years"
    with pytest.raises(NotADirectoryError, match="thesis.tex is a file, expected a folder"):
        tiny_model().save_pretrained(tmp_path / "unet" / "thesis.tex")
    assert (tmp_path / "unet" / "thesis.tex").read_text() == "years"


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    tiny_model(1).save_pretrained(tmp_path / "m")
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    written = []

    def full(path, arrays):
        written.append(path)
        if len(written) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))
        write_arrays(path, arrays)

    monkeypatch.setattr(hcrot.files.pretrained, "write_arrays", full)
    with pytest.raises(OSError, match="No space left"):
        tiny_model(2).save_pretrained(tmp_path / "m", max_shard_size=3000)
    assert len(written) == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before
    assert os.listdir(tmp_path) == ["m"]
