"""The U-Net of the paper-with-code post: its count of values, what it does not build, errors of the post that are not in it, bad input."""

import numpy as np
import pytest

from hcrot.models.ddpm_unet import UNet
from hcrot.training.losses import mse_loss
from hcrot.training.optim import Adam

SMALL = {"img_channels": 2, "proj_channels": 4, "factors": (1, 2), "has_attention": (False, True), "is_down": (False, True), "n_groups": 2}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def count(img, proj, factors, has_attention, is_down, heads=1, final_norm=False):
    """The number of values, from the widths alone."""
    width = 4 * proj

    def conv(a, b, kernel):
        return kernel * kernel * a * b + b

    def block(a, b):
        shortcut = conv(a, b, 1) if a != b else 0
        return 2 * a + conv(a, b, 3) + width * b + b + 2 * b + conv(b, b, 3) + shortcut

    def attention(a):
        return 2 * a + 3 * (a * heads * a + heads * a) + heads * a * a + a

    total = conv(img, proj, 3) + proj * width + width + width * width + width + conv(proj, img, 3) + 2 * proj * final_norm
    a = proj
    for factor, attends, halves in zip(factors, has_attention, is_down, strict=True):
        b = a * factor
        total += halves * conv(a, a, 3) + block(a, b) + block(b, b) + attends * 2 * attention(b)
        total += 2 * block(2 * b, b) + block(b + a, a) + attends * (2 * attention(b) + attention(a)) + halves * conv(a, a, 4)
        a = b
    return total + 2 * block(a, a) + attention(a)


@pytest.mark.parametrize(
    ("changes", "heads", "final_norm"),
    [
        ({}, 1, False),
        ({"proj_channels": 8, "factors": (2, 1, 3), "has_attention": (True, False, True), "is_down": (True, False, True)}, 2, True),
    ],
)
def test_the_count_of_values(changes, heads, final_norm):
    options = SMALL | changes
    model = UNet(**options, n_heads=heads, final_norm=final_norm, generator=0)
    assert model.num_parameters() == count(*list(options.values())[:-1], heads, final_norm)


def test_the_post_has_168_9_million_values():
    """S2-27. Counted, not allocated: in float32 the weights and their gradients are 1.35 GB."""
    values = count(3, 64, (1, 2, 2, 4), (False, False, True, True), (False, True, True, True))
    assert values == 168_898_883
    defaults = UNet.__init__.__defaults__
    assert defaults == (3, 64, (1, 2, 2, 4), (False, False, True, True), (False, True, True, True), 32, 1, 0.1, False)


def test_nothing_is_built_that_is_not_used(rng):
    """[ERR]: 64 dead arrays. Every array receives a gradient, with one image, too, where the post's backward breaks."""
    model = UNet(**SMALL, n_heads=2, final_norm=True, generator=rng)
    x = rng.standard_normal((1, 2, 4, 6), dtype=np.float32)
    model.backward(np.cos(model(x, 3)))
    assert not [name for name, parameter in model.named_parameters() if not parameter.grad.any()]
    assert not [name for name in model.state_dict() if name.startswith(("downs.0.attentions", "ups.1.attentions", "downs.0.downsample"))]


def test_dropout_drops_in_training_only(rng):
    model = UNet(**SMALL, dropout=0.5, generator=rng)
    x = rng.standard_normal((1, 2, 4, 6), dtype=np.float32)
    assert np.abs(model(x, 3) - model(x, 3)).max() > 1e-3
    with model.inference():
        np.testing.assert_array_equal(model(x, 3), model(x, np.array([3])))


def test_it_learns(rng):
    model = UNet(**SMALL, generator=rng)
    x, target = rng.standard_normal((2, 4, 2, 4, 4), dtype=np.float32)
    optimizer, losses = Adam(model.parameters(), lr=1e-2), []
    for _ in range(30):
        loss, dout = mse_loss(model(x, np.array([0, 1, 5, 50])), target)
        model.backward(dout)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: UNet(0), ValueError, "UNet: img_channels must be an int of at least 1, got 0"),
        (lambda x: UNet(3, 6), ValueError, "UNet: proj_channels must be a multiple of 4, got 6"),
        (lambda x: UNet(3, 4, n_groups=3), ValueError, "UNet: proj_channels 4 is not divisible by n_groups 3"),
        (lambda x: UNet(3, 4, (1, 2)), ValueError, r"UNet: has_attention must have one value for each of the 2 factors"),
        (lambda x: UNet(3, 4, (), (), ()), ValueError, r"UNet: has_attention must have one value for each of the 0 factors, at least one"),
        (lambda x: UNet(**SMALL | {"factors": (1, 0)}), ValueError, "UNet: factors must be an int of at least 1, got 0"),
        (lambda x: UNet(**SMALL, dropout=2), ValueError, "Dropout: p must be a number from 0 to 1, got 2"),
        (lambda x: UNet(**SMALL)(x[0], 0), ValueError, r"UNet: x: expected images of shape \(batch, 2, height, width\)"),
        (lambda x: UNet(**SMALL)(x[..., :3], 0), ValueError, "height and width must be multiples of 2, got a 4x3 image"),
        (lambda x: UNet(**SMALL)(x, np.zeros((2, 1))), ValueError, r"UNet: time must be a number or an array of shape \(2,\)"),
        (lambda x: UNet(**SMALL)(x, None), TypeError, "UNet: time must be integers or floating-point numbers, got object"),
    ],
)
def test_refusals(call, error, message, rng):
    with pytest.raises(error, match=message):
        call(rng.standard_normal((2, 2, 4, 4), dtype=np.float32))
