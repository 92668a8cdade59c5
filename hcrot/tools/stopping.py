"""Ending a run when it is told to: by Ctrl-C, by SIGTERM (``kill``, a shutdown, a batch system), by SIGHUP (its terminal was closed).

    end_on_signals()                       # outside the loop each of them ends the program, as Ctrl-C does
    ...
    with stop_request() as stop:
        while step < steps and not stop:   # within, the step in hand comes to its end
            ...
        save_checkpoint(...)
    if stop:
        sys.exit(stop.exit_code)           # as a shell reports it: 130, 143, 129

Windows has no SIGHUP; it has SIGBREAK, for Ctrl-Break and a closed console window.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

__all__ = ["StopRequest", "end_on_signals", "stop_request"]

SIGNALS = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if name in signal.Signals.__members__]


_swallowed = {"exit_code": 0}  # of a signal that was to end the program: where the program goes on, the end was lost


class StopRequest:
    """False until the first signal has come.

    Attributes:
        exit_code: 128 and the number of the first signal; 0 before it came.
    """

    exit_code = 0

    def __bool__(self) -> bool:
        return self.exit_code != 0


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Within the ``with`` block the signals are noted instead of ending the program; Ctrl-C after any other of them does not wait.

    Python handles signals in its main thread only: in another thread nothing is noted. What ``nohup`` has made the program ignore, it
    goes on ignoring. A signal that came before, and whose end of the program was swallowed (see :func:`end_on_signals`), counts.

    Raises:
        KeyboardInterrupt: in the block, at Ctrl-C when a signal has come before.
    """
    stop = StopRequest()
    stop.exit_code = _swallowed["exit_code"]
    came = bool(stop)  # to this process: a stop that others have asked for may be in hand when the Ctrl-C that they had comes here

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came = True
        stop.exit_code = stop.exit_code or 128 + number

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    with ExitStack() as handlers:  # which go back also where a signal ends the program between two of them
        for number in SIGNALS:
            if not _ignored(number):
                handlers.callback(signal.signal, number, signal.getsignal(number))
                signal.signal(number, note)
        yield stop


def end_on_signals() -> None:
    """From now on each signal but Ctrl-C raises SystemExit with its exit code, so that ``with`` and ``finally`` do their work.

    An exception that is raised while C code imports or looks for an attribute can be lost: some C code takes any error for "there is none".
    So the signal is remembered, and a :func:`stop_request` that begins later stops at once.

    Raises:
        ValueError: this is not the main thread.
    """
    _swallowed["exit_code"] = 0

    def end(number: int, frame: FrameType | None) -> None:
        _swallowed["exit_code"] = 128 + number
        sys.exit(128 + number)

    for number in SIGNALS:
        if number != signal.SIGINT and not _ignored(number):
            signal.signal(number, end)


def _ignored(number: signal.Signals) -> bool:
    return number != signal.SIGINT and signal.getsignal(number) in (signal.SIG_IGN, None)  # None: handled by what is not Python
