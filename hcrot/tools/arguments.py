"""How the programs here read their command line: messages of one sentence, and numbers within their bounds."""

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Parser", "RawText", "number", "refusing_bad_input"]

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
        yield
    except (ValueError, TypeError, NotImplementedError, OSError, ImportError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(2)
