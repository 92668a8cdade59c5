"""Exercises that check themselves, and a bug hunt.

    hcrot learn list                what there is, and what you have done
    hcrot learn start 02-1          write the file of an exercise; bugs are called bug-01 and so on
    hcrot learn check 02-1          is it right?
    hcrot learn hint 02-1           one hint after the other
    hcrot learn solution 02-1       the solution, with its derivation
    hcrot learn notebook 05         a chapter of the course as a notebook
    hcrot learn start 02-1 --language ko        in Korean, from then on in this folder

Exit status 1: the check says that it is not right yet.
"""

import argparse
from argparse import Namespace
from pathlib import Path

from hcrot.tools.arguments import print_json

__all__ = ["add_arguments", "run"]

ACTIONS = ("list", "start", "check", "hint", "solution", "notebook")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="list", help="see above (default: %(default)s)")
    parser.add_argument("exercise", nargs="?", metavar="N", help="its number or name: 02-1, 02_1_linear_backward, bug-07; of a chapter: 05")
    parser.add_argument("--folder", metavar="FOLDER", type=Path, help="where your files are (default: hcrot_exercises)")
    parser.add_argument("--again", action="store_true", help="with start and notebook: begin anew, overwriting your file")
    parser.add_argument("--language", choices=("en", "ko"), help="default: that of the last start in this folder, else en")
    parser.add_argument("--json", action="store_true", help="as one line of JSON")


def run(options: Namespace) -> int:
    action, exercise = options.action, options.exercise
    if action == "list" and exercise:
        raise ValueError(f"list takes no exercise, got {exercise}")
    if action != "list" and not exercise:
        example = "05" if action == "notebook" else "02-1"
        raise ValueError(f"which one? For example: hcrot learn {action} {example}; `hcrot learn list` has all exercises")
    if options.again and action not in ("start", "notebook"):
        raise ValueError(f"--again belongs to start and notebook, not to {action}")

    from hcrot.learn import notebooks, workbook

    folder = options.folder or Path(workbook.FOLDER)
    if action == "list":
        answer = workbook.contents(folder, options.language)
    elif action == "start":
        answer = workbook.start(exercise, folder, options.again, options.language)
    elif action == "notebook":
        answer = notebooks.write(exercise, folder, options.language, options.again)
    else:
        answer = getattr(workbook, action)(exercise, folder, options.language)
    print_json(answer.facts) if options.json else print(answer)
    return 0 if answer else 1
