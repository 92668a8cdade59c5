"""Jobs of several ranks, started by mpiexec, compute bit for bit what one process does; and what happens when a rank dies."""

import importlib
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import hcrot
from hcrot.training.distributed import Ranks
from hcrot.training.gradient_parts import GradientParts, told_of_backward
from support import ddpm_example, processes
from support.commands import call
from support.ranks import FEWER, MPIEXEC, finish, numbers_of, start, train

needs_mpi = pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec: pip install hcrot[mpi]")
TINY = ["--channels", 8, 8, "--layers-per-block", 1, "--train-batch-size", 8, "--inference-steps", 2, "--attention", "--dropout", 0.1,
        "--threads", 1, "--checkpointing-steps", 4]  # fmt: skip
STEPS = 3


@pytest.fixture
def one_thread():
    before = hcrot.get_num_threads()
    hcrot.set_num_threads(1)
    yield
    hcrot.set_num_threads(before)


def outcome(folder):
    """Losses and norms, and the bytes of the weights and of the state."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    arrays = {path.name: path.read_bytes() for path in (folder / "checkpoint").glob("*.safetensors")}
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines], arrays


@needs_mpi
def test_ranks_compute_what_one_process_does(one_thread):
    expected, of_fewer_parts = train(Ranks()), [train(Ranks(), count) for count in FEWER]
    jobs = {size: start(size, Path(train.__code__.co_filename)) for size in (2, 3)}
    for size, job in jobs.items():
        code, out, err = finish(job)
        assert code == 0, err
        found = json.loads(out)  # one line: only rank 0 prints
        assert found["steps"] == expected["steps"] and found["weights"] == expected["weights"], size
        assert (found["before"], found["agreed"], found["size"]) == (7, 143, size)
        assert size == 2 or "these numbers of rank 2 differ" in found["drifted"]
        assert size == 2 or found["fewer_parts"] == of_fewer_parts


@needs_mpi
@pytest.mark.parametrize(("sizes", "parts", "victim"), [((3, 2, 1), 3, 2), ((1, 3, 3), 2, 0)])
def test_a_run_goes_on_with_more_or_fewer_ranks_also_after_one_was_killed(tmp_path, sizes, parts, victim):
    """Of three jobs, one after the other, one is stopped, one loses a rank by kill -9, and the last one comes to the end."""
    words = ["-m", "hcrot", "train", "digits", *TINY, "--gradient-accumulation-steps", parts, "--num-epochs", 0.2 * parts, "--output"]
    whole = start(1, *words, "whole", cwd=tmp_path)
    again, metrics = ["-m", "hcrot", "train", "digits", "--resume", "--output", "broken"], tmp_path / "broken/metrics.jsonl"
    for number, size in enumerate(sizes[:2]):
        job = start(size, *(again if number else [*words, "broken"]), cwd=tmp_path)
        wait_for_lines(job, metrics, 6 * (number + 1))
        if size == 3:
            os.kill(numbers_of(job)[victim], signal.SIGKILL)
        else:
            job.send_signal(signal.SIGTERM)  # to mpiexec, if there is one, which tells all
        start_of_end = time.monotonic()
        code, out, err = finish(job)
        assert time.monotonic() - start_of_end < 10
        if size == 3:
            assert code != 0 and "Killed" in out + err
            assert not [path for path in (tmp_path / "broken").rglob(".*") if path.name != ".lock"]  # nothing half-written
        else:
            assert code == 143 and f"{'mpiexec -n 2 ' * (size == 2)}hcrot train digits" in out, err
    code, out, err = finish(start(sizes[2], *again, cwd=tmp_path))
    assert code == 0, err
    idle = "has 2 parts: 1 of the 3 processes has nothing of their own to do. A new run can have more parts: --gradient-accumulation-steps."
    assert out.count(idle) == (sizes[2] > parts)
    assert finish(whole)[0] == 0 and outcome(tmp_path / "whole") == outcome(tmp_path / "broken")


@needs_mpi
def test_a_drawing_job_is_killed_and_goes_on(tmp_path, one_thread):
    blocks = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "block_out_channels": (8, 8)}
    model = hcrot.UNet2dModel(8, 1, 1, **blocks, layers_per_block=1, norm_num_groups=2, num_class_embeds=3, generator=0)
    hcrot.save_checkpoint(tmp_path / "net", model, hcrot.DDPMScheduler())
    words = ["net", "--count", 178, "--shard-size", 3, "--batch-size", 2, "--steps", 5, "--threads", 1, "--output"]
    jobs = {name: start(2, "-m", "hcrot", "sample", *words, name, cwd=tmp_path) for name in ("whole", "broken")}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    wait_until(jobs["broken"], lambda: len(list(broken.glob("pictures-*.npz"))) > 1)
    os.kill(numbers_of(jobs["broken"])[0], signal.SIGKILL)
    assert finish(jobs["broken"])[0] != 0
    code, out, err = finish(jobs["whole"])
    assert code == 0 and "178 pictures in 60 shards in whole/, 178 of them drawn now" in out, err

    before = {path: path.stat().st_mtime_ns for path in broken.glob("pictures-*.npz")}
    assert 1 < len(before) < 60
    assert draw_on(tmp_path, *words, broken) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    files = {path.name: path.read_bytes() for path in whole.iterdir()}
    assert {path.name: path.read_bytes() for path in broken.iterdir()} == files
    assert len(files) == 60 and np.load(whole / "pictures-000000003.npz")["labels"].tolist() == [0, 1, 2]
    assert draw_on(tmp_path, *words, broken, "--seed", 1) == 2
    assert draw_on(tmp_path, *words, broken / "a.png") == 2


def draw_on(folder, checkpoint, *words):
    """By this process alone."""
    return call("sample", folder / checkpoint, *words)


LEAVING = """
import os, signal, sys, threading, time
from hcrot.tools.stopping import end_on_signals
from hcrot.training.distributed import job
end_on_signals()
with job() as ranks:
    ranks.wait()
    if ranks.rank == 1:
        print("at", time.time(), file=sys.stderr)
        if "signal" in sys.argv:
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        if "error" in sys.argv:
            raise ValueError("it has had enough")
    elif "error" in sys.argv:
        ranks.wait()
    else:
        time.sleep(60)
"""


@needs_mpi
def test_one_rank_ends_and_takes_the_others_along():
    """By an error; by a signal while it waits for the others, at the end or because it has failed."""
    cases = [(3, ["error"], 2), (2, ["signal"], 143), (2, ["error", "signal"], 2)]
    for job, (_, how, expected) in [(start(case[0], "-c", LEAVING, *case[1]), case) for case in cases]:
        code, _, err = finish(job)
        since = time.time() - float(err.partition("at ")[2].split()[0])
        assert code == expected and since < 10, err
        assert how != ["error"] or "ValueError: it has had enough" in err


@needs_mpi
def test_what_all_ranks_refuse_is_said_once(tmp_path):
    (tmp_path / "digits" / "checkpoint").mkdir(parents=True)
    alone = start(2, ddpm_example.SCRIPT.parent / "train_images.py", "digits", cwd=tmp_path)
    held = start(2, "-m", "hcrot", "train", "digits", "--output", "digits", cwd=tmp_path)
    drawing = start(2, "-m", "hcrot", "sample", "digits", "--json", cwd=tmp_path)
    code, _, err = finish(alone)
    assert code == 2 and err.count("2 processes, which would all do the same: use hcrot train") == 1
    code, out, err = finish(drawing)
    assert code == 2 and out == "" and err.count("2 processes, which would all do the same: several share the work of") == 1
    code, _, err = finish(held)
    assert code == 2 and err.count("already holds a run") == 1


@needs_mpi
def test_the_example_trains_with_two_ranks(tmp_path):
    words = [ddpm_example.SCRIPT, "--dataset", "digits", *ddpm_example.SMALL, "--epochs", 1, "--threads", 1, "--parts", 2, "--output"]
    jobs = [start(size, *words, f"of-{size}", cwd=tmp_path) for size in (1, 2)]
    for job in jobs:
        code, out, err = finish(job)
        assert code == 0 and out.count("Everything is in") == 1, err
    assert outcome(tmp_path / "of-1") == outcome(tmp_path / "of-2")
    assert sorted(os.listdir(tmp_path / "of-2")) == ddpm_example.FILES


def wait_for_lines(process, path, count):
    wait_until(process, lambda: path.exists() and path.read_text().count("\n") >= count)


def wait_until(process, condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, finish(process)
        time.sleep(0.01)


def test_a_signal_that_comes_while_the_ranks_ask_each_other_is_not_lost():
    """Found by a closed terminal whose SIGHUP came just there: it was noted, then overwritten, and the run went on."""

    class Interrupted(Ranks):
        def gather(self, array):
            everyone = super().gather(array)
            stop.exit_code = 129
            return everyone

    stop = SimpleNamespace(exit_code=0)
    Interrupted().agree(stop)
    assert stop.exit_code == 129
    assert Ranks().agree(stop) and stop.exit_code == 129
    stop.exit_code = 0
    assert not Ranks().agree(stop) and stop.exit_code == 0


def test_a_signal_of_another_rank_after_the_last_step_stops_this_one_too(tmp_path, monkeypatch, capsys, one_thread):
    """Else the one would end alone, and the job be aborted while this one draws."""

    class Asked(Ranks):
        calls = 0

        def gather(self, array):
            everyone = super().gather(array)
            if array.dtype == np.int64:  # what `agree` asks
                self.calls += 1
                if self.calls == 1 + STEPS:
                    return everyone + 143
            return everyone

    monkeypatch.setattr("hcrot.training.distributed.Ranks", Asked)
    assert call("train", "digits", *TINY, "--num-epochs", STEPS / 214, "--output", tmp_path / "run") == 143
    assert f"Stopped and saved after step {STEPS} of {STEPS}." in capsys.readouterr().out
    assert not (tmp_path / "run" / "samples.png").exists()


def test_without_mpiexec_mpi4py_is_not_imported_and_with_it_it_is_missed():
    script = """
        import sys
        from hcrot.training.distributed import job
        with job() as ranks:
            assert (ranks.rank, ranks.size, ranks.first) == (0, 1, True) and "mpi4py" not in sys.modules
        import os
        os.environ["PMI_RANK"], sys.modules["mpi4py"] = "0", None
        with job() as ranks:
            pass
    """
    ended = processes.run(script)
    assert ended.returncode == 1 and 'needs mpi4py: pip install "hcrot[mpi]"' in ended.stderr


def test_shares_are_of_all_and_even():
    for size in (1, 2, 3, 7):
        shares = [Ranks.share_of(rank, size, 10) for rank in range(size)]
        assert [k for share in shares for k in share] == list(range(10)) and max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_part_is_one_backward_and_bad_arguments_are_refused():
    layer, rng = hcrot.Linear(2, 1, generator=0), np.random.default_rng(0)
    state = rng.bit_generator.state
    for rows in GradientParts(layer, 1).of([[1, 2]], rng):
        assert rows == [1, 2] and rng.bit_generator.state == state
    with pytest.raises(TypeError, match="count must be an int"):
        GradientParts(layer, 1.5)
    with pytest.raises(ValueError, match="a count of at least 1, got 0"):
        GradientParts(layer, 0)
    with pytest.raises(ValueError, match="expected 2 pieces and a generator, got 3 and 1"):
        next(GradientParts(layer, 2).of([[0]] * 3, rng))
    norm = hcrot.Sequential(hcrot.BatchNorm2d(2))
    with pytest.raises(ValueError, match="0 has a running mean"):
        GradientParts(norm, 2)
    with pytest.raises(ValueError, match="one dtype, got float32 and float64"):
        GradientParts(hcrot.Sequential(layer, hcrot.Linear(1, 1).astype(np.float64)), 2)


def test_a_part_is_done_after_its_last_backward():
    class Twice(hcrot.Module):
        def __init__(self):
            self.first, self.second = hcrot.Linear(3, 3, generator=0), hcrot.Linear(3, 3, generator=1)

        def forward(self, x):
            return self.first(self.second(self.first(x)))

        def backward(self, dout):
            return self.first.backward(self.second.backward(self.first.backward(dout)))

    model, told = Twice(), []
    y = model(np.ones((2, 3), np.float32))
    with told_of_backward(model, told.append):
        model.backward(y)
    assert told == [model.second, model.first] and "backward" not in vars(model.first)


def test_the_sum_is_that_of_the_parts_one_by_one():
    rng, model = np.random.default_rng(0), hcrot.Sequential(hcrot.Linear(3, 4, generator=1), hcrot.Linear(4, 2, generator=2))
    x, parts, losses = rng.standard_normal((7, 3), dtype=np.float32), GradientParts(model, 3), []
    pieces = np.array_split(np.arange(7), 3)
    for rows in parts.of(pieces, rng):
        loss, dout = hcrot.mse_loss(model(x[rows]), np.ones((len(rows), 2), np.float32))
        model.backward(dout)
        losses.append(loss)
    assert parts.sum(losses) == losses[0] + losses[1] + losses[2]
    found = [parameter.grad.copy() for parameter in model.parameters()]
    expected = []
    for rows in pieces:
        model.zero_grad()
        model.backward(hcrot.mse_loss(model(x[rows]), np.ones((len(rows), 2), np.float32))[1])
        expected.append([parameter.grad.copy() for parameter in model.parameters()])
    for gradient, a, b, c in zip(found, *expected, strict=True):
        np.testing.assert_array_equal(gradient, (a + b) + c)


def test_a_gradient_that_comes_after_it_was_sent_is_no_secret():
    module = importlib.import_module("hcrot.training.gradient_parts")
    layer = hcrot.Linear(2, 2, generator=0)
    bucket = module.Bucket(layer, layer.parameters(), 2, Ranks())
    bucket.send()
    layer.weight.grad += 1
    with pytest.raises(RuntimeError, match="gradients of Linear changed after its last backward was done"):
        bucket.keep(0)
