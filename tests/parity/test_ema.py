"""EMA against diffusers' EMAModel with several options at once: the decay of every step, and the averages."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
training_utils = pytest.importorskip("diffusers.training_utils")

from hcrot.module import Parameter  # noqa: E402
from hcrot.training.ema import EMA  # noqa: E402


@pytest.mark.parametrize(
    "options",
    [
        {"decay": 0.9999, "use_ema_warmup": True, "inv_gamma": 1.0, "power": 2 / 3},
        {"decay": 0.9999, "use_ema_warmup": True, "inv_gamma": 3.0, "power": 3 / 4, "update_after_step": 4},
        {"decay": 0.8, "use_ema_warmup": True, "inv_gamma": 0.5, "power": 0.6, "update_after_step": 2, "min_decay": 0.55},
        {"decay": 0.75, "min_decay": 0.3, "update_after_step": 3},
    ],
)
def test_every_decay_and_the_averages(options):
    rng = np.random.default_rng(0)
    ours, theirs = Parameter(rng.standard_normal((3, 5)).astype(np.float32)), torch.nn.Parameter(torch.zeros(3, 5))
    theirs.data.copy_(torch.from_numpy(ours.data))
    average, expected = EMA([ours], **options), training_utils.EMAModel([theirs], **options)
    decays = []
    for _ in range(40):
        ours.data += rng.standard_normal((3, 5)).astype(np.float32)
        theirs.data.copy_(torch.from_numpy(ours.data))
        average.step()
        expected.step([theirs])
        decays.append(average.get_decay(average.step_count))
        assert decays[-1] == pytest.approx(expected.cur_decay_value, rel=1e-12)
        np.testing.assert_allclose(average.averages[0], expected.shadow_params[0].numpy(), rtol=1e-5, atol=1e-6)
    after = options.get("update_after_step", 0) + 1
    assert decays[:after] == [0] * after
    assert options.get("min_decay", 0) <= min(decays[after:]) < max(decays) <= options["decay"]
