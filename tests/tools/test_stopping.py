"""Signals are noted within a block and end the program outside of one; what nohup ignores is ignored."""

import os
import signal
import sys
import threading

import pytest

from hcrot.tools.stopping import SIGNALS, end_on_signals, stop_request
from support.processes import run

POSIX = pytest.mark.skipif(os.name == "nt", reason="raise_signal ends the process there")


@pytest.fixture(autouse=True)
def not_under_nohup():
    """The tests may run under nohup, which has SIGHUP ignored, also in the processes that they start."""
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@POSIX
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_noted_in_the_block(name, code):
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_request() as stop:
        assert not stop and stop.exit_code == 0
        signal.raise_signal(signal.Signals[name])
        assert stop and stop.exit_code == code
        signal.raise_signal(signal.SIGTERM)  # a machine that shuts down sends several: saving goes on
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.exit_code == code
    assert [signal.getsignal(number) for number in SIGNALS] == before


@POSIX
def test_the_first_control_c_is_noted_also_when_another_process_of_the_job_had_it_before():
    with stop_request() as stop:
        stop.exit_code = 130  # as the processes have agreed
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.exit_code == 130


@POSIX
def test_a_signal_that_ends_the_program_between_two_handlers_leaves_none_behind(monkeypatch):
    install, before = signal.signal, [signal.getsignal(number) for number in SIGNALS]

    def interrupted(number, handler):
        if number == signal.SIGTERM and handler not in before:
            sys.exit(143)
        return install(number, handler)

    monkeypatch.setattr(signal, "signal", interrupted)
    with pytest.raises(SystemExit), stop_request():
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before


@POSIX
def test_handlers_come_back_after_an_error():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ValueError, match="in the block"), stop_request():
        raise ValueError("in the block")
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_in_another_thread_nothing_is_noted():
    before, seen = [signal.getsignal(number) for number in SIGNALS], []

    def work():
        with stop_request() as stop:
            seen.append((bool(stop), [signal.getsignal(number) for number in SIGNALS]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


@POSIX
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_outside_of_a_block_the_program_ends_in_order(name):
    program = f"""
        import signal
        from hcrot.tools.stopping import end_on_signals
        end_on_signals()
        try:
            signal.raise_signal(signal.{name})
        finally:
            print("in order")
    """
    process = run(program)
    assert (process.returncode, process.stdout, process.stderr) == (128 + signal.Signals[name], "in order\n", "")


@POSIX
def test_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_request() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop
        others = [number for number in SIGNALS if number not in (signal.SIGINT, signal.SIGHUP)]
        handlers = [signal.getsignal(number) for number in others]
        end_on_signals()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        for number, handler in zip(others, handlers, strict=True):
            signal.signal(number, handler)
    finally:
        signal.signal(signal.SIGHUP, before)


@POSIX
def test_an_end_that_was_swallowed_is_not_lost():
    result = run("""
        import signal
        from hcrot.tools.stopping import end_on_signals, stop_request
        end_on_signals()
        with stop_request() as stop:
            assert not stop
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit:
            pass  # as C code does that takes any error for "there is none"
        with stop_request() as stop:
            assert stop.exit_code == 143
        end_on_signals()
        with stop_request() as stop:
            assert not stop
    """)
    assert result.returncode == 0, result.stderr
