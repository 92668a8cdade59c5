"""Several real processes that save into one folder, some of them killed: whoever loads gets one save, whole, and no rubbish stays."""

import os
import shutil
import signal
import time
import traceback

import numpy as np
import pytest

from hcrot import pipelines
from hcrot.files import json_and_arrays, pretrained
from hcrot.files.json_and_arrays import find_folder, read_folder, replacing, replacing_folder
from hcrot.pipelines.folder import load_model
from support.small_unets import tiny_model
from support.training_run import Run

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def forked(work):
    """The number of a process that does ``work()`` and ends with exit status 0, or 1 after an error."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill(child):
    os.kill(child, signal.SIGKILL)
    assert status(child) == -9


def of_one_save(model):
    (step,) = {value for array in model.state_dict().values() for value in np.unique(array).tolist()}
    return step


@FORKS
def test_two_savers_and_a_reader(tmp_path):
    folder, run, seconds = tmp_path / "c", Run(), 3.0
    run.fill(1)
    run.save(folder)
    end = time.monotonic() + seconds

    def saver(first):
        def save():
            rng, step = np.random.default_rng(first), first
            while time.monotonic() < end:
                step += 1
                run.fill(step)
                run.save(folder)
                time.sleep(rng.uniform(0, 0.01))

        return save

    children, reader, seen = [forked(saver(1000)), forked(saver(2000))], Run(seed=1), set()
    try:
        while time.monotonic() < end:
            (step,) = reader.load(folder).steps()
            seen |= {step, of_one_save(load_model(folder))}
    finally:
        assert [status(child) for child in children] == [0, 0]
    assert len({step // 1000 for step in seen - {1}}) == 2 and len(seen) > 10  # it has seen saves of both
    assert os.listdir(tmp_path) == ["c"]


@FORKS
@pytest.mark.parametrize("what", ["checkpoint", "pipeline"])
def test_savers_killed_at_random_moments(tmp_path, what):
    folder, run, rng = tmp_path / "c", Run(), np.random.default_rng(0)

    def save(step):
        run.fill(step)
        if what == "checkpoint":
            run.save(folder)
        else:
            pipelines.save(folder, run.model, run.scheduler, max_shard_size="10KB")

    def check():
        if what == "checkpoint":
            assert len(Run(seed=1).load(folder).steps()) == 1
        else:
            assert of_one_save(pipelines.load(folder)[0]) > 0

    def saving_for_ever(first):
        def work():
            for step in range(first, 10**6):
                save(step)

        return work

    save(1)
    start = time.perf_counter()
    save(2)
    duration = time.perf_counter() - start
    for round_ in range(1, 9):
        children = [forked(saving_for_ever(1000 * round_ + 10000 * number)) for number in (1, 2)]
        try:
            for _ in range(2):
                time.sleep(duration * rng.uniform(0.5, 3))
                check()  # while one or both are saving
                kill(children.pop(0))
        finally:
            for child in children:
                kill(child)
        check()
    save(3)
    assert os.listdir(tmp_path) == ["c"]  # what the killed ones left is gone
    check()


@FORKS
def test_what_is_being_written_is_not_removed(tmp_path):
    ready, go_on = os.pipe(), os.pipe()

    def write_slowly():
        with replacing_folder("slow", tmp_path / "c", "a|b") as new, replacing(tmp_path / "file") as unfinished:
            (new / "a").write_text("slow")
            unfinished.write_text("slow")
            os.write(ready[1], b".")
            os.read(go_on[0], 1)
            assert (new / "a").read_text() == unfinished.read_text() == "slow"

    child = forked(write_slowly)
    os.read(ready[0], 1)
    for kind in ("new", "part"):
        leftover = tmp_path / f".{'c' if kind == 'new' else 'file'}.1234-0123abcd.{kind}"  # of a process that was killed
        if kind == "new":
            leftover.mkdir()
        else:
            leftover.touch()
    with replacing_folder("quick", tmp_path / "c", "a|b") as new:
        (new / "a").write_text("quick")
    with replacing(tmp_path / "file") as unfinished:
        unfinished.write_text("quick")
    assert {name for name in os.listdir(tmp_path) if "1234-" in name} == set()
    assert (tmp_path / "c" / "a").read_text() == (tmp_path / "file").read_text() == "quick"
    os.write(go_on[1], b".")
    assert status(child) == 0
    assert sorted(os.listdir(tmp_path)) == ["c", "file"]
    assert (tmp_path / "c" / "a").read_text() == (tmp_path / "file").read_text() == "slow"  # the last one wins


def test_other_names_are_left_alone(tmp_path):
    others = [".c.txt.1-0123abcd.new", ".c.1-0123abcd.new.bak", ".c.1-xyz.new", ".cc.1-0123abcd.new", "c.1-0123abcd.new", ".c.5.old"]
    for name in others:
        (tmp_path / name).mkdir()
    with replacing_folder("test", tmp_path / "c", ""):
        pass
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "c"])


def test_the_newest_that_was_moved_aside_is_found_and_goes_with_the_next_save(tmp_path):
    for number, name in enumerate([".c.old", ".c.12-0123abcd.old", ".c.11-0123abcd.old"]):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (10 + number % 2, 10 + number % 2))
    assert find_folder("test", tmp_path / "c").name == ".c.12-0123abcd.old"
    with replacing_folder("test", tmp_path / "c", ""):
        pass
    assert os.listdir(tmp_path) == ["c"]


def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(json_and_arrays, "PATIENCE", 0.0)  # else each save would wait for this process's own reading

    def save(text):
        with replacing_folder("test", tmp_path / "c", "a|b") as new:
            for name in "ab":
                (new / name).write_text(text)

    def read(place):
        texts.append((place / "a").read_text())
        if len(texts) < 3:
            save(f"{len(texts)}")
        return texts[-1] + (place / "b").read_text()

    texts = []
    save("0")
    assert read_folder("test", tmp_path / "c", read) == "22"
    assert texts == ["0", "1", "2"]

    def always_replaced(place):
        save("again")
        return (place / "a").read_text()

    with pytest.raises(OSError, match="test: .*c was replaced 100 times while it was being read"):
        read_folder("test", tmp_path / "c", always_replaced)


@FORKS
def test_savers_without_pause_let_a_slow_reader_through(tmp_path):
    def save():
        with replacing_folder("test", tmp_path / "c", "a|b") as new:
            for name in "ab":
                (new / name).write_text(f"{os.getpid()} {time.monotonic()}")

    def save_for_ever():
        while True:
            save()

    def read_slowly(place):
        nonlocal count
        count += 1
        first = (place / "a").read_text()
        time.sleep(0.2)
        return first.split()[0], (place / "b").read_text().split()[0]

    count = 0
    save()
    children = [forked(save_for_ever) for _ in range(2)]
    try:
        time.sleep(0.1)
        for _ in range(5):
            first, second = read_folder("test", tmp_path / "c", read_slowly)
            assert first == second
    finally:
        for child in children:
            kill(child)
    assert count <= 25  # the first time and then one that was waited for, or a few where a save was quicker


@pytest.mark.parametrize("there", [True, False])
def test_a_target_that_other_savers_move_aside_and_in_between_any_two_looks(tmp_path, monkeypatch, there):
    places, stat = [tmp_path / "c", tmp_path / "moved aside"], os.stat
    places[not there].mkdir()

    def look(path, *arguments, **options):
        try:
            return stat(path, *arguments, **options)
        finally:
            if not isinstance(path, int) and os.fspath(path) == os.fspath(tmp_path / "c"):
                os.rename(*places)
                places.reverse()

    if not there:
        places.reverse()
    monkeypatch.setattr(os, "stat", look)
    with replacing_folder("test", tmp_path / "c", "a") as new:
        monkeypatch.undo()
        (new / "a").write_text("new")
    assert (tmp_path / "c" / "a").read_text() == "new"


def test_an_old_folder_that_is_removed_while_it_is_read(tmp_path):
    """The name was free for a moment, so the old folder is read where it was moved to, and there its subfolders are emptied first."""
    old, new = tmp_path / ".c.old", tmp_path / "c"
    for folder in (old, tmp_path / "next"):
        (folder / "part").mkdir(parents=True)
        (folder / "part" / "a").write_text(folder.name)

    def read(place):
        if place == old:
            (tmp_path / "next").rename(new)
            (old / "part" / "a").unlink()
        return (place / "part" / "a").read_text()

    assert read_folder("test", new, read) == "next"


def test_a_network_that_is_replaced_while_it_is_read(tmp_path, monkeypatch):
    tiny_model(0).save_pretrained(tmp_path / "c", max_shard_size="10KB")
    read_arrays, count = pretrained.read_arrays, 0

    def slowly(path):
        nonlocal count
        count += 1
        if count == 2:  # between two shards
            tiny_model(1).save_pretrained(tmp_path / "c", max_shard_size="10KB")
        return read_arrays(path)

    monkeypatch.setattr(pretrained, "read_arrays", slowly)
    loaded, whole = load_model(tmp_path / "c").state_dict(), tiny_model(1).state_dict()
    assert all((loaded[name] == array).all() for name, array in whole.items())


def test_errors_of_reading_are_raised_as_they_are(tmp_path):
    (tmp_path / "c").mkdir()
    calls = []

    def read(place):
        calls.append(place)
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        read_folder("test", tmp_path / "c", read)
    assert len(calls) == 1


def test_a_folder_that_cannot_be_moved_in_is_where_it_was(tmp_path, monkeypatch):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a").write_text("old")
    rename = os.rename

    def failing(source, target):
        if str(source).endswith(".new"):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="Input/output"), replacing_folder("test", tmp_path / "c", "a") as new:
        (new / "a").write_text("new")
    assert (tmp_path / "c" / "a").read_text() == "old" and os.listdir(tmp_path) == ["c"]


def test_a_folder_that_vanishes_is_not_found(tmp_path):
    (tmp_path / "c").mkdir()
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_folder("test", tmp_path / "c", shutil.rmtree)
