"""The pictures of a network's layers: what :func:`hcrot.summary`, :func:`hcrot.profile` and :func:`hcrot.watch` have found.

All are reached as ``hcrot.plotting.plot_profile`` and so on. Each returns its figure, which shows itself in a notebook, and writes it as a
PNG file if it is given a path.
"""

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hcrot.init import check_positive
from hcrot.tools.figures import default_style, new_figure, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hcrot.eyes.profile import Profile
    from hcrot.eyes.summary import Summary
    from hcrot.eyes.watch import Seen, Watch

__all__ = ["plot_activations", "plot_attention", "plot_histograms", "plot_profile", "plot_summary", "plot_watch"]

FIRST, SECOND = "#14507f", "#b3541e"
ROW = 0.22  # inches for the name of a layer


def plot_summary(summary: "Summary", path: str | os.PathLike | None = None, *, layers: int = 25) -> "Figure":
    """Bars for parameters, multiplications and kept bytes of the layers: what has no parts of its own, in the order of the tree.

    Args:
        summary: of :func:`hcrot.summary`.
        path: the PNG file; None: none is written.
        layers: at most so many, those with the largest share of anything.

    Returns:
        the figure, which shows itself in a notebook.

    Raises:
        ValueError: ``layers`` is below 1. OSError: the file cannot be written.
    """
    (layers,) = check_positive("plot_summary", layers=layers)
    leaves = [line for line, later in zip(summary.lines, [*summary.lines[1:], None], strict=True) if not later or later.depth <= line.depth]
    columns = {"parameters": 1.0, "multiplications": 1e-6, "kept": 1e-6}
    wholes = {name: getattr(summary, name) or 1 for name in columns}
    ranked = sorted(leaves, key=lambda line: -max(getattr(line, name) / whole for name, whole in wholes.items()))[:layers]
    shown = [line for line in leaves if line in ranked]
    with default_style():
        figure = new_figure(figsize=(11, 1 + ROW * len(shown)), dpi=110, layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (name, unit), title in zip(panels, columns.items(), ("parameters", "multiplications, millions", "kept, MB"), strict=True):
            axes.barh(range(len(shown)), [unit * getattr(line, name) for line in shown], color=FIRST)
            axes.set_title(title, loc="left", size=10)
            tidy(axes)
        _name_rows(panels[0], [_label(line.name, line.kind) for line in shown])
        save(figure, path)
    return figure


def plot_profile(profile: "Profile", path: str | os.PathLike | None = None, *, layers: int = 25) -> "Figure":
    """Bars for the time that layers take themselves, forward and backward, the slowest first; and for classes of layers.

    Args:
        profile: of :func:`hcrot.profile`.
        path: the PNG file; None: none is written.
        layers: at most so many.

    Returns:
        the figure, which shows itself in a notebook.

    Raises:
        ValueError: ``layers`` is below 1. OSError: the file cannot be written.
    """
    (layers,) = check_positive("plot_profile", layers=layers)
    shown = sorted(profile.lines, key=lambda line: -line.own)[:layers]
    kinds = list(profile.by_kind)[:layers]
    with default_style():
        figure = new_figure(figsize=(11, 1.2 + ROW * max(len(shown), len(kinds))), dpi=110, layout="constrained")
        left, right = figure.subplots(1, 2)
        forward = [1e3 * line.own_forward for line in shown]
        left.barh(range(len(shown)), forward, color=FIRST, label="forward")
        left.barh(range(len(shown)), [1e3 * line.own_backward for line in shown], left=forward, color=SECOND, label="backward")
        left.set_title(f"ms by layer, without its parts; {1e3 * (profile.forward + profile.backward):.1f} in all", loc="left", size=10)
        left.legend(frameon=False, loc="lower right")
        _name_rows(left, [_label(line.name, line.kind) for line in shown])
        right.barh(range(len(kinds)), [1e3 * profile.by_kind[kind] for kind in kinds], color=FIRST)
        right.set_title("ms by class", loc="left", size=10)
        _name_rows(right, kinds)
        for axes in (left, right):
            tidy(axes)
        save(figure, path)
    return figure


def plot_watch(seen: "Watch", path: str | os.PathLike | None = None) -> "Figure":
    """How large outputs and their gradients are, layer by layer: the root mean square, on a logarithmic axis, in the order of the tree.

    Layers whose output or gradient is not finite are crosses at the edge.

    Args:
        seen: of :func:`hcrot.watch`.
        path: the PNG file; None: none is written.

    Returns:
        the figure, which shows itself in a notebook.

    Raises:
        ValueError: no module was called. OSError: the file cannot be written.
    """
    layers = _called("plot_watch", seen)
    with default_style():
        figure = new_figure(figsize=(9, 1.2 + ROW * len(layers)), dpi=110, layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        for numbers, color, label in (
            ([layer.output for layer in layers], FIRST, "output"),
            ([layer.gradient for layer in layers], SECOND, "gradient"),
        ):
            points = [(one.rms, row) for row, one in enumerate(numbers) if one and one.rms > 0]
            axes.plot(*zip(*points, strict=True) if points else ([], []), "o-", color=color, markersize=4, linewidth=0.8, label=label)
            spoilt = [row for row, one in enumerate(numbers) if one and one.not_finite]
            if spoilt:
                axes.plot([0.99] * len(spoilt), spoilt, "x", color=color, transform=axes.get_yaxis_transform(), label=f"{label} not finite")
        axes.set_title("root mean square of outputs and of their gradients", loc="left", size=10)
        axes.legend(frameon=False, loc="best")
        _name_rows(axes, [_label(layer.name, layer.kind) for layer in layers])
        tidy(axes)
        save(figure, path)
    return figure


def plot_histograms(
    seen: "Watch", path: str | os.PathLike | None = None, *, names: Sequence[str] | None = None, columns: int = 4
) -> "Figure":
    """Histograms of the latest output of each layer, and of its gradient where there is one, side by side.

    Args:
        seen: of :func:`hcrot.watch`.
        path: the PNG file; None: none is written.
        names: of the modules; None: of all that were called.
        columns: layers in a row.

    Returns:
        the figure, which shows itself in a notebook.

    Raises:
        KeyError: a module of ``names`` was not called. ValueError: none was, or ``columns`` is below 1.
        OSError: the file cannot be written.
    """
    (columns,) = check_positive("plot_histograms", columns=columns)
    layers = _called("plot_histograms", seen) if names is None else [seen[name] for name in names]
    columns, rows = min(columns, len(layers)), math.ceil(len(layers) / columns)
    with default_style():
        figure = _grid_figure(rows, 2 * columns, 1.6, 1.7)
        panels = np.reshape(figure.subplots(rows, 2 * columns, squeeze=False), (-1, 2))
        for index, pair in enumerate(panels):
            layer = layers[index] if index < len(layers) else None
            found = (layer.output, layer.gradient) if layer else (None, None)
            for axes, numbers, color in zip(pair, found, (FIRST, SECOND), strict=True):
                axes.set_axis_off()
                if numbers is not None:
                    axes.set_axis_on()
                    axes.stairs(numbers.counts, numbers.edges, fill=True, color=color)
                    axes.set_yticks([])
                    axes.tick_params(labelsize=6)
                    axes.locator_params(axis="x", nbins=3)
            if layer is not None:
                pair[0].set_title(_label(layer.name, layer.kind), loc="left", size=7)
        save(figure, path)
    return figure


def plot_activations(
    activations: np.ndarray, path: str | os.PathLike | None = None, *, channels: int = 32, columns: int = 8, title: str = ""
) -> "Figure":
    """The channels of one image's activations as pictures, all on one scale that is symmetric about zero.

    Args:
        activations: (C, H, W), such as ``seen["conv_in"].outputs[0][0]``.
        path: the PNG file; None: none is written.
        channels: at most so many, the first ones.
        columns: pictures in a row.
        title: above them.

    Returns:
        the figure, which shows itself in a notebook.

    Raises:
        ValueError: an array of another shape, or a number below 1. OSError: the file cannot be written.
    """
    channels, columns = check_positive("plot_activations", channels=channels, columns=columns)
    if not isinstance(activations, np.ndarray) or activations.ndim != 3 or activations.size == 0:
        got = activations.shape if isinstance(activations, np.ndarray) else type(activations).__name__
        raise ValueError(f"plot_activations: activations must be an array (channels, height, width), not empty, got {got}")
    activations = activations[:channels]
    columns, rows = min(columns, len(activations)), math.ceil(len(activations) / columns)
    limit = np.abs(activations[np.isfinite(activations)]).max(initial=0) or 1.0
    with default_style():
        figure = _grid_figure(rows, columns, 1.2, 1.3)
        panels = figure.subplots(rows, columns, squeeze=False)
        for index, axes in enumerate(panels.flat):
            axes.set_axis_off()
            if index < len(activations):
                axes.imshow(activations[index], cmap="RdBu_r", vmin=-limit, vmax=limit)
                axes.set_title(index, size=7, pad=2)
        figure.suptitle(f"{title}   white is 0, the darkest red and blue are {limit:.3g} and -{limit:.3g}".strip(), size=8)
        save(figure, path)
    return figure


def plot_attention(
    attention: np.ndarray, path: str | os.PathLike | None = None, *, queries: Sequence[int], shape: tuple[int, int], columns: int = 8
) -> "Figure":
    """Where some pixels look: for each query a row of maps over the keys, one for each head, the query itself marked by a cross.

    Args:
        attention: (heads, queries, keys) of one image, such as ``seen["mid_block.attentions.0"].attention[0][0]``.
        path: the PNG file; None: none is written.
        queries: numbers of the pixels, row by row: pixel (y, x) is y W + x.
        shape: (H, W), height and width of the keys' image.
        columns: at most so many heads.

    Returns:
        the figure, which shows itself in a notebook.

    Raises:
        ValueError: arrays or numbers that do not fit. OSError: the file cannot be written.
    """
    if not isinstance(attention, np.ndarray) or attention.ndim != 3 or attention.shape[2] != math.prod(shape):
        got = attention.shape if isinstance(attention, np.ndarray) else type(attention).__name__
        raise ValueError(f"plot_attention: attention must be (heads, queries, {math.prod(shape)}) for a shape of {shape}, got {got}")
    wrong = [query for query in queries if not 0 <= query < attention.shape[1]]
    if wrong or not queries:
        raise ValueError(f"plot_attention: queries must be from 0 to {attention.shape[1] - 1}, at least one, got {list(queries)}")
    (columns,) = check_positive("plot_attention", columns=columns)
    heads = min(columns, len(attention))
    with default_style():
        figure = _grid_figure(len(queries), heads, 1.6, 1.8)
        panels = figure.subplots(len(queries), heads, squeeze=False)
        for query, row in zip(queries, panels, strict=True):
            for head, axes in enumerate(row):
                axes.imshow(attention[head, query].reshape(shape), cmap="viridis", vmin=0)
                if attention.shape[1] == attention.shape[2]:
                    axes.plot(query % shape[1], query // shape[1], "x", color="white")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_title(f"head {head}, query {query}", size=7)
        save(figure, path)
    return figure


def _grid_figure(rows: int, columns: int, width: float, height: float) -> "Figure":
    """A figure for many small panels of this size in inches. Its margins are fixed: to fit them takes seconds for some tens of panels."""
    size = (width * columns, height * rows + 0.5)
    figure = new_figure(figsize=size, dpi=90)
    margins = {"left": 0.1 / size[0], "right": 1 - 0.1 / size[0], "bottom": 0.2 / size[1], "top": 1 - 0.5 / size[1]}
    figure.subplots_adjust(**margins, wspace=0.12, hspace=0.35)
    return figure


def _called(owner: str, seen: "Watch") -> "list[Seen]":
    layers = list(seen.layers.values())
    if not layers:
        raise ValueError(f"{owner}: no module was called while the model was watched")
    return layers


def _label(name: str, kind: str) -> str:
    return f"{name} ({kind})" if name else kind


def _name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """From top to bottom."""
    axes.set_yticks(range(len(names)), names, size=7)
    axes.set_ylim(len(names) - 0.5, -0.5)
