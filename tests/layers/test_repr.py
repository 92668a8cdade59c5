"""The repr of a layer shows all that it was made of."""

import inspect

import numpy as np
import pytest

import hcrot

FIRST = {
    hcrot.Attention: {"channels": 4, "dim_head": 2, "norm_num_groups": 2},
    hcrot.AvgPool2d: {"kernel_size": 4},
    hcrot.BatchNorm2d: {"num_features": 4},
    hcrot.Conv1d: {"in_channels": 4, "out_channels": 4, "kernel_size": 3},
    hcrot.Conv2d: {"in_channels": 4, "out_channels": 4, "kernel_size": 3},
    hcrot.ConvTranspose2d: {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "stride": 2},
    hcrot.CrossAttention: {"channels": 4},
    hcrot.Downsample: {"channels": 4},
    hcrot.Dropout: {},
    hcrot.Embedding: {"num_embeddings": 5, "embedding_dim": 3},
    hcrot.Flatten: {},
    hcrot.GELU: {},
    hcrot.GaussianFourierProjection: {"embedding_size": 3},
    hcrot.GroupNorm: {"num_groups": 2, "num_channels": 8},
    hcrot.LayerNorm: {"normalized_shape": 7},
    hcrot.Linear: {"in_features": 3, "out_features": 2},
    hcrot.MaxPool2d: {"kernel_size": 4},
    hcrot.Pad2d: {"sides": (1, 2, 3, 4), "mode": "reflect"},
    hcrot.PixelShuffle: {"upscale_factor": 2},
    hcrot.PixelUnshuffle: {"downscale_factor": 2},
    hcrot.RMSNorm: {"normalized_shape": 7},
    hcrot.Residual: {"module": hcrot.Softmax()},
    hcrot.Softmax: {},
    hcrot.TimestepEmbedding: {"in_channels": 4, "time_embed_dim": 6},
    hcrot.Timesteps: {"num_channels": 6},
    hcrot.Upsample: {"channels": 4},
}
"""Every layer with arguments, and those that it needs."""

OTHER = {
    "algorithm": "im2col", "approximate": "tanh", "bias": False, "channels": 8, "count_include_pad": False, "dilation": 2, "dim": 1,
    "dim_head": 4, "divisor_override": 3, "downscale_freq_shift": 0.5, "embedding_dim": 7, "embedding_size": 9, "end_dim": 2, "eps": 0.125,
    "flip_sin_to_cos": False, "groups": 2, "in_channels": 8, "in_features": 9, "kernel_size": (2, 3), "mode": "circular",
    "norm_num_groups": 4, "normalized_shape": (2, 3), "num_channels": 12, "num_embeddings": 9, "num_groups": 4, "out_channels": 12,
    "out_features": 9, "output_padding": 1, "p": 0.25, "padding": (1, 0), "padding_idx": 2, "padding_mode": "replicate",
    "rescale_output_factor": 2.0, "residual_connection": False, "scale": 16.0, "scale_grad_by_freq": True, "sides": (0, 0, 0, 1),
    "start_dim": 0, "stride": 3, "time_embed_dim": 8, "affine": False, "elementwise_affine": False, "ceil_mode": True, "use_conv": False,
    "context_channels": 6, "downscale_factor": 3, "heads": 3, "module": hcrot.Flatten(), "momentum": 0.5, "num_features": 6,
    "track_running_stats": False, "upscale_factor": 3,
}  # fmt: skip
"""Another value for every argument."""

OTHER_OF = {
    (hcrot.Downsample, "padding"): 0,
    (hcrot.CrossAttention, "bias"): True,
    (hcrot.Conv1d, "kernel_size"): 2,
    (hcrot.Conv1d, "padding"): 2,
}
"""Where a layer needs one of its own."""

NOT_SHOWN = {"generator", "inplace", "max_norm", "norm_type", "return_indices", "sparse"}
"""A generator has no repr of its own; the others have one value alone."""

ONE_VALUE = {(hcrot.Conv1d, "padding_mode"), (hcrot.ConvTranspose2d, "padding_mode")}


def test_every_layer_is_here():
    layers = {getattr(hcrot.layers, name) for name in hcrot.layers.__all__} - {hcrot.GroupNormSiLU}
    assert {layer for layer in layers if set(inspect.signature(layer).parameters) - NOT_SHOWN} == FIRST.keys()


def changes():
    for layer, needed in FIRST.items():
        for name in inspect.signature(layer).parameters:
            if name not in NOT_SHOWN and (layer, name) not in ONE_VALUE:
                other = OTHER_OF.get((layer, name), OTHER[name])
                yield pytest.param(layer, needed, name, other, id=f"{layer.__name__}-{name}")


@pytest.mark.parametrize(("layer", "needed", "name", "other"), list(changes()))
def test_another_argument_is_another_repr(layer, needed, name, other):
    assert repr(layer(**needed | {name: other})) != repr(layer(**needed))
    assert repr(layer(**needed)).startswith(layer.__name__ + "(")


def test_a_number_of_numpy_shows_as_a_number():
    assert "np." not in repr(hcrot.GroupNorm(np.int64(2), np.int64(4), np.float32(0.5)))
    assert "np." not in repr(hcrot.Attention(4, 2, rescale_output_factor=np.float32(2)))
