"""What every scheduler of the variance-preserving process keeps to: dtypes, memory order, aliasing, names in messages."""

import numpy as np
import pytest

import hcrot
from hcrot.schedulers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler, PNDMScheduler
from support.memory_order import channels_last

SHAPE = (3, 2, 5, 4)
MAKERS = {
    "ddpm": lambda **options: DDPMScheduler(**options),
    "ddpm-learned": lambda **options: DDPMScheduler(variance_type="learned_range", **options),
    "ddpm-threshold": lambda **options: DDPMScheduler(thresholding=True, **options),
    "ddim": lambda **options: DDIMScheduler(**options),
    "inverse": lambda **options: DDIMInverseScheduler(set_alpha_to_one=False, **options),
    "pndm": lambda **options: PNDMScheduler(**options),
    "plms": lambda **options: PNDMScheduler(skip_prk_steps=True, **options),
}
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


def run(scheduler, sample, order=np.asarray, steps=8):
    """Every array that a run was handed (with a copy) and that it returned; the model's output has the memory order asked for."""
    rng = np.random.default_rng(0)
    scheduler.set_timesteps(steps)
    handed, returned = [], []
    for t in scheduler.timesteps:
        channels = 2 * SHAPE[1] if scheduler.config.get("variance_type") == "learned_range" else SHAPE[1]
        drawn = rng.standard_normal((SHAPE[0], channels, *SHAPE[2:]))
        output = order(drawn.astype(sample.dtype))
        handed += [(sample, sample.copy()), (output, output.copy())]
        step = scheduler.step(output, t, sample, generator=np.random.default_rng(int(t)))
        returned += [array for array in (step.prev_sample, step.pred_original_sample) if array is not None]
        sample = step.prev_sample
    return handed, returned


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("name", MAKERS)
def test_runs_keep_dtype_and_memory_order_and_write_into_nothing(name, prediction_type):
    sample = np.random.default_rng(1).standard_normal(SHAPE)
    scheduler = MAKERS[name](prediction_type=prediction_type)
    _, reference = run(scheduler, sample)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    for dtype in (np.float32, np.float64):
        for order_of_sample in (np.ascontiguousarray, channels_last):
            for order_of_output in (np.ascontiguousarray, channels_last):
                ordered = order_of_sample(sample.astype(dtype))
                handed, returned = run(scheduler, ordered, order_of_output)
                for array, copy in handed:
                    np.testing.assert_array_equal(array, copy)
                for array, expected in zip(returned, reference, strict=True):
                    assert array.dtype == dtype and array.strides == ordered.strides
                    if dtype == np.float64:
                        np.testing.assert_array_equal(array, expected)
                inputs = [array for array, _ in handed if not any(array is one for one in returned)]
                assert not any(np.shares_memory(one, other) for one in returned for other in inputs)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize("name", MAKERS)
def test_two_runs_are_the_same(name):
    sample = np.random.default_rng(2).standard_normal(SHAPE)
    scheduler = MAKERS[name]()
    (_, first), (_, second) = run(scheduler, sample), run(scheduler, sample)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", MAKERS)
def test_return_dict_false_gives_a_tuple(name):
    scheduler = MAKERS[name]()
    scheduler.set_timesteps(8)
    t, rng = scheduler.timesteps[0], np.random.default_rng(3)
    shape = (3, 4, 5, 4) if name == "ddpm-learned" else SHAPE
    output, sample = rng.standard_normal(shape), rng.standard_normal(SHAPE)
    one = scheduler.step(output, t, sample, generator=np.random.default_rng(4))
    scheduler.set_timesteps(8)
    other = scheduler.step(output, t, sample, generator=np.random.default_rng(4), return_dict=False)
    assert isinstance(other, tuple) and len(other) == (1 if name in ("pndm", "plms") else 2)
    for mine, yours in zip(other, (one.prev_sample, one.pred_original_sample), strict=False):
        np.testing.assert_array_equal(mine, yours)


@pytest.mark.parametrize("cls", [DDPMScheduler, DDIMScheduler, DDIMInverseScheduler, PNDMScheduler])
def test_the_forward_process_is_one_and_messages_name_the_scheduler(cls):
    images, noise = np.random.default_rng(5).standard_normal((2, *SHAPE))
    scheduler, ddpm, name = cls(), DDPMScheduler(), cls.__name__
    np.testing.assert_array_equal(scheduler.add_noise(images, noise, [1, 2, 3]), ddpm.add_noise(images, noise, [1, 2, 3]))
    np.testing.assert_array_equal(scheduler.get_velocity(images, noise, 7), ddpm.get_velocity(images, noise, 7))
    assert scheduler.scale_model_input(images, 5) is images
    assert len(scheduler) == 1000 and scheduler.order == 1 and scheduler.init_noise_sigma == 1.0
    assert getattr(hcrot, name) is cls
    for arguments, message in (
        ((images, noise[:1], 5), "add_noise: noise has shape"),
        ((images, noise, 1000), "add_noise: timesteps range from 1000 to 1000, expected 0 .. 999"),
    ):
        with pytest.raises(ValueError, match=f"{name}.{message}"):
            scheduler.add_noise(*arguments)
    for count, error in ((1001, ValueError), (0, ValueError), (10.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match=f"{name}.set_timesteps: num_inference_steps .*{count}"):
            scheduler.set_timesteps(count)
    for options, message in (
        ({"beta_schedule": "cosine"}, "beta_schedule 'cosine' is unknown, expected one of linear"),
        ({"trained_betas": [0.1]}, r"trained_betas has shape \(1,\), expected one number for each of 1000"),
        ({"beta_end": 2.0}, "betas range from"),
        ({"num_train_timesteps": 20000}, "alphas_cumprod underflows to 0"),
    ):
        with pytest.raises(ValueError, match=f"{name}: {message}"):
            cls(**options)
    with pytest.raises(TypeError, match=f"{name}: got an unexpected keyword argument 'beta_stop'"):
        cls(beta_stop=1.0)
