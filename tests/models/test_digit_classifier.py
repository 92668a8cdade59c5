"""DigitClassifier: its formula, its gradients, learning, reading in batches, and its two files."""

import json

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.models.digit_classifier import DigitClassifier
from hcrot.tools.metrics import accuracy
from hcrot.training.losses import cross_entropy
from hcrot.training.optim import AdamW

SMALL = {"image_size": 9, "num_classes": 3, "channels": (2, 3, 4), "num_features": 5}


def make(seed=0, **changes):
    return DigitClassifier(**{**SMALL, **changes}, generator=np.random.default_rng(seed))


def images(count, size=9, dtype=np.float32):
    return np.random.default_rng(count).uniform(-1, 1, (count, 1, size, size)).astype(dtype)


def convolved(x, weight, bias):
    """A 3x3 convolution with zeros around, in plain NumPy."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("bcyxij,ocij->boyx", windows, weight) + bias[:, None, None]


def halved(x):
    b, c, h, w = x.shape
    return x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(b, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


@pytest.mark.parametrize(("size", "halvings"), [(1, 0), (7, 0), (9, 1), (14, 1), (17, 2), (28, 2), (64, 3)])
def test_forward_is_the_formula(size, halvings):
    model, x = make(image_size=size).astype(np.float64), images(3, size, np.float64)
    arrays = iter(model.state_dict().values())
    h = x
    for index in range(3):
        h = convolved(h, next(arrays), next(arrays))
        h = np.maximum(halved(h) if index < halvings else h, 0)
    features = np.maximum(h.reshape(3, -1) @ next(arrays).T + next(arrays), 0)
    logits = features @ next(arrays).T + next(arrays)
    np.testing.assert_allclose(model(x), logits, rtol=1e-12, atol=1e-14)
    for part, expected in zip(model.read(x), (logits, features), strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-12, atol=1e-14)


def test_small_integers_of_numpy(tmp_path):
    """uint8 ends at 255, and here are 16 channels of 7 x 7 pixels."""
    options = {"image_size": 28, "num_classes": 3, "channels": (4, 16), "num_features": 5}
    small = {name: tuple(map(np.uint8, value)) if name == "channels" else np.uint8(value) for name, value in options.items()}
    model, same = DigitClassifier(**small, generator=0), DigitClassifier(**options, generator=0)
    assert model.config == same.config and repr(model) == repr(same)
    assert {type(value) for value in (*model.config["channels"], *model.config.values())} == {int, list}
    x = images(300, 28)
    for part, expected in zip(model.read(x, batch_size=np.uint8(200)), same.read(x, batch_size=200), strict=True):
        np.testing.assert_array_equal(part, expected)
    model.save_pretrained(tmp_path)
    assert DigitClassifier.from_pretrained(tmp_path).config == same.config


@pytest.mark.parametrize("width", [2.5, True, 0])
def test_widths_are_integers(width):
    with pytest.raises(ValueError, match=rf"DigitClassifier: channels\[1\] must be an int of at least 1, got {width}"):
        make(channels=(2, width))


def test_gradients():
    check_gradients(make(), images(4))


def test_it_learns_by_heart_and_every_parameter_moves():
    model, x, labels = make(num_features=16), images(12), np.arange(12) % 3
    before = model.state_dict()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss, dlogits = cross_entropy(model(x), labels)
        model.backward(dlogits)
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.01 and accuracy(model.read(x)[0], labels) == 1
    for name, array in model.state_dict().items():
        assert (array != before[name]).any(), name


def test_reading_in_batches_is_reading_at_once_and_keeps_nothing():
    model, x = make(), images(11)
    before = x.copy()
    at_once, in_batches = model.read(x), model.read(x, batch_size=4)
    for whole, parts in zip(at_once, in_batches, strict=True):
        assert parts.dtype == np.float32
        np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)
    assert at_once[0].shape == (11, 3) and at_once[1].shape == (11, 5)
    np.testing.assert_array_equal(x, before)
    assert model.training
    with pytest.raises(RuntimeError):
        model.backward(at_once[0])


def test_what_was_saved_is_loaded_and_replaces_what_was_there(tmp_path):
    folder, x = tmp_path / "new" / "folder", images(3)
    make(0, image_size=12).save_pretrained(folder)
    model = make(1)
    model.save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    loaded = DigitClassifier.from_pretrained(folder)
    assert loaded.config == model.config == {**SMALL, "channels": [2, 3, 4], "in_channels": 1}
    np.testing.assert_array_equal(loaded(x), model(x))


def test_a_save_that_fails_leaves_the_earlier_files(tmp_path, monkeypatch):
    make(0).save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def break_off(path, arrays):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("hcrot.models.digit_classifier.write_arrays", break_off)
    with pytest.raises(OSError, match="disk full"):
        make(1).save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def rewrite(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / "config.json").unlink(), FileNotFoundError, "there is no file .*config.json"),
        (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, "there is no file .*model.safetensors"),
        (lambda f: (f / "config.json").write_text("{"), ValueError, "config.json is damaged or no JSON"),
        (lambda f: (f / "config.json").write_text("[]"), ValueError, "config.json holds no JSON object but \\[\\]"),
        (lambda f: rewrite(f, _class_name="UNet2DModel"), ValueError, "its _class_name is 'UNet2DModel'"),
        (lambda f: rewrite(f, image_size=14), ValueError, "body.[0-9]+.weight has shape"),
        (lambda f: rewrite(f, image_size=-1), ValueError, "image_size must be an int of at least 1"),
        (lambda f: rewrite(f, depth=5), ValueError, "unexpected keyword argument 'depth'"),
        (lambda f: (f / "model.safetensors").write_bytes(b"torn"), ValueError, "model.safetensors is damaged"),
    ],
)
def test_damaged_folders_are_named(tmp_path, damage, error, message):
    make().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(error, match=message):
        DigitClassifier.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 0}, "image_size must be an int of at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be an int of at least 1"),
        ({"num_features": 1.5}, "num_features must be an int"),
        ({"channels": ()}, r"channels must be a list of widths, at least one, got \(\)"),
        ({"channels": 16}, "channels must be a list of widths, at least one, got 16"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=f"DigitClassifier: {message}"):
        make(**changes)


@pytest.mark.parametrize("use", [DigitClassifier.forward, DigitClassifier.read])
@pytest.mark.parametrize("bad", [images(2, 8), images(2)[:, 0], images(2)[:0], images(2)[:, [0, 0]], [1.0]])
def test_bad_images(use, bad):
    with pytest.raises(ValueError, match=r"DigitClassifier: expected images of shape \(batch, 1, 9, 9\), got"):
        use(make(), bad)


def test_integer_images():
    with pytest.raises(ValueError, match="float32"):
        make()(np.zeros((2, 1, 9, 9), np.uint8))
