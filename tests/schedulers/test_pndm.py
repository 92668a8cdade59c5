"""PNDMScheduler without torch: the formulas step by step, the order of steps, runs that begin anew, bad input."""

import numpy as np
import pytest

from hcrot.schedulers import PNDMScheduler

SHAPE = (2, 3, 5, 4)
BETAS = np.linspace(0.002, 0.04, 100)
ABAR = np.append(np.cumprod(1 - BETAS), np.cumprod(1 - BETAS)[0])  # the last stands at s = -1: set_alpha_to_one is False


def prepared(steps, follow_timesteps=False, **options):
    scheduler = PNDMScheduler(100, trained_betas=BETAS, **options)
    scheduler.set_timesteps(steps, follow_timesteps=follow_timesteps)
    return scheduler


def phi(x, eps, t, s):
    """DDIM's step, line (a) of the derivation, in float64."""
    x0 = (x - np.sqrt(1 - ABAR[t]) * eps) / np.sqrt(ABAR[t])
    return np.sqrt(ABAR[s]) * x0 + np.sqrt(1 - ABAR[s]) * eps


def model(x, t):
    return 0.9 * x / (1 + 0.1 * x * x) + 0.01 * int(t)


def run(scheduler, x, model=model):
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t), t, x).prev_sample
    return x


def adams_bashforth(x, past, visited):
    """The steps from visited[0] on, given the slopes before, newest first."""
    for t, s in zip(visited, [*visited[1:], -1], strict=True):
        past = [model(x, t), *past]
        e = [*past[:4], 0, 0, 0]
        weights = {1: [1], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12]}
        w = weights.get(len(past), [55 / 24, -59 / 24, 37 / 24, -9 / 24])
        x = phi(x, sum(a * b for a, b in zip(w, e, strict=False)), t, s)
    return x


def test_runge_kutta_then_adams_bashforth():
    """The paper's algorithm 2, written out with the steps of 10 that N = 10 and T = 100 have."""
    x = start = np.random.default_rng(0).standard_normal(SHAPE)
    past = []
    for t in (90, 80, 70):
        m, s = t - 5, t - 10
        e1 = model(x, t)
        e2 = model(phi(x, e1, t, m), m)
        e3 = model(phi(x, e2, t, m), m)
        e4 = model(phi(x, e3, t, s), s)
        past = [e1, *past]
        x = phi(x, (e1 + 2 * e2 + 2 * e3 + e4) / 6, t, s)
    expected = adams_bashforth(x, past, [60, 50, 40, 30, 20, 10, 0])
    scheduler = prepared(10)
    assert scheduler.timesteps.tolist() == [90, 85, 85, 80, 80, 75, 75, 70, 70, 65, 65, 60, 60, 50, 40, 30, 20, 10, 0]
    np.testing.assert_allclose(run(scheduler, start), expected, atol=1e-5)


def test_the_start_without_runge_kutta():
    x = start = np.random.default_rng(1).standard_normal(SHAPE)
    e1 = model(x, 90)
    e2 = model(phi(x, e1, 90, 80), 80)
    x = phi(x, (e1 + e2) / 2, 90, 80)
    expected = adams_bashforth(x, [e1], [80, 70, 60, 50, 40, 30, 20, 10, 0])
    scheduler = prepared(10, skip_prk_steps=True)
    assert scheduler.timesteps.tolist() == [90, 80, 80, 70, 60, 50, 40, 30, 20, 10, 0]
    np.testing.assert_allclose(run(scheduler, start), expected, atol=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample"])
@pytest.mark.parametrize("skip_prk_steps", [False, True])
def test_a_model_that_knows_the_image_leads_to_it(skip_prk_steps, prediction_type):
    """However the predictions are combined, if they all speak of one image and one noise. Rounding alone is left."""
    x0, eps = np.random.default_rng(2).standard_normal((2, *SHAPE))
    known = {"epsilon": eps, "sample": x0}[prediction_type]
    scheduler = prepared(50, skip_prk_steps=skip_prk_steps, prediction_type=prediction_type, set_alpha_to_one=True)
    start = ABAR[scheduler.timesteps[0]]
    reached = run(scheduler, np.sqrt(start) * x0 + np.sqrt(1 - start) * eps, lambda x, t: known)
    np.testing.assert_allclose(reached, x0, atol=1e-4)


@pytest.mark.parametrize("skip_prk_steps", [False, True])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_following_the_timesteps_leaves_no_step_at_a_level_the_model_is_not_told(spacing, skip_prk_steps):
    """If the slope never changes, x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps at every evaluation."""
    x0, eps = np.random.default_rng(3).standard_normal((2, *SHAPE))
    told, found = {}, {}
    for follow in (False, True):
        scheduler = prepared(7, follow, timestep_spacing=spacing, skip_prk_steps=skip_prk_steps)
        x = np.sqrt(ABAR[scheduler.timesteps[0]]) * x0 + np.sqrt(1 - ABAR[scheduler.timesteps[0]]) * eps
        told[follow], found[follow] = [], []
        for t in scheduler.timesteps:
            told[follow].append(ABAR[t])
            found[follow].append(np.vdot(x - np.sqrt(1 - ABAR[t]) * eps, x0) / np.vdot(x0, x0))
            x = scheduler.step(eps, t, x).prev_sample
    np.testing.assert_allclose(found[True], np.sqrt(told[True]), atol=1e-5)
    # "leading" timesteps are T // N apart anyway
    assert np.any(np.abs(np.array(found[False]) - np.sqrt(told[False])) > 1e-3) == (spacing != "leading")


@pytest.mark.parametrize("skip_prk_steps", [False, True])
def test_runs_begin_anew_with_set_timesteps(skip_prk_steps):
    x = np.random.default_rng(4).standard_normal(SHAPE)
    scheduler = prepared(10, skip_prk_steps=skip_prk_steps)
    first = run(scheduler, x)
    scheduler.set_timesteps(10)
    for t in scheduler.timesteps[:6]:  # an abandoned run leaves no trace
        scheduler.step(model(x, t), t, x)
    scheduler.set_timesteps(10)
    np.testing.assert_array_equal(run(scheduler, x), first)


def test_a_step_refused_is_not_taken():
    x = np.random.default_rng(5).standard_normal(SHAPE)
    scheduler = prepared(10)
    expected = run(scheduler, x)
    scheduler.set_timesteps(10)
    y = x
    for t in scheduler.timesteps:
        for arguments in ((model(y, t), 3, y), (model(y, t)[:1], t, y), (model(y, t), t, y.astype(np.float32))):
            with pytest.raises((ValueError, TypeError)):
                scheduler.step(*arguments)
        y = scheduler.step(model(y, t), t, y).prev_sample
    np.testing.assert_array_equal(y, expected)


# bad input ----------------------------------------------------------------------------------------------------

IMAGES = np.zeros(SHAPE, np.float32)


def test_steps_out_of_order_are_refused():
    scheduler = PNDMScheduler(100)
    with pytest.raises(ValueError, match="PNDMScheduler.step: set_timesteps was not called"):
        scheduler.step(IMAGES, 99, IMAGES)
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match=r"timestep 51 is not one of the 13 set by set_timesteps"):
        scheduler.step(IMAGES, 51, IMAGES)
    scheduler.step(IMAGES, 75, IMAGES)
    with pytest.raises(ValueError, match=r"timestep 75 is out of order, expected 62 as step 1 of 13"):
        scheduler.step(IMAGES, 75, IMAGES)
    scheduler.set_timesteps(4)
    run(scheduler, IMAGES)
    with pytest.raises(ValueError, match="all 13 steps are taken, expected set_timesteps before another run"):
        scheduler.step(IMAGES, 75, IMAGES)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_runge_kutta_needs_four_steps(count):
    scheduler = prepared(10)
    with pytest.raises(ValueError, match=f"{count} steps, expected at least 4, or skip_prk_steps=True"):
        scheduler.set_timesteps(count)
    assert len(scheduler.timesteps) == 19
    assert run(prepared(count, skip_prk_steps=True), np.ones(SHAPE)).shape == SHAPE


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model_output": IMAGES[:1]}, ValueError, r"model_output has shape \(1, 3, 5, 4\)"),
        ({"model_output": IMAGES.astype(np.float64)}, TypeError, "model_output has dtype float64, expected float32 as sample"),
        ({"timestep": 80.0}, TypeError, "dtype float64"),
        ({"timestep": [85]}, ValueError, r"timestep has shape \(1,\)"),
        ({"sample": IMAGES[:1], "model_output": IMAGES[:1]}, ValueError, r"sample_before has shape \(2, 3, 5, 4\)"),
        ({"generator": 0}, TypeError, "generator is the int 0, which would draw the same noise"),
    ],
)
def test_bad_input_to_the_step(changes, error, message):
    scheduler = prepared(10)
    scheduler.step(IMAGES, 90, IMAGES)
    with pytest.raises(error, match="PNDMScheduler.step: .*" + message):
        scheduler.step(**{"model_output": IMAGES, "timestep": 85, "sample": IMAGES, **changes})
