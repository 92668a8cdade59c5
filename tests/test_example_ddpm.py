"""examples/mnist_ddpm.py end to end on the bundled digits: its files, stopping and resuming, and every bad thing a user does."""

import importlib
import importlib.util
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

from hcrot.data import DataUnavailable
from hcrot.models.digit_classifier import DigitClassifier
from hcrot.models.unet_2d import UNet2dModel
from hcrot.pipelines.folder import load_model
from hcrot.schedulers import DDPMScheduler
from support.ddpm_example import FILES, PICTURES, SCRIPT, SMALL, STEPS, TINY, lines, load_script, refusal, result

if os.name != "nt":
    import fcntl
    import pty
    import termios


@pytest.fixture
def script(monkeypatch, tmp_path):
    return load_script(monkeypatch, tmp_path)


# ---------------------------------------------------------------- what it does


def test_end_to_end(script, capsys, tmp_path):
    script.run("--dataset", "digits", *TINY, "--timestep-spacing", "linspace")
    folder = tmp_path / "runs" / "mnist_ddpm"
    assert sorted(os.listdir(folder)) == FILES
    assert os.listdir(tmp_path) == ["runs"]
    assert "40 images of 8x8" in capsys.readouterr().out
    assert [line["step"] for line in lines(folder)] == list(range(1, STEPS + 1))
    assert lines(folder)[-1]["epoch"] == 2 and all(0 < line["loss"] < 5 and line["grad_norm"] > 0 for line in lines(folder))
    options = json.loads((folder / "config.json").read_text())
    assert options["dataset"] == "digits" and options["channels"] == [4, 8] and options["seed"] == 0
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "denoising.gif").read_bytes().startswith(b"GIF89a")

    model = load_model(folder / "checkpoint")
    assert model.config["sample_size"] == 8 and model.config["block_out_channels"] == [4, 8]
    scheduler = DDPMScheduler.from_pretrained(folder / "checkpoint")
    scheduler.set_timesteps(800)
    assert scheduler.timesteps[0] == 999  # where there is nothing but noise: as in the experiment, see SEED
    before = result(folder)
    assert "already holds a run" in refusal(script, capsys, "--dataset", "digits", *TINY)
    assert result(folder) == before

    assert "choose another folder" in refusal(script, capsys, "--sample-only", folder / "checkpoint", "--output", folder)
    assert "does not go with --resume" in refusal(script, capsys, "--sample-only", folder / "checkpoint", "--resume")
    assert result(folder) == before

    script.run("--sample-only", folder / "checkpoint", "--inference-steps", 3)
    assert sorted(os.listdir("runs/mnist_ddpm_samples")) == PICTURES
    for name in PICTURES:
        assert (Path("runs/mnist_ddpm_samples") / name).read_bytes() == (folder / name).read_bytes()


def test_every_parameter_learns(script):
    script.run("--dataset", "digits", *TINY, "--ema-decay", 0, "--warmup", 0)
    model = load_model("runs/mnist_ddpm/checkpoint")
    start = UNet2dModel(**model.config, generator=np.random.default_rng(0)).state_dict()  # --seed 0
    for name, weights in model.state_dict().items():
        assert (weights != start[name]).mean() > 0.5, name


def test_the_average_draws(script):
    script.run("--dataset", "digits", *TINY, "--output", "a", "--ema-decay", 0.9)
    script.run("--dataset", "digits", *TINY, "--output", "b", "--ema-decay", 0)
    assert [line["loss"] for line in lines("a")] == [line["loss"] for line in lines("b")]
    averaged, plain = load_model("a/checkpoint").state_dict(), load_model("b/checkpoint").state_dict()
    assert any((averaged[name] != plain[name]).any() for name in plain)
    assert Path("a/samples.png").read_bytes() != Path("b/samples.png").read_bytes()


def test_without_mnist_it_trains_on_the_bundled_digits(script, capsys, monkeypatch):
    def no_network(*arguments):
        raise DataUnavailable("MNIST is not in the cache and could not be downloaded (no network)")

    monkeypatch.setattr(script, "load_mnist", no_network)
    script.run(*TINY)
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "MNIST is not in the cache and could not be downloaded (no network): training on the bundled 8x8 digits instead."
    assert second.startswith("40 images of 8x8")
    assert json.loads(Path("runs/mnist_ddpm/config.json").read_text())["dataset"] == "digits"
    script.run("--resume")  # it knows what it was trained on
    assert "no network" in refusal(script, capsys, "--preset", "seed", "--output", "other")


def test_mnist_from_a_folder(script, monkeypatch):
    def one_image(split, folder):
        assert (split, folder) == ("train", "somewhere")
        return np.full((70, 28, 28), 255, np.uint8), np.zeros(70, np.uint8)

    monkeypatch.setattr(script, "load_mnist", one_image)
    script.run(*TINY, "--data-dir", "somewhere", "--attention", 1, "--image-size", 7)
    model = load_model("runs/mnist_ddpm/checkpoint")
    assert model.config["sample_size"] == 7
    assert model.config["down_block_types"] == ["DownBlock2D", "AttnDownBlock2D"]
    assert model.config["up_block_types"] == ["AttnUpBlock2D", "UpBlock2D"]


def test_minutes(script):
    script.run("--dataset", "digits", *SMALL, "--minutes", 0.02)
    *all_but_last, last = lines("runs/mnist_ddpm")
    assert all(line["seconds"] < 1.2 for line in all_but_last)
    assert json.loads(Path("runs/mnist_ddpm/config.json").read_text())["epochs"] >= last["epoch"] - 1 / 3


def test_learning_rates(script):
    script.run("--dataset", "digits", *TINY, "--lr-schedule", "constant", "--lr-drop", 1, "--warmup", 0, "--lr", 0.01)
    assert [line["lr"] for line in lines("runs/mnist_ddpm")] == pytest.approx([0.01] * 3 + [0.001] * 3)


def test_the_experiment_it_started_from(script):
    expected = {
        "dataset": "mnist", "image_size": 14, "images": 5120, "batch_size": 512, "channels": [32, 64, 32], "groups": 32,
        "schedule": "squaredcos_cap_v2", "epochs": 41.0, "lr": 1e-3, "lr_schedule": "constant", "lr_drop": 25.0, "warmup": 0,
        "clip": 0.0, "ema_decay": 0.0, "inference_steps": 800, "timestep_spacing": "linspace",
    }  # fmt: skip
    assert script.SEED.items() >= expected.items()


def test_evaluate(script, capsys):
    message = refusal(script, capsys, "--dataset", "digits", *TINY, "--evaluate")
    assert "runs/mnist_cnn/checkpoint" in message and " examples/mnist_cnn.py --dataset digits --image-size 8" in message
    DigitClassifier(image_size=12, generator=np.random.default_rng(0)).save_pretrained("other")
    assert "reads images of 12x12" in refusal(script, capsys, "--dataset", "digits", *TINY, "--evaluate", "other")

    DigitClassifier(image_size=8, generator=np.random.default_rng(0)).save_pretrained("judge")
    script.run("--dataset", "digits", *TINY, "--evaluate", "judge")
    figures = json.loads(Path("runs/mnist_ddpm/evaluation.json").read_text())
    assert figures["label_agreement"] == pytest.approx(np.mean(figures["by_digit"])) and len(figures["by_digit"]) == 10
    assert figures["frechet_distance"] > 0
    assert "Label agreement" in capsys.readouterr().out


def test_help(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.run("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in [*importlib.import_module("mnist_ddpm_options").OPTIONS, "output", "preset", "resume", "sample_only", "evaluate"]:
        assert "--" + name.replace("_", "-") in text


# ---------------------------------------------------------------- stopping and resuming

STOPPED = """
import os, runpy, signal, sys
saves = 0

def stop_in_the_third_save(event, arguments):
    global saves
    if event == "open" and str(arguments[0]).endswith("training_state.json") and arguments[1] == "w":
        saves += 1
        if saves == 3:
            os.kill(os.getpid(), signal.{signal})

sys.addaudithook(stop_in_the_third_save)
sys.argv = {arguments!r}
sys.path.insert(0, os.path.dirname(sys.argv[0]))  # as when it is run
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize(("name", "code", "steps"), [("SIGINT", 130, 4), ("SIGTERM", 143, 4), ("SIGKILL", -9, 2)])
def test_stopped_and_resumed_bit_for_bit(script, tmp_path, name, code, steps):
    options = ["--dataset", "digits", *TINY]
    script.run(*options, "--output", "unbroken")

    arguments = [str(SCRIPT), *options, "--output", "stopped"]  # saves at the start, after step 2, after step 4
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.run(
        [sys.executable, "-c", STOPPED.format(signal=name, arguments=arguments)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert process.returncode == code, process.stderr
    assert "Traceback" not in process.stderr
    assert len(lines("stopped")) == 4  # after a kill these are more than the checkpoint knows of
    assert json.loads(Path("stopped/checkpoint/training_state.json").read_text())["progress"][0] == steps
    assert Path("stopped/.lock").exists() == (name == "SIGKILL")
    if name != "SIGKILL":
        assert "Stopped and saved after step 4 of 6" in process.stdout and "--resume --output stopped" in process.stdout

    with open("stopped/metrics.jsonl", "a") as file:
        file.write('{"step": 5, "lo')  # a line that a crash cut short
    script.run("--resume", "--output", "stopped")
    assert sorted(os.listdir("stopped")) == FILES
    assert result("stopped") == result("unbroken")


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_the_terminal_is_closed(tmp_path):
    """Writing to it fails from then on, and SIGHUP comes: the run is saved all the same."""
    arguments = [str(SCRIPT), "--dataset", "digits", *SMALL, "--epochs", "100000", "--output", str(tmp_path / "run")]
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # else it is ignored where the tests run under nohup
        os.environ["PYTHONPATH"] = str(SCRIPT.parents[1])
        os.execv(sys.executable, [sys.executable, *arguments])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # else there is no bar
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not metrics.exists() or not metrics.stat().st_size:
        assert os.read(terminal, 1000)  # the bar
    os.close(terminal)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    if ended[0] == 0:
        os.kill(child, signal.SIGKILL)
    assert ended[0] == child, "it goes on"
    assert os.waitstatus_to_exitcode(ended[1]) == 129
    steps = [line["step"] for line in lines(tmp_path / "run")]
    assert json.loads((tmp_path / "run/checkpoint/training_state.json").read_text())["progress"][0] == steps[-1] > 0


def test_without_a_console(script, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stderr", None)  # as in a windowed program
    monkeypatch.setattr(sys, "stdout", None)
    script.run("--dataset", "digits", *TINY)
    assert sorted(os.listdir("runs/mnist_ddpm")) == FILES


WAITING = """
import os, runpy, sys
import hcrot

def wait(*arguments, **named):
    print("training", flush=True)
    sys.stdin.read()
    return before(*arguments, **named)

before, hcrot.mse_loss = hcrot.mse_loss, wait
sys.argv = {arguments!r}
sys.path.insert(0, os.path.dirname(sys.argv[0]))  # as when it is run
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def waiting(arguments, **streams):
    """The script in a process of its own, which waits in its first step until its stdin ends."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", WAITING.format(arguments=arguments)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **streams)


def test_a_second_process_is_refused(script, capsys, tmp_path):
    """A run that is being trained is neither begun nor resumed by another process, until that one has ended."""
    options = ["--dataset", "digits", *TINY]
    with waiting([str(SCRIPT), *options, "--output", "run"]) as process:
        while process.stdout.readline() != "training\n":
            assert process.poll() is None
        files = sorted(os.listdir("run"))
        for started in (options, ["--resume"]):
            message = refusal(script, capsys, *started, "--output", "run")
            assert f"another process (pid {process.pid}) is writing this run: run" in message
        assert sorted(os.listdir("run")) == files
        process.kill()
    script.run("--resume", "--output", "run")  # the lock has ended with its process
    assert sorted(os.listdir("run")) == FILES
    assert [line["step"] for line in lines("run")] == list(range(1, STEPS + 1))


def test_two_that_resume_at_once(script, tmp_path):
    script.run("--dataset", "digits", *TINY, "--output", "run")
    arguments = [str(SCRIPT), "--resume", "--output", "run", "--epochs", "3"]
    both = [waiting(arguments, stderr=subprocess.PIPE) for _ in range(2)]
    while all(process.poll() is None for process in both):
        time.sleep(0.05)
    refused, other = sorted(both, key=lambda process: process.poll() is None)
    message = refused.communicate()[1]
    assert refused.returncode == 2
    assert message == f"mnist_ddpm.py: another process (pid {other.pid}) is writing this run: run\n"
    other.communicate(timeout=120)
    assert other.returncode == 0
    assert [line["step"] for line in lines("run")] == list(range(1, 10))


def test_resumed_for_longer(script, capsys):
    script.run("--dataset", "digits", *TINY)
    config = Path("runs/mnist_ddpm/config.json")
    earlier = {name: value for name, value in json.loads(config.read_text()).items() if name not in script.NEW}
    config.write_text(json.dumps(earlier))  # as earlier versions left it
    script.run("--resume", "--epochs", 3)
    assert json.loads(config.read_text()) == earlier | script.NEW | {"epochs": 3.0}
    assert [line["step"] for line in lines("runs/mnist_ddpm")] == list(range(1, 10))
    assert "batch_size, lr cannot be given anew" in refusal(script, capsys, "--resume", "--lr", 1, "--batch-size", 2)
