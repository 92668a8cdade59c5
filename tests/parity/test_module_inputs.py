"""PyTorch's own inputs for its modules, and PyTorch's own constructor arguments, given to our layers of the same names.

Every input either agrees, in forward and in all gradients, in both dtypes, or is listed in ``REFUSED`` with what the error says.
"""

import inspect
import re

import numpy as np
import pytest

import hcrot

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("one_torch_thread")

NOT_LAYERS = {"Module", "Parameter"}
NAMES = [name for name in hcrot.__all__ if isinstance(getattr(torch.nn, name, None), type) and name not in NOT_LAYERS]
"""Of our layers, those that have a namesake in torch.nn."""

DTYPES = {np.float32: torch.float32, np.float64: torch.float64}
TOLERANCE = {np.float32: (1e-5, 1e-4), np.float64: (1e-12, 1e-11)}
"""Of the output and of gradients, relative to the largest entry or to 1."""

NO_AXIS = "expected an array of at least one axis"  # NumPy's operations make scalars of them, which are no arrays
REFUSED = {
    **dict.fromkeys(
        ["GELU('none') on ()", "Mish() on ()", "ReLU() on ()", "SiLU() on ()", "Sigmoid() on ()", "Softmax(0) on ()", "Tanh() on ()"],
        NO_AXIS,
    ),
    # a batch of nothing is a mistake sooner than a wish
    **dict.fromkeys(
        ["LayerNorm([5], 0.001) on (0, 5)", "RMSNorm([5], 0.001) on (0, 5)", "BatchNorm2d(5, 0.001, 0.3, False) on (0, 5, 2, 2)"],
        "which is empty",
    ),
    # what forward returns is one array
    "MaxPool2d((3, 3), (2, 2), (1, 1), return_indices=True) on (1, 3, 7, 7)": "return_indices=True is not supported",
}
"""What is refused, as :func:`title` writes it, and what the error says after the layer's name. Anything else must agree."""


# ---------------------------------------------------------------- one input through both


def title(name, args, options, x):
    """How an input is called in ``REFUSED`` and in failures: ``Conv2d(4, 5, 3, padding='same') on (2, 4, 3, 4)``."""
    arguments = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in options.items())])
    return f"{name}({arguments}) on {tuple(x.shape)}"


def close(what, got, expected, tolerance):
    expected = expected.detach().numpy()
    assert isinstance(got, np.ndarray), what
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype), what
    bound = tolerance * max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(got, expected, rtol=0, atol=bound, err_msg=what)


def compare(name, args, options, x, dtype):
    """Assert that both layers, with the same parameters, agree on x; a ValueError or TypeError of ours passes through."""
    ours = getattr(hcrot, name)(*args, **options).astype(dtype)
    theirs = getattr(torch.nn, name)(*args, **options).to(DTYPES[dtype])
    rng = np.random.default_rng(3)
    parameters = {key: parameter for key, parameter in ours.named_parameters() if not parameter.constant}
    assert list(parameters) == [key for key, _ in theirs.named_parameters()]
    for key, parameter in parameters.items():
        parameter.data[...] = rng.standard_normal(parameter.shape)
        theirs.get_parameter(key).data.copy_(torch.from_numpy(parameter.data.copy()))
    if x.is_floating_point():
        x = x.detach().to(DTYPES[dtype]).requires_grad_()
    y = ours(x.detach().numpy().copy())
    expected = theirs(x)
    forward, backward = TOLERANCE[dtype]
    close("output", y, expected, forward)
    dout = np.array(rng.standard_normal(y.shape), dtype)
    dx = ours.backward(dout)
    expected.backward(torch.from_numpy(dout))
    if x.is_floating_point():
        close("gradient of the input", dx, x.grad, backward)
    for key, parameter in parameters.items():
        close(f"gradient of {key}", parameter.grad, theirs.get_parameter(key).grad, backward)


def faults(name, inputs, dtype):
    """What goes wrong with a list of ``(args, options, x)``: one line each for what differs, or is refused or accepted unexpectedly."""
    found = []
    for args, options, x in inputs:
        what = title(name, args, options, x)
        try:
            compare(name, args, options, x, dtype)
            if what in REFUSED:
                found.append(f"{what}: is listed as refused, but agrees")
        except (TypeError, ValueError) as error:
            if what not in REFUSED or not re.match(f"{name}: .*{REFUSED[what]}", str(error)):
                found.append(f"{what}: {type(error).__name__}: {error}")
        except AssertionError as error:
            found.append(f"{what}: {error}")
    return found


# ---------------------------------------------------------------- PyTorch's inputs


@pytest.fixture(scope="module")
def module_db():
    """PyTorch's table of modules and inputs; imported by those tests alone that need it, for it takes seconds."""
    pytest.importorskip("expecttest", reason="torch.testing needs it")
    from torch.testing._internal.common_modules import module_db

    return {info.module_cls.__name__: info for info in module_db}


def module_inputs(info, dtype):
    torch.manual_seed(0)
    inputs = info.module_inputs_func(info, device="cpu", dtype=DTYPES[dtype], requires_grad=False, training=True)
    for item in inputs:
        (x,) = [*item.forward_input.args, *item.forward_input.kwargs.values()]
        yield item.constructor_input.args, item.constructor_input.kwargs, x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_pytorch(name, dtype, module_db):
    if name not in module_db:
        pytest.skip("PyTorch has no inputs for it")
    inputs = list(module_inputs(module_db[name], dtype))
    assert not faults(name, inputs, dtype)
    assert {key for key in REFUSED if key.startswith(f"{name}(")} <= {title(name, *item) for item in inputs}


@pytest.mark.parametrize("name", NAMES)
def test_what_pytorch_refuses_is_refused(name, module_db):
    if name not in module_db or module_db[name].module_error_inputs_func is None:
        pytest.skip("PyTorch has no such inputs for it")
    info = module_db[name]
    for item in info.module_error_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=False, training=True):
        constructor, forward = item.module_error_input.constructor_input, item.module_error_input.forward_input
        with pytest.raises((TypeError, ValueError), match=f"{name}: "):
            layer = getattr(hcrot, name)(*constructor.args, **constructor.kwargs)
            layer(*(x.numpy() for x in forward.args))


# ---------------------------------------------------------------- PyTorch's options

IMAGES, IMAGE = (2, 4, 5, 7), (4, 5, 7)
OPTIONS = {
    "AvgPool2d": [
        ((3,), {"stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 6, 9)),
        ((3,), {"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}, (2, 3, 6, 9)),
        ((3, 2, 1), {"count_include_pad": False}, IMAGES),
        (((4, 3), (3, 2), (2, 1), True, False), {}, IMAGES),
        (((4, 3), (3, 2), (2, 1), True, True, -5), {}, IMAGE),
        (((2, 3), 4), {"ceil_mode": True}, (1, 2, 5, 8)),
        ((2, 3), {"ceil_mode": True}, IMAGES),
    ],
    "Conv2d": [
        *[((4, 6, 3), {"padding": 2, "padding_mode": mode}, IMAGES) for mode in ("zeros", "reflect", "replicate", "circular")],
        ((4, 6, (2, 3), (2, 1), (3, 2), (1, 2), 2, False, "reflect"), {}, IMAGES),
        ((4, 6, (4, 3)), {"padding": "same", "padding_mode": "circular", "dilation": (1, 2)}, IMAGES),
        ((4, 6, 3), {"padding": (5, 7), "padding_mode": "circular"}, IMAGE),
        ((4, 2, 3), {"padding": (9, 8), "padding_mode": "replicate"}, IMAGE),
        ((4, 6, (2, 3)), {"stride": 2, "groups": 2}, IMAGE),
        ((4, 6, 1), {"padding": "valid", "bias": False}, IMAGE),
        ((4, 6, 3), {"padding": 0, "padding_mode": "reflect", "device": None, "dtype": None}, IMAGES),
    ],
    "ConvTranspose2d": [
        ((4, 6, 3), {"groups": 2}, IMAGES),
        ((4, 2, (3, 2), (2, 3), (1, 0), (1, 2), 2, False, (2, 3)), {}, IMAGES),
        ((4, 6, (2, 3)), {"stride": 3, "dilation": 2, "padding": (1, 2)}, IMAGE),
        ((4, 4, 3), {"stride": 1, "dilation": (1, 2), "padding": 1, "groups": 4, "padding_mode": "zeros"}, IMAGES),
    ],
    "Dropout": [((0.0, False), {}, IMAGES), ((1.0,), {}, (5,))],
    "Embedding": [
        ((5, 3), {"padding_idx": -2}, "indices"),
        ((5, 3, 1, None, 2.0, True), {}, "indices"),
        ((5, 3), {"scale_grad_by_freq": True}, "indices"),
    ],
    "Flatten": [((), {}, IMAGES), ((-3, 2), {}, IMAGES), ((0,), {}, (7,))],
    "GELU": [(("tanh",), {}, (5, 3)), ((), {"approximate": "tanh"}, (7,))],
    "GroupNorm": [((2, 4), {}, IMAGES), ((2, 4), {"bias": False}, IMAGES), ((2, 4), {"affine": False, "bias": True}, (3, 4))],
    "Identity": [((), {}, IMAGES)],
    "LayerNorm": [(((5, 7),), {"bias": False}, IMAGES), ((7,), {"eps": 0.1, "elementwise_affine": False}, (7,))],
    "Linear": [((7, 3), {"bias": False}, (7,)), ((7, 3, True), {"device": None}, IMAGES)],
    "MaxPool2d": [
        ((3,), {"stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 6, 9)),
        (((2, 3), (2, 1), (1, 0), (3, 2)), {}, IMAGES),
        ((3,), {"stride": 2, "padding": 1, "dilation": (2, 3)}, IMAGE),
        (((3, 2), None, (1, 1), (2, 3), False, True), {}, IMAGE),
        ((2, 3), {"ceil_mode": True}, IMAGES),
        (((2, 3), 4), {"ceil_mode": True}, (1, 2, 5, 8)),
    ],
    "Mish": [((False,), {}, IMAGES)],
    "ReLU": [((), {"inplace": False}, IMAGES)],
    "SiLU": [((False,), {}, (7,))],
    "Softmax": [((-2,), {}, IMAGES), ((), {"dim": 0}, (7,))],
}
"""Constructor arguments, options and the shape of x: what PyTorch's own table leaves out."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_options_of_pytorch(name, dtype):
    torch.manual_seed(1)
    indices = torch.tensor([[1, 3, 3], [0, 3, 1]])
    inputs = [(args, options, indices if shape == "indices" else torch.randn(shape)) for args, options, shape in OPTIONS[name]]
    assert not faults(name, inputs, dtype)


# ---------------------------------------------------------------- PyTorch's arguments

ASKED_FOR = {
    "align_corners": True, "device": "cuda", "dtype": "float64", "inplace": True, "max_norm": 1.0, "mode": "bilinear", "norm_type": 1.0,
    "recompute_scale_factor": True, "return_indices": True, "scale_factor": 2, "size": 9, "sparse": True,
}  # fmt: skip
"""Arguments that are refused by name, each with a value that asks for something."""

NEEDED = {
    "AvgPool2d": (2,), "BatchNorm2d": (4,), "Conv1d": (4, 6, 3), "PixelShuffle": (2,), "PixelUnshuffle": (2,), "RMSNorm": (7,),
    "Conv2d": (4, 6, 3), "ConvTranspose2d": (4, 6, 3), "Embedding": (5, 3), "GroupNorm": (2, 4), "LayerNorm": (7,),
    "Linear": (7, 3), "MaxPool2d": (2,),
}  # fmt: skip


def parameters_of(module):
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in inspect.signature(module).parameters.values() if p.kind not in kinds and not p.name.startswith("_")]


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_of_pytorch_is_there_or_refused_by_name(name):
    ours, theirs = getattr(hcrot, name), getattr(torch.nn, name)
    mine = {p.name for p in parameters_of(ours)}
    for parameter in parameters_of(theirs):
        if parameter.name not in mine or parameter.name in ASKED_FOR:
            with pytest.raises(ValueError, match=f"{name}: {parameter.name}=.* is not supported: "):
                ours(*NEEDED.get(name, ()), **{parameter.name: ASKED_FOR[parameter.name]})


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Upsample"])
def test_arguments_stand_where_pytorch_has_them(name):
    positional = [p for p in parameters_of(getattr(hcrot, name)) if p.kind == inspect.Parameter.POSITIONAL_OR_KEYWORD]
    theirs = parameters_of(getattr(torch.nn, name))
    for ours, expected in zip(positional, theirs, strict=False):
        assert ours.name == expected.name
        # PyTorch's softmax without dim guesses one, with a warning
        assert ours.default == expected.default or (name, ours.name) == ("Softmax", "dim")
