"""Optimizers and clipping against PyTorch's, schedules and the moving average against diffusers'."""

import numpy as np
import pytest

from hcrot.module import Parameter
from hcrot.training.ema import EMA
from hcrot.training.lr_schedules import get_scheduler
from hcrot.training.optim import SGD, Adam, AdamW, clip_grad_norm

torch = pytest.importorskip("torch")

TOLERANCE = {np.float32: 1e-6, np.float64: 1e-13}
dtypes = pytest.mark.parametrize("dtype", TOLERANCE)


def both(dtype):
    """The same parameters, in hcrot and in PyTorch."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(dtype) for shape in [(5, 3, 3, 3), (31,), (9, 1)]]
    return [Parameter(a.copy()) for a in arrays], [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in arrays]


def fill_gradients(params, torch_params, rng):
    for p, q in zip(params, torch_params, strict=True):
        p.grad[...] = rng.normal(size=p.shape)
        q.grad = torch.from_numpy(p.grad.copy())


def assert_same(arrays, tensors, dtype):
    for array, tensor in zip(arrays, tensors, strict=True):
        expected = tensor.detach().numpy()
        assert array.dtype == expected.dtype
        np.testing.assert_allclose(array, expected, rtol=0, atol=TOLERANCE[dtype] * np.abs(expected).max())


@dtypes
@pytest.mark.parametrize(
    ("optimizer", "torch_optimizer", "options"),
    [
        (SGD, torch.optim.SGD, {}),
        (SGD, torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.2}),
        (SGD, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
        (SGD, torch.optim.SGD, {"lr": 0.05, "momentum": 0.7, "weight_decay": 0.1}),
        (SGD, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        (Adam, torch.optim.Adam, {}),
        (Adam, torch.optim.Adam, {"lr": 0.1, "betas": (0.5, 0.8), "eps": 1e-2}),
        (Adam, torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.3}),
        (AdamW, torch.optim.AdamW, {}),
        (AdamW, torch.optim.AdamW, {"lr": 0.1, "betas": (0.95, 0.999), "weight_decay": 1e-6}),
        (AdamW, torch.optim.AdamW, {"lr": 0.1, "betas": (0.0, 0.0), "eps": 1e-3, "weight_decay": 0.5}),
    ],
)
def test_twenty_steps(optimizer, torch_optimizer, options, dtype):
    params, torch_params = both(dtype)
    ours, theirs = optimizer(params, **options), torch_optimizer(torch_params, **options)
    rng = np.random.default_rng(1)
    for step in range(20):
        fill_gradients(params, torch_params, rng)
        if step == 10:
            ours.lr *= 0.5
            theirs.param_groups[0]["lr"] *= 0.5
        ours.step()
        theirs.step()
    assert_same([p.data for p in params], torch_params, dtype)


@dtypes
@pytest.mark.parametrize(
    ("optimizer", "torch_optimizer", "options"),
    [
        (SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2}),
        (Adam, torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.2}),
        (AdamW, torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.2}),
    ],
)
def test_freezing_and_setting_free(optimizer, torch_optimizer, options, dtype):
    """Frozen is what PyTorch makes of ``requires_grad = False`` before the backward pass, which leaves ``grad`` None."""
    params, torch_params = both(dtype)
    ours, theirs = optimizer(params, **options), torch_optimizer(torch_params, **options)
    rng = np.random.default_rng(7)
    for step in range(20):
        frozen = {1} if step < 4 else {0, 2} if 8 <= step < 14 else set()
        for index, p in enumerate(params):
            p.trainable = index not in frozen
        fill_gradients(params, torch_params, rng)
        for index in frozen:
            torch_params[index].grad = None
        norm = clip_grad_norm(params, 1.0)
        torch_norm = torch.nn.utils.clip_grad_norm_(torch_params, 1.0)
        assert norm == pytest.approx(torch_norm.item(), rel=TOLERANCE[dtype])
        ours.step()
        theirs.step()
    assert_same([p.data for p in params], torch_params, dtype)


@dtypes
def test_groups(dtype):
    params, torch_params = both(dtype)

    def groups(p):
        return [{"params": p[:1], "lr": 0.02}, {"params": p[1:], "weight_decay": 0.0}]

    ours = AdamW(groups(params), lr=0.1, weight_decay=0.4)
    theirs = torch.optim.AdamW(groups(torch_params), lr=0.1, weight_decay=0.4)
    rng = np.random.default_rng(2)
    for _ in range(20):
        fill_gradients(params, torch_params, rng)
        ours.step()
        theirs.step()
    assert_same([p.data for p in params], torch_params, dtype)


@dtypes
@pytest.mark.parametrize("max_norm", [0.3, 1.0, 1e3, float("inf")])
def test_clip_grad_norm(max_norm, dtype):
    params, torch_params = both(dtype)
    fill_gradients(params, torch_params, np.random.default_rng(3))
    norm = clip_grad_norm(params, max_norm)
    assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(torch_params, max_norm).item(), rel=TOLERANCE[dtype])
    assert_same([p.grad for p in params], [q.grad for q in torch_params], dtype)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clip_grad_norm_that_is_not_finite(bad):
    params, torch_params = both(np.float32)
    fill_gradients(params, torch_params, np.random.default_rng(4))
    params[0].grad[0, 1] = bad
    torch_params[0].grad[0, 1] = bad
    norm = clip_grad_norm(params, 1.0)
    np.testing.assert_array_equal(norm, torch.nn.utils.clip_grad_norm_(torch_params, 1.0).item())
    for p, q in zip(params, torch_params, strict=True):
        np.testing.assert_array_equal(p.grad, q.grad.numpy())


@pytest.mark.parametrize("name", ["constant", "constant_with_warmup", "linear", "cosine"])
@pytest.mark.parametrize(("warmup", "total"), [(0, 25), (1, 25), (7, 25), (24, 25), (40, 25)])
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_schedules(name, warmup, total):
    optimization = pytest.importorskip("diffusers.optimization")
    params, torch_params = both(np.float32)
    ours, theirs = SGD(params, lr=0.3), torch.optim.SGD(torch_params, lr=0.3)
    schedule = get_scheduler(name, ours, warmup, total)
    torch_schedule = optimization.get_scheduler(name, theirs, num_warmup_steps=warmup, num_training_steps=total)
    for step in range(total + 1):
        assert ours.lr == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-14, abs=1e-16), f"step {step}"
        schedule.step()
        torch_schedule.step()


@dtypes
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decay": 0.5, "min_decay": 0.3},
        {"update_after_step": 5},
        {"use_ema_warmup": True, "inv_gamma": 1.5, "power": 0.75, "decay": 0.7},
    ],
)
def test_ema(options, dtype):
    training_utils = pytest.importorskip("diffusers.training_utils")
    params, torch_params = both(dtype)
    ours, theirs = EMA(params, **options), training_utils.EMAModel(torch_params, **options)
    rng = np.random.default_rng(5)
    for _ in range(20):
        for p, q in zip(params, torch_params, strict=True):
            p.data += rng.normal(size=p.shape).astype(dtype)
            q.data.copy_(torch.from_numpy(p.data))
        ours.step()
        theirs.step(torch_params)
        assert ours.get_decay(ours.step_count) == theirs.cur_decay_value
    assert_same(ours.averages, theirs.shadow_params, dtype)


@dtypes
@pytest.mark.parametrize("one_pass", [False, True])
def test_training_step_of_diffusers_script(dtype, one_pass):
    """AdamW, clipping, cosine schedule and average together, as in diffusers' train_unconditional."""
    optimization = pytest.importorskip("diffusers.optimization")
    training_utils = pytest.importorskip("diffusers.training_utils")
    params, torch_params = both(dtype)
    options = {"lr": 1e-2, "betas": (0.95, 0.999), "weight_decay": 1e-6, "eps": 1e-8}
    average = {"use_ema_warmup": True, "power": 0.75}
    ours, theirs = AdamW(params, **options), torch.optim.AdamW(torch_params, **options)
    schedule, torch_schedule = (
        get("cosine", optimizer, num_warmup_steps=3, num_training_steps=12)
        for get, optimizer in ((get_scheduler, ours), (optimization.get_scheduler, theirs))
    )
    ema, torch_ema = EMA(params, **average), training_utils.EMAModel(torch_params, **average)
    rng = np.random.default_rng(6)
    for _ in range(10):
        fill_gradients(params, torch_params, rng)
        if one_pass:
            norm = ours.step(max_grad_norm=1.0, ema=ema)
        else:
            norm = clip_grad_norm(params, 1.0)
            ours.step()
            ema.step()
        torch_norm = torch.nn.utils.clip_grad_norm_(torch_params, 1.0)
        for part in (schedule, theirs, torch_schedule):
            part.step()
        torch_ema.step(torch_params)
        assert norm == pytest.approx(torch_norm.item(), rel=TOLERANCE[dtype])
    assert_same([p.data for p in params], torch_params, dtype)
    assert_same(ema.averages, torch_ema.shadow_params, dtype)


@pytest.mark.parametrize(("ours", "theirs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_a_gradient_whose_square_overflows_stops_its_parameter_alike(ours, theirs):
    p, q = Parameter(np.array([1, 2, 3], np.float32)), torch.nn.Parameter(torch.tensor([1.0, 2, 3]))
    optimizer, torch_optimizer = ours([p], lr=0.1), theirs([q], lr=0.1, weight_decay=ours([p]).groups[0].weight_decay)
    for gradient in ([1e20, 1, -1e30], [1, 1, 1], [-2, 1, 3]):
        p.grad[...] = gradient
        q.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
        torch_optimizer.step()
    assert_same([p.data], [q], np.float32)
    np.testing.assert_allclose(optimizer.state["v"][0], torch_optimizer.state[q]["exp_avg_sq"].numpy(), rtol=1e-6)


@pytest.mark.parametrize(("ours", "theirs", "options"), [(Adam, torch.optim.Adam, {}), (SGD, torch.optim.SGD, {"momentum": 0.9})])
def test_a_thousand_steps_without_gradient(ours, theirs, options):
    """PyTorch keeps subnormal numbers, which make no difference to the parameters."""
    params, torch_params = both(np.float32)
    optimizer, torch_optimizer = ours(params, lr=1e-3, **options), theirs(torch_params, lr=1e-3, **options)
    fill_gradients(params, torch_params, np.random.default_rng(2))
    for _ in range(1000):
        optimizer.step()
        torch_optimizer.step()
        for p, q in zip(params, torch_params, strict=True):
            p.grad.fill(0)
            q.grad.zero_()
    assert_same([p.data for p in params], torch_params, np.float32)
