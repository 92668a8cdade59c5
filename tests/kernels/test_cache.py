"""Where compiled kernels are kept: damaged files, folders that cannot be written to, and processes that compile at the same time."""

import concurrent.futures
import os
import stat
import tempfile
from pathlib import Path

import numba
import numpy as np
import pytest

from hcrot.kernels import cache
from hcrot.kernels.cache import KernelFiles, compile_cached, drop_outdated, fallback_folder, keep_one_file_each, kept_in
from support.processes import run

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")

STEP = """
import numpy as np
from hcrot.kernels.activation import silu, silu_reference
x = np.linspace(-3, 3, 7, dtype=np.float32)
np.testing.assert_allclose(silu(x), silu_reference(x), rtol=1e-5)
"""


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.nbc"))}


# ---------------------------------------------------------------- files


def test_what_was_saved_is_loaded_by_its_key_alone(tmp_path):
    one = KernelFiles(tmp_path, "kernel", ("stamp", 1))
    assert one.load("a") is None
    one.save("a", {"x": 1})
    one.save("b", [2])
    assert KernelFiles(tmp_path, "kernel", ("stamp", 1)).load("a") == {"x": 1}
    assert one.load("b") == [2]
    assert KernelFiles(tmp_path, "kernel", ("stamp", 2)).load("a") is None  # the source changed
    assert KernelFiles(tmp_path, "other", ("stamp", 1)).load("a") is None
    assert len(list(tmp_path.iterdir())) == 2
    one.flush()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["empty", "cut", "overwritten", "one bit", "text"])
def test_a_damaged_file_is_as_if_it_were_not_there(tmp_path, damage):
    kept = KernelFiles(tmp_path, "kernel", 0)
    kept.save("a", list(range(100)))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-20] ^= 4
    damaged = {"empty": b"", "cut": whole[:-7], "overwritten": b"\0" * len(whole), "one bit": bytes(flipped), "text": b"not a kernel"}
    path.write_bytes(damaged[damage])
    assert kept.load("a") is None
    kept.save("a", "new")
    assert kept.load("a") == "new"


def test_what_cannot_be_unpickled_is_as_if_it_were_not_there(tmp_path):
    import hashlib

    kept = KernelFiles(tmp_path, "kernel", 0)
    content = b"cno_such_module\nname\n."
    kept.path("a").write_bytes(hashlib.sha256(content).digest() + content)
    assert kept.load("a") is None


def test_a_kernel_that_cannot_be_saved_is_no_error(tmp_path):
    kept = KernelFiles(tmp_path / "not there", "kernel", 0)
    kept.save("a", 1)
    assert kept.load("a") is None


@pytest.mark.parametrize("how", ["cut", "overwritten", "emptied"])
def test_a_run_mends_damaged_kernels(tmp_path, how):
    """Every later run ended with an unpickling error."""
    result = run(STEP, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr
    before = files(tmp_path)
    assert before
    for name, content in before.items():
        (tmp_path / name).write_bytes({"cut": content[: len(content) // 2], "overwritten": b"x" * len(content), "emptied": b""}[how])
    result = run(STEP, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr
    after = files(tmp_path)
    assert after.keys() == before.keys()
    assert all(len(content) > 1000 for content in after.values())
    stamps = {name: (tmp_path / name).stat().st_mtime_ns for name in after}
    assert run(STEP, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="1").returncode == 0
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in after} == stamps  # whole files are used, not written anew


def test_processes_may_compile_at_the_same_time_into_an_empty_cache(tmp_path):
    """As pytest-xdist's workers do."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: run(STEP, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="1"), range(3)))
    assert [result.returncode for result in results] == [0, 0, 0], [result.stderr for result in results]
    assert not list(tmp_path.rglob("*.tmp"))
    assert run(STEP, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="1").returncode == 0


def test_a_version_of_numba_with_another_cache_keeps_its_own():
    class Dispatcher:
        class _cache:
            _cache_file = "something new"

    keep_one_file_each(Dispatcher)
    assert Dispatcher._cache._cache_file == "something new"
    keep_one_file_each(len)
    assert kept_in(len) is None


def test_numbas_own_cache_gives_the_same(tmp_path):
    """The fallback of the test above, in a run."""
    script = "from numba.core import caching; del caching.IndexDataCacheFile.flush\n" + STEP
    for _ in range(2):
        result = run(script, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="1")
        assert result.returncode == 0, result.stderr
    assert list(tmp_path.rglob("*.nbi"))


def test_outdated_kernels_are_dropped(tmp_path):
    sources, folder = tmp_path / "sources", tmp_path / "compiled"
    sources.mkdir()
    folder.mkdir()
    (sources / "kernel.py").touch()
    assert not drop_outdated(folder, sources)
    fresh, old, left = folder / "a.1.nbc", folder / "b.1.nbc", folder / "a.1.nbc.77.12.tmp"
    for path in (fresh, old, left):
        path.touch()
    assert drop_outdated(folder, sources)
    os.utime(old, (0, 0))
    assert not drop_outdated(folder, sources)
    assert list(folder.iterdir()) == []


# ---------------------------------------------------------------- where nothing can be written


NOWHERE = """
import os, sys, tempfile
from numba.core import caching
for locator in caching.CacheImpl._locator_classes:  # as if neither the package nor the home folder could be written, even for root
    if locator.__name__ != "UserProvidedCacheLocator":
        locator.from_function = classmethod(lambda cls, *arguments: None)
"""


def test_kernels_are_kept_in_the_temporary_folder_where_no_other_can_be_written(tmp_path):
    """The import failed: no locator available."""
    settings = {"NUMBA_CACHE_DIR": "", "NUMBA_NUM_THREADS": "1", "TMPDIR": str(tmp_path), "TEMP": str(tmp_path), "TMP": str(tmp_path)}
    first, second = (run(NOWHERE + STEP, **settings) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    (folder,) = tmp_path.glob("hcrot-kernels-*")
    assert first.stderr.count("\n") == 1
    assert "compiling kernels (first run only, 15 to 30 seconds; kept in " in first.stderr and str(folder) in first.stderr
    assert second.stderr == ""
    assert files(folder)
    if hasattr(os, "getuid"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_kernels_are_compiled_at_every_start_where_nothing_can_be_written():
    nothing = "import tempfile; tempfile.gettempdir = lambda: '/nowhere at all'\n"
    result = run(NOWHERE + nothing + STEP + "import numba; print(numba.config.CACHE_DIR)", NUMBA_CACHE_DIR="")
    assert result.returncode == 0, result.stderr
    assert result.stderr == (
        "hcrot: compiling kernels (15 to 30 seconds, at every start: no folder can be written to keep them in; NUMBA_CACHE_DIR names one)\n"
    )
    assert result.stdout.strip() == ""  # the user's setting is as it was


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    fallback_folder.cache_clear()
    yield tmp_path
    fallback_folder.cache_clear()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX permissions")
@pytest.mark.parametrize("why", ["others may write", "a link", "another owner", "a file"])
def test_a_folder_that_others_could_have_filled_is_not_used(temporary, why, monkeypatch):
    """Compiled kernels are programs."""
    folder = temporary / f"hcrot-kernels-{os.getuid()}"
    if why == "a link":
        (temporary / "elsewhere").mkdir()
        folder.symlink_to(temporary / "elsewhere")
    elif why == "a file":
        folder.touch()
    else:
        folder.mkdir(mode=0o700)
        if why == "others may write":
            folder.chmod(0o777)
        else:
            user = os.getuid()
            owners = iter([user, user + 1])
            monkeypatch.setattr(os, "getuid", lambda: next(owners))
    assert fallback_folder() is None


def test_the_folder_is_the_users_own(temporary):
    assert fallback_folder().parent == temporary
    assert fallback_folder() is fallback_folder()


def test_a_function_is_compiled_with_or_without_a_cache(temporary, monkeypatch):
    def refuse(*arguments, **options):
        if options.get("cache") and not numba.config.CACHE_DIR:
            raise RuntimeError("cannot cache function: no locator available")
        return original(*arguments, **options)

    original = cache.compile_function
    monkeypatch.setattr(cache, "compile_function", refuse)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    double = compile_cached(lambda x: x + x)
    assert double(np.float32(3)) == 6
    assert temporary in kept_in(double).parents
    monkeypatch.setattr(cache, "fallback_folder", lambda: None)
    assert kept_in(compile_cached(lambda x: x + x)) is None
