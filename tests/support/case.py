"""A case: one module and how to use it; and the inputs that many cases share. They are gathered in module_cases.py."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hcrot.layers import attention
from hcrot.models import unet_2d_blocks
from hcrot.module import Module


@dataclass
class Case:
    """One module and how to use it.

    Attributes:
        make: ``make(generator)`` -> the module, the same for the same generator.
        inputs: ``inputs(draw)`` -> arguments of forward, with ``draw(*shape)`` a random float array. Avoid kinks: no ties, no zeros.
        forward: ``forward(module, *inputs)`` -> an array or a tuple of arrays, if it is not simply ``module(*inputs)``.
        backward: ``backward(module, *douts)`` -> the gradients of the floating-point inputs, if not simply ``module.backward(*douts)``.
        random: whether training computes something else than inference: with random numbers, or from the batch.
    """

    name: str
    make: Callable[[np.random.Generator], Module]
    inputs: Callable[[Callable], tuple]
    forward: Callable = lambda module, *inputs: module(*inputs)
    backward: Callable = lambda module, *douts: module.backward(*douts)
    random: bool = False


def images(draw):
    return (draw(3, 4, 5, 6),)


LABELS = np.array([3, 1, 3, 0])


def block_inputs(draw):
    """h and temb, for blocks of 4 channels and embeddings of 5."""
    return draw(3, 4, 5, 6), draw(3, 5)


def resnet_of(generator, **options):
    """What makes residual blocks in the constructors of U-Net blocks, for two groups."""
    return lambda channels_in, channels_out: unet_2d_blocks.ResnetBlock2D(channels_in, channels_out, 5, 2, generator=generator, **options)


def attention_of(generator):
    """What makes attention, in heads of two."""
    return lambda channels: attention.Attention(channels, 2, 2, generator=generator)


def block_backward(module, dh):
    dtemb = np.zeros((3, 5), dh.dtype)
    return module.backward(dh, dtemb), dtemb


def down_forward(module, h, temb):
    skips = []
    return module(h, temb, skips), *skips


def down_backward(module, dh, *dskips):
    dtemb, stack = np.zeros((3, 5), dh.dtype), list(dskips)
    dh = module.backward(dh, dtemb, stack)
    assert not stack
    return dh, dtemb


def up_forward(module, h, temb, *skips):
    """The skip that waits when the block is done tells the size to go to."""
    return module(h, temb, [np.empty((3, 1, 9, 11)), *reversed(skips)])


def level_up_forward(module, h, temb, *skips):
    return module(h, temb, list(reversed(skips)))


def up_backward(module, dh):
    dtemb, dskips = np.zeros((3, 5), dh.dtype), []
    return module.backward(dh, dtemb, dskips), dtemb, *reversed(dskips)


def context_backward(module, dy):
    """Of a module that attends to a context of 3 images, 2 tokens and 3 numbers."""
    dcontext = np.zeros((3, 2, 3), dy.dtype)
    return module.backward(dy, dcontext), dcontext
