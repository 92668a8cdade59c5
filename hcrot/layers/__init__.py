"""The layers: one class per formula, with an explicit ``forward`` and ``backward``.

Begin with ``linear.py``, then ``conv.py``. Each docstring gives the formula, its gradient and the shapes; the arithmetic that must be fast
is in ``hcrot/kernels``. All public layers are also names of ``hcrot`` itself.

Where a layer takes a ``generator``, an int will do: it is the seed of a new one. Two layers of the same shape and the same seed begin with
the same weights, so a network takes one generator, ``np.random.default_rng(0)``, for all of its layers.
"""

from hcrot.layers.activation import GELU, Mish, ReLU, Sigmoid, SiLU, Softmax, Tanh
from hcrot.layers.attention import Attention
from hcrot.layers.batch_norm import BatchNorm2d
from hcrot.layers.conv import Conv2d, ConvTranspose2d
from hcrot.layers.conv1d import Conv1d
from hcrot.layers.cross_attention import CrossAttention
from hcrot.layers.dropout import Dropout
from hcrot.layers.embedding import Embedding, GaussianFourierProjection, TimestepEmbedding, Timesteps
from hcrot.layers.linear import Linear
from hcrot.layers.norm import GroupNorm, GroupNormSiLU, LayerNorm
from hcrot.layers.padding import Pad2d
from hcrot.layers.pixel_shuffle import PixelShuffle, PixelUnshuffle
from hcrot.layers.pooling import AvgPool2d, MaxPool2d
from hcrot.layers.resample import Downsample, Upsample
from hcrot.layers.reshape import Flatten
from hcrot.layers.residual import Residual
from hcrot.layers.rms_norm import RMSNorm

__all__ = [
    "GELU", "Attention", "AvgPool2d", "BatchNorm2d", "Conv1d", "Conv2d", "ConvTranspose2d", "CrossAttention", "Downsample", "Dropout",
    "Embedding", "Flatten", "GaussianFourierProjection", "GroupNorm", "GroupNormSiLU", "LayerNorm", "Linear", "MaxPool2d", "Mish", "Pad2d",
    "PixelShuffle", "PixelUnshuffle", "RMSNorm", "ReLU", "Residual", "SiLU", "Sigmoid", "Softmax", "Tanh", "TimestepEmbedding", "Timesteps",
    "Upsample",
]  # fmt: skip
