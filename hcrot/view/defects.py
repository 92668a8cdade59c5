"""Backwards with one known mistake each. A layer gets one by getting another class, so that it has it in copies of the network, too.

Each is a real mistake of this field's codes. What the learner sees of it is in ``symptom``; the lines are in ``wrong`` and ``right``.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hcrot.layers.conv import Conv2d
from hcrot.layers.linear import Linear
from hcrot.layers.norm import GroupNorm
from hcrot.models.unet_2d_blocks import DownBlock2D, ResnetBlock2D, UpBlock2D
from hcrot.module import Module

__all__ = ["DEFECTS", "Defect", "plant"]

Backward = Callable[..., Any]


@dataclass(frozen=True)
class Defect:
    """A mistake.

    Attributes:
        title, symptom: what it is, and what is seen of it.
        wrong, right: the line, as it is and as it should be.
        kinds: the classes of layers that can have it.
        spoil: ``spoil(module, right, *arguments)`` is the defective backward; ``right`` is the layer's own.
        matters: whether the mistake makes a difference in this layer.
    """

    title: str
    symptom: str
    wrong: str
    right: str
    kinds: tuple[type[Module], ...]
    spoil: Backward
    matters: Callable[[Any], bool] = lambda module: True

    def fits(self, module: Module) -> bool:
        """Whether this layer can have it."""
        return isinstance(module, self.kinds) and self.matters(module)


def sign(module: Any, right: Backward, dout: np.ndarray, *rest: Any, **options: Any) -> Any:
    return -right(dout, *rest, **options)


def half(module: Any, right: Backward, dout: np.ndarray, *rest: Any, **options: Any) -> Any:
    return np.float32(0.5).astype(dout.dtype) * right(dout, *rest, **options)


def missing_sum(module: Any, right: Backward, dout: np.ndarray, *rest: Any, **options: Any) -> Any:
    before = module.bias.grad.copy()
    dx = right(dout, *rest, **options)
    module.bias.grad[...] = before + (dout[0] if dout.ndim == 2 else dout[0, :, 0, 0])
    return dx


def turned(module: Any, right: Backward, dout: np.ndarray, *rest: Any, **options: Any) -> Any:
    before = module.weight.grad.copy()
    dx = right(dout, *rest, **options)
    module.weight.grad[...] = before + (module.weight.grad - before)[:, :, ::-1, ::-1]
    return dx


def one_image(module: Any, right: Backward, dout: np.ndarray, *rest: Any, **options: Any) -> Any:
    dx = right(dout, *rest, **options).copy()
    dx[1:] = 0
    return dx


def overwritten(module: Any, right: Backward, dy: np.ndarray, dtemb: np.ndarray) -> Any:
    dtemb[...] = 0
    return right(dy, dtemb)


def lost_skips(module: Any, right: Backward, dh: np.ndarray, dtemb: np.ndarray, dskips: list[np.ndarray]) -> Any:
    for index in range(len(dskips) - len(module.resnets) - len(module.downsamplers), len(dskips)):
        dskips[index] = np.zeros_like(dskips[index])
    return right(dh, dtemb, dskips)


def swapped_skips(module: Any, right: Backward, dh: np.ndarray, dtemb: np.ndarray, dskips: list[np.ndarray]) -> Any:
    start = len(dskips)
    dx = right(dh, dtemb, dskips)
    dskips[start:] = [skip[:, ::-1].copy() for skip in dskips[start:]]
    return dx


def in_place(module: Any, right: Backward, dy: np.ndarray, dtemb: np.ndarray) -> Any:
    dy *= 2
    return right(dy, dtemb)


DEFECTS: dict[str, Defect] = {
    "sign": Defect("a lost minus sign", "Everything before the layer is pushed uphill: the loss stays high, or rises.",
                   "return -dx", "return dx", (Conv2d, Linear, GroupNorm), sign),
    "half": Defect("a factor of one half", "Training works, only worse. Nobody notices without a check.",
                   "return 0.5 * dx", "return dx", (Conv2d, Linear, GroupNorm), half),
    "missing_sum": Defect("a bias without its sum", "The bias follows one corner of one image. The loss falls nearly as it should.",
                          "bias.grad += dout[0, :, 0, 0]", "bias.grad += dout.sum(axis=(0, 2, 3))", (Conv2d, Linear), missing_sum),
    "turned": Defect("a kernel's gradient turned round",
                     "Convolution was taken for correlation: each weight learns what the opposite one should.",
                     "weight.grad += dw[:, :, ::-1, ::-1]", "weight.grad += dw", (Conv2d,), turned, lambda conv: conv.weight.shape[-1] > 1),
    "one_image": Defect("only the first image of the batch", "The layers before learn from one image at a time: slower, and noisier.",
                        "dx[0] = ...", "dx[:] = ...", (Conv2d, Linear, GroupNorm), one_image),
    "assign": Defect("= for +=", "The time embedding hears only of this block and those before it.",
                     "dtemb[...] = time_emb_proj.backward(dt)", "dtemb += time_emb_proj.backward(dt)", (ResnetBlock2D,), overwritten),
    "lost_skips": Defect("the skips' gradients are dropped", "Training works, only worse: the shortest way back is cut.",
                         "dskips.pop(); dh = dh", "dh = dh + dskips.pop()", (DownBlock2D,), lost_skips),
    "swapped_skips": Defect("the skips' channels are turned round", "The way down is told what other channels should hear.",
                            "dskips.append(dskip[:, ::-1])", "dskips.append(dskip)", (UpBlock2D,), swapped_skips),
    "in_place": Defect("dout is scaled in place", "Whoever holds the same array goes on with twice its values.",
                       "dy *= 2", "(no such line)", (ResnetBlock2D,), in_place),
}  # fmt: skip


def plant(module: Module, defect: Defect) -> None:
    """Give this one layer the mistake."""
    own = type(module)

    @functools.wraps(own.backward)  # whoever asks what it takes is told the same
    def backward(self: Any, *arguments: Any, **options: Any) -> Any:
        return defect.spoil(self, lambda *given, **named: own.backward(self, *given, **named), *arguments, **options)

    module.__class__ = type(own.__name__, (own,), {"backward": backward, "__module__": __name__})
