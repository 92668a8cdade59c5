"""PyTorch's own inputs of its optimizers, through ours: each agrees over several steps, or is refused by name."""

import numpy as np
import pytest

import hcrot
from hcrot.module import Parameter

torch = pytest.importorskip("torch")
common_optimizers = pytest.importorskip("torch.testing._internal.common_optimizers")

MISSING = {
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adamax", "LBFGS", "Muon", "NAdam", "RAdam", "RMSprop", "Rprop", "SparseAdam",
}  # fmt: skip
"""Optimizers that hcrot does not have."""
OPTIONS = ("foreach", "fused", "capturable", "differentiable")

OURS = [info for info in common_optimizers.optim_db if info.optim_cls.__name__ not in MISSING]
INPUTS = [(info.optim_cls, inputs) for info in OURS for inputs in info.optim_inputs_func(device="cpu")]
ERRORS = [
    (info.optim_cls, error.optimizer_error_input.kwargs)
    for info in OURS
    for error in info.optim_error_inputs_func(device="cpu", dtype=torch.float32)
    if error.optimizer_error_input.kwargs and "tensor" not in str(error.optimizer_error_input.kwargs)
]
"""Options that PyTorch refuses, but for those that are about tensors."""


def numbers(options):
    """A learning rate may be a tensor in PyTorch; here it is its number."""
    return {name: value.item() if isinstance(value, torch.Tensor) else value for name, value in options.items()}


def name_of(case):
    optim_class, inputs = case
    return f"{optim_class.__name__}-{numbers(getattr(inputs, 'kwargs', {}))}"


def test_what_is_missing_is_missing_and_the_rest_is_tried():
    names = {info.optim_cls.__name__ for info in common_optimizers.optim_db}
    assert not [name for name in MISSING if hasattr(hcrot, name)]
    assert names - MISSING == {"SGD", "Adam", "AdamW"}
    assert len(INPUTS) >= 19


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", INPUTS, ids=name_of)
@pytest.mark.parametrize("one_pass", [False, True])
def test_every_input_agrees(case, dtype, one_pass):
    torch_class, inputs = case
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(dtype) for shape in [(3, 2, 5), (7,), (1, 1), ()]]
    params, torch_params = [Parameter(a.copy()) for a in arrays], [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in arrays]
    ours = getattr(hcrot, torch_class.__name__)(params, **numbers(inputs.kwargs))
    theirs = torch_class(torch_params, **inputs.kwargs)
    for step in range(12):
        for p, q in zip(params, torch_params, strict=True):
            # The gradient of a noisy, curved function, which falls: then the largest second moment is not the last.
            p.grad[...] = (rng.normal(size=p.shape) + p.data) / (1 + step)
            q.grad = torch.from_numpy(p.grad.copy())
        if one_pass:
            ours.step(max_grad_norm=0.5)
            torch.nn.utils.clip_grad_norm_(torch_params, 0.5)
        else:
            ours.step()
        theirs.step()
    moved = 0.0
    for array, p, q in zip(arrays, params, torch_params, strict=True):
        expected = q.detach().numpy()
        tolerance = (2e-6 if dtype == np.float32 else 1e-13) * np.abs(expected).max()
        np.testing.assert_allclose(p.data, expected, rtol=0, atol=tolerance)
        moved = max(moved, np.abs(expected - array).max())
    assert moved > 3e-4  # at a rate of 1e-3 and norms of at most 0.5


@pytest.mark.parametrize(("torch_class", "options"), ERRORS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_what_pytorch_refuses_is_refused(torch_class, options):
    with pytest.raises(ValueError, match=f"{torch_class.__name__}: (betas|weight_decay|momentum) must be"):
        getattr(hcrot, torch_class.__name__)([Parameter(np.zeros(3))], **options)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("torch_class", [info.optim_cls for info in OURS])
def test_options_about_how_pytorch_computes_are_refused_by_name(torch_class, name):
    ours, params = getattr(hcrot, torch_class.__name__), [Parameter(np.zeros(3))]
    for default in (None, False):
        ours(params, **{name: default})
    with pytest.raises(ValueError, match=f"{torch_class.__name__}: {name} is an option of PyTorch that is not taken here: "):
        ours(params, **{name: True})
