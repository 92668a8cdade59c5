"""One process at a time writes a run; the lock ends with its process, and forked workers do not hold it."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hcrot.files import lock
from hcrot.files.lock import AnotherProcessWrites, run_lock
from support.processes import ROOT, run

POSIX = pytest.mark.skipif(os.name == "nt", reason="needs fork and kill")

HOLD = """
import sys
from hcrot.files.lock import run_lock
with run_lock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that has locked tmp_path until its stdin ends."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        yield process
        process.kill()


def test_nothing_is_left(tmp_path):
    for _ in range(2):
        with run_lock(tmp_path):
            assert (tmp_path / ".lock").read_text() == str(os.getpid()) or os.name == "nt"
        assert os.listdir(tmp_path) == []
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path):
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == []


def test_another_process_is_named(tmp_path, holder):
    for _ in range(2):
        with pytest.raises(AnotherProcessWrites, match=rf"^another process \(pid {holder.pid}\) is writing this run: "), run_lock(tmp_path):
            pass
    holder.communicate()
    with run_lock(tmp_path):
        pass


def test_the_lock_ends_with_its_process(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / ".lock").exists()
    with run_lock(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_twice_in_one_process(tmp_path):
    with run_lock(tmp_path):
        with pytest.raises(AnotherProcessWrites, match=rf"this process \(pid {os.getpid()}\)"), run_lock(tmp_path):
            pass
        outcomes = []

        def work():
            try:
                with run_lock(tmp_path):
                    outcomes.append("locked")
            except AnotherProcessWrites:
                outcomes.append("refused")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert outcomes == ["refused"]


@POSIX
def test_a_forked_worker_that_outlives_the_process_does_not_hold_it(tmp_path):
    program = f"""
        import os, signal, sys, time
        from hcrot.files.lock import run_lock
        with run_lock({str(tmp_path)!r}):
            if os.fork() == 0:
                os.close(1), os.close(2)
                time.sleep(60)
            else:
                print(os.getpid(), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(program).returncode == -signal.SIGKILL
    with run_lock(tmp_path):
        pass


@POSIX
def test_a_forked_process_that_leaves_the_block_leaves_the_lock_to_its_parent(tmp_path):
    with run_lock(tmp_path):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with run_lock(tmp_path):
                    pass
            except AnotherProcessWrites:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (tmp_path / ".lock").exists()
    block = run_lock(tmp_path)
    block.__enter__()
    child = os.fork()
    if child == 0:
        block.__exit__(None, None, None)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(AnotherProcessWrites), run_lock(tmp_path):
        pass
    block.__exit__(None, None, None)
    assert os.listdir(tmp_path) == []


def test_many_processes_and_one_at_a_time(tmp_path):
    program = """
import os, sys, time
from pathlib import Path
from hcrot.files.lock import AnotherProcessWrites, run_lock
folder, end, entered = Path(sys.argv[1]), time.monotonic() + 1.5, 0
while time.monotonic() < end:
    try:
        with run_lock(folder):
            os.mkdir(folder / "inside")  # an error if another is inside
            os.rmdir(folder / "inside")
            entered += 1
    except AnotherProcessWrites:
        pass
print(entered)
"""
    command, environment = [sys.executable, "-c", program, str(tmp_path)], os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    counts = [process.communicate(timeout=60)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert sum(map(int, counts)) > 10 and os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"), run_lock(tmp_path / "nowhere"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), run_lock(tmp_path / "file"):
        pass


@POSIX
def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="is on a file system without locks"), run_lock(tmp_path):
        pass
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        path.mkdir()
    os.utime(old, (0, 0))
    for path in (old, new):
        with lock.abandoned(path) as over, lock.in_work(Path(path)) as ours:
            assert over == (path == old) and ours
