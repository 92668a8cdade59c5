"""docs/eyes.md: its programs run, one after the other, and print what it says."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "eyes.md"
BLOCK = re.compile(r"^```(python)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def without_noise(text):
    """Times and rounded numbers differ from machine to machine; whole numbers and shapes do not."""
    text = re.sub(r"by class: .*", "by class", re.sub(r"-?\d+\.\d+%?(e-\d+)?|\d+%", "#", text))
    return re.sub(r"\s+", " ", text)


def test_the_page_is_true(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, printed, compared = {}, "", 0
    for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language:
            with redirect_stdout(StringIO()) as output, np.errstate(invalid="ignore"):
                exec(text, names)
            printed = output.getvalue()
        else:
            assert without_noise(printed) == without_noise(text)
            compared += 1
    assert compared == 4 and len(list(tmp_path.glob("*.png"))) == 6
