"""What is asked of a run by files: it is taken once, and what cannot be taken ends nothing."""

import pytest

from hcrot.files.wishes import (
    ask_for_pictures,
    ask_for_rate,
    ask_to_stop,
    forget_wishes,
    pictures_asked_for,
    rate_asked_for,
    stop_asked_for,
)


def test_each_wish_is_taken_once(tmp_path):
    for ask, asked in ((ask_to_stop, stop_asked_for), (ask_for_pictures, pictures_asked_for)):
        assert not asked(tmp_path)
        ask(tmp_path)
        assert asked(tmp_path) and not asked(tmp_path)
    ask_for_rate(tmp_path, 3e-4)
    assert rate_asked_for(tmp_path) == 3e-4 and rate_asked_for(tmp_path) is None
    ask_to_stop(tmp_path)
    ask_for_rate(tmp_path, 3e-4)
    forget_wishes(tmp_path)
    assert not stop_asked_for(tmp_path) and rate_asked_for(tmp_path) is None and not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "0", "1e-7", "3,5", "\xff"])
def test_what_is_no_rate_is_said(text, tmp_path, capsys):
    (tmp_path / "learning_rate").write_bytes(text.encode("latin-1"))
    assert rate_asked_for(tmp_path) is None and not list(tmp_path.iterdir())
    assert "learning_rate: expected a number above 1e-07 and up to 1, got" in capsys.readouterr().err


def test_a_file_that_is_being_written_is_left(tmp_path):
    (tmp_path / "learning_rate").touch()
    assert rate_asked_for(tmp_path) is None and (tmp_path / "learning_rate").exists()


def test_what_cannot_be_taken_ends_nothing(tmp_path):
    for name, asked in (("stop", stop_asked_for), ("draw", pictures_asked_for), ("learning_rate", rate_asked_for)):
        (tmp_path / name).mkdir()
        with pytest.warns(UserWarning, match=f"{name} is left as it is"):
            assert not asked(tmp_path)
