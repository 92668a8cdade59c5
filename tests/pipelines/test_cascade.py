"""Small pictures and their enlargement: what the second network learns from, and what both draw."""

import numpy as np
import pytest

import hcrot
from hcrot.data import resize
from hcrot.pipelines.cascade import STRONGEST, cascade, enlarged, enlarges, parted


def network(in_channels, size, seed=0):
    return hcrot.UNet2dModel(
        sample_size=size, in_channels=in_channels, out_channels=2, block_out_channels=(8, 8), norm_num_groups=4, num_class_embeds=3,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, layers_per_block=1, generator=seed,
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def both():
    scheduler = hcrot.DDIMScheduler(50, prediction_type="v_prediction")
    return (network(2, 8), scheduler), (network(4, 16, seed=1), scheduler)


class Nothing(hcrot.Module):
    """Says v of a difference that is zero everywhere: then x_0 of each step is zero."""

    config = {"in_channels": 4, "out_channels": 2, "sample_size": 16}

    def __init__(self, scheduler):
        self.scheduler, self.seen = scheduler, []
        self.weight = hcrot.Parameter(np.zeros(1, np.float32))

    def forward(self, x, t, class_labels=None):
        self.seen.append(x[:, 2:])
        abar = np.float32(self.scheduler.alphas_cumprod[int(t)])
        return x[:, :2] * np.sqrt(abar / (1 - abar))  # x_0 = sqrt(abar) x - sqrt(1 - abar) v


def test_a_difference_and_its_condition_are_the_picture():
    images = np.random.default_rng(0).uniform(-1, 1, (500, 2, 16, 16)).astype(np.float32)
    r, u = parted(images, 8, 3)
    assert r.dtype == u.dtype == np.float32
    np.testing.assert_allclose(r + u, images, atol=1e-6)
    noise = u - resize(resize(images, 8), 16)
    strengths = noise.std(axis=(1, 2, 3)) / resize(np.random.default_rng(1).standard_normal((9, 2, 8, 8)), 16).std()
    assert strengths.min() < 0.03 and 0.27 < strengths.max() < STRONGEST * 1.3
    np.testing.assert_allclose(strengths.mean(), STRONGEST / 2, rtol=0.1)
    np.testing.assert_array_equal(parted(images, 8, 3)[0], r)


def test_where_nothing_is_missing_the_small_picture_is_drawn_enlarged():
    scheduler = hcrot.DDIMScheduler(50, prediction_type="v_prediction", clip_sample=False)
    small = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 2, 8, 8)).astype(np.float32)
    model = Nothing(scheduler)
    drawn = enlarged(model, scheduler, small, generator=0, strength=0, num_inference_steps=4, progress=False)
    np.testing.assert_allclose(drawn, resize(small, 16), atol=1e-4)
    np.testing.assert_array_equal(model.seen[0], resize(small, 16))
    enlarged(model, scheduler, small, generator=0, strength=0.2, num_inference_steps=1, progress=False)
    assert 0.1 < (model.seen[-1] - resize(small, 16)).std() < 0.25


def test_two_networks_draw_one_picture_after_the_other(both):
    how = {"num_inference_steps": 2, "progress": False}
    labels, guided = np.array([0, 1, 1]), {"guidance_scale": 2.0, "null_label": 2}
    images, frames = cascade(*both, generator=[1, 2, 3], class_labels=labels, guided=guided, trajectory=True, **how)
    assert images.shape == (3, 2, 16, 16) and frames.shape == (6, 3, 2, 16, 16) and images.dtype == np.float32
    np.testing.assert_allclose(np.clip(frames[-1], -1, 1), images, atol=1e-6)
    alone = cascade(*both, generator=[2], class_labels=labels[1:2], guided=guided, **how)
    np.testing.assert_allclose(alone[0], images[1], atol=1e-5)
    plain = cascade(*both, generator=[2], class_labels=labels[1:2], **how)
    assert abs(plain - alone).max() > 1e-3
    small = hcrot.pipelines.sample(*both[0], generator=np.random.default_rng(5), class_labels=1, **how)
    rng = np.random.default_rng(5)
    rng.standard_normal(small.shape, dtype=np.float32)  # which the small picture began from
    expected = enlarged(*both[1], small, generator=rng, class_labels=1, **how)
    np.testing.assert_array_equal(cascade(*both, generator=5, class_labels=1, **how), expected)


def test_no_numbers_are_drawn_twice(both):
    began = []

    class Seen(hcrot.DDIMScheduler):
        def step(self, model_output, timestep, sample, **options):
            began.append(sample)
            return super().step(model_output, timestep, sample, **options)

    pairs = [(model, Seen(50, prediction_type="v_prediction")) for model, _ in both]
    images = cascade(*pairs, generator=(1, 2), class_labels=[0, 1], num_inference_steps=1, progress=False)
    small, large = began
    assert images.shape[0] == 2 and abs(small[0].ravel() - large[0].ravel()[:128]).min() > 0
    np.testing.assert_array_equal(small[1], np.random.default_rng(2).standard_normal((2, 8, 8), dtype=np.float32))


def test_only_a_network_that_sees_two_pictures_enlarges(both):
    (first, scheduler), (second, _) = both
    assert enlarges(second) and not enlarges(first)
    with pytest.raises(ValueError, match="enlarged: expected images .* got .* a network with 2 in_channels and 2 out_channels"):
        enlarged(first, scheduler, np.zeros((1, 2, 8, 8), np.float32), generator=0)
    with pytest.raises(ValueError, match="enlarged: expected images"):
        enlarged(second, scheduler, np.zeros((1, 3, 8, 8), np.float32), generator=0)
