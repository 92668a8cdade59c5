"""Checkpoints: the files, round trips, resuming bit for bit, damage of every kind, and kill -9 at every moment.

Run as a script (``python tests/test_checkpoint.py FOLDER STEP EVENT NAME``) it is the training run that the tests kill: it
kills itself while saving after STEP, when it is about to open (or to rename something to) a file called NAME.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from hcrot import checkpoint, pipelines
from hcrot.checkpoint import load_checkpoint, load_model, save_checkpoint, save_model
from hcrot.data import Batches
from hcrot.ema import EMA
from hcrot.files import read_arrays, write_arrays
from hcrot.losses import mse_loss
from hcrot.lr_schedules import get_scheduler
from hcrot.optim import AdamW, clip_grad_norm
from hcrot.schedulers import DDPMScheduler
from support.small_unets import tiny_model

FILES = [
    "config.json",
    "diffusion_pytorch_model.safetensors",
    "scheduler_config.json",
    "training_state.json",
    "training_state.safetensors",
]
KILLABLE = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


class Run:
    """A whole training run in small; ``seed`` decides everything that a checkpoint must bring back."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.model = tiny_model(seed)
        self.scheduler = DDPMScheduler(num_train_timesteps=20, beta_schedule="squaredcos_cap_v2")
        self.optimizer = AdamW(self.model.parameters(), lr=1e-2)
        self.ema = EMA(self.model.parameters(), decay=0.9)
        images = np.random.default_rng(7).uniform(-1, 1, (7, 1, 5, 6)).astype(np.float32)
        self.batches = Batches(images, np.arange(7) % 3, batch_size=3, generator=rng)
        self.state = {
            "optimizer": self.optimizer,
            "schedule": get_scheduler("cosine", self.optimizer, 2, 12),
            "batches": self.batches,
            "rng": rng,
        }
        self.step, self.losses = 0, []

    def train(self, steps, after_each=lambda: None):
        while self.step < steps:
            for images, labels in self.batches:
                noise = self.state["rng"].standard_normal(images.shape, dtype=np.float32)
                t = self.state["rng"].integers(20, size=len(images))
                prediction = self.model(self.scheduler.add_noise(images, noise, t), t, labels)
                loss, dout = mse_loss(prediction, noise)
                self.model.backward(dout)
                clip_grad_norm(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.state["schedule"].step()
                self.ema.step()
                self.optimizer.zero_grad()
                self.step += 1
                self.losses.append(loss)
                after_each()
                if self.step == steps:
                    break
        return self

    def save(self, folder):
        progress = {"step": self.step, "losses": self.losses}
        save_checkpoint(folder, self.model, self.scheduler, ema=self.ema, state=self.state, progress=progress)

    def load(self, folder):
        progress = load_checkpoint(folder, self.model, ema=self.ema, state=self.state)
        self.step, self.losses = progress["step"], progress["losses"]
        return self

    def everything(self):
        """Every number that the run will depend on, as bytes."""
        parts = {"model": self.model, "ema": self.ema} | {name: part for name, part in self.state.items() if name != "rng"}
        numbers = {f"{name}.{key}": np.asarray(value).tobytes() for name, part in parts.items() for key, value in part.state_dict().items()}
        return numbers | {"rng": repr(self.state["rng"].bit_generator.state), "losses": self.losses, "step": self.step}


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
        arrays = safetensors.numpy.load_file(folder / name)
        change(arrays)
        write_arrays(folder / name, arrays)

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

    def full(path, arrays):
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


# ---------------------------------------------------------------- kill -9


def kill_myself_at(event_number):
    """Have this process killed just before its ``event_number``-th operation on the file system from now, as Python audits them."""
    count = 0

    def hook(event, arguments):
        nonlocal count
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "shutil.rmtree"):
            count += 1
            if count == event_number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def in_a_fork(work):
    """The exit status of a forked process that does ``work()``: 0, or -9 if it was killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fill(run, step):
    """Make ``step`` every number in the run, so that a checkpoint of mixed parts shows."""
    for parameter, average, *moments in zip(run.model.parameters(), run.ema.averages, *run.optimizer.state.values(), strict=True):
        for array in (parameter.data, average, *moments):
            array.fill(step)
    run.optimizer.step_count = run.ema.step_count = run.step = step


def whole_step(folder):
    """The one step that every file of the checkpoint is of; resuming and sampling must both find it."""
    run = Run(seed=1).load(folder)
    steps = {run.step, run.optimizer.step_count, run.ema.step_count}
    for module in (run.model, load_model(folder)):
        steps |= {value for array in module.state_dict().values() for value in np.unique(array).tolist()}
    steps |= {value for arrays in run.optimizer.state.values() for array in arrays for value in np.unique(array).tolist()}
    assert len(steps) == 1
    return steps.pop()


def save_pipeline(run, folder):
    pipelines.save(folder, run.model, run.scheduler, max_shard_size="10KB")


def whole_pipeline(folder):
    """The one step that every shard of the pipeline is of."""
    model, scheduler = pipelines.load(folder)
    (step,) = {value for array in model.state_dict().values() for value in np.unique(array).tolist()}
    assert len(scheduler) == 20
    return step


@KILLABLE
@pytest.mark.parametrize(("save", "whole"), [(Run.save, whole_step), (save_pipeline, whole_pipeline)])
def test_killed_before_any_operation_of_a_save(tmp_path, save, whole):
    folder, run = tmp_path / "c", Run()
    fill(run, 1)
    save(run, folder)
    outcomes = []
    for event_number in range(1, 500):
        fill(run, event_number + 1)

        def killed_while_saving(event_number=event_number):
            kill_myself_at(event_number)
            save(run, folder)

        last = whole(folder)
        status = in_a_fork(killed_while_saving)
        assert status in (0, -9)
        found = whole(folder)
        assert found in (last, event_number + 1)
        outcomes.append(found == last)
        if status == 0:
            break
    assert status == 0 and len(outcomes) > 20  # it went through a whole save, operation by operation
    assert True in outcomes and outcomes[-1] is False
    assert os.listdir(tmp_path) == ["c"]  # and the last one, which was not killed, has cleared away what the others left


@KILLABLE
def test_killed_at_random_moments(tmp_path):
    folder, run = tmp_path / "c", Run()
    fill(run, 1)
    start = time.perf_counter()
    run.save(folder)
    duration, rng = time.perf_counter() - start, np.random.default_rng(0)

    def save_for_ever():
        for step in range(run.step + 1, 10**6):
            fill(run, step)
            run.save(folder)

    seen = []
    for _ in range(20):
        child = os.fork()
        if child == 0:
            try:
                save_for_ever()
            finally:
                os._exit(1)
        time.sleep(duration * rng.uniform(1, 4))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
        run.step = int(whole_step(folder))
        seen.append(run.step)
    assert seen == sorted(seen) and len(set(seen)) > 3


@KILLABLE
@pytest.mark.parametrize(("event", "name"), [("open", "training_state.json"), ("os.rename", "c")])
def test_training_killed_while_saving_resumes_bit_for_bit(tmp_path, event, name):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, __file__, str(tmp_path / "c"), "5", event, name]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert process.returncode == -9, process.stderr
    assert (tmp_path / "c").exists() == (event == "open")  # the second is the moment at which nothing has that name
    resumed = Run(seed=5).load(tmp_path / "c")
    assert resumed.step == 4
    resumed.train(9).save(tmp_path / "c")
    assert os.listdir(tmp_path) == ["c"]
    assert resumed.everything() == Run().train(9).everything()


if __name__ == "__main__":
    target, last_step, event_name, file_name = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
    training = Run()

    def kill(event, arguments):
        if training.step == last_step and event == event_name and Path(arguments[event == "os.rename"]).name == file_name:
            os.kill(os.getpid(), signal.SIGKILL)

    def save():
        training.save(target)

    sys.addaudithook(kill)

    training.train(9, after_each=save)
