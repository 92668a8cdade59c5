"""The command line as a program of its own: the installed script, and the signals that a user or a batch system sends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import hcrot
from hcrot.commands import COMMANDS
from support.commands import call

ROOT = Path(__file__).parents[2]
HERE = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
SCRIPT = Path(sys.executable).parent / ("hcrot.exe" if os.name == "nt" else "hcrot")
TINY = ["--channels", 8, 8, "--layers-per-block", 1, "--train-batch-size", 8, "--inference-steps", 2, "--attention", "--dropout", 0.1]
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


@pytest.mark.skipif(not SCRIPT.exists(), reason="hcrot is not installed beside this Python (pip install -e .)")
def test_the_installed_script(tmp_path):
    blocks = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "block_out_channels": [8], "norm_num_groups": 2}
    hcrot.save_checkpoint(tmp_path / "net", hcrot.UNet2dModel(8, 1, 1, **blocks), hcrot.DDPMScheduler())
    for words, expected in ((["--help"], list(COMMANDS)), (["info", "net"], ["UNet2dModel"])):
        ended = subprocess.run([SCRIPT, *words], env=HERE, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0 and all(word in ended.stdout for word in expected), ended.stderr


@pytest.fixture
def threads():
    before = hcrot.get_num_threads()
    yield
    hcrot.set_num_threads(before)


def not_ignored():
    """The tests may run under nohup, or in the background of a shell: what is ignored there would be in the programs that they start."""
    for name in SIGNALS:
        signal.signal(signal.Signals[name], signal.SIG_DFL)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_run_stopped_by_a_signal_goes_on_as_if_it_had_not_been(tmp_path, threads, capsys):
    words = ["train", "digits", *TINY, "--threads", 1, "--num-epochs", 0.25]
    running = {}
    for name in SIGNALS:
        command = [sys.executable, "-m", "hcrot", *map(str, words), "--output", name]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running[name] = subprocess.Popen(command, env=HERE, cwd=tmp_path, preexec_fn=not_ignored, **pipes)  # noqa: PLW1509
    for name, process in running.items():
        deadline, metrics = time.monotonic() + 240, tmp_path / name / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.Signals[name])
    for name, process in running.items():
        out, err = process.communicate(timeout=240)
        assert process.returncode == SIGNALS[name] and "Traceback" not in err, err
        done = len((tmp_path / name / "metrics.jsonl").read_text().splitlines())
        assert f"Stopped and saved after step {done} of 54. To go on: hcrot train digits --output {name} --resume" in out

        saved = json.loads((tmp_path / name / "checkpoint" / "training_state.json").read_text())
        assert saved["progress"]["step"] == done

    assert call(*words, "--output", tmp_path / "whole") == 0
    assert call("train", "digits", "--output", tmp_path / name, "--resume") == 0
    whole, other = (hcrot.load_model(tmp_path / folder / "checkpoint").state_dict() for folder in ("whole", name))
    for key, array in whole.items():
        np.testing.assert_array_equal(array, other[key], err_msg=key)
