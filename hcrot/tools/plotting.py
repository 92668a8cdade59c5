"""The pictures of a run: the loss, grids and strips of images, an animation; those of a network's layers are in ``layer_pictures.py``.

matplotlib and Pillow are imported when a picture is drawn, not with hcrot, and the user's own matplotlib (backend, style, open figures) is
neither used nor changed; MPLBACKEND may name what is not installed. Images come as models see them: ``(N, C, H, W)`` floats in [-1, 1], C =
1 (grey) or 3 (RGB); what lies outside, as noise does, is drawn as the nearest end. Small images are enlarged by a whole factor, each pixel
to a square. Files are written beside their target and renamed; missing folders are made.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hcrot.files.json_and_arrays import replacing
from hcrot.init import check_positive
from hcrot.tools.figures import default_style, new_figure, save, tidy
from hcrot.tools.layer_pictures import plot_activations, plot_attention, plot_histograms, plot_profile, plot_summary, plot_watch

__all__ = [
    "as_bytes", "COARSENESS", "GAP", "INK", "PAGE", "image_grid", "image_strip", "moving_average", "plot_activations", "plot_attention",
    "plot_histograms", "plot_loss", "plot_profile", "plot_summary", "plot_watch", "save_gif",
]  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = 0x1C  # grey of the page around images: a little lighter than paper in the images, so that their edges show
INK = "#e8e8e8"
GAP = 4  # pixels between images
COARSENESS = 8  # of the greys in an animation: noise in all 256 would make the file larger and look the same


def rehearse(folder: str | os.PathLike) -> None:
    """Draw a small picture of each kind into the folder and remove it, so that what would fail after hours of training fails before.

    Args:
        folder: exists; the one that the pictures of the run will be written to.

    Raises:
        ImportError: matplotlib or Pillow is missing.
        OSError: the folder cannot be written.
    """
    images = np.zeros((1, 1, 2, 2))
    with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=folder) as place:
        plot_loss([1, 2], [2.0, 1.0], Path(place) / "loss.png", title="loss", evaluations={"errors, %": ([1, 2], [2.0, 1.0])})
        image_grid(images, Path(place) / "grid.png", columns=1, row_labels=["0"])
        image_strip(images, ["0 → 1"], Path(place) / "strip.png", title="title")
        save_gif([images, images], Path(place) / "animation.gif", columns=1)


def plot_loss(
    steps: Sequence[int] | np.ndarray,
    losses: Sequence[float] | np.ndarray,
    path: str | os.PathLike | None = None,
    *,
    title: str = "",
    evaluations: Mapping[str, tuple[Sequence[int], Sequence[float]]] | None = None,
) -> "Figure":
    """Draw a training loss as it came, and its moving average over 1/20 of the run, centred, so that it does not lag.

    The axis is logarithmic when all losses are positive and the largest is over five times the smallest.

    Args:
        steps: n of them, n >= 1, ascending.
        losses: n of them; what is not finite is left out, as a gap.
        path: the PNG file; None: none is written.
        title: above the picture.
        evaluations: for each, a panel below with ``(steps, values)`` as connected points, by its name.

    Returns:
        the figure, which shows itself in a notebook.

    Raises:
        ValueError: no losses, or not as many as steps.
        OSError: the file cannot be written.
    """
    step, loss = np.asarray(steps), np.asarray(losses, dtype=np.float64)
    if step.ndim != 1 or step.shape != loss.shape or step.size == 0:
        raise ValueError(f"plot_loss: expected as many losses as steps, at least one, got {loss.shape} and {step.shape}")
    evaluations = evaluations or {}
    loss = np.where(np.isfinite(loss), loss, np.nan)
    smooth = moving_average(loss, max(1, loss.size // 40))

    with default_style():
        from matplotlib.ticker import LogLocator, StrMethodFormatter

        figure = new_figure(figsize=(8, 4.2 + 1.9 * len(evaluations)), dpi=150, layout="constrained")
        heights = [4.2, *(1.9 for _ in evaluations)]
        axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        axes[0].set_title(title, loc="left")
        axes[0].plot(step, loss, color="#9ec3e6", linewidth=0.8, label="each step")
        axes[0].plot(step, smooth, color="#14507f", linewidth=1.8, label=f"moving average, {smooth[-1]:.4g} at the end")
        axes[0].legend(frameon=False, loc="upper right")
        axes[0].set_ylabel("loss")
        finite = loss[np.isfinite(loss)]
        if finite.size and finite.min() > 0 and finite.max() > 5 * finite.min():
            axes[0].set_yscale("log")
            axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes[0].yaxis.set_minor_formatter(lambda value, position: "")
        for axis, (name, (at, values)) in zip(axes[1:], evaluations.items(), strict=True):
            axis.plot(at, values, color="#b3541e", linewidth=1.4, marker="o", markersize=4)
            axis.set_ylabel(name)
        axes[-1].set_xlabel("step")
        for axis in axes:
            tidy(axis)
        save(figure, path)
    return figure


def moving_average(values: np.ndarray, reach: int) -> np.ndarray:
    """The mean of each value and up to ``reach`` on either side; NaNs are left out.

    At the beginning, where a loss falls steeply, only as many are taken after it as there are before it; at the end, where
    it hardly does, all before it and as many after it as there are.

    Args:
        values: (n,) float64.
        reach: at least 0.

    Returns:
        (n,), NaN where all are.
    """
    known = np.isfinite(values)
    sums, counts = np.pad(np.cumsum([np.where(known, values, 0), known], axis=1), ((0, 0), (1, 0)))
    index = np.arange(values.size)
    start, stop = np.maximum(index - reach, 0), np.minimum(index + np.minimum(index, reach) + 1, values.size)
    with np.errstate(invalid="ignore"):
        return (sums[stop] - sums[start]) / (counts[stop] - counts[start])


def image_grid(
    images: np.ndarray,
    path: str | os.PathLike | None = None,
    *,
    columns: int,
    row_labels: Sequence[str] | None = None,
    title: str = "",
    pixels: int = 56,
) -> "Figure":
    """Draw images in rows of ``columns``, row after row, each row with its label at the left.

    Args:
        images: (N, 1 or 3, H, W) in [-1, 1].
        path: the PNG file; None: none is written.
        columns: images in a row; the last row may be shorter.
        row_labels: one for each row.
        title: above the grid.
        pixels: about how wide each image is drawn.

    Returns:
        the figure, which shows itself in a notebook.

    Raises:
        TypeError, ValueError: images that are not as described, ``columns`` < 1, or not one label for each row.
        OSError: the file cannot be written.
    """
    sheet = _sheet("image_grid", images, columns, pixels)
    rows = -(-len(images) // int(columns))
    if row_labels is not None and len(row_labels) != rows:
        raise ValueError(f"image_grid: row_labels must be {rows}, one for each row, got {len(row_labels)}")
    longest = max(map(len, row_labels or [""]))
    left, top = (max(36, 8 + 9 * longest) if row_labels else 0), (32 if title else 0)  # a letter of this size is 9 pixels wide
    row_height = (sheet.shape[0] - GAP) / rows
    with default_style():
        page = _page(sheet, left, top)
        _write(page, title, left + GAP, 18, size=13, align="left")
        for row, label in enumerate(row_labels or ()):
            _write(page, label, left / 2 + 2, top + GAP / 2 + (row + 0.5) * row_height, size=15)
        save(page, path)
    return page


def image_strip(
    images: np.ndarray, titles: Sequence[str], path: str | os.PathLike | None = None, *, title: str = "", pixels: int = 112
) -> "Figure":
    """Draw images side by side, each under its own title: stations of a process.

    Args:
        images: (N, 1 or 3, H, W) in [-1, 1].
        titles: N of them.
        path: the PNG file; None: none is written.
        title: above all.
        pixels: about how wide each image is drawn.

    Returns:
        the figure, which shows itself in a notebook.

    Raises:
        TypeError, ValueError: images that are not as described, or not as many titles.
        OSError: the file cannot be written.
    """
    sheet = _sheet("image_strip", images, len(images), pixels)
    if len(titles) != len(images):
        raise ValueError(f"image_strip: expected a title for each of {len(images)} images, got {len(titles)}")
    top = 56 if title else 28
    column_width = (sheet.shape[1] - GAP) / len(images)
    with default_style():
        page = _page(sheet, 0, top)
        _write(page, title, GAP, 16, size=13, align="left")
        for column, text in enumerate(titles):
            _write(page, text, GAP / 2 + (column + 0.5) * column_width, top - 12, size=12)
        save(page, path)
    return page


def save_gif(
    frames: Sequence[np.ndarray],
    path: str | os.PathLike,
    *,
    columns: int,
    milliseconds: int = 60,
    hold: int = 2000,
    pixels: int = 84,
) -> None:
    """Write an animation that repeats for ever: each frame a grid of images.

    Args:
        frames: arrays (N, 1 or 3, H, W) in [-1, 1], all of one shape.
        path: the GIF file.
        columns: images in a row.
        milliseconds: how long each frame is shown; GIF counts in hundredths of a second.
        hold: how long the last one is.
        pixels: about how wide each image is drawn.

    Raises:
        TypeError, ValueError: no frames, frames of several shapes or not as described, or a number out of range.
        OSError: the file cannot be written.
    """
    from PIL import Image

    if len({np.shape(frame) for frame in frames}) != 1:
        raise ValueError(f"save_gif: frames must be arrays of one shape, at least one, got {len(frames)} of several")
    if min(milliseconds, hold) < 10:
        raise ValueError(f"save_gif: milliseconds and hold must be at least 10, got {milliseconds} and {hold}")
    sheets = [_sheet("save_gif", frame, columns, pixels) for frame in frames]
    if frames[0].shape[1] == 1:
        sheets = [(sheet[:, :, 0] // COARSENESS) * COARSENESS for sheet in sheets]
    first, *others = map(Image.fromarray, sheets)
    with replacing(path) as unfinished:
        first.save(
            unfinished,
            format="GIF",
            save_all=True,
            append_images=others,
            duration=[milliseconds] * len(others) + [hold],
            loop=0,
        )


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Pixels in [-1, 1] as uint8 of the same shape; what lies beyond is cut off."""
    return np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)


def _sheet(owner: str, images: np.ndarray, columns: int, pixels: int) -> np.ndarray:
    """The images in rows of ``columns``, enlarged and with GAP around each: uint8 (rows (h + GAP) + GAP, ..., 3)."""
    if not isinstance(images, np.ndarray) or images.dtype.kind != "f":
        came = f"one of {images.dtype}" if isinstance(images, np.ndarray) else type(images).__name__
        raise TypeError(f"{owner}: images must be an array of floats in [-1, 1], got {came}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.size == 0:
        raise ValueError(f"{owner}: images must have the shape (N, 1 or 3, H, W) and not be empty, got {images.shape}")
    if not np.isfinite(images).all():
        raise ValueError(f"{owner}: images have numbers that are not finite")
    columns, pixels = check_positive(owner, columns=columns, pixels=pixels)

    scale = max(1, round(pixels / images.shape[3]))
    levels = as_bytes(images).repeat(scale, axis=2).repeat(scale, axis=3).transpose(0, 2, 3, 1)
    height, width = levels.shape[1:3]
    rows, columns = -(-len(images) // columns), min(columns, len(images))
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), PAGE, np.uint8)
    for index, image in enumerate(levels):
        row, column = divmod(index, columns)
        y, x = GAP + row * (height + GAP), GAP + column * (width + GAP)
        sheet[y : y + height, x : x + width] = image
    return sheet


def _page(sheet: np.ndarray, left: int, top: int) -> "Figure":
    """A figure of one dot per pixel, in its points of 1/72 inch too, with the sheet below and right of margins."""
    height, width = sheet.shape[0] + top, sheet.shape[1] + left
    figure = new_figure(figsize=(width / 72, height / 72), dpi=72, facecolor=(PAGE / 255,) * 3)
    figure.figimage(sheet, xo=left, yo=0, origin="upper")
    return figure


def _write(figure: "Figure", text: str, x: float, y: float, size: int, align: str = "center") -> None:
    """Write at x, y pixels from the left and the top."""
    width, height = figure.get_size_inches() * figure.dpi
    figure.text(x / width, 1 - y / height, text, color=INK, size=size, ha=align, va="center_baseline")
