"""Two Python threads, each with a model of its own, train at the same time and get what each gets alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import hcrot


def train(seed):
    """The losses of five steps of a small network with attention."""
    rng = np.random.default_rng(seed)
    model = hcrot.UNet2dModel(
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        generator=rng,
    )
    optimizer = hcrot.AdamW(model.parameters(), lr=1e-3)
    images, losses = rng.standard_normal((16, 1, 16, 12), dtype=np.float32), []
    for _ in range(5):
        noise = rng.standard_normal(images.shape, dtype=np.float32)
        loss, dout = hcrot.mse_loss(model(images + noise, rng.integers(0, 1000, 16)), noise)
        model.backward(dout)
        optimizer.step(max_grad_norm=1.0, zero_grad=True)
        losses.append(loss)
    with model.inference():
        return losses, model(images, 500)


def test_two_python_threads_train_at_once():
    alone = [train(seed) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(train, (0, 1)))
    for (losses, output), (expected_losses, expected) in zip(together, alone, strict=True):
        assert losses == pytest.approx(expected_losses, rel=1e-6)
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_one_model_denoises_in_two_threads():
    """In inference nothing is kept, so a single model may be shared."""
    rng = np.random.default_rng(0)
    model = hcrot.UNet2dModel(in_channels=1, out_channels=1, block_out_channels=(16, 32), norm_num_groups=4,
                              down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, generator=rng)  # fmt: skip
    images = rng.standard_normal((4, 8, 1, 16, 12), dtype=np.float32)
    with model.inference(), ThreadPoolExecutor(2) as pool:
        expected = [model(x, 300) for x in images]
        found = list(pool.map(lambda x: model(x, 300), images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
