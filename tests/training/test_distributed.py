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
from hcrot.commands import main
from hcrot.training.distributed import Ranks
from hcrot.training.gradient_parts import GradientParts, told_of_backward
from support import ddpm_example, processes
from support.ranks import MPIEXEC, finish, start, train

needs_mpi = pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec: pip install hcrot[mpi]")
TINY = ["--channels", 8, 8, "--layers-per-block", 1, "--train-batch-size", 8, "--inference-steps", 2, "--attention", "--dropout", 0.1,
        "--num-epochs", 0.6, "--threads", 1, "--checkpointing-steps", 4, "--gradient-accumulation-steps", 3]  # fmt: skip


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
    expected = train(Ranks())
    jobs = {size: start(size, Path(train.__code__.co_filename)) for size in (2, 3)}
    for size, job in jobs.items():
        code, out, err = finish(job)
        assert code == 0, err
        found = json.loads(out)  # one line: only rank 0 prints
        assert found["steps"] == expected["steps"] and found["weights"] == expected["weights"], size
        assert (found["before"], found["agreed"], found["size"]) == (7, 143, size)
        assert size == 2 or "these numbers of rank 2 differ" in found["drifted"]


@needs_mpi
def test_a_rank_is_killed_and_fewer_go_on(tmp_path):
    words = ["-m", "hcrot", "train", "digits", *TINY, "--output"]
    whole, broken = start(1, *words, "whole", cwd=tmp_path), start(3, *words, "broken", cwd=tmp_path)
    wait_for_lines(broken, tmp_path / "broken" / "metrics.jsonl", 6)
    os.kill(one_of(broken), signal.SIGKILL)
    start_of_end = time.monotonic()
    code, out, err = finish(broken)
    assert code != 0 and time.monotonic() - start_of_end < 10 and "Killed" in out + err
    assert not [path for path in (tmp_path / "broken").rglob(".*") if path.name != ".lock"]  # nothing half-written
    again = ["-m", "hcrot", "train", "digits", "--resume", "--output", "broken"]

    stopped = start(2, *again, cwd=tmp_path)
    wait_for_lines(stopped, tmp_path / "broken" / "metrics.jsonl", 12)
    stopped.send_signal(signal.SIGTERM)  # to mpiexec, which tells all
    code, out, err = finish(stopped)
    assert code == 143 and "mpiexec -n 2 hcrot train digits" in out, err
    code, _, err = finish(start(1, *again, cwd=tmp_path))
    assert code == 0, err
    assert finish(whole)[0] == 0 and outcome(tmp_path / "whole") == outcome(tmp_path / "broken")

    code, out, err = finish(start(2, *words, "whole", cwd=tmp_path))
    assert code == 2 and err.count("already holds a run") == 1
    code, out, err = finish(start(2, "-m", "hcrot", "sample", "whole", "--json", cwd=tmp_path))
    assert code == 2 and out == "" and err.count("2 processes, which would all do the same: several share the work of") == 1
    drawn, options = tmp_path / "drawn", ["--count", 7, "--shard-size", 3, "--batch-size", 2, "--steps", 2, "--threads", 1]
    code, _, err = finish(start(2, "-m", "hcrot", "sample", "whole", *options, "--output", "drawn", cwd=tmp_path))
    assert code == 0, err
    assert_drawn_alike(drawn, tmp_path, options)


def assert_drawn_alike(drawn, folder, options):
    """By this process alone, and going on with what is there."""
    def call(*words):
        with pytest.raises(SystemExit) as ended:
            main(["sample", str(folder / "whole"), *map(str, [*options, *words])])
        return ended.value.code

    files = {path.name: path.read_bytes() for path in drawn.iterdir()}
    assert len(files) == 3 and np.load(drawn / "pictures-000000003.npz")["labels"].tolist() == [3, 4, 5]
    middle = drawn / "pictures-000000003.npz"
    middle.unlink()
    before = (drawn / "pictures-000000000.npz").stat().st_mtime_ns
    assert call("--output", drawn) == 0 and (drawn / "pictures-000000000.npz").stat().st_mtime_ns == before
    assert {path.name: path.read_bytes() for path in drawn.iterdir()} == files
    assert call("--output", drawn, "--seed", 1) == 2
    assert call("--output", drawn / "a.png") == 2


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
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text().count("\n") >= count):
        assert process.poll() is None and time.monotonic() < deadline, finish(process)
        time.sleep(0.01)


def one_of(mpiexec):
    """The process number of the last rank, a grandchild of mpiexec's."""
    [proxy] = children(mpiexec.pid)
    return children(proxy)[-1]


def children(number):
    return [int(child) for child in Path(f"/proc/{number}/task/{number}/children").read_text().split()]


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
    with pytest.raises(ValueError, match="at least as many parts as processes, got 0 and 1"):
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
