"""The fully connected layer."""

import numpy as np

from hcrot import init
from hcrot.kernels.conv import linear, linear_weight_gradient
from hcrot.layers.arguments import PLACE, without
from hcrot.module import Module, Parameter, check_gradient, check_term, describe_shape

__all__ = ["Linear"]


class Linear(Module):
    """``y = x W^T + b`` over the last axis.

    Backward: ``dW = dout^T x``, ``db = sum dout``, ``dx = dout W``.

    A ``residual``, an array like y in forward and like x in backward, is added where the result is written, which saves a pass through
    memory. Its gradient is for its owner to take.

    Args:
        in_features: I, length of the last axis of the input.
        out_features: O, length of the last axis of the output.
        bias: whether there is a b.
        generator: source of the initial values, U(-1/sqrt(I), 1/sqrt(I)) for both.

    Shapes:
        x (..., I) -> y (..., O). ``weight`` (O, I), its memory ordered (I, O); ``bias`` (O,).

    Raises:
        ValueError: a size below 1; in forward, an x that is empty, of another dtype, or whose last axis is not I.

    Example:
        >>> layer = hcrot.Linear(3, 2, generator=0)
        >>> layer(np.ones((4, 3), np.float32)).shape
        (4, 2)
        >>> layer.backward(np.ones((4, 2), np.float32)).shape, layer.weight.grad.shape
        ((4, 3), (2, 3))
    """

    @without(**PLACE)
    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, generator: np.random.Generator | int | None = None):
        in_features, out_features = init.check_positive("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        weight, offset = init.linear_weight_and_bias(
            (out_features, in_features), in_features, out_features, init.default_generator("Linear", generator)
        )
        self.weight = Parameter(np.ascontiguousarray(weight.T).T)
        self.bias = Parameter(offset) if bias else None

    def forward(self, x: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
        if not isinstance(x, np.ndarray) or x.ndim < 1 or x.shape[-1] != self.in_features or x.size == 0:
            raise ValueError(f"Linear: expected an array whose last axis has in_features {self.in_features}, got {describe_shape(x)}")
        if x.dtype != self.weight.data.dtype:
            raise ValueError(f"Linear: expected a {self.weight.data.dtype} array, as the weight is, got {x.dtype}")
        if residual is not None:
            check_term("Linear: residual", residual, (*x.shape[:-1], self.out_features), x.dtype)
        self.save(x)
        return linear(x, self.weight.data, self.bias.data if self.bias else None, residual)

    def backward(self, dout: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
        x = self.saved()
        check_gradient("Linear", dout, (*x.shape[:-1], self.out_features), x.dtype)
        if residual is not None:
            check_term("Linear.backward: residual", residual, x.shape, x.dtype)
        if self.weight.trainable:
            dweight, dbias = linear_weight_gradient(x, dout)
            self.weight.grad += dweight
        if self.bias and self.bias.trainable:
            self.bias.grad += dbias if self.weight.trainable else dout.reshape(-1, self.out_features).sum(axis=0)
        return linear(dout, self.weight.data.T, None, residual)

    def multiplications(self, y: np.ndarray, *inputs: np.ndarray) -> int:
        """Multiply-adds of a forward, for :func:`hcrot.summary`: I for each number of y."""
        return y.size * self.in_features

    def describe(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
