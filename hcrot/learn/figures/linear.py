"""Chapter 02: the products of a linear layer, forward and backward, with their shapes; and a loss that falls."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, PARAMETER, canvas, charts, grid, label

__all__ = ["losses", "product", "three_products"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL = 0.8


def matrix(axes: "Axes", x: float, y: float, values: np.ndarray, name: str, colour: str, marked: Sequence[tuple[int, int]] = ()) -> float:
    """A grid with its name and shape above; the x where it ends."""
    values = np.atleast_2d(values)
    grid(axes, x, y, values, cell=CELL, colour=colour, marked=marked, form="{:g}", size=10)
    width = values.shape[1] * CELL
    label(axes, x + width / 2, y - 0.75, name, colour)
    label(axes, x + width / 2, y - 0.3, " × ".join(map(str, values.shape)), colour, 8)
    return x + width


def product(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, row: int, column: int) -> "Figure":
    """y = x W^T + b, one output marked with the row of x and the column of W^T that make it."""
    y = x @ weight.T + bias
    n, i = x.shape
    figure, axes = canvas(11.0, 1.4 + max(n, i) * CELL)
    middle = 1.2 + max(n, i) * CELL / 2
    end = matrix(axes, 0.2, middle - n * CELL / 2, x, "x", FORWARD, [(row, k) for k in range(i)])
    label(axes, end + 0.35, middle, "·", size=16)
    end = matrix(axes, end + 0.7, middle - i * CELL / 2, weight.T, "Wᵀ", PARAMETER, [(k, column) for k in range(i)])
    label(axes, end + 0.35, middle, "+", size=14)
    end = matrix(axes, end + 0.7, middle - CELL / 2, bias, "b", PARAMETER, [(0, column)])
    label(axes, end + 0.35, middle, "=", size=14)
    matrix(axes, end + 0.7, middle - n * CELL / 2, y, "y", FORWARD, [(row, column)])
    return figure


def three_products(x: np.ndarray, weight: np.ndarray, dy: np.ndarray) -> "Figure":
    """dW = dy^T x, dx = dy W and db, the sum of dy over its rows, with their numbers."""
    figure, axes = canvas(10.8, 13.3)
    rows = [
        (dy.T, "dyᵀ", BACKWARD, x, "x", FORWARD, dy.T @ x, "dW", PARAMETER),
        (dy, "dy", BACKWARD, weight, "W", PARAMETER, dy @ weight, "dx", BACKWARD),
        (np.ones((1, len(dy))), "ones", INK, dy, "dy", BACKWARD, dy.sum(axis=0), "db", PARAMETER),
    ]
    for index, (a, a_name, a_colour, b, b_name, b_colour, c, c_name, c_colour) in enumerate(rows):
        middle = 2.5 + 4.4 * index
        end = matrix(axes, 0.6, middle - len(a) * CELL / 2, a, a_name, a_colour)
        label(axes, end + 0.4, middle, "·", size=16)
        end = matrix(axes, end + 0.8, middle - len(b) * CELL / 2, b, b_name, b_colour)
        label(axes, end + 0.4, middle, "=", size=14)
        matrix(axes, end + 0.8, middle - len(np.atleast_2d(c)) * CELL / 2, c, c_name, c_colour)
    return figure


def losses(values: Sequence[float]) -> "Figure":
    """The loss over the steps of a training."""
    figure, (axes,) = charts(size=(5.0, 2.8))
    axes.semilogy(values, color=FORWARD)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    return figure
