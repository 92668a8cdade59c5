"""Conv2d and ConvTranspose2d: gradients in every configuration, what relates them, initial values, bad input."""

import math

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.conv import Conv2d, ConvTranspose2d
from hcrot.layers.linear import Linear
from hcrot.layers.padding import MODES

# arguments of Conv2d(4, 6, ...), height, width
CONVOLUTIONS = [
    ({"kernel_size": 1}, 3, 5),
    ({"kernel_size": 1, "padding": 1}, 3, 5),
    ({"kernel_size": 1, "stride": 2}, 4, 5),
    ({"kernel_size": 3}, 5, 4),
    ({"kernel_size": 3, "padding": 1, "bias": False}, 5, 4),
    ({"kernel_size": 3, "padding": 1}, 1, 1),
    ({"kernel_size": (2, 3), "stride": (2, 1)}, 7, 5),  # B22
    ({"kernel_size": (3, 2), "stride": (1, 2), "padding": (2, 1)}, 4, 6),
    ({"kernel_size": 3, "stride": 2, "padding": (0, 1, 0, 1)}, 6, 7),  # diffusers' downsampling: right and bottom only
    ({"kernel_size": 3, "padding": 2, "dilation": 2}, 5, 6),
    ({"kernel_size": (2, 3), "stride": (3, 2), "padding": (1, 2, 0, 3), "dilation": (2, 1)}, 6, 7),
    ({"kernel_size": 3, "padding": "same"}, 5, 3),
    ({"kernel_size": (4, 2), "padding": "same", "dilation": (1, 3)}, 5, 3),
    ({"kernel_size": 2, "padding": "valid"}, 3, 4),
    ({"kernel_size": 3, "padding": 1, "groups": 2}, 5, 4),
    ({"kernel_size": (3, 1), "stride": 2, "groups": 2, "bias": False}, 5, 4),
    *[({"kernel_size": (3, 2), "padding": (1, 2), "stride": (1, 2), "padding_mode": mode}, 4, 5) for mode in MODES],
    ({"kernel_size": (4, 3), "padding": "same", "padding_mode": "circular", "groups": 2}, 5, 3),
]
DEPTHWISE = ({"kernel_size": 3, "padding": 1, "groups": 4}, 5, 4)

# arguments of ConvTranspose2d(4, 6, ...), height, width
TRANSPOSED = [
    ({"kernel_size": 4, "stride": 2, "padding": 1}, 4, 3),  # S1-52
    ({"kernel_size": 2, "stride": 2}, 3, 5),
    ({"kernel_size": 3}, 4, 3),
    ({"kernel_size": 1}, 4, 3),
    ({"kernel_size": 1, "padding": 1}, 4, 3),  # B23: kernel 1 with padding 1, tuples and output_padding raised
    ({"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)}, 3, 4),
    ({"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "bias": False}, 1, 1),
    ({"kernel_size": 2, "stride": 3}, 2, 3),  # gaps that no input pixel paints
    ({"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "dilation": (2, 3), "output_padding": (1, 2)}, 3, 4),
    ({"kernel_size": 3, "stride": 2, "groups": 2, "bias": False}, 2, 3),
    ({"kernel_size": (3, 2), "dilation": 2, "groups": 2}, 3, 2),
]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def sides(padding, dilation, kernel_size):
    """The total padding of each axis."""
    if padding == "same":
        return tuple(d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True))
    if padding == "valid":
        return 0, 0
    padding = (padding, padding) if isinstance(padding, int) else padding
    return (2 * padding[0], 2 * padding[1]) if len(padding) == 2 else (padding[0] + padding[1], padding[2] + padding[3])


def pair(value):
    return (value, value) if isinstance(value, int) else value


@pytest.mark.parametrize(("arguments", "height", "width"), CONVOLUTIONS)
def test_conv2d_gradients(rng, arguments, height, width):
    report = check_gradients(Conv2d(4, 6, **arguments, generator=rng), rng.standard_normal((3, 4, height, width)))
    assert report.worst_error < 1e-9


def test_depthwise_gradients(rng):
    arguments, height, width = DEPTHWISE
    check_gradients(Conv2d(4, 8, **arguments, generator=rng), rng.standard_normal((3, 4, height, width)))


@pytest.mark.parametrize(("arguments", "height", "width"), CONVOLUTIONS[6:9])
def test_conv2d_gradients_entry_by_entry(rng, arguments, height, width):
    check_gradients(Conv2d(2, 3, **arguments, generator=rng), rng.standard_normal((2, 2, height, width)), exhaustive=True)


@pytest.mark.parametrize(("arguments", "height", "width"), TRANSPOSED)
def test_conv_transpose2d_gradients(rng, arguments, height, width):
    report = check_gradients(ConvTranspose2d(4, 6, **arguments, generator=rng), rng.standard_normal((3, 4, height, width)))
    assert report.worst_error < 1e-9


def test_conv_transpose2d_gradients_entry_by_entry(rng):
    """B18: a bias gradient of another shape than the bias."""
    layer = ConvTranspose2d(2, 3, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2), generator=rng)
    check_gradients(layer, rng.standard_normal((2, 2, 3, 2)), exhaustive=True)
    layer(rng.standard_normal((2, 2, 3, 2)).astype(np.float32))
    layer.backward(np.ones((2, 3, 6, 7), np.float32))
    assert layer.bias.grad.shape == layer.bias.data.shape == (3,)
    np.testing.assert_allclose(layer.bias.grad, 2 * 6 * 7)


@pytest.mark.parametrize(("arguments", "height", "width"), CONVOLUTIONS)
def test_conv2d_output_size(rng, arguments, height, width):
    kernel, stride, dilation = pair(arguments["kernel_size"]), pair(arguments.get("stride", 1)), pair(arguments.get("dilation", 1))
    total = sides(arguments.get("padding", 0), dilation, kernel)
    axes = zip((height, width), total, dilation, kernel, stride, strict=True)
    expected = tuple((s + p - d * (k - 1) - 1) // step + 1 for s, p, d, k, step in axes)
    assert Conv2d(4, 6, **arguments, generator=rng)(np.ones((3, 4, height, width), np.float32)).shape == (3, 6, *expected)
    if arguments.get("padding") == "same":
        assert expected == (height, width)


@pytest.mark.parametrize(("arguments", "height", "width"), TRANSPOSED)
def test_conv_transpose2d_output_size(rng, arguments, height, width):
    dilation = pair(arguments.get("dilation", 1))
    kernel = tuple(d * (k - 1) + 1 for d, k in zip(dilation, pair(arguments["kernel_size"]), strict=True))
    stride = pair(arguments.get("stride", 1))
    padding, extra = pair(arguments.get("padding", 0)), pair(arguments.get("output_padding", 0))
    expected = tuple(
        (s - 1) * step - 2 * p + k + e for s, step, p, k, e in zip((height, width), stride, padding, kernel, extra, strict=True)
    )
    assert ConvTranspose2d(4, 6, **arguments, generator=rng)(np.ones((3, 4, height, width), np.float32)).shape == (3, 6, *expected)


def test_the_worked_example_of_the_article():
    """S1-05."""
    layer = Conv2d(1, 1, 2, bias=False).astype(np.float64)
    layer.weight.data[...] = [[[[0.1, 0.2], [0.3, 0.4]]]]
    y = layer(np.arange(1.0, 10.0).reshape(1, 1, 3, 3))
    np.testing.assert_allclose(y[0, 0], [[3.7, 4.7], [6.7, 7.7]], rtol=1e-15)


def test_a_kernel_of_one_is_linear_over_channels(rng):
    conv, linear = Conv2d(3, 5, 1, generator=rng).astype(np.float64), Linear(3, 5).astype(np.float64)
    linear.load_state_dict({"weight": conv.weight.data[:, :, 0, 0], "bias": conv.bias.data})
    x, dout = rng.standard_normal((2, 3, 4, 7)), rng.standard_normal((2, 5, 4, 7))
    np.testing.assert_allclose(conv(x), linear(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), atol=1e-14)
    np.testing.assert_allclose(conv.backward(dout), linear.backward(dout.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), atol=1e-14)
    np.testing.assert_allclose(conv.weight.grad[:, :, 0, 0], linear.weight.grad, atol=1e-13)
    np.testing.assert_allclose(conv.bias.grad, linear.bias.grad, atol=1e-13)


@pytest.mark.parametrize("shape", [(8, 7), (7, 9), (5, 5)])
@pytest.mark.parametrize(("kernel_size", "stride", "padding"), [(3, 2, 1), ((4, 3), (2, 3), (1, 0)), (2, 1, 0), (1, 2, 0)])
def test_the_transposed_convolution_is_the_adjoint(rng, shape, kernel_size, stride, padding):
    """<conv(x), y> = <x, conv_transpose(y)> with one weight; output_padding recovers the rows that the stride left out."""
    conv = Conv2d(4, 3, kernel_size, stride, padding, bias=False, generator=rng).astype(np.float64)
    x = rng.standard_normal((2, 4, *shape))
    image = conv(x)
    y = rng.standard_normal(image.shape)
    steps, pads, kernel = pair(stride), pair(padding), pair(kernel_size)
    rest = tuple((s + 2 * p - k) % step for s, p, k, step in zip(shape, pads, kernel, steps, strict=True))
    transposed = ConvTranspose2d(3, 4, kernel_size, stride, padding, rest, bias=False, generator=rng).astype(np.float64)
    transposed.load_state_dict(conv.state_dict())
    back = transposed(y)
    assert back.shape == x.shape
    np.testing.assert_allclose(np.vdot(image, y), np.vdot(x, back), rtol=1e-10)
    np.testing.assert_allclose(conv.backward(y), back, atol=1e-12)
    np.testing.assert_allclose(transposed.backward(x), image, atol=1e-12)
    np.testing.assert_allclose(conv.weight.grad, transposed.weight.grad, atol=1e-11)


def test_groups_are_separate_convolutions(rng):
    layer = Conv2d(4, 6, 3, padding=1, groups=2, generator=rng)
    x = rng.standard_normal((2, 4, 5, 4)).astype(np.float32)
    y = layer(x)
    for group in range(2):
        part = Conv2d(2, 3, 3, padding=1)
        part.load_state_dict({name: array[3 * group : 3 * group + 3] for name, array in layer.state_dict().items()})
        np.testing.assert_allclose(y[:, 3 * group : 3 * group + 3], part(x[:, 2 * group : 2 * group + 2]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_shift_and_residual(rng, bias, groups):
    layer = Conv2d(4, 6, 3, padding=1, bias=bias, groups=groups, generator=rng).astype(np.float64)
    x, shift, residual = rng.standard_normal((3, 4, 5, 4)), rng.standard_normal((3, 6)), rng.standard_normal((3, 6, 5, 4))
    plain = layer(x)
    np.testing.assert_allclose(layer(x, shift), plain + shift[:, :, None, None], atol=1e-13)
    np.testing.assert_allclose(layer(x, None, residual), plain + residual, atol=1e-13)
    np.testing.assert_allclose(layer(x, shift, residual), plain + shift[:, :, None, None] + residual, atol=1e-13)

    def backward(module, dout):
        return module.backward(dout), dout.sum(axis=(2, 3)), dout

    check_gradients(layer, x, shift, residual, backward=backward)


def test_layout_and_keys_are_those_of_pytorch(rng):
    conv, transposed = Conv2d(4, 6, (3, 2), groups=2, generator=rng), ConvTranspose2d(4, 6, (3, 2), generator=rng)
    assert {name: array.shape for name, array in conv.state_dict().items()} == {"weight": (6, 2, 3, 2), "bias": (6,)}
    assert {name: array.shape for name, array in transposed.state_dict().items()} == {"weight": (4, 6, 3, 2), "bias": (6,)}
    for layer in (conv, transposed):
        assert layer.weight.data.transpose(2, 3, 1, 0).flags.c_contiguous
        assert layer.weight.grad.strides == layer.weight.data.strides
    assert list(Conv2d(4, 6, 1, bias=False).state_dict()) == list(ConvTranspose2d(4, 6, 1, bias=False).state_dict()) == ["weight"]


def test_repr_says_everything():
    assert repr(Conv2d(4, 6, 3, (2, 1), (0, 1, 0, 1), 2, 2, False)) == (
        "Conv2d(4, 6, kernel_size=(3, 3), stride=(2, 1), padding=(0, 1, 0, 1), dilation=(2, 2), groups=2, bias=False)"
    )
    assert repr(ConvTranspose2d(4, 6, 3, 2, 1, (1, 0))) == (
        "ConvTranspose2d(4, 6, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), output_padding=(1, 0), groups=1, bias=True, "
        "dilation=(1, 1))"
    )
    assert repr(Conv2d(4, 6, 1, padding_mode="reflect").pad) == "Pad2d((0, 0, 0, 0), mode='reflect')"
    circular = repr(Conv2d(4, 6, 1, padding=2, padding_mode="circular"))
    assert "padding=(2, 2, 2, 2), dilation=(1, 1), groups=1, bias=True, padding_mode='circular'" in circular


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (Conv2d(32, 64, 3, generator=np.random.default_rng(0)), 32 * 9),
        (Conv2d(32, 64, (2, 5), groups=4, generator=np.random.default_rng(0)), 8 * 10),
        (Conv2d(64, 64, 1, generator=np.random.default_rng(0)), 64),
        (ConvTranspose2d(48, 64, (3, 2), generator=np.random.default_rng(0)), 64 * 6),  # PyTorch's fan_in counts the weight's second axis
    ],
)
def test_initial_values(layer, fan_in):
    """B19: the bound was 1 / (in * sum(kernel)), not 1 / sqrt(in * prod(kernel))."""
    bound = 1 / math.sqrt(fan_in)
    for parameter in layer.parameters():
        assert parameter.data.dtype == np.float32
        assert 0.9 * bound < np.abs(parameter.data).max() <= bound * (1 + 1e-6)
    assert abs(layer.weight.data.std() - bound / math.sqrt(3)) < 0.03 * bound
    assert abs(layer.weight.data.mean()) < 0.03 * bound


@pytest.mark.parametrize("make", [Conv2d, ConvTranspose2d])
def test_the_generator_decides(make):
    one, same, other = (make(2, 3, 3, generator=np.random.default_rng(seed)).state_dict() for seed in (1, 1, 2))
    for name in one:
        np.testing.assert_array_equal(one[name], same[name])
        assert (one[name] != other[name]).any()


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (Conv2d, {"in_channels": 0}, "Conv2d: in_channels must be an int of at least 1, got 0"),
        (Conv2d, {"out_channels": 2.0}, "Conv2d: out_channels must be an int of at least 1, got 2.0"),
        (Conv2d, {"groups": 0}, "Conv2d: groups must be an int of at least 1"),
        (Conv2d, {"groups": 3}, "Conv2d: in_channels 4 is not divisible by groups 3"),
        (Conv2d, {"groups": 4}, "Conv2d: out_channels 6 is not divisible by groups 4"),
        (Conv2d, {"kernel_size": 0}, "Conv2d: kernel_size must be an int or two ints of at least 1, got 0"),
        (Conv2d, {"kernel_size": (3,)}, "Conv2d: kernel_size"),
        (Conv2d, {"stride": 0}, "Conv2d: stride"),
        (Conv2d, {"stride": (1, 1.5)}, "Conv2d: stride"),
        (Conv2d, {"dilation": 0}, "Conv2d: dilation"),
        (Conv2d, {"padding": -1}, "Conv2d: padding"),
        (Conv2d, {"padding": (1, 1, 1)}, "Conv2d: padding"),
        (Conv2d, {"padding": (1, 1, 1, -1)}, "Conv2d: padding"),
        (Conv2d, {"padding": "reflect"}, "Conv2d: padding must be ints, 'same' or 'valid', got 'reflect'"),
        (Conv2d, {"padding": "same", "stride": 2}, r"Conv2d: padding 'same' needs stride 1, got stride \(2, 2\)"),
        (ConvTranspose2d, {"in_channels": -1}, "ConvTranspose2d: in_channels"),
        (ConvTranspose2d, {"kernel_size": 0}, "ConvTranspose2d: kernel_size"),
        (ConvTranspose2d, {"stride": 0}, "ConvTranspose2d: stride"),
        (ConvTranspose2d, {"padding": "same"}, "ConvTranspose2d: padding"),
        (ConvTranspose2d, {"padding": (1, 0, 1, 0)}, "ConvTranspose2d: padding"),
        (ConvTranspose2d, {"output_padding": -1}, "ConvTranspose2d: output_padding"),
        (ConvTranspose2d, {"output_padding": 1}, r"ConvTranspose2d: output_padding \(1, 1\) must be smaller than stride \(1, 1\)"),
        (ConvTranspose2d, {"output_padding": (0, 2), "stride": 2}, "ConvTranspose2d: output_padding"),
    ],
)
def test_bad_arguments(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**({"in_channels": 4, "out_channels": 6, "kernel_size": 3} | arguments))


@pytest.mark.parametrize("make", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((2, 3, 5, 5), np.float32), r"expected images of shape \(\[batch,\] 4, height, width\), got \(2, 3, 5, 5\)"),
        (np.ones((3, 5, 5), np.float32), r"expected images of shape .* got \(3, 5, 5\)"),
        (np.ones((4, 5), np.float32), r"expected images of shape .* got \(4, 5\)"),
        (np.ones((1, 1, 4, 5, 5), np.float32), r"expected images of shape .* got \(1, 1, 4, 5, 5\)"),
        (np.ones((0, 4, 5, 5), np.float32), r"expected images of shape .* got \(0, 4, 5, 5\)"),
        ([[[[1.0]]]], "expected images of shape .* got list"),
        (np.ones((2, 4, 5, 5), np.uint8), "expected float32 images, as the weights are, got uint8"),
        (np.ones((2, 4, 5, 5), np.float64), "expected float32 images, as the weights are, got float64"),
    ],
)
def test_bad_input(make, x, message):
    layer = make(4, 6, 3)
    with pytest.raises(ValueError, match=f"{make.__name__}: {message}"):
        layer(x)
    assert layer._kept is None


def test_images_that_leave_no_output():
    with pytest.raises(ValueError, match=r"Conv2d: a 2x5 image is too small for kernel_size \(3, 3\)"):
        Conv2d(4, 6, 3)(np.ones((1, 4, 2, 5), np.float32))
    with pytest.raises(ValueError, match="Conv2d: a 5x4 image is too small"):
        Conv2d(4, 6, 3, dilation=2)(np.ones((1, 4, 5, 4), np.float32))
    with pytest.raises(ValueError, match="ConvTranspose2d: a 1x3 image leaves no output"):
        ConvTranspose2d(4, 6, 2, padding=1)(np.ones((1, 4, 1, 3), np.float32))


def test_a_gradient_of_another_shape_or_dtype_is_refused():
    """It would be read past its end."""
    x = np.ones((2, 3, 5, 4), np.float32)
    for layer, shape in ((Conv2d(3, 2, 3), (2, 2, 3, 2)), (ConvTranspose2d(3, 2, 3), (2, 2, 7, 6)), (Linear(4, 2), (2, 3, 5, 2))):
        for bad in (np.ones((3, *shape[1:]), np.float32), np.ones((*shape[:-1], shape[-1] + 1), np.float32), np.ones(shape)):
            layer(x)
            with pytest.raises(ValueError, match=f"{type(layer).__name__}.backward: expected dout like the output"):
                layer.backward(bad)


def test_shift_and_residual_of_another_shape_are_refused():
    layer, x = Conv2d(3, 2, 3, padding=1), np.ones((2, 3, 5, 4), np.float32)
    with pytest.raises(ValueError, match=r"shift must be float32 of shape \(2, 2\), got float32 of shape \(3, 2\)"):
        layer(x, shift=np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match=r"residual must be float32 of shape \(2, 2, 5, 4\), got float64"):
        layer(x, residual=np.ones((2, 2, 5, 4)))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_shift_and_residual_are_added(groups, bias):
    rng = np.random.default_rng(0)
    layer = Conv2d(4, 6, 3, padding=1, groups=groups, bias=bias, generator=rng)
    x, shift, residual = (rng.standard_normal(shape, dtype=np.float32) for shape in ((3, 4, 5, 4), (3, 6), (3, 6, 5, 4)))
    expected = layer(x) + shift[:, :, None, None] + residual
    np.testing.assert_allclose(layer(x, shift=shift, residual=residual), expected, rtol=1e-5, atol=1e-5)


def test_winograd_as_a_layer_equals_im2col(rng):
    """Forward with shift and residual, and all gradients, in float32 and with groups; in float64 both are im2col, bit for bit."""
    for dtype, tolerance in ((np.float32, 5e-6), (np.float64, 0)):
        for groups in (1, 2):
            layers = [
                Conv2d(8, 6, 3, padding=1, groups=groups, algorithm=algorithm, generator=np.random.default_rng(1)).astype(dtype)
                for algorithm in ("winograd", "im2col")
            ]
            x, dout = rng.standard_normal((2, 8, 9, 6)).astype(dtype), rng.standard_normal((2, 6, 9, 6)).astype(dtype)
            shift, residual = rng.standard_normal((2, 6)).astype(dtype), rng.standard_normal(dout.shape).astype(dtype)
            results = [(layer(x, shift, residual), layer.backward(dout), layer.weight.grad, layer.bias.grad) for layer in layers]
            for got, expected in zip(*results, strict=True):
                np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 3, "algorithm": "fft"}, "algorithm must be 'auto', 'im2col' or 'winograd', got 'fft'"),
        ({"kernel_size": 5, "algorithm": "winograd"}, r"algorithm 'winograd' needs kernel_size 3, stride 1 and dilation 1, got \(5, 5\)"),
        ({"kernel_size": 3, "stride": 2, "algorithm": "winograd"}, r"got \(3, 3\), \(2, 2\) and \(1, 1\)"),
    ],
)
def test_an_algorithm_that_does_not_apply_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Conv2d(4, 4, **arguments)
