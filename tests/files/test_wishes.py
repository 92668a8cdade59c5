"""What is asked of a run by files: it is taken once, and what cannot be taken ends nothing."""

import pytest

from hcrot.files import wishes
from hcrot.files.wishes import (
    SamplesOnTheWay,
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


def test_a_tenth_of_the_time_at_most_goes_into_pictures_that_are_asked_for(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(wishes.time, "perf_counter", lambda: now)
    samples = SamplesOnTheWay(tmp_path, 5, "small-")
    assert samples.due(4) is None and samples.due(5) == tmp_path / "samples-small-5.png"
    ask_for_pictures(tmp_path)
    assert samples.due(6) == tmp_path / "samples-small-now.png" and samples.due(7) is None
    with samples.timed():
        now += 2
    ask_for_pictures(tmp_path)
    now += 17.9
    assert samples.due(8) is None and samples.due(10), "nine times as long has not passed, but step 10 is planned"
    now += 0.2
    assert samples.due(11) == tmp_path / "samples-small-now.png" and not list(tmp_path.iterdir())


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
