"""Checkpoints: the files, round trips, resuming bit for bit, damage of every kind."""

import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from hcrot.files import checkpoint
from hcrot.files.checkpoint import load_checkpoint, save_checkpoint
from hcrot.files.json_and_arrays import read_arrays, read_arrays_and_metadata, write_arrays
from hcrot.models.unet_2d import UNet2dModel
from hcrot.module import Module, Parameter
from hcrot.pipelines.folder import load_model, save_model
from hcrot.schedulers import DDPMScheduler
from hcrot.training.ema import EMA
from hcrot.training.losses import mse_loss
from hcrot.training.optim import SGD
from support.module_cases import CASES, Use
from support.small_unets import tiny_model
from support.training_run import Run

FILES = [
    "config.json",
    "diffusion_pytorch_model.safetensors",
    "scheduler_config.json",
    "training_state.json",
    "training_state.safetensors",
]


# ---------------------------------------------------------------- the files


def test_files(tmp_path):
    run = Run().train(2)
    run.save(tmp_path / "runs" / "checkpoint")
    folder = tmp_path / "runs" / "checkpoint"
    assert sorted(os.listdir(folder)) == FILES
    assert os.listdir(tmp_path / "runs") == ["checkpoint"]
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # none hidden from other users

    text = (folder / "config.json").read_text()
    config = json.loads(text)
    assert text == json.dumps(config, indent=2, sort_keys=True) + "\n"
    assert config.pop("_class_name") == "UNet2DModel" and config.pop("_diffusers_version") == "0.42.1"
    assert config == run.model.config and config["sample_size"] == [5, 6]
    assert DDPMScheduler.from_pretrained(folder).config == run.scheduler.config

    with run.ema.swapped_in():
        expected = run.model.state_dict()
    contents = (folder / "diffusion_pytorch_model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", contents[:8])
    header = json.loads(contents[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert header.keys() == expected.keys()
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        array = np.frombuffer(contents[8 + length + start : 8 + length + stop], "<f4").reshape(entry["shape"])
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_memory_order_does_not_matter(tmp_path):
    array = np.arange(24.0).reshape(2, 3, 4)
    write_arrays(tmp_path / "a.safetensors", {"t": array.transpose(2, 0, 1), "s": array[:, ::2], "0": np.float32(3)})
    loaded = read_arrays(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(loaded["t"], array.transpose(2, 0, 1))
    np.testing.assert_array_equal(loaded["s"], array[:, ::2])
    assert loaded["0"].shape == () and loaded["0"].dtype == np.float32


def test_equal_runs_make_equal_files(tmp_path):
    for number in range(8):
        Run().save(tmp_path / str(number))
    for name in FILES:
        assert len({(tmp_path / str(number) / name).read_bytes() for number in range(8)}) == 1, name


def test_model_for_sampling_only(tmp_path):
    model = tiny_model(1)
    save_model(model, tmp_path / "model")
    assert sorted(os.listdir(tmp_path / "model")) == FILES[:2]
    loaded = load_model(tmp_path / "model")
    assert loaded.config == model.config
    x, t, labels = np.random.default_rng(0).normal(size=(2, 1, 5, 6)).astype(np.float32), np.array([3, 9]), np.array([2, 0])
    np.testing.assert_array_equal(loaded(x, t, labels), model(x, t, labels))
    with pytest.raises(FileNotFoundError, match="there is no file .*training_state.json"):
        load_checkpoint(tmp_path / "model", model, state={})


# ---------------------------------------------------------------- resuming


def test_resume_bit_for_bit(tmp_path):
    unbroken = Run().train(11).everything()
    Run().train(4).save(tmp_path / "c")  # in the middle of the second epoch
    assert Run(seed=5).load(tmp_path / "c").train(11).everything() == unbroken
    assert Run(seed=5).train(11).everything() != unbroken


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_every_kind_of_generator(tmp_path, kind):
    def generator(seed):
        return np.random.Generator(getattr(np.random, kind)(seed))

    ours, model = generator(1), tiny_model()
    ours.integers(9, size=3, dtype=np.uint32)  # leaves half a number in the generator
    save_checkpoint(tmp_path / "c", model, state={"rng": ours})
    other = generator(2)
    load_checkpoint(tmp_path / "c", model, state={"rng": other})
    np.testing.assert_array_equal(ours.integers(2**32, size=9, dtype=np.uint32), other.integers(2**32, size=9, dtype=np.uint32))


def damage_json(change):
    def damage(folder):
        content = json.loads((folder / FILES[3]).read_text())
        change(content)
        (folder / FILES[3]).write_text(json.dumps(content))

    return damage


def damage_arrays(name, change):
    def damage(folder):
        arrays, metadata = read_arrays_and_metadata(folder / name)
        change(arrays)
        (about,) = metadata.items()
        write_arrays(folder / name, arrays, about)

    return damage


TRAINING_STATE_DAMAGE = {
    "no object": (lambda folder: (folder / FILES[3]).write_text("[]"), "training_state.json"),
    "not JSON": (lambda folder: (folder / FILES[3]).write_text('{"progress": '), "training_state.json"),
    "no state": (damage_json(lambda c: c.pop("state")), "training_state.json"),
    "state of a part is no object": (damage_json(lambda c: c["state"].update(rng=3)), "training_state.json"),
    "missing part": (damage_json(lambda c: c["state"].pop("rng")), r"holds the state of \[.*\], expected \[.*'rng'"),
    "unexpected part": (damage_json(lambda c: c["state"].update(more={})), "'more'"),
    "generator of another kind": (damage_json(lambda c: c["state"]["rng"].update(bit_generator="MT19937")), "rng"),
    "generator without its numbers": (damage_json(lambda c: c["state"]["rng"].pop("state")), "rng"),
    "batches of other data": (damage_json(lambda c: c["state"]["batches"].update(count=8)), "batches: .* 8"),
    "missing moment": (damage_arrays(FILES[4], lambda a: a.pop("optimizer.v.3")), r"optimizer: .* missing v\.3"),
    "misshaped moment": (damage_arrays(FILES[4], lambda a: a.update({"optimizer.m.0": np.zeros(2)})), r"optimizer: .* m\.0"),
    "missing average": (damage_arrays(FILES[4], lambda a: a.pop("ema.average.0")), r"ema: .* missing average\.0"),
    "missing weight": (damage_arrays(FILES[4], lambda a: a.pop("model.conv_in.bias")), "model: .* missing conv_in.bias"),
    "truncated": (lambda folder: os.truncate(folder / FILES[4], 1000), "training_state.safetensors"),
}


@pytest.mark.parametrize("kind", TRAINING_STATE_DAMAGE)
def test_damaged_training_state(tmp_path, kind):
    damage, message = TRAINING_STATE_DAMAGE[kind]
    Run().train(2).save(tmp_path / "c")
    damage(tmp_path / "c")
    run = Run(seed=1).train(1)
    before = run.everything()
    with pytest.raises(ValueError, match=message):
        run.load(tmp_path / "c")
    assert run.everything() == before


def test_files_of_two_saves_are_not_mixed(tmp_path):
    run = Run().train(1)
    run.save(tmp_path / "c")
    run.train(2).save(tmp_path / "d")
    before = run.everything()
    for name in FILES[3:]:
        shutil.copytree(tmp_path / "c", tmp_path / name)
        shutil.copy(tmp_path / "d" / name, tmp_path / name / name)
        with pytest.raises(ValueError, match=r"training_state.json and training_state.safetensors in .* are of two different saves"):
            run.load(tmp_path / name)
    assert run.everything() == before
    damage_json(lambda content: content.pop("save_id"))(tmp_path / "d")
    with pytest.raises(ValueError, match="two different saves .*None"):
        run.load(tmp_path / "d")


def test_a_checkpoint_of_earlier_versions(tmp_path):
    run = Run().train(2)
    run.save(tmp_path / "c")
    damage_json(lambda content: content.pop("save_id"))(tmp_path / "c")
    write_arrays(tmp_path / "c" / FILES[4], read_arrays(tmp_path / "c" / FILES[4]))
    assert Run(seed=1).load(tmp_path / "c").everything() == run.everything()


def test_without_the_average_it_had(tmp_path):
    run = Run()
    run.save(tmp_path / "c")
    with pytest.raises(ValueError, match="holds the state of .*'ema'"):
        load_checkpoint(tmp_path / "c", run.model, state=run.state)


# ---------------------------------------------------------------- bad input


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="load_checkpoint: there is no folder .*nowhere"):
        load_checkpoint(tmp_path / "nowhere", tiny_model(), state={})
    (tmp_path / "run.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match="load_checkpoint: .*run.ckpt is a pickle, .* never opened, expected a folder"):
        load_checkpoint(tmp_path / "run.ckpt", tiny_model(), state={})


def test_other_peoples_files_are_safe(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(FileExistsError, match="thesis.tex"):
        save_checkpoint(tmp_path, tiny_model())
    Run().save(tmp_path / "c")
    with pytest.raises(FileExistsError, match="training_state.json, training_state.safetensors"):
        save_checkpoint(tmp_path / "c", tiny_model(), DDPMScheduler())
    assert sorted(os.listdir(tmp_path)) == ["c", "thesis.tex"]
    (tmp_path / "a file").write_text("")
    with pytest.raises(NotADirectoryError, match="a file"):
        save_checkpoint(tmp_path / "a file", tiny_model())
    with pytest.raises(OSError, match="a file"):
        save_checkpoint(tmp_path / "a file" / "c", tiny_model())


@pytest.mark.parametrize(
    ("state", "progress", "error", "message"),
    [
        ({"rng": 3}, None, TypeError, "'rng' must be a Generator or have a state_dict, got int"),
        ({"a.b": np.random.default_rng(0)}, None, ValueError, "'a.b'"),
        ({"model": np.random.default_rng(0)}, None, ValueError, "'model'"),
        ({}, {"step": {1, 2}}, TypeError, "of type set cannot be kept in JSON"),
    ],
)
def test_states_that_cannot_be_kept(tmp_path, state, progress, error, message):
    with pytest.raises(error, match=message):
        save_checkpoint(tmp_path / "c", tiny_model(), state=state, progress=progress)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    run = Run()
    run.save(tmp_path / "c")
    before = {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}
    run.train(1)

    def full(path, arrays, about=None):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "write_arrays", full)
    with pytest.raises(OSError, match="No space left"):
        run.save(tmp_path / "c")
    assert {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()} == before
    assert os.listdir(tmp_path) == ["c"]


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "big disk").mkdir()
    (tmp_path / "c").symlink_to(tmp_path / "big disk" / "c")
    for seed in (0, 1):
        save_checkpoint(tmp_path / "c", tiny_model(seed))
    assert (tmp_path / "c").is_symlink() and os.listdir(tmp_path / "big disk") == ["c"]
    np.testing.assert_array_equal(load_model(tmp_path / "c").conv_in.weight.data, tiny_model(1).conv_in.weight.data)


# ---------------------------------------------------------------- generators of the network's own


def dropping(seed):
    """A U-Net with dropout, and its optimizer."""
    model = UNet2dModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(4, 8), norm_num_groups=2, layers_per_block=1, dropout=0.5,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, generator=np.random.default_rng(seed),
    )  # fmt: skip
    return model, SGD(model.parameters(), lr=0.1)


def take_steps(model, optimizer, count):
    x, losses = np.random.default_rng(0).standard_normal((3, 1, 8, 8), dtype=np.float32), []
    for _ in range(count):
        loss, dout = mse_loss(model(x, 3), x)
        model.backward(dout)
        optimizer.step(zero_grad=True)
        losses.append(loss)
    return losses


def test_a_network_with_dropout_resumes_bit_for_bit(tmp_path):
    """The generator of Dropout was in no checkpoint: the losses went on 0.669, 1.117 where they had been 0.464, 1.219."""
    model, optimizer = dropping(1)
    take_steps(model, optimizer, 1)
    save_checkpoint(tmp_path / "checkpoint", model, state={"optimizer": optimizer})
    expected = take_steps(model, optimizer, 2)
    other, other_optimizer = dropping(2)
    load_checkpoint(tmp_path / "checkpoint", other, state={"optimizer": other_optimizer})
    assert take_steps(other, other_optimizer, 2) == expected


def test_a_checkpoint_of_before_the_generators_loads_with_a_warning(tmp_path):
    model, optimizer = dropping(1)
    save_checkpoint(tmp_path / "checkpoint", model, state={"optimizer": optimizer})
    path = tmp_path / "checkpoint" / "training_state.json"
    content = json.loads(path.read_text())
    del content["state"]["model.generators"]
    path.write_text(json.dumps(content))
    other, other_optimizer = dropping(2)
    with pytest.warns(UserWarning, match=r"holds no state of the network's generators \(down_blocks.0.resnets.0.dropout.generator"):
        load_checkpoint(tmp_path / "checkpoint", other, state={"optimizer": other_optimizer})
    np.testing.assert_array_equal(other.conv_in.weight.data, model.conv_in.weight.data)


def test_generators_of_another_network_are_refused_and_nothing_changes(tmp_path):
    model, optimizer = dropping(1)
    save_checkpoint(tmp_path / "checkpoint", model, state={"optimizer": optimizer})
    path = tmp_path / "checkpoint" / "training_state.json"
    content = json.loads(path.read_text())
    content["state"]["model.generators"] = {"another": {}}
    path.write_text(json.dumps(content))
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"does not fit this run's model.generators: the generators are \['another'\], expected \['down"):
        load_checkpoint(tmp_path / "checkpoint", model, state={"optimizer": optimizer})
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_generator_that_several_modules_share_stays_shared(tmp_path):
    model, optimizer = dropping(1)
    shared = {id(generator) for _, generator in model.named_generators()}
    assert len(shared) == 1 < len(list(model.named_generators()))
    save_checkpoint(tmp_path / "checkpoint", model, state={"optimizer": optimizer})
    content = json.loads((tmp_path / "checkpoint" / "training_state.json").read_text())
    assert list(content["state"]["model.generators"]) == ["down_blocks.0.resnets.0.dropout.generator"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_state_that_a_module_owns_is_saved(case):
    """After training, what differs from a module as it was made is parameters and generators, and a checkpoint has both."""
    use = Use(case)
    made = {f"{path}.{name}": repr(value) for path, part in use.module.named_modules() for name, value in vars(part).items()}
    use.forward()
    if use.has_backward:
        use.backward()
    for path, part in use.module.named_modules():
        for name, value in vars(part).items():
            if not isinstance(value, (Parameter, Module, np.random.Generator, list)) and name != "_kept":
                assert repr(value) == made[f"{path}.{name}"], f"{path}.{name}"
    assert {id(g) for _, g in use.module.named_generators()} == {id(g) for g in use.generators}


def test_averages_in_the_place_of_the_weights_are_not_saved_as_the_weights(tmp_path):
    """It was refused for ``ema=``, and silent for an average in ``state``."""
    model, optimizer = dropping(1)
    ema = EMA(model.parameters())
    with ema.swapped_in():
        for arguments in ({"ema": ema, "state": {}}, {"state": {"average": ema}}):
            with pytest.raises(RuntimeError, match="the averages are swapped in"):
                save_checkpoint(tmp_path / "checkpoint", model, **arguments)
    assert not (tmp_path / "checkpoint").exists()
