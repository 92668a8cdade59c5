"""How the programs here read their command line: messages of one sentence, and numbers within their bounds."""

import argparse
import math
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Parser", "RawText", "ending_with_the_reader", "number", "refusing_bad_input"]

RawText = argparse.RawDescriptionHelpFormatter
"""Descriptions keep their lines."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one sentence, without the usage before it, and exit status 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message}\n")


def number(kind: type, least: float) -> Callable[[str], float]:
    """For ``add_argument(type=)``: a finite number of this kind that is at least ``least``."""

    def parse(text: str) -> float:
        value = kind(text)
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not a number of at least {least}")
        return value

    parse.__name__ = kind.__name__  # argparse says "invalid int value"
    return parse


@contextmanager
def refusing_bad_input(program: str) -> Iterator[None]:
    """Within the ``with`` block, what cannot be done ends the program in one sentence and exit status 2."""
    try:
        with ending_with_the_reader():
            yield
    except (ValueError, TypeError, NotImplementedError, OSError, ImportError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def ending_with_the_reader() -> Iterator[None]:
    """Within the ``with`` block, a program that prints to a reader who has gone (``| head -3``) ends without a word, as Unix tools do.

    The exit status is 141, which is what a shell reports of a tool that SIGPIPE has ended. The signal itself stays off: it would end the
    program at the first broken connection of any kind, and without ``finally``.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)  # for what is still to be printed, also when Python ends
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        sys.exit(141)


def _reader_has_gone() -> bool:
    """Whether standard output is a pipe that nobody reads. A broken pipe may also be one to another process, or a connection."""
    try:
        pipe = select.poll()
        pipe.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in pipe.poll(0))
    except (AttributeError, OSError):  # no poll on Windows; no file behind standard output
        return False
