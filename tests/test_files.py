"""A file is replaced whole or not at all."""

import pytest

from hcrot.files import replacing


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
