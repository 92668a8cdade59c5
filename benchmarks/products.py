"""hcrot's product of two matrices beside NumPy's, on one core, at the sizes that layers multiply, and the roofline of both.

    python benchmarks/products.py                        # float32 and float64
    python benchmarks/products.py --seconds 3 --markdown

Each product is done with a set of matrices, one after the other, as a convolution by Winograd's algorithm does its 36: with one pair they
would lie in the first-level cache as they never do in a layer. The roofline is the most that could be: the rate of the largest product, or,
where the matrices are too small to be worth their reading and writing, the bytes of the product at the rate of a copy of as many.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import threadpoolctl
from common import Parser, Table, alternate, check_close, headline, picture, write_results

from hcrot.kernels.jit import launched, parallel_jit
from hcrot.kernels.product import multiply, product_of


class Size(NamedTuple):
    """Of a product (rows, depth) x (depth, columns), and how many there are in a set."""

    where: str
    rows: int
    depth: int
    columns: int
    number: int
    turned: bool = False


SIZES = [
    Size("Winograd, 32 channels", 63, 32, 32, 36),
    Size("Winograd, 64 channels", 64, 64, 64, 36),
    Size("Winograd, 128 channels", 64, 128, 128, 36),
    Size("Winograd, 256 channels", 64, 256, 256, 36),
    Size("weight gradient, 32 channels", 32, 63, 32, 36, turned=True),
    Size("weight gradient, 128 channels", 128, 64, 128, 36, turned=True),
    Size("im2col, 64 channels", 256, 192, 64, 3),
    Size("attention, scores", 49, 8, 49, 32),
    Size("attention, values", 8, 49, 49, 32, turned=True),
    Size("one output channel", 196, 96, 1, 12),
    Size("3 output channels", 196, 96, 3, 12),
    Size("its weight gradient", 96, 196, 1, 12, turned=True),
    Size("large", 768, 768, 768, 1),
]


@parallel_jit
def _products(product, a, b, c, share, num_shares):
    if launched(share, num_shares):
        return
    for k in range(c.shape[0]):
        multiply(product, a[k], b[k], c[k], False)


def works(size: Size, dtype: str) -> dict[str, Callable[[], object]]:
    """A set of products by hcrot and by NumPy, after both have given the same, and a copy of as many bytes."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((size.number, size.depth, size.rows) if size.turned else (size.number, size.rows, size.depth)).astype(dtype)
    a = a.transpose(0, 2, 1) if size.turned else a
    b = rng.standard_normal((size.number, size.depth, size.columns)).astype(dtype)
    ours, numpys = np.empty((2, size.number, size.rows, size.columns), dtype)
    whole = np.concatenate([a.ravel(), b.ravel(), ours.ravel()])
    half = len(whole) // 2

    def by_numpy() -> None:
        for k in range(size.number):
            np.matmul(a[k], b[k], out=numpys[k])

    result = {
        "hcrot": lambda: _products(product_of(np.dtype(dtype)), a, b, ours, 1),
        "NumPy": by_numpy,
        "copy": lambda: np.copyto(whole[:half], whole[half : 2 * half]),
    }
    for work in result.values():
        work()
    check_close(size.where, numpys, ours, 1e-5 if dtype == "float32" else 1e-13)
    return result


def measure(dtype: str, seconds: float, table: Table) -> list[dict]:
    """A row for each size: rates in 10^9 operations a second."""
    rows = []
    for size in SIZES:
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            spent = alternate(works(size, dtype), seconds)
        operations = 2 * size.number * size.rows * size.depth * size.columns
        rates = {name: operations / spent[name] / 1e9 for name in ("hcrot", "NumPy")}
        rows.append({**size._asdict(), "dtype": dtype, **rates, "memory": operations / spent["copy"] / 1e9})
    peak = max(row[name] for row in rows for name in ("hcrot", "NumPy"))
    for row in rows:
        row["roofline"] = min(peak, row["memory"])
        shape = f"{row['rows']} x {row['depth']} x {row['columns']}{', turned' * row['turned']}"
        figures = (f"{row[name]:.0f}" for name in ("hcrot", "NumPy", "roofline"))
        table.row(f"{row['where']}, {dtype}", shape, *figures, f"{row['hcrot'] / row['NumPy']:.2f}")
    return rows


def draw(options: argparse.Namespace, rows: list[dict]) -> None:
    """Two bars for each size, and a line across where the roofline is; float32 to the left, float64 to the right."""
    with picture(options.output / "products.png", 11, [1.4 + 0.42 * len(SIZES)], columns=2) as axes:
        for axis, dtype in zip(axes[0], ("float32", "float64"), strict=True):
            these = [row for row in rows if row["dtype"] == dtype]
            places = np.arange(len(these))
            axis.barh(places - 0.2, [row["hcrot"] for row in these], 0.38, color="#14507f", label="hcrot")
            axis.barh(places + 0.2, [row["NumPy"] for row in these], 0.38, color="#b9c4cc", label="NumPy")
            axis.plot([row["roofline"] for row in these], places, "|", color="#b3541e", markersize=22, label="roofline")
            axis.set_yticks(places, [row["where"] for row in these] if dtype == "float32" else [])
            axis.set_ylim(len(these) - 0.4, -0.6)
            axis.set_title(f"{dtype}, GFLOP/s on one core", loc="left", size=11)
        axes[0, 0].legend(loc="lower right", bbox_to_anchor=(0.9, 0.2), frameon=False)


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(__doc__, seconds=1)
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds = min(options.seconds, 0.01)
    parser.prepare(options)
    headline("Products of matrices, one core", options)
    table = Table(["where", "rows x depth x columns", "hcrot", "NumPy", "roofline", "hcrot/NumPy"], options.markdown, 38)
    rows = [row for dtype in ("float32", "float64") for row in measure(dtype, options.seconds, table)]
    write_results(options, "products", rows=rows)
    draw(options, rows)


if __name__ == "__main__":
    main()
