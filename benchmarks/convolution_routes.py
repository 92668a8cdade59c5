"""Seven ways to compute a convolution and its gradients, from Python loops to hcrot's kernels: what convolution_story.py compares.

Each is a module that shares the parameters of a ``hcrot.Conv2d`` of stride 1. Notation: B images, C channels in, O channels out, H x W
pixels, OH x OW out, KH x KW kernel.
"""

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import as_strided

import hcrot
from hcrot.kernels.im2col import col2im_reference, im2col_reference

# ---------------------------------------------------------------- routes that are one function: a convolution's gradients are convolutions


def by_scalars(x: np.ndarray, weight: np.ndarray, padding: int) -> np.ndarray:
    """The formula as it stands, number by number: x (B, C, H, W), weight (O, C, KH, KW), zeros on all sides -> (B, O, OH, OW)."""
    outputs, channels, kernel_h, kernel_w = weight.shape
    images, kernels = pad(x, padding).tolist(), weight.tolist()
    out_h, out_w = x.shape[2] + 2 * padding - kernel_h + 1, x.shape[3] + 2 * padding - kernel_w + 1
    y = np.zeros((len(x), outputs, out_h, out_w), x.dtype)
    for b, image in enumerate(images):
        for o, kernel in enumerate(kernels):
            for oy in range(out_h):
                for ox in range(out_w):
                    total = 0.0
                    for c in range(channels):
                        for i in range(kernel_h):
                            for j in range(kernel_w):
                                total += kernel[c][i][j] * image[c][oy + i][ox + j]
                    y[b, o, oy, ox] = total
    return y


def by_patches(x: np.ndarray, weight: np.ndarray, padding: int) -> np.ndarray:
    """A Python loop over the numbers of the result, each the sum of a patch times a kernel."""
    outputs, _, kernel_h, kernel_w = weight.shape
    padded = pad(x, padding)
    y = np.empty((len(x), outputs, padded.shape[2] - kernel_h + 1, padded.shape[3] - kernel_w + 1), x.dtype)
    for b, o, oy, ox in np.ndindex(y.shape):
        y[b, o, oy, ox] = np.sum(padded[b, :, oy : oy + kernel_h, ox : ox + kernel_w] * weight[o])
    return y


def by_windows(x: np.ndarray, weight: np.ndarray, padding: int) -> np.ndarray:
    """Python loops over images and pairs of channels; within, ``as_strided`` windows, of which einsum takes the sums."""
    outputs, channels, kernel_h, kernel_w = weight.shape
    padded = pad(x, padding)
    out_h, out_w = padded.shape[2] - kernel_h + 1, padded.shape[3] - kernel_w + 1
    y = np.zeros((len(x), outputs, out_h, out_w), x.dtype)
    for b in range(len(x)):
        for c in range(channels):
            windows = as_strided(padded[b, c], (kernel_h, kernel_w, out_h, out_w), padded.strides[2:] * 2, writeable=False)
            for o in range(outputs):
                y[b, o] += np.einsum("ij,ijkl->kl", weight[o, c], windows)
    return y


def pad(x: np.ndarray, padding: int) -> np.ndarray:
    return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))


class Correlated(hcrot.Module):
    """A Conv2d of stride 1 whose three products are one function: ``correlate(images, kernels, padding)``.

        y = correlate(x, W) + bias,   dx = correlate(dy, W turned by 180 degrees),   dW = correlate(x, dy), channels as images

    Args:
        layer: whose parameters and padding it shares.
        correlate: one of the functions above.
    """

    def __init__(self, layer: hcrot.Conv2d, correlate: Callable[[np.ndarray, np.ndarray, int], np.ndarray]):
        self.weight, self.bias, self.correlate = layer.weight, layer.bias, correlate
        self.size, self.padding = layer.geometry[0], layer.geometry[4]

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(x)
        return self.correlate(x, self.weight.data, self.padding) + self.bias.data[:, None, None]

    def backward(self, dout: np.ndarray) -> np.ndarray:
        x = self.saved()
        self.bias.grad += dout.sum(axis=(0, 2, 3))
        self.weight.grad += self.correlate(x.swapaxes(0, 1), dout.swapaxes(0, 1), self.padding).swapaxes(0, 1)
        turned = self.weight.data[:, :, ::-1, ::-1].swapaxes(0, 1)
        return self.correlate(dout, turned, self.size - 1 - self.padding)


# ---------------------------------------------------------------- routes that are im2col and col2im


def places(shape: tuple[int, ...], size: int, padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column, in the padded image, of each tap of each output pixel: two (OH OW, KH KW) arrays."""
    oy, ox = np.indices((shape[2] + 2 * padding - size + 1, shape[3] + 2 * padding - size + 1)).reshape(2, -1, 1)
    i, j = np.indices((size, size)).reshape(2, 1, -1)
    return oy + i, ox + j


def im2col_by_indices(x: np.ndarray, size: int, padding: int) -> np.ndarray:
    """:func:`hcrot.im2col` by one fancy index."""
    rows, columns = places(x.shape, size, padding)
    return pad(x, padding)[:, :, rows, columns].transpose(0, 2, 3, 1).reshape(-1, size * size * x.shape[1])


def col2im_by_indices(columns: np.ndarray, shape: tuple[int, int, int, int], size: int, padding: int) -> np.ndarray:
    """:func:`hcrot.col2im` by ``np.add.at``, which adds where an index comes twice."""
    rows, cols = places(shape, size, padding)
    dx = np.zeros((shape[0], shape[1], shape[2] + 2 * padding, shape[3] + 2 * padding), columns.dtype)
    np.add.at(dx, (slice(None), slice(None), rows, cols), columns.reshape(shape[0], *rows.shape, shape[1]).transpose(0, 3, 1, 2))
    return dx[:, :, padding : padding + shape[2], padding : padding + shape[3]]


def im2col_by_slices(x: np.ndarray, size: int, padding: int) -> np.ndarray:
    return im2col_reference(x, size, padding=padding)


def col2im_by_slices(columns: np.ndarray, shape: tuple[int, int, int, int], size: int, padding: int) -> np.ndarray:
    return col2im_reference(columns, shape, size, padding=padding)


class Unfolded(hcrot.Module):
    """A Conv2d of stride 1 with the columns of the whole batch: ``y = X W + bias``, ``dW = X^T dy``, ``dx = col2im(dy W^T)``.

    Args:
        layer: whose parameters and padding it shares.
        im2col, col2im: a pair of the functions above.
    """

    def __init__(self, layer: hcrot.Conv2d, im2col: Callable[..., np.ndarray], col2im: Callable[..., np.ndarray]):
        self.weight, self.bias, self.im2col, self.col2im = layer.weight, layer.bias, im2col, col2im
        self.size, self.padding = layer.geometry[0], layer.geometry[4]

    def matrix(self) -> np.ndarray:
        return self.weight.data.transpose(2, 3, 1, 0).reshape(-1, self.weight.shape[0])

    def forward(self, x: np.ndarray) -> np.ndarray:
        columns = self.im2col(x, self.size, self.padding)
        self.save(columns, x.shape)
        height, width = (side + 2 * self.padding - self.size + 1 for side in x.shape[2:])
        return (columns @ self.matrix() + self.bias.data).reshape(len(x), height, width, -1).transpose(0, 3, 1, 2)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        columns, shape = self.saved()
        dy = dout.transpose(0, 2, 3, 1).reshape(len(columns), -1)
        self.bias.grad += dy.sum(axis=0)
        self.weight.grad += (columns.T @ dy).reshape(self.size, self.size, shape[1], -1).transpose(3, 2, 0, 1)
        return self.col2im(dy @ self.matrix().T, shape, self.size, self.padding)


# ---------------------------------------------------------------- the routes


def with_algorithm(layer: hcrot.Conv2d, algorithm: str) -> hcrot.Conv2d:
    """hcrot's own layer, with the parameters of ``layer``."""
    route = hcrot.Conv2d(layer.in_channels, layer.out_channels, layer.geometry[0], padding=layer.geometry[4], algorithm=algorithm)
    route.weight, route.bias = layer.weight, layer.bias
    return route


WINOGRAD = "fused kernel, Winograd"

ROUTES: dict[str, Callable[[hcrot.Conv2d], hcrot.Module]] = {
    "seven Python loops": lambda layer: Correlated(layer, by_scalars),
    "a NumPy patch for each number": lambda layer: Correlated(layer, by_patches),
    "as_strided and einsum": lambda layer: Correlated(layer, by_windows),
    "NumPy im2col, fancy index": lambda layer: Unfolded(layer, im2col_by_indices, col2im_by_indices),
    "NumPy im2col, slices": lambda layer: Unfolded(layer, im2col_by_slices, col2im_by_slices),
    "fused kernel, im2col": lambda layer: with_algorithm(layer, "im2col"),
    WINOGRAD: lambda layer: with_algorithm(layer, "winograd"),
}
"""From a layer to one that shares its parameters and computes the same in another way."""
