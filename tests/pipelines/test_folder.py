"""Folders of pipelines of two networks and with classes, and what is refused. What diffusers makes of them: tests/parity."""

import numpy as np
import pytest

from hcrot import pipelines
from hcrot.pipelines.folder import classes_of
from hcrot.schedulers import DDPMScheduler
from support.small_unets import tiny_model


def scheduler(**options):
    return DDPMScheduler(num_train_timesteps=40, **options)


@pytest.mark.filterwarnings("error")
def test_two_networks_and_back(tmp_path):
    large, small = tiny_model(in_channels=2, sample_size=16), tiny_model(seed=1)
    pipelines.save(tmp_path / "p", large, scheduler(), small=(small, scheduler(prediction_type="sample")), classes=["a", "b"], null_label=2)
    (first, its), (second, _) = pipelines.load_small(tmp_path / "p"), pipelines.load(tmp_path / "p")
    assert (first.config, second.config) == (small.config, large.config) and its.config["prediction_type"] == "sample"
    np.testing.assert_array_equal(first.conv_in.weight.data, small.conv_in.weight.data)
    assert classes_of(tmp_path / "p") == (["a", "b"], 2)
    pipelines.save(tmp_path / "p", small, scheduler())
    assert pipelines.load_small(tmp_path / "p") is None and not (tmp_path / "p" / "small_unet").exists()
    assert classes_of(tmp_path / "p") == ([], None)
    (tmp_path / "p" / "pipeline.py").write_text("print('mine')")
    with pytest.raises(FileExistsError, match="holds pipeline.py, which would be lost"):
        pipelines.save(tmp_path / "p", small, scheduler())


@pytest.mark.parametrize(("options", "message"), [
    ({"classes": "rose"}, "the network has 3 labels, which classes"),
    ({"classes": ["a", "b", "c", "d"]}, "3 labels, which classes"),
    ({"null_label": 3}, "null_label 3 do not fit"),
    ({"null_label": True}, "null_label True do not fit"),
    ({"small": (tiny_model(), scheduler())}, "expected, got 1 in_channels and 1 out_channels, and small has 1 and 1"),
])  # fmt: skip
def test_a_pipeline_that_does_not_fit_together_is_not_saved(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        pipelines.save(tmp_path / "p", tiny_model(), scheduler(), **options)
    with pytest.raises(TypeError, match="small_scheduler is a int, expected a noise scheduler"):
        pipelines.save(tmp_path / "p", tiny_model(), scheduler(), small=(tiny_model(), 3))
    assert not (tmp_path / "p").exists()
