"""A file, and a folder, is replaced whole or not at all; JSON says one thing or is refused."""

import json
import os

import numpy as np
import pytest

from hcrot.files.json_and_arrays import find_folder, read_json, replacing, replacing_folder, write_json


def test_the_file_changes_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    for text in ("first", "second"):
        before = path.read_text() if path.exists() else None
        with replacing(str(path)) as unfinished:
            unfinished.write_text(text)
            assert unfinished.parent == path.parent and unfinished != path
            assert (path.read_text() if path.exists() else None) == before
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_when_the_block_raises_nothing_has_happened(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as unfinished:
        unfinished.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"), replacing(tmp_path / "file" / "below.txt"):
        pass


def test_json_there_and_back(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": np.int64(3), "a": np.array([1.5, 2.0]), "c": {"é": None, "d": np.float64(0.1)}})
    text = path.read_text(encoding="utf-8")
    assert read_json(path) == json.loads(text) == {"a": [1.5, 2.0], "b": 3, "c": {"é": None, "d": 0.1}}
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    with pytest.raises(TypeError, match=r"\{1, 2\} of type set cannot be kept in JSON"):
        write_json(path, {"a": {1, 2}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged or no JSON"),
        (b'{"a": 1', "is damaged or no JSON"),
        (b'{"a": "\xff"}', "is damaged or no JSON: 'utf-8' codec"),
        (b'{"a": ' + b"[" * 10**5, "is damaged or no JSON: nested too deeply"),
        (b'{"a": {"b": 1, "c": 2, "b": 1}}', "is damaged or no JSON: the key 'b' comes twice"),
        (b'{"a": ' + b"9" * 10**4 + b"}", "is damaged or no JSON"),
        (b"[1]", r"holds no JSON object but \[1\]"),
    ],
)
def test_json_that_says_nothing_clear(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.json {message}"):
        read_json(tmp_path / "a.json")


def test_no_json(tmp_path):
    for path in (tmp_path, tmp_path / "a.json"):
        with pytest.raises(FileNotFoundError, match=f"there is no file {path}"):
            read_json(path)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_changes_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "folder"
    for text, names in (("first", ["a", "below/b"]), ("second", ["below/c"])):
        before = files(tmp_path)
        with replacing_folder("test", target, "a|below/[bc]") as new:
            for name in names:
                (new / name).parent.mkdir(exist_ok=True)
                (new / name).write_text(text)
            assert files(tmp_path).items() >= before.items()
        assert files(tmp_path) == {f"new/folder/{name}": text for name in names}
    assert os.listdir(tmp_path / "new") == ["folder"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_when_the_block_raises_the_folder_is_as_it_was(tmp_path, error):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a").write_text("old")
    with pytest.raises(error), replacing_folder("test", tmp_path / "f", "a") as new:
        (new / "a").write_text("half")
        raise error
    assert files(tmp_path) == {"f/a": "old"} and os.listdir(tmp_path) == ["f"]


def test_what_a_folder_would_lose(tmp_path):
    for name in ("a", "a.txt", "ab", ".git"):
        (tmp_path / name).write_text("")
    refused = pytest.raises(FileExistsError, match=r"test: .* holds \.git, a\.txt, ab, which would be lost")
    with refused, replacing_folder("test", tmp_path, "a"):
        pass
    with pytest.raises(NotADirectoryError, match="a.txt is a file"), replacing_folder("test", tmp_path / "a.txt", "a"):
        pass


def test_what_a_killed_process_left_is_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="test: there is no folder"):
        find_folder("test", tmp_path / "f")
    (tmp_path / ".f.old").mkdir()
    assert find_folder("test", tmp_path / "f") == (tmp_path / ".f.old").resolve()
    (tmp_path / "f").mkdir()
    assert find_folder("test", tmp_path / "f") == tmp_path / "f"
