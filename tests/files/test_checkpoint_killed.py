"""Checkpoints and pipelines that are being saved when kill -9 comes, at every moment: the earlier one or the new one is there, whole.

Run as a script (``python tests/test_checkpoint_killed.py FOLDER STEP EVENT NAME``) it is the training run that the tests kill: it
kills itself while saving after STEP, when it is about to open (or to rename something to) a file called NAME.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hcrot import pipelines
from hcrot.pipelines.folder import load_model
from support.training_run import Run

KILLABLE = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


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


def whole_step(folder):
    """The one step that every file of the checkpoint is of; resuming and sampling must both find it."""
    steps = Run(seed=1).load(folder).steps()
    steps |= {value for array in load_model(folder).state_dict().values() for value in np.unique(array).tolist()}
    (step,) = steps
    return step


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
    run.fill(1)
    save(run, folder)
    outcomes = []
    for event_number in range(1, 500):
        run.fill(event_number + 1)

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
    run.fill(1)
    start = time.perf_counter()
    run.save(folder)
    duration, rng = time.perf_counter() - start, np.random.default_rng(0)

    def save_for_ever():
        for step in range(run.step + 1, 10**6):
            run.fill(step)
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
        if seen and run.step == seen[-1]:
            duration *= 1.5  # the machine has become busier
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
