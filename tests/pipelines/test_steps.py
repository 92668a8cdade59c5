"""The loop begun elsewhere, changed on its way, conditioned and guided, against the loop written out; lists of timesteps."""

import numpy as np
import pytest

import hcrot
from hcrot import pipelines
from hcrot.schedulers import DDIMScheduler, DDPMScheduler
from support import small_unets

NOT_SAMPLERS = ("NoiseScheduler", "DDIMInverseScheduler", "ScoreSdeVeScheduler", "ScoreSdeVpScheduler")
SCHEDULERS = [name for name in hcrot.schedulers.__all__ if name.endswith("Scheduler") and name not in NOT_SAMPLERS]
LABELS = np.array([2, 0])


def tiny_model(**options):
    model = small_unets.tiny_model(**{"in_channels": 2, "out_channels": 2, **options})
    for parameter in model.parameters():
        parameter.data += 0.05 * np.random.default_rng(1).standard_normal(parameter.shape, np.float32)
    return model


def ddim(**options):
    return DDIMScheduler(num_train_timesteps=40, clip_sample=False, **options)


def images(*shape, seed=3):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def test_steps_tell_what_happens():
    model, x = tiny_model(), images(2, 2, 5, 6)
    found = list(pipelines.steps(model, ddim(), generator=0, class_labels=LABELS, num_inference_steps=5, sample=x, progress=False))
    scheduler = ddim()
    scheduler.set_timesteps(5)
    assert [step.timestep for step in found] == scheduler.timesteps.tolist()
    assert [step.prev_timestep for step in found] == [*scheduler.timesteps[1:], -1]
    with model.inference():
        for step in found:
            np.testing.assert_array_equal(step.sample, x)
            output = scheduler.step(model(x, step.timestep, LABELS), step.timestep, x)
            np.testing.assert_array_equal(step.pred_original_sample, output.pred_original_sample)
            np.testing.assert_array_equal(step.prev_sample, output.prev_sample)
            x = output.prev_sample
    drawn = pipelines.sample(model, ddim(), generator=0, class_labels=LABELS, num_inference_steps=5, sample=found[0].sample, progress=False)
    np.testing.assert_array_equal(drawn, np.clip(x, -1, 1))


def test_errors_come_before_the_first_step():
    with pytest.raises(ValueError, match="start_timestep is given, but no sample"):
        pipelines.steps(tiny_model(), ddim(), generator=0, class_labels=1, start_timestep=3)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_begins_inside(name):
    """At the first timestep that is not above the one asked for, and with the sample as it is."""
    scheduler, model = getattr(hcrot.schedulers, name)(num_train_timesteps=40), tiny_model()
    options = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    scheduler = type(scheduler).from_config(scheduler.config, **options)
    scheduler.set_timesteps(8)
    start, x = scheduler.timesteps[3], images(2, 2, 5, 6)
    found = list(pipelines.steps(model, scheduler, generator=1, class_labels=LABELS, sample=x, start_timestep=start, progress=False))
    expected = [t for t in scheduler.timesteps if t <= start]
    assert [step.timestep for step in found] == expected[1 if expected[0] == expected[1] else 0 :]
    np.testing.assert_array_equal(found[0].sample, x)
    assert np.isfinite(found[-1].prev_sample).all() and np.abs(found[-1].prev_sample - x).max() > 0.01


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if not name.startswith("EDM")])  # which are told sigmas
def test_every_scheduler_takes_a_list_of_timesteps(name):
    """A list is visited as it is; previous_timestep leads along it; the list of its own spacing gives its own images."""
    kind = getattr(hcrot.schedulers, name)
    options = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    own, listed = (kind(num_train_timesteps=40, **options) for _ in range(2))
    own.set_timesteps(8)
    listed.set_timesteps(timesteps=list(dict.fromkeys(own.timesteps.tolist())))
    np.testing.assert_allclose(listed.timesteps, own.timesteps, rtol=1e-6)
    model = tiny_model()
    for scheduler in (own, listed):
        scheduler.result = pipelines.sample(model, scheduler, generator=4, class_labels=LABELS, progress=False)
    np.testing.assert_allclose(listed.result, own.result, atol=2e-5)

    chosen = [33, 20, 19, 4] if name != "FlowMatchEulerDiscreteScheduler" else [33.0, 20.0, 19.0, 4.0]
    listed.set_timesteps(timesteps=chosen)
    visited = list(dict.fromkeys(listed.timesteps.tolist()))
    np.testing.assert_allclose(visited, chosen, rtol=1e-6)
    following = [listed.previous_timestep(t) for t in visited]
    assert following == [*visited[1:], -1] or name == "PNDMScheduler"
    for wrong in ([3, 3], [3, 5], [41], [], [[3]]):
        with pytest.raises((TypeError, ValueError), match=r"timesteps"):
            listed.set_timesteps(timesteps=wrong)
    for both in ({}, {"num_inference_steps": 4, "timesteps": [3]}):
        with pytest.raises(ValueError, match="expected one of num_inference_steps, timesteps"):
            listed.set_timesteps(**both)


def test_a_step_may_be_changed():
    model, x, seen = tiny_model(), images(2, 2, 5, 6), []

    def after(step):
        seen.append(step.prev_timestep)
        return np.zeros_like(step.prev_sample) if step.prev_timestep == 10 else None

    options = {"generator": 0, "class_labels": LABELS, "timesteps": [30, 20, 10, 0], "sample": x, "progress": False}
    found = list(pipelines.steps(model, ddim(), after_step=after, **options))
    assert seen == [20, 10, 0, -1]
    np.testing.assert_array_equal(found[2].sample, 0)
    np.testing.assert_array_equal(found[1].prev_sample, 0)
    for wrong in (np.zeros(3), np.zeros(x.shape), 1.0):
        with pytest.raises(ValueError, match="after_step gave"):
            pipelines.sample(model, ddim(), after_step=lambda step, wrong=wrong: wrong, **options)


def test_a_condition_stands_beside_the_sample():
    model, condition = tiny_model(in_channels=3), images(2, 1, 5, 6, seed=8)
    options = {"class_labels": LABELS, "num_inference_steps": 3, "progress": False}
    found = list(pipelines.steps(model, ddim(), generator=2, condition=condition, **options))
    scheduler = ddim()
    scheduler.set_timesteps(3)
    x = np.random.default_rng(2).standard_normal((2, 2, 5, 6), dtype=np.float32)
    with model.inference():
        for t in scheduler.timesteps:
            x = scheduler.step(model(np.concatenate([x, condition], axis=1), t, LABELS), t, x).prev_sample
    np.testing.assert_array_equal(found[-1].prev_sample, x)
    for wrong in (condition[:, :, :4], np.zeros((2, 3, 5, 6), np.float32), condition[:1], condition[0]):
        with pytest.raises(ValueError, match=r"pipelines.sample: (condition|expected one and the same number)"):
            pipelines.sample(model, ddim(), generator=2, class_labels=LABELS, condition=wrong, progress=False)


def test_guidance_makes_the_difference_longer():
    model, x, null = tiny_model(), images(2, 2, 5, 6), 1
    for scale in (0.0, 2.5):
        step = next(pipelines.steps(model, ddim(), generator=0, class_labels=LABELS, sample=x, guidance_scale=scale, null_label=null,
                                    timesteps=[17, 3], progress=False))  # fmt: skip
        with model.inference():
            with_class, without = model(x, 17, LABELS), model(x, 17, np.full(2, null))
        scheduler = ddim()
        scheduler.set_timesteps(timesteps=[17, 3])
        expected = scheduler.step(without + np.float32(scale) * (with_class - without), 17, x).prev_sample
        np.testing.assert_allclose(step.prev_sample, expected, atol=1e-5)
    assert np.abs(with_class - without).max() > 1e-3


def test_guidance_in_an_interval():
    calls = []

    class Shrink(hcrot.Module):
        def forward(self, x, t, labels):
            calls.append((int(t), len(x)))
            return x * (1 + labels[:, None, None, None]).astype(x.dtype)

    options = {"generator": 0, "class_labels": 3, "null_label": 1, "guidance_scale": 2, "timesteps": [30, 20, 10, 5], "progress": False}
    found = list(pipelines.steps(Shrink(), ddim(), sample=images(1, 1, 2, 2), **options, guidance_interval=(10, 20)))
    assert calls == [(30, 1), (20, 2), (10, 2), (5, 1)]
    scheduler = ddim()
    scheduler.set_timesteps(timesteps=options["timesteps"])
    for step, factor in zip(found, (4, 6, 6, 4), strict=True):
        expected = scheduler.step(factor * step.sample, step.timestep, step.sample).prev_sample
        np.testing.assert_allclose(step.prev_sample, expected, rtol=1e-5)
    for wrong in (10, (20, 10), (1, "a")):
        with pytest.raises(ValueError, match="guidance_interval must be"):
            pipelines.steps(Shrink(), ddim(), sample=images(1, 1, 2, 2), **options, guidance_interval=wrong)


def test_guidance_leaves_a_learned_variance_alone():
    model, x = tiny_model(out_channels=4), images(1, 2, 5, 6)
    scheduler = DDPMScheduler(num_train_timesteps=40, variance_type="learned_range")
    step = next(pipelines.steps(model, scheduler, generator=0, class_labels=2, sample=x, guidance_scale=3, null_label=0, progress=False))
    with model.inference():
        with_class, without = model(x, 39, 2), model(x, 39, 0)
    guided = np.concatenate([without[:, :2] + 3 * (with_class[:, :2] - without[:, :2]), with_class[:, 2:]], axis=1)
    expected = DDPMScheduler(num_train_timesteps=40, variance_type="learned_range").step(guided, 39, x, np.random.default_rng(0))
    np.testing.assert_allclose(step.prev_sample, expected.prev_sample, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_scale": 2.0}, "needs class_labels and null_label"),
        ({"guidance_scale": np.nan, "null_label": 0}, "guidance_scale must be a finite number"),
        ({"sample": np.zeros((3, 2, 5, 6), np.float32)}, "expected one and the same number of images"),
        ({"sample": np.zeros((2, 5, 6), np.float32)}, r"sample must be images \(B, C, H, W\)"),
        ({"sample": np.zeros((2, 2, 5, 6), np.float32), "start_timestep": -1}, "start_timestep -1 is below all timesteps"),
        ({"timesteps": [3], "num_inference_steps": 2}, "expected one of num_inference_steps, timesteps"),
    ],
)
def test_bad_arguments_cost_no_step(options, message):
    with pytest.raises(ValueError, match=message):
        pipelines.sample(tiny_model(), ddim(), generator=0, class_labels=LABELS, progress=False, **options)


def test_own_networks_need_no_config():
    class Shrink(hcrot.Module):
        def forward(self, x, t):
            return (0.5 * x).astype(x.dtype)

    x = images(3, 1, 4, 4)
    drawn = pipelines.sample(Shrink(), ddim(), generator=0, sample=x, num_inference_steps=4, progress=False)
    assert drawn.shape == x.shape
    with pytest.raises(ValueError, match="sample_size None"):
        pipelines.sample(Shrink(), ddim(), generator=0, num_inference_steps=4, progress=False)
