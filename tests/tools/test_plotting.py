"""Pictures: what is drawn is read back pixel by pixel; curves are looked at before they become pixels."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hcrot.tools import plotting
from hcrot.tools.plotting import GAP, PAGE, image_grid, image_strip, moving_average, plot_loss, rehearse, save_gif
from support.processes import run

MARGIN = 36  # for the labels of rows


def random_images(count, channels=1, height=7, width=7):
    return np.random.default_rng(count).uniform(-1, 1, (count, channels, height, width)).astype(np.float32)


def expected_levels(image):
    """(C, H, W) in [-1, 1] as (H, W, 3) in 0 .. 255."""
    levels = np.rint((image.astype(np.float64) + 1) / 2 * 255).transpose(1, 2, 0)
    return np.broadcast_to(levels, (*levels.shape[:2], 3))


def read(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 7, 7), (3, 5, 8), (1, 1, 1), (3, 150, 120)])
def test_grid_shows_every_pixel_of_every_image_at_its_place(tmp_path, channels, height, width):
    images = random_images(5, channels, height, width)
    before = images.copy()
    image_grid(images, tmp_path / "grid.png", columns=3, row_labels=["one", "two"], pixels=56)
    picture, scale = read(tmp_path / "grid.png"), max(1, round(56 / width))
    high, wide = height * scale, width * scale
    assert picture.shape == (2 * (high + GAP) + GAP, MARGIN + 3 * (wide + GAP) + GAP, 3)
    for index, image in enumerate(images):
        y, x = GAP + index // 3 * (high + GAP), MARGIN + GAP + index % 3 * (wide + GAP)
        drawn = picture[y : y + high, x : x + wide].reshape(height, scale, width, scale, 3)
        assert np.abs(drawn - expected_levels(image)[:, None, :, None]).max() <= 1
        assert (picture[y - GAP : y, x : x + wide] == PAGE).all()
    assert (picture[high + GAP :, MARGIN + 2 * (wide + GAP) :] == PAGE).all()  # the place of the sixth
    np.testing.assert_array_equal(images, before)


def test_grid_has_room_for_long_labels(tmp_path):
    images = random_images(2)
    image_grid(images, tmp_path / "short.png", columns=1, row_labels=["a", "b"])
    image_grid(images, tmp_path / "long.png", columns=1, row_labels=["super-resolution", "b"])
    short, long = read(tmp_path / "short.png"), read(tmp_path / "long.png")
    margin = MARGIN + long.shape[1] - short.shape[1]
    np.testing.assert_array_equal(long[:, margin:], short[:, MARGIN:])
    written = np.flatnonzero((long[:, :margin] > PAGE + 100).any(axis=(0, 2)))
    assert written[0] > 1 and written[-1] < margin - 2


def test_grid_writes_each_label_beside_its_row_and_the_title_above(tmp_path):
    images = random_images(20)
    image_grid(images, tmp_path / "plain.png", columns=2)
    image_grid(images, tmp_path / "labelled.png", columns=2, row_labels=[""] * 6 + ["6"] + [""] * 3, title="A title")
    plain, labelled = read(tmp_path / "plain.png"), read(tmp_path / "labelled.png")
    top = labelled.shape[0] - plain.shape[0]
    assert top > 20
    np.testing.assert_array_equal(labelled[top:, MARGIN:], plain)
    assert (labelled[:top] > PAGE + 100).any()
    row_height = (plain.shape[0] - GAP) // 10
    written = np.nonzero((labelled[top:, :MARGIN] > PAGE + 100).any(axis=(1, 2)))[0]
    middle = GAP + 6 * row_height + 28
    assert written.size and abs(written.mean() - middle) < 2


def test_strip_is_one_row_under_titles(tmp_path):
    images = random_images(3)
    image_strip(images, ["t = 0", "", "t = 999"], tmp_path / "strip.png", pixels=70)
    picture = read(tmp_path / "strip.png")
    assert picture.shape[1] == 3 * (70 + GAP) + GAP
    top = picture.shape[0] - 70 - 2 * GAP
    for column, image in enumerate(images):
        x = GAP + column * (70 + GAP)
        drawn = picture[top + GAP : -GAP, x : x + 70].reshape(7, 10, 7, 10, 3)
        assert np.abs(drawn - expected_levels(image)[:, None, :, None]).max() <= 1
        assert (picture[:top, x : x + 70] > PAGE + 100).any() == (column != 1)


def test_beyond_the_range_is_drawn_as_the_nearest_end(tmp_path):
    images = np.array([[-9.0, -1.0], [1.0, 9.0]]).reshape(1, 1, 2, 2)
    image_strip(images, [""], tmp_path / "strip.png", pixels=2)
    assert read(tmp_path / "strip.png")[-GAP - 2 : -GAP, GAP : GAP + 2, 0].tolist() == [[0, 0], [255, 255]]


@pytest.mark.parametrize("channels", [1, 3])
def test_gif_has_every_frame_and_holds_the_last(tmp_path, channels):
    frames = [random_images(4, channels) * amplitude for amplitude in (1, 0.5, 0.1)]
    save_gif(frames, tmp_path / "a.gif", columns=2, milliseconds=50, hold=1500)
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 3 and animation.info["loop"] == 0
        durations = []
        for index, frame in enumerate(frames):
            animation.seek(index)
            durations.append(animation.info["duration"])
            picture = np.asarray(animation.convert("RGB")).astype(int)
            assert picture.shape == (2 * (84 + GAP) + GAP,) * 2 + (3,)
            drawn = picture[-GAP - 84 : -GAP, -GAP - 84 : -GAP].reshape(7, 12, 7, 12, 3)
            error = np.abs(drawn - expected_levels(frame[3])[:, None, :, None])
            assert error.max() <= 8 if channels == 1 else error.mean() <= 8
    assert durations == [50, 50, 1500]


def test_one_frame_makes_a_gif_too(tmp_path):
    save_gif([random_images(1)], tmp_path / "a.gif", columns=5)
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.size == (84 + 2 * GAP,) * 2


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    monkeypatch.setattr(plotting, "save", lambda figure, path: figures.append(figure))
    return figures


def test_loss_is_drawn_as_it_came_and_smoothed(drawn):
    steps, losses = np.arange(10, 90), 1 + np.random.default_rng(0).uniform(0, 1, 80)
    plot_loss(steps, losses, "loss.png", title="A title")
    (axis,) = drawn[0].axes
    raw, smooth = axis.get_lines()
    np.testing.assert_array_equal(raw.get_xydata(), np.stack([steps, losses], axis=1))
    np.testing.assert_array_equal(smooth.get_ydata(), moving_average(losses, 2))
    assert axis.get_title(loc="left") == "A title" and axis.get_yscale() == "linear"
    assert f"{losses[-3:].mean():.4g} at the end" in axis.get_legend().get_texts()[1].get_text()


@pytest.mark.parametrize(
    ("losses", "scale"), [([1, 0.3, 0.1], "log"), ([1, 0.5, 0.3], "linear"), ([1, 0.1, 0], "linear"), ([np.nan], "linear")]
)
def test_loss_is_logarithmic_where_that_shows_more(drawn, losses, scale):
    plot_loss(range(len(losses)), losses, "loss.png")
    assert drawn[0].axes[0].get_yscale() == scale


def test_evaluations_get_panels_of_their_own(drawn):
    plot_loss([1, 2, 3], [3, 2, 1], "loss.png", evaluations={"error, %": ([2, 3], [5, 4]), "other": ([3], [1])})
    _, error, other = drawn[0].axes
    assert error.get_ylabel() == "error, %" and other.get_ylabel() == "other"
    assert error.get_lines()[0].get_xydata().tolist() == [[2, 5], [3, 4]]


def test_loss_with_gaps_is_a_readable_png(tmp_path):
    losses = np.array([1, np.inf, np.nan, 0.5, 0.01])
    plot_loss(range(5), losses, tmp_path / "new" / "folder" / "loss.png")
    np.testing.assert_array_equal(losses, [1, np.inf, np.nan, 0.5, 0.01])
    picture = read(tmp_path / "new" / "folder" / "loss.png")
    assert picture.shape[1] == 1200 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_moving_average_by_hand():
    values = np.array([6.0, 0.0, 3.0, np.nan, 1.0, 5.0])
    np.testing.assert_allclose(moving_average(values, 1), [6, 3, 1.5, 2, 3, 3])
    np.testing.assert_array_equal(moving_average(values, 0), values)
    np.testing.assert_array_equal(moving_average(np.full(3, np.nan), 1), np.full(3, np.nan))
    assert moving_average(values, 50)[-1] == 3


def draw_each(folder, images):
    plot_loss([1, 2], [2, 1], folder / "loss.png")
    image_grid(images, folder / "grid.png", columns=2, row_labels=["a", "b"], title="grid")
    image_strip(images, list("abcd"), folder / "strip.png")
    save_gif([images, -images], folder / "a.gif", columns=2)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_users_matplotlib_is_left_alone_and_changes_nothing(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    images = random_images(4)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    expected = draw_each(tmp_path / "a", images)
    assert set(expected) == {"loss.png", "grid.png", "strip.png", "a.gif"}
    mine = {"savefig.dpi": 31, "savefig.bbox": "tight", "text.color": "red", "font.size": 33, "axes.facecolor": "black"}
    with matplotlib.rc_context(mine):
        before = dict(matplotlib.rcParams)
        assert draw_each(tmp_path / "b", images) == expected
        assert dict(matplotlib.rcParams) == before


def test_importing_brings_in_no_matplotlib_and_drawing_no_pyplot(tmp_path):
    program = """if True:
        import sys, numpy, hcrot
        assert not {"matplotlib", "PIL"} & set(sys.modules)
        hcrot.plotting.plot_loss([1, 2], [2, 1], sys.argv[1] + "/loss.png")
        hcrot.plotting.image_strip(numpy.zeros((1, 1, 4, 4)), ["a"], sys.argv[1] + "/strip.png")
        assert "matplotlib.pyplot" not in sys.modules
    """
    environment = os.environ | {"MPLBACKEND": "qtagg"}  # of no use here: it must not even be tried
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment)


def test_a_picture_that_fails_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "grid.png"
    path.write_bytes(b"old")

    def break_off(figure, target, **options):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", break_off)
    with pytest.raises(OSError, match="disk full"):
        image_grid(random_images(1), path, columns=1)
    assert [file.name for file in tmp_path.iterdir()] == ["grid.png"] and path.read_bytes() == b"old"


IMAGES = random_images(4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: image_grid(IMAGES.astype(int), p, columns=2), TypeError, "image_grid: images must be an array of floats"),
        (lambda p: image_grid([1.0], p, columns=2), TypeError, r"image_grid: .*, got list"),
        (lambda p: image_grid(IMAGES[0], p, columns=2), ValueError, r"image_grid: .* got \(1, 7, 7\)"),
        (lambda p: image_grid(IMAGES[:, [0, 0]], p, columns=2), ValueError, r"image_grid: .* got \(4, 2, 7, 7\)"),
        (lambda p: image_grid(IMAGES[:0], p, columns=2), ValueError, r"image_grid: .* not be empty"),
        (lambda p: image_grid(IMAGES * np.nan, p, columns=2), ValueError, "image_grid: .* not finite"),
        (lambda p: image_grid(IMAGES, p, columns=0), ValueError, "image_grid: columns must be an int of at least 1, got 0"),
        (lambda p: image_grid(IMAGES, p, columns=3, row_labels=["a"]), ValueError, "row_labels must be 2, .* got 1"),
        (lambda p: image_strip(IMAGES, ["a"], p), ValueError, "image_strip: expected a title for each of 4 images, got 1"),
        (lambda p: save_gif([], p, columns=1), ValueError, "save_gif: frames must be arrays of one shape, at least one"),
        (lambda p: save_gif([IMAGES, IMAGES[1:]], p, columns=1), ValueError, "save_gif: frames must be arrays of one shape"),
        (lambda p: save_gif([IMAGES], p, columns=1, milliseconds=0), ValueError, "save_gif: milliseconds"),
        (lambda p: plot_loss([1, 2], [1.0], p), ValueError, r"plot_loss: expected as many losses as steps.* \(1,\) and \(2,\)"),
        (lambda p: plot_loss([], [], p), ValueError, "plot_loss: expected as many losses as steps, at least one"),
    ],
)
def test_bad_input_is_named_and_nothing_written(tmp_path, call, error, message):
    with pytest.raises(error, match=message):
        call(tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("backend", "afterwards"),
    [("module://matplotlib_inline.backend_inline", None), ("module://absent", "module://absent"), ("nonsense", None), ("svg", "svg")],
)
def test_a_backend_inherited_from_a_notebook(tmp_path, backend, afterwards):
    program = f"""
        import os, sys
        sys.modules["matplotlib_inline"] = None  # not installed
        from hcrot.tools.plotting import rehearse
        rehearse({str(tmp_path)!r})
        import matplotlib
        assert os.environ["MPLBACKEND"] == {backend!r}
        if {afterwards!r}:
            assert matplotlib.rcParams["backend"] == {afterwards!r}
        assert "matplotlib.pyplot" not in sys.modules
    """
    process = run(program, MPLBACKEND=backend)
    assert process.returncode == 0, process.stderr
    assert os.listdir(tmp_path) == []


def test_the_rehearsal_finds_what_would_fail(tmp_path, monkeypatch):
    rehearse(tmp_path)
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError, match="nowhere"):
        rehearse(tmp_path / "nowhere")
    for name in ("matplotlib", "PIL"):
        with monkeypatch.context() as patch:
            for module in [module for module in sys.modules if module.split(".")[0] == name]:
                patch.setitem(sys.modules, module, None)
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ImportError, match=name):
                rehearse(tmp_path)
        assert os.listdir(tmp_path) == []


def test_small_integers_of_numpy(tmp_path):
    """uint8 ends at 255, and here are 12 columns of 21 pixels and their gaps."""
    images = random_images(12)
    for kind in (int, np.uint8):
        folder = tmp_path / kind.__name__
        image_grid(images, folder / "grid.png", columns=kind(12), pixels=kind(21), row_labels=["a"])
        save_gif([images, -images], folder / "a.gif", columns=kind(12), pixels=kind(21), milliseconds=kind(60), hold=kind(200))
    for name in ("grid.png", "a.gif"):
        assert (tmp_path / "int" / name).read_bytes() == (tmp_path / "uint8" / name).read_bytes()
