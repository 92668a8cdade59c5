"""What constructors take, whatever the layer: NumPy's integers, no booleans for them, and PyTorch's arguments or a word about them."""

import json

import numpy as np
import pytest

import hcrot
from hcrot.layers.arguments import refuse, without
from hcrot.layers.padding import Pad2d

INTS = {
    hcrot.Attention: {"channels": 4, "dim_head": 2, "norm_num_groups": 2},
    hcrot.AvgPool2d: {"kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 4},
    hcrot.Conv2d: {"in_channels": 4, "out_channels": 2, "kernel_size": 3, "stride": 1, "padding": 2, "dilation": 1, "groups": 2},
    hcrot.ConvTranspose2d: {
        "in_channels": 4, "out_channels": 2, "kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "dilation": 2,
    },
    hcrot.Downsample: {"channels": 4, "out_channels": 2, "padding": 1},
    hcrot.Embedding: {"num_embeddings": 5, "embedding_dim": 3, "padding_idx": 1},
    hcrot.Flatten: {"start_dim": 1, "end_dim": -1},
    hcrot.GaussianFourierProjection: {"embedding_size": 3},
    hcrot.GroupNorm: {"num_groups": 2, "num_channels": 4},
    hcrot.GroupNormSiLU: {"num_groups": 2, "num_channels": 4},
    hcrot.LayerNorm: {"normalized_shape": 7},
    hcrot.Linear: {"in_features": 3, "out_features": 2},
    hcrot.MaxPool2d: {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2},
    hcrot.Softmax: {"dim": 1},
    hcrot.TimestepEmbedding: {"in_channels": 4, "time_embed_dim": 6},
    hcrot.Timesteps: {"num_channels": 6},
    hcrot.Upsample: {"channels": 4, "out_channels": 2},
}  # fmt: skip
"""Every argument of every layer that is an int, or an int for two, with a value."""

EACH = pytest.mark.parametrize("layer", INTS, ids=lambda layer: layer.__name__)


def plain(value):
    """Whether no number of NumPy's is left in an attribute, within tuples neither."""
    if isinstance(value, tuple):
        return all(map(plain, value))
    return not isinstance(value, np.generic)


@EACH
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int16], ids=lambda kind: kind.__name__)
def test_integers_of_numpy_become_pythons(layer, kind):
    made = layer(**{name: kind(value) if value >= 0 else np.int64(value) for name, value in INTS[layer].items()})
    for module in made.modules():
        for name, value in vars(module).items():
            assert plain(value), (name, value)
    assert repr(made) == repr(layer(**INTS[layer]))


@EACH
def test_booleans_are_no_integers(layer):
    for name in INTS[layer]:
        with pytest.raises((TypeError, ValueError), match=name.removeprefix("norm_") + "|channels|features"):
            layer(**INTS[layer] | {name: True})


@EACH
def test_fractions_and_texts_are_no_integers(layer):
    for name in INTS[layer]:
        for value in (1.0, "1", np.float32(1)):
            with pytest.raises((TypeError, ValueError), match=name.removeprefix("norm_") + "|channels|features"):
                layer(**INTS[layer] | {name: value})


def test_sizes_of_numpy_in_a_tuple():
    assert hcrot.LayerNorm(np.array([3, 4]).shape).normalized_shape == (2,)
    assert plain(hcrot.LayerNorm(tuple(np.array([3, 4]))).normalized_shape)
    assert plain(hcrot.Conv2d(2, 2, tuple(np.array([3, 4])), padding=tuple(np.array([1, 2, 0, 1]))).geometry)
    assert plain(Pad2d(tuple(np.array([1, 2, 0, 1])), "replicate").sides)


def test_models_take_integers_of_numpy_and_save_them(tmp_path):
    two = np.int64(2)
    model = hcrot.UNet2dModel(
        sample_size=np.int64(8), in_channels=two, out_channels=two, block_out_channels=(np.int64(4), np.int64(6)),
        layers_per_block=np.int64(1), down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=two, attention_head_dim=two, num_class_embeds=np.int64(3),
    )  # fmt: skip
    json.dumps(dict(model.config))
    hcrot.save_model(model, tmp_path / "model")


def test_products_of_small_integers_do_not_overflow():
    block = hcrot.ResnetBlock2D(np.uint8(4), np.uint8(200), np.uint8(3), np.uint8(2), scale_shift=True)
    assert block.time_emb_proj.weight.shape == (400, 3)
    assert hcrot.Conv2d(np.uint8(200), np.uint8(2), np.uint8(3)).weight.shape == (2, 200, 3, 3)
    assert hcrot.Attention(np.uint8(200), np.uint8(100)).to_q.weight.shape == (200, 200)


def test_what_is_refused_is_named_with_its_reason():
    cases = [
        (lambda: hcrot.ReLU(inplace=True), "ReLU: inplace=True is not supported: a layer never writes"),
        (lambda: hcrot.SiLU(True), "SiLU: inplace=True is not supported"),
        (lambda: hcrot.Linear(3, 2, dtype=np.float64), r"Linear: dtype=.* is not supported: .* layer.astype\(np.float64\)"),
        (lambda: hcrot.GroupNormSiLU(2, 4, device="cuda"), "GroupNormSiLU: device='cuda' is not supported: hcrot computes on the CPU"),
        (lambda: hcrot.Upsample(scale_factor=2, mode="bilinear"), "Upsample: .* diffusers' Upsample2D"),
        (lambda: hcrot.Embedding(3, 2, max_norm=1.0), "Embedding: max_norm=1.0 is not supported"),
        (lambda: hcrot.AvgPool2d(2, divisor_override=0), "AvgPool2d: divisor_override must be None or an int other than 0, got 0"),
        (lambda: hcrot.ConvTranspose2d(2, 2, 3, padding_mode="reflect"), "ConvTranspose2d: padding_mode must be 'zeros', got 'reflect'"),
        (lambda: hcrot.ConvTranspose2d(4, 6, 3, groups=4), "ConvTranspose2d: out_channels 6 is not divisible by groups 4"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()


def test_what_asks_for_nothing_passes_and_what_is_unknown_does_not():
    refuse("Layer", "reason", inplace=False, device=None)
    assert hcrot.Linear(3, 2, device=None, dtype=None).in_features == 3
    with pytest.raises(TypeError, match="unexpected keyword argument 'color'"):
        hcrot.Linear(3, 2, color="red")


def test_a_constructor_shows_only_what_it_takes():
    class Layer:
        @without(device="no")
        def __init__(self, size):
            """Make it."""
            self.size = size

    assert Layer.__init__.__doc__ == "Make it."
    assert Layer(size=3).size == 3
    with pytest.raises(ValueError, match="Layer: device=0 is not supported: no"):
        Layer(3, device=0)
