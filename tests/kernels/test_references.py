"""Every public kernel has a plain NumPy twin, ``<name>_reference``, of the same signature, and the two agree."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType

import numba
import numpy as np
import pytest

import hcrot.kernels
from hcrot.kernels import activation, attention, channels, conv, im2col, norm, optim, resample, winograd
from hcrot.kernels.im2col import make_geometry

MODULES = [importlib.import_module(f"hcrot.kernels.{info.name}") for info in pkgutil.iter_modules(hcrot.kernels.__path__)]

# What works out shapes, layouts and threads: it has no meaning of its own to be stated twice.
HELPERS = {
    "ahead": {"start", "compile_backward"},
    "activation": {"exp", "flat_in_order_of"},  # exp works on one number: tests/kernels/test_activation.py compares it
    "channels": {"pixels"},
    "conv": {"weight_matrix", "winograd_pays", "uses_winograd"},
    "im2col": {"pair", "make_geometry", "output_size", "channels_last", "channels_first"},
    "cache": {"compile_cached", "drop_outdated", "fallback_folder", "keep_one_file_each", "kept_in"},
    "jit": {
        "jit",
        "distinct_jit",
        "exact_jit",
        "parallel_jit",
        "set_num_threads",
        "get_num_threads",
        "shares",
        "prepare",
        "say",
        "has_compiled_kernels",
    },
    "plain": {"referenced", "is_plain", "plain", "set_plain", "why_slow"},
    "product": {
        "broadcasting", "compiled_product", "copy_bytes", "dotting", "lanes_of", "multiply", "panel_kernel", "product_float32",
        "product_float64", "product_function", "product_of", "stack_buffer", "vector_bytes",
    },  # fmt: skip
    "launch": {
        "usable_cores",
        "run_shares",
        "python_threads",
        "launched",
        "field",
        "describe",
        "share_bits",
        "recorded",
        "is_owner",
        "this_call",
        "number_at",
    },
    "machine": {"keep_freed_memory"},
    "threads": {
        "add", "compiled", "exchange", "forget_pool", "help_others", "nanoseconds", "pause", "pool_for", "posix_threads", "read", "run_all",
        "run_by_address", "run_share", "write", *(["do_shares", "is_offered"] if numba.config.DISABLE_JIT else []),
    },  # fmt: skip
    "norm": {"row_moments"},  # plain NumPy itself
    # norm_of is plain NumPy itself; the other two refuse arrays with gaps: tests/kernels/test_optim.py compares them
    "optim": {"array_at", "norm_of", "move_average", "update_velocity"},
    "replay": {*(["repeat_calls"] if numba.config.DISABLE_JIT else [])},
    "resample": {"starts"},
    "winograd": {"applies", "blocks", "count_tiles", "patches_of", "taps_of"},
    # a transform is its own reference: the same formula is evaluated on arrays, and tests/kernels/test_winograd_tiles.py compares
    "winograd_tiles": {
        "from_pixels", "generated", "smaller", "sum_of_products", "transform_input", "transform_kernel",
        "transform_kernel_gradient", "transform_output", "transform_output_gradient", "turn_taps", "values_of", "values_of_output",
        "values_of_turned", "write_output", "write_turned", "write_vectors",
    },
    "winograd_transforms": {
        "in_two_dimensions", "transform_input", "transform_kernel", "transform_kernel_adjoint", "transform_output",
        "transform_output_adjoint",
    },
    # another way to what winograd and winograd_weight_gradient say: tests/kernels/test_winograd.py compares it
    "winograd_wide": {"is_wide", "block_width", "wide", "wide_weight_gradient"},
}

ODD = make_geometry((2, 3), (2, 1), (1, 0, 2, 1), (1, 2))
SAME = make_geometry(3, padding=1)


def group_norm_backward_arguments(draw, shape, groups, silu):
    x, weight, bias = draw(*shape), draw(shape[1]), draw(shape[1])
    _, mean, rstd = norm.group_norm_reference(x, weight, bias, groups, 1e-5, silu)
    return draw(*shape), x, mean, rstd, weight, bias, silu


ATTENTION = [(2, 5, 5, 6, 2), (1, 1, 1, 3, 1), (3, 150, 150, 8, 4), (2, 5, 9, 6, 2), (1, 140, 2, 3, 1)]
"""Images, queries, keys, width and heads."""


def attention_arguments(draw, batch, tokens, keys, inner, heads):
    return draw(batch, tokens, inner), *draw(2, batch, keys, inner), heads


def attention_backward_arguments(draw, batch, tokens, keys, inner, heads):
    q, k, v, _ = attention_arguments(draw, batch, tokens, keys, inner, heads)
    do = draw(batch, tokens, inner)
    o, logsum = attention.attention_reference(q, k, v, heads)
    return do, q, k, v, logsum, heads


def arrays(draw, *shapes):
    return optim.Arrays(np.copy(draw(*shape)) for shape in shapes)


def adam_arguments(draw, *shapes, scale=1.0, averaged=False):
    p, g, m, average = (arrays(draw, *shapes) for _ in range(4))
    v = optim.Arrays(array**2 for array in arrays(draw, *shapes))
    return p, g, m, v, 3, 1e-2, 0.9, 0.99, 1e-8, 0.1, 0.2, scale, *((average, 0.3, True) if averaged else ())


# kernel: its module and, for a function draw(*shape) that makes float arrays, lists of arguments to compare it with
KERNELS: dict[str, tuple[ModuleType, Callable]] = {
    "im2col": (im2col, lambda draw: [(draw(2, 3, 5, 7), 3), (draw(3, 2, 6, 5), (2, 3), (2, 1), (1, 0, 2, 1), (1, 2))]),
    "col2im": (im2col, lambda draw: [(draw(30, 27), (2, 3, 5, 7), 3), (draw(54, 12), (3, 2, 6, 5), (2, 3), (1, 2), (1, 0, 2, 1))]),
    "conv2d": (
        conv,
        lambda draw: [
            (draw(2, 3, 5, 7), draw(4, 3, 3, 3), draw(4), SAME),
            (draw(2, 3, 5, 7), draw(4, 3, 3, 3), draw(2, 4), SAME, draw(2, 4, 5, 7)),
            (draw(3, 2, 6, 5), draw(3, 2, 2, 3), None, ODD),
            (draw(5, 9, 17, 19), draw(7, 9, 3, 3), draw(7), SAME),
        ],
    ),
    "conv2d_weight_gradient": (
        conv,
        lambda draw: [
            (draw(2, 3, 5, 7), draw(2, 4, 5, 7), SAME),
            (draw(3, 2, 6, 5), draw(3, 3, 3, 4), ODD),
            (draw(5, 9, 17, 19), draw(5, 7, 17, 19), SAME),
        ],
    ),
    "conv2d_input_gradient": (
        conv,
        lambda draw: [
            (draw(2, 4, 5, 7), draw(4, 3, 3, 3), SAME, 5, 7),
            (draw(3, 3, 3, 4), draw(3, 2, 2, 3), ODD, 6, 5),
            (draw(5, 7, 17, 19), draw(7, 9, 3, 3), SAME, 17, 19),
        ],
    ),
    "winograd": (
        winograd,
        lambda draw: [
            (draw(2, 3, 5, 7), draw(4, 3, 3, 3), draw(2, 4), SAME, draw(2, 4, 5, 7)),
            (draw(3, 17, 20, 3), draw(33, 17, 3, 3), None, make_geometry(3, padding=(0, 2, 3, 0))),
        ],
    ),
    "winograd_weight_gradient": (
        winograd,
        lambda draw: [
            (draw(2, 3, 5, 7), draw(2, 4, 5, 7), SAME),
            (draw(3, 17, 20, 3), draw(3, 33, 20, 4), make_geometry(3, padding=(0, 2, 3, 0))),
        ],
    ),
    "linear": (conv, lambda draw: [(draw(3), draw(5, 3), draw(5)), (draw(2, 7, 3), draw(5, 3), None, draw(2, 7, 5))]),
    "linear_weight_gradient": (conv, lambda draw: [(draw(3), draw(5)), (draw(2, 7, 3), draw(2, 7, 5))]),
    "silu": (activation, lambda draw: [(draw(3, 5, 7, 2),), (draw(1),), (draw(40_001),)]),
    "silu_gradient": (activation, lambda draw: [(draw(3, 5, 7, 2), draw(3, 5, 7, 2)), (draw(40_001), draw(40_001))]),
    "concatenate": (channels, lambda draw: [(draw(2, 3, 5, 7), draw(2, 1, 5, 7)), (draw(3, 17, 19, 23), draw(3, 13, 19, 23))]),
    "split": (channels, lambda draw: [(draw(2, 4, 5, 7), 3), (draw(3, 30, 19, 23), 13)]),
    "plus_row": (channels, lambda draw: [(draw(2, 5), draw(5)), (draw(300, 70), draw(70))]),
    "plus": (channels, lambda draw: [(draw(2, 4, 5, 7), draw(2, 4, 5, 7)), (draw(3, 30, 19, 23), draw(3, 30, 19, 23))]),
    "pixel_sums": (channels, lambda draw: [(draw(2, 4, 5, 7),), (draw(3, 30, 19, 23),)]),
    "group_norm": (
        norm,
        lambda draw: [
            (draw(2, 6, 5, 7), draw(6), draw(6), 3, 1e-5, False),
            (draw(3, 12), draw(12), draw(12), 2, 1e-3, True),
            (draw(3, 10, 17, 19), draw(10), draw(10), 5, 0.0, True),
        ],
    ),
    "group_norm_backward": (
        norm,
        lambda draw: [
            group_norm_backward_arguments(draw, (2, 6, 5, 7), 3, False),
            group_norm_backward_arguments(draw, (3, 12), 2, True),
            group_norm_backward_arguments(draw, (3, 10, 17, 19), 5, True),
            (*group_norm_backward_arguments(draw, (3, 10, 17, 19), 5, True), draw(3, 10, 17, 19)),
        ],
    ),
    "attention": (attention, lambda draw: [attention_arguments(draw, *sizes) for sizes in ATTENTION]),
    "attention_backward": (
        attention,
        lambda draw: [attention_backward_arguments(draw, *sizes) for sizes in ATTENTION],
    ),
    "nearest": (resample, lambda draw: [(draw(2, 3, 5, 4), 10, 8), (draw(2, 3, 5, 4), 7, 3), (draw(3, 13, 17, 19), 29, 31)]),
    "nearest_gradient": (resample, lambda draw: [(draw(2, 3, 10, 8), 5, 4), (draw(2, 3, 7, 3), 5, 4), (draw(3, 13, 29, 31), 17, 19)]),
    "square_sum": (optim, lambda draw: [(arrays(draw, (101,)),), (arrays(draw, (7, 3), (150, 173), (1,), (2, 3, 5)),)]),
    "adam": (
        optim,
        lambda draw: [
            adam_arguments(draw, (101,)),
            adam_arguments(draw, (7, 3), (150, 173), (1,), (2, 3, 5), scale=0.4, averaged=True),
        ],
    ),
}

ORDERS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "with gaps": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
}


def public_functions(module: ModuleType) -> dict[str, Callable]:
    """What a kernel file defines for others: names without underscore. Jitted functions without a reference are parts of kernels."""
    found = {}
    for name, value in vars(module).items():
        function = inspect.unwrap(getattr(value, "py_func", value)) if callable(value) else None
        is_part = hasattr(value, "py_func") and not hasattr(module, f"{name}_reference")
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_") and not is_part:
            found[name] = function
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_kernel_has_a_reference_that_is_compared_here(module):
    functions = set(public_functions(module))
    helpers = HELPERS.get(module.__name__.rpartition(".")[2], set())
    kernels = {name for name in functions - helpers if not name.endswith("_reference")}
    assert helpers <= functions
    assert {name for name in functions if name.endswith("_reference")} - {f"{name}_reference" for name in helpers} == {
        f"{name}_reference" for name in kernels
    }
    assert kernels == {name for name, (home, _) in KERNELS.items() if home is module}
    assert all(hasattr(getattr(module, name), "__wrapped__") for name in kernels), "not decorated by referenced"


@pytest.mark.parametrize("name", KERNELS)
def test_the_signatures_agree(name):
    functions = public_functions(KERNELS[name][0])
    assert inspect.signature(functions[name]) == inspect.signature(functions[f"{name}_reference"])


def each_array(argument):
    """The arrays in an argument or result."""
    if isinstance(argument, tuple):
        return [array for part in argument for array in each_array(part)]
    return [argument] if isinstance(argument, np.ndarray) else []


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_equals_reference(name, order, dtype):
    module, arguments = KERNELS[name]
    rng, arrange = np.random.default_rng(0), ORDERS[order]

    def copied(argument):
        if isinstance(argument, optim.Arrays):
            return optim.Arrays(array.copy(order="K") for array in argument)
        return arrange(argument.copy()) if isinstance(argument, np.ndarray) else argument

    for given in arguments(lambda *shape: arrange(rng.standard_normal(shape).astype(dtype))):
        results = []
        for function in (getattr(module, name), getattr(module, f"{name}_reference")):
            handed = tuple(copied(argument) for argument in given)
            returned = function(*handed)
            results.append(each_array((np.asarray(returned, dtype) if isinstance(returned, float) else returned, *handed)))
        for got, expected in zip(*results, strict=True):
            assert got.dtype == expected.dtype == dtype
            assert got.shape == expected.shape
            # the arguments are about 1, so what is zero in exact arithmetic (the slope of a softmax over one token) is rounded like 0.1
            scale = max(np.abs(expected).max(), 0.1)
            np.testing.assert_allclose(got, expected, rtol=0, atol=(1e-5 if dtype == np.float32 else 1e-12) * scale)
