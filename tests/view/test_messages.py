"""What the page asks for is checked value by value."""

import base64
import json

import numpy as np
import pytest

from hcrot.view.messages import Request, encoded, pack, symmetric

GOOD = {"n": 3, "x": 0.5, "word": "ddim", "labels": [1, None], "parts": [{"a": 1}], "pixels": base64.b64encode(bytes(4)).decode()}


@pytest.mark.parametrize(("read", "name", "value", "message"), [
    (lambda r: r.number("x", 0, 1), "x", 2, "x must be a number from 0 to 1, got 2"),
    (lambda r: r.number("x", 0, 1), "x", True, "got True"),
    (lambda r: r.number("x", 0, 1), "x", float("nan"), "got nan"),
    (lambda r: r.whole("n", 0, 9), "n", 2.5, "n must be a whole number, got 2.5"),
    (lambda r: r.text("word"), "word", "a" * 61, "at most 60 characters"),
    (lambda r: r.choice("word", ["ddim", "ddpm"]), "word", "nonsense", "word must be one of ddim, ddpm, got 'nonsense'"),
    (lambda r: r.labels("labels", 11, 10), "labels", [11], "classes from 0 to 10"),
    (lambda r: r.labels("labels", 11, 10), "labels", [True], "classes from 0 to 10"),
    (lambda r: r.labels("labels", 11, 10), "labels", [], "a list of 1 to 20 classes"),
    (lambda r: r.parts("parts", 2), "parts", [{}] * 3, "a list of 1 to 2 objects"),
    (lambda r: r.parts("parts", 2), "parts", [7], "must be a JSON object, got int"),
    (lambda r: r.pixels("pixels", (2, 2)), "pixels", "AAAA", "pixels must be 4 pixels, got 3"),
    (lambda r: r.pixels("pixels", (2, 2)), "pixels", "!", "must be pixels in base64"),
])  # fmt: skip
def test_values_are_read_or_refused(read, name, value, message):
    read(Request(GOOD))
    with pytest.raises(ValueError, match=message):
        read(Request(GOOD | {name: value}))
    with pytest.raises(ValueError, match=name):
        read(Request({}))


def test_any_class_is_the_null_label():
    assert Request({"labels": [3, None]}).labels("labels", 11, 10) == [3, 10]
    with pytest.raises(ValueError, match="classes from 0 to 9"):
        Request({"labels": [None]}).labels("labels", 10, None)


def test_pictures_become_bytes_and_numbers_become_json():
    packed = pack(np.array([[[[-1.0, 0.0, 1.0, 7.0]]]]))
    assert packed["shape"] == [1, 1, 1, 4] and list(base64.b64decode(packed["data"])) == [0, 128, 255, 255]
    packed = symmetric(np.array([[[-4.0, 0.0, 2.0, np.nan]]]))
    assert packed["top"] == 4 and list(base64.b64decode(packed["data"])) == [1, 128, 192, 128]
    text = encoded({"a": [np.float32("nan"), np.inf, np.int64(2)], "b": {"c": (1.5,)}})
    assert json.loads(text) == {"a": [None, None, 2], "b": {"c": [1.5]}}
