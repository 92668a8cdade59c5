"""MNIST from the cache folder and from mirrors: each failure leaves no file, and says why in one line."""

import gzip
import io
import os
import re
import urllib.error
import urllib.request

import numpy as np
import pytest

from hcrot.data import DataUnavailable, load_mnist, mnist
from hcrot.data.cache import cache_folder
from support.mnist_files import NAMES, serve


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("HCROT_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("mnist") == tmp_path / ".cache" / "hcrot" / "mnist"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("mnist") == tmp_path / "xdg" / "hcrot" / "mnist"
    monkeypatch.setenv("HCROT_DATA", "~/data")
    assert cache_folder("mnist") == tmp_path / "data" / "mnist"


def test_a_download_is_kept_and_used_again(arrays, contents, cache, web):
    serve(web, mnist.MIRRORS[0], contents)
    images, labels = load_mnist()
    np.testing.assert_array_equal(images, arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(labels, arrays["train-labels-idx1-ubyte"])
    assert web.asked == [f"{mnist.MIRRORS[0]}{name}.gz" for name in NAMES[:2]]
    assert sorted(os.listdir(cache)) == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]

    web.clear()
    np.testing.assert_array_equal(load_mnist()[0], images)
    assert len(web.asked) == 2


def test_only_the_missing_file_is_downloaded(contents, cache, web):
    cache.mkdir(parents=True)
    (cache / "train-images-idx3-ubyte").write_bytes(contents["train-images-idx3-ubyte"])
    serve(web, mnist.MIRRORS[0], contents)
    load_mnist()
    assert web.asked == [f"{mnist.MIRRORS[0]}train-labels-idx1-ubyte.gz"]


def test_mirrors_are_tried_in_order(arrays, contents, cache, web):
    """The first does not answer, the second hands out a page, a broken or a wrong file, the third works."""
    serve(web, mnist.MIRRORS[2], contents)
    url = f"{mnist.MIRRORS[1]}train-images-idx3-ubyte.gz"
    web[f"{mnist.MIRRORS[0]}train-images-idx3-ubyte.gz"] = TimeoutError("timed out")
    good = contents["train-images-idx3-ubyte"]
    for bad in [b"<html>log in</html>", gzip.compress(good)[:-20], gzip.compress(contents["t10k-images-idx3-ubyte"])]:
        web[url] = bad
        web.asked.clear()
        images, _ = load_mnist()
        np.testing.assert_array_equal(images, arrays["train-images-idx3-ubyte"])
        assert web.asked[:3] == [f"{mirror}train-images-idx3-ubyte.gz" for mirror in mnist.MIRRORS]
        for path in cache.iterdir():
            path.unlink()


def test_an_archive_that_the_server_unpacked_is_fine(arrays, contents, cache, web):
    for name, data in contents.items():
        web[f"{mnist.MIRRORS[0]}{name}.gz"] = data
    np.testing.assert_array_equal(load_mnist("test")[1], arrays["t10k-labels-idx1-ubyte"])


def test_offline_is_one_line_that_says_why(contents, cache, web):
    for mirror in mnist.MIRRORS[:2]:
        web[f"{mirror}train-images-idx3-ubyte.gz"] = urllib.error.URLError("Temporary failure\nin name resolution")
    with pytest.raises(DataUnavailable) as caught:
        load_mnist()
    message = str(caught.value)
    assert isinstance(caught.value, OSError)
    assert "\n" not in message
    assert message == (
        f"MNIST is not in {cache} and could not be downloaded (ossci-datasets.s3.amazonaws.com, "
        f"storage.googleapis.com: <urlopen error Temporary failure in name resolution>; "
        f"raw.githubusercontent.com: HTTP Error 404: Not Found)"
    )
    assert len(web.asked) == 3
    assert os.listdir(cache) == []


def test_no_download_when_switched_off(contents, cache, no_network):
    with pytest.raises(DataUnavailable, match="train-images-idx3-ubyte is not in .*, and downloading is switched off"):
        load_mnist(download=False)
    assert not cache.exists()


@pytest.mark.parametrize("bad", ["truncated", "wrong sum"])
def test_a_bad_download_leaves_no_file(bad, contents, cache, web):
    good = contents["train-images-idx3-ubyte"]
    for mirror in mnist.MIRRORS:
        url = f"{mirror}train-images-idx3-ubyte.gz"
        web[url] = gzip.compress(good)[:-30] if bad == "truncated" else gzip.compress(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(DataUnavailable, match="truncated or corrupt" if bad == "truncated" else "MD5"):
        load_mnist()
    assert os.listdir(cache) == []


def test_an_interrupted_download_leaves_no_file(contents, cache, monkeypatch):
    class Interrupted(io.BytesIO):
        headers = {}

        def read(self, size):
            if self.tell():
                assert len(os.listdir(cache)) == 1  # the file that must be cleared away
                raise KeyboardInterrupt
            return super().read(100)

    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Interrupted(bytes(1000)))
    with pytest.raises(KeyboardInterrupt):
        load_mnist()
    assert os.listdir(cache) == []


def test_a_failed_placement_leaves_no_file(contents, cache, web, monkeypatch):
    serve(web, mnist.MIRRORS[0], contents)

    def replace(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(DataUnavailable, match="cannot be kept in .* \\(No space left on device\\): set HCROT_DATA"):
        load_mnist()
    assert os.listdir(cache) == []


def test_an_unwritable_cache_folder_is_found_out_before_the_download(contents, tmp_path, monkeypatch, no_network):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HCROT_DATA", str(tmp_path / "file"))
    with pytest.raises(DataUnavailable, match="cannot be kept in .*file/mnist .*set HCROT_DATA"):
        load_mnist()


def test_a_damaged_file_in_the_cache_is_named_and_not_used(contents, cache, no_network):
    cache.mkdir(parents=True)
    path = cache / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(contents["train-images-idx3-ubyte"])[:-15])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: truncated .*; delete it to have"):
        load_mnist()
