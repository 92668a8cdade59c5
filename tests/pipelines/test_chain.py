"""The chain of DDIM's steps gives what the sampling loop gives, and its gradients are those of differences."""

import numpy as np
import pytest

import hcrot
from hcrot import pipelines
from hcrot.pipelines.chain import DDIMChain
from support import small_unets

TIMESTEPS = [39, 21, 8]


def parts(kind):
    scheduler = hcrot.DDIMScheduler(num_train_timesteps=40, clip_sample=False, prediction_type=kind, beta_schedule="squaredcos_cap_v2")
    model = small_unets.tiny_model(in_channels=2, out_channels=2)
    for parameter in model.parameters():
        parameter.data += 0.1 * np.random.default_rng(1).standard_normal(parameter.shape, np.float32)
    return model, scheduler


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_chain_is_the_sampling_loop(kind):
    model, scheduler = parts(kind)
    x, labels = np.random.default_rng(0).standard_normal((2, 2, 5, 6), dtype=np.float32), np.array([0, 2])
    (*_, last) = pipelines.steps(model, scheduler, sample=x, class_labels=labels, timesteps=TIMESTEPS, generator=0, progress=False)
    with model.inference():
        np.testing.assert_allclose(DDIMChain(model, scheduler, TIMESTEPS)(x, labels), last.prev_sample, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_gradients_go_through_all_steps(kind):
    model, scheduler = parts(kind)
    labels = np.array([0, 2])
    chain = DDIMChain(model, scheduler, TIMESTEPS)
    x = np.random.default_rng(0).standard_normal((2, 2, 5, 6))
    hcrot.check_gradients(chain, x, labels)


@pytest.mark.parametrize("timesteps", [[], [3, 3], [1, 2], [2.5, 1.0], [[3, 2]], [40]])
def test_bad_timesteps(timesteps):
    with pytest.raises(ValueError, match="timestep"):
        DDIMChain(*parts("epsilon"), timesteps)
