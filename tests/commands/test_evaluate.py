"""hcrot evaluate: the pictures of a run beside real ones that were prepared in the same way, equally many of each."""

import json

import numpy as np
import pytest
from PIL import Image

import hcrot
from hcrot.commands import evaluate
from support.commands import call, draw_squares

QUICK = ["--number", 8, "--steps", 1, "--epochs", 1, "--json"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HCROT_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluate, "LEAST_STEPS", 1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_squares(tmp_path_factory.mktemp("data") / "squares", 8)


def a_run(folder, channels=3, classes=("blue", "red"), **config):
    """The folder of a run that has learned nothing."""
    model = hcrot.UNet2dModel(
        sample_size=8, in_channels=channels, out_channels=channels, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), num_class_embeds=len(classes) or None, generator=0,
    )  # fmt: skip
    hcrot.save_checkpoint(folder / "checkpoint", model, hcrot.DDPMScheduler())
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "classes.json").write_text(json.dumps({"classes": list(classes)}))
    return folder


def test_what_stands_side_by_side_is_of_equally_many_pictures_of_the_same_classes(pictures, tmp_path, monkeypatch, capsys):
    numbers, asked = [], []
    draw = hcrot.pipelines.sample
    monkeypatch.setattr("hcrot.tools.metrics.frechet_distance", lambda *clouds: numbers.append([len(cloud) for cloud in clouds]) or 0.0)
    monkeypatch.setattr(hcrot.pipelines, "sample", lambda *given, **how: asked.extend(how["class_labels"]) or draw(*given, **how))
    (pictures / "red" / "0.png").rename(tmp_path / "0.png")  # so that red ones are fewer
    try:
        assert call("evaluate", a_run(tmp_path / "run"), "--data", pictures, *QUICK[:1], 23, *QUICK[2:]) == 0
    finally:
        (tmp_path / "0.png").rename(pictures / "red" / "0.png")
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert numbers == [[6, 6], [6, 6]] and figures["pictures_compared"] == 6 and len(asked) == 23
    assert asked[:6] == asked[6:12], "those of the quarter of real pictures that real ones are compared with, again and again"
    assert {"precision_of_real_from_real", "recall_of_real_from_real", "frechet_distance_of_real_from_real"} <= figures.keys()


def test_real_from_real_and_drawn_from_real_agree_where_the_drawn_are_real(tmp_path, monkeypatch, capsys):
    """The distance of equal distributions falls with their number: what was of half as many pictures was twice as large."""
    rng = np.random.default_rng(0)
    noise, drawn = rng.integers(0, 256, (400, 3, 8, 8), dtype=np.uint8), rng.uniform(-1, 1, (100, 3, 8, 8)).astype(np.float32)
    found = noise, np.zeros(400, np.int64), []
    monkeypatch.setattr("hcrot.commands.train.load_data", lambda *_: found)
    monkeypatch.setattr("hcrot.commands.sample.draw", lambda *_, **__: (drawn, []))
    assert call("evaluate", a_run(tmp_path / "run", classes=()), "--data", "noise", *QUICK) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["frechet_distance"] == pytest.approx(figures["frechet_distance_of_real_from_real"], rel=0.25)


@pytest.mark.parametrize("cropped", [True, False])
def test_real_pictures_are_prepared_as_the_run_prepared_them(cropped, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    (tmp_path / "wide").mkdir()
    for number in range(16):
        Image.fromarray(rng.integers(0, 256, (8, 24, 3), dtype=np.uint8)).save(tmp_path / "wide" / f"{number}.png")
    seen = []
    monkeypatch.setattr(evaluate, "trained_judge", lambda images, *_: seen.append(images) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate.judged(options(a_run(tmp_path / "run", center_crop=cropped, classes=()), "--data", tmp_path / "wide"))
    expected = hcrot.data.ImageFolder(tmp_path / "wide", 8, center_crop=cropped, cache=tmp_path / "other").images
    places = {image.tobytes() for image in hcrot.data.prepare_images(expected)}
    assert {image.tobytes() for image in seen[0]} <= places


def options(*words):
    parser = evaluate.argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.mark.parametrize(("data", "made", "message"), [
    ("digits", {"channels": 2}, "pictures of digits have 3 channels, and the network draws 2"),
    ("digits", {"channels": 1}, "the classes of digits are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and those of the network blue, red"),
    ("few", {"classes": ()}, "has 3 pictures, expected at least 16"),
])  # fmt: skip
def test_pictures_of_another_kind_are_refused_before_anything_is_learned_or_drawn(data, made, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "trained_judge", lambda *_: 1 / 0)
    if data == "few":
        data = tmp_path / "few"
        data.mkdir()
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 200, 9)).save(data / f"{number}.png")
    assert call("evaluate", a_run(tmp_path / "run", **made), "--data", data, "--threads", 2) == 2
    assert message in capsys.readouterr().err


def test_files_of_features_that_cannot_be_read_are_named_in_a_sentence(tmp_path, capsys):
    good = np.random.default_rng(0).standard_normal((9, 3))
    np.savez(tmp_path / "good.npz", features=good)
    np.save(tmp_path / "single.npy", good)
    np.savez(tmp_path / "other.npz", images=good)
    np.savez(tmp_path / "objects.npz", features=np.array([None]))
    np.savez(tmp_path / "words.npz", features=np.array([["a"]]))
    (tmp_path / "rubbish.npz").write_bytes(b"rubbish")
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bit.npz").write_bytes(whole.replace(good.tobytes()[:8], b"damaged!"))
    for name, message in (
        ("single.npy", "is damaged, or no file of arrays by name (.npz)"), ("rubbish.npz", "is damaged, or no file"),
        ("cut.npz", "is damaged, or no file"), ("bit.npz", "is damaged, or holds something else than numbers"),
        ("objects.npz", "holds something else than numbers"), ("other.npz", "has no array features, but images"),
        ("words.npz", "has features of shape (1, 1) and dtype <U1, expected numbers (N, D)"), ("none.npz", "No such file"),
    ):  # fmt: skip
        assert call("evaluate", "--features", tmp_path / "good.npz", tmp_path / name) == 2
        error = capsys.readouterr().err
        assert message in error and name in error and len(error.splitlines()) == 1
    assert call("evaluate", tmp_path, "--features", *[tmp_path / "good.npz"] * 2, "--number", 9, "--json") == 2
    assert "CHECKPOINT, --number would have no effect" in capsys.readouterr().err


def test_a_damaged_shard_is_named(tmp_path, capsys):
    run, words = a_run(tmp_path / "run"), ["--count", 2, "--steps", 1, "--output", tmp_path / "many"]
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "pictures-000000000.npz").write_bytes(b"PK")
    assert call("sample", run, *words) == 2
    assert "pictures-000000000.npz is damaged, or no file of arrays by name" in capsys.readouterr().err
