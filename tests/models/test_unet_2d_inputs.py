"""What UNet2dModel and ResnetBlock2D say to images, times, labels and gradients that do not fit."""

import numpy as np
import pytest

from hcrot.models.unet_2d_blocks import ResnetBlock2D
from support.small_unets import TEST_NET, draw, make

pytestmark = pytest.mark.usefixtures("one_kernel_thread")

LEARNED_TIMES = {"time_embedding_type": "learned", "num_train_timesteps": 9}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((draw((2, 3, 8, 8)), 0, 0), r"sample.*\(batch, 1, height, width\), got \(2, 3, 8, 8\)"),
        ((draw((1, 8, 8)), 0, 0), r"got \(1, 8, 8\)"),
        ((np.zeros((0, 1, 8, 8), np.float32), 0, 0), r"got \(0, 1, 8, 8\)"),
        ((np.zeros((2, 1, 8, 8), np.uint8), 0, 0), "float32 images.*got uint8"),
        ((draw((2, 1, 8, 8), np.float64), 0, 0), "float32 images.*got float64"),
        ((draw((2, 1, 8, 8)), np.arange(3), 0), r"timestep .*\(2,\).*got shape \(3,\)"),
        ((draw((2, 1, 8, 8)), 0), "class_labels missing"),
        ((draw((2, 1, 8, 8)), 0, np.array([1, 10])), "10"),
        ((draw((2, 1, 8, 8)), 0, np.array([-1, 1])), "-1"),
        ((draw((2, 1, 8, 8)), 0, np.array([0.5, 1])), "float64"),
        ((draw((2, 1, 8, 8)), 0, np.array([1, 2, 3])), r"class_labels.*got shape \(3,\)"),
    ],
)
def test_bad_inputs(inputs, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make(TEST_NET)(*inputs)


@pytest.mark.parametrize(
    ("changes", "timesteps", "labels", "error", "message"),
    [
        ({"num_class_embeds": None}, 0, 1, ValueError, "class_labels given, but the model has class_embed_type None"),
        ({"class_embed_type": "timestep"}, 0, None, ValueError, "class_labels missing: .* built with class_embed_type 'timestep'"),
        ({"class_embed_type": "timestep"}, 0, np.arange(3), ValueError, r"class_labels.*\(2,\).*got shape \(3,\)"),
        ({"class_embed_type": "identity"}, 0, 3, ValueError, r"class_labels must be embeddings, float32 \(2, 32\).*got int"),
        ({"class_embed_type": "identity"}, 0, draw((1, 32)), ValueError, r"class_labels must be embeddings.*got float32 \(1, 32\)"),
        ({"class_embed_type": "identity"}, 0, draw((2, 32), np.float64), ValueError, r"class_labels must be .*got float64 \(2, 32\)"),
        (LEARNED_TIMES, 9, 1, ValueError, "index 9 is not from 0 to 8"),
        (LEARNED_TIMES, 0.5, 1, TypeError, "indices must be integers, got float64"),
    ],
)
def test_bad_times_and_labels(changes, timesteps, labels, error, message):
    with pytest.raises(error, match=message):
        make(TEST_NET, **changes)(draw((2, 1, 8, 8)), timesteps, labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"act_fn": "tanh"}, "ResnetBlock2D: act_fn must be one of .*'relu'.*, got 'tanh'"),
        ({"resample": "half"}, r"ResnetBlock2D: resample must be one of \(None, 'up', 'down'\), got 'half'"),
        ({"output_scale_factor": 0}, "ResnetBlock2D: output_scale_factor must not be 0"),
        ({"dropout": 2}, "p must be a number from 0 to 1, got 2"),
    ],
)
def test_bad_arguments_of_a_residual_block(options, message):
    with pytest.raises(ValueError, match=message):
        ResnetBlock2D(4, 4, 5, groups=2, **options)


def test_a_gradient_of_another_shape_is_refused():
    model = make(TEST_NET, time_embedding_type="fourier")
    model(draw((2, 1, 8, 8)), 5, 1)
    with pytest.raises(ValueError, match="UNet2dModel.backward: expected dout like the output"):
        model.backward(draw((1, 1, 8, 8)))
