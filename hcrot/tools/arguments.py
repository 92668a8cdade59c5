"""How the programs here read their command line and answer: messages of one sentence, numbers within their bounds, and JSON alone."""

import argparse
import io
import json
import math
import os
import select
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

__all__ = ["Parser", "RawText", "ending_with_the_reader", "json_alone", "number", "print_json", "refusing_bad_input"]

RawText = argparse.RawDescriptionHelpFormatter
"""Descriptions keep their lines."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one sentence, without the usage before it, and exit status 2.

    An option may be written with underscores, as in diffusers' programs: ``--train_batch_size`` is ``--train-batch-size``.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else list(args)
        end = words.index("--") if "--" in words else len(words)
        return super().parse_known_args([*map(self._with_dashes, words[:end]), *words[end:]], namespace)

    def _with_dashes(self, word: str) -> str:
        name, equals, value = word.partition("=")
        dashed = name.replace("_", "-")
        known = name.startswith("--") and any(option.startswith(dashed) for option in self._option_string_actions)
        return dashed + equals + value if known else word

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message}\n")


def number(kind: type, least: float, most: float = math.inf) -> Callable[[str], float]:
    """For ``add_argument(type=)``: a finite number of this kind that is at least ``least`` and at most ``most``."""

    def parse(text: str) -> float:
        value = kind(text)
        if not least <= value <= most or value == math.inf:
            expected = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text} is not a number {expected}")
        return value

    parse.__name__ = kind.__name__  # argparse says "invalid int value"
    return parse


@contextmanager
def refusing_bad_input(program: str) -> Iterator[None]:
    """Within the ``with`` block, what cannot be done ends the program in one sentence and exit status 2.

    Two of the errors are those of NumPy's files that are none, or were cut short; another is asking for more than there is memory. A
    KeyError is not among them: its message is no sentence, so whoever reads a file of the user's says himself what the file lacks.
    """
    try:
        with ending_with_the_reader():
            yield
    except (ValueError, TypeError, NotImplementedError, OSError, ImportError, zipfile.BadZipFile, EOFError, MemoryError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(2)


class Aside(io.TextIOBase):
    """Stands in the place of standard output: what is printed goes to stderr, and ``answer`` is standard output itself."""

    def __init__(self, answer: TextIO):
        self.answer = answer

    def write(self, text: str) -> int:
        return sys.stderr.write(text) if sys.stderr is not None else len(text)

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()


@contextmanager
def json_alone(asked: bool) -> Iterator[None]:
    """Within the ``with`` block of a command with ``--json``, what is printed goes to stderr, and standard output has what
    :func:`print_json` says: nothing else, and nothing at all if the command fails."""
    if not asked:
        yield
        return
    with redirect_stdout(Aside(sys.stdout)):
        yield


def print_json(facts: Any) -> None:
    """The answer of a command with ``--json``, in one line on standard output."""
    print(json.dumps(facts), file=getattr(sys.stdout, "answer", sys.stdout))


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
