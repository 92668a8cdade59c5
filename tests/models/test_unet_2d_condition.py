"""What UNet2DConditionModel says to arguments and inputs that it does not take; its folders; sampling with a text."""

import numpy as np
import pytest

import hcrot
from hcrot import pipelines
from hcrot.models.unet_2d_blocks import DownBlock2D
from hcrot.models.unet_2d_condition import UNet2DConditionModel
from support.small_unets import draw

TWO = {
    "in_channels": 2,
    "block_out_channels": (4, 8),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "cross_attention_dim": 6,
    "attention_head_dim": 2,
}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, NotImplementedError, "mid_block_type 'UNet.*only 'UNetMidBlock2DCrossAttn'"),
        ({"addition_embed_type": "text_time"}, NotImplementedError, "addition_embed_type 'text_time' is not supported, only None"),
        ({"class_embed_type": "projection"}, NotImplementedError, "class_embed_type 'projection' is not supported"),
        ({"act_fn": "gelu"}, NotImplementedError, "act_fn 'gelu' is not supported, only 'silu' and 'swish'"),
        ({"time_embedding_type": "fourier"}, NotImplementedError, "time_embedding_type 'fourier'"),
        ({"dual_cross_attention": True}, NotImplementedError, "dual_cross_attention True"),
        ({"transformer_layers_per_block": (1, (1, 2))}, NotImplementedError, r"layers_per_block\[1\] \(1, 2\) is not supported"),
        ({"down_block_types": ("AttnDownBlock2D", "DownBlock2D")}, NotImplementedError, "no AttnDownBlock2D: it attends to pixels"),
        (
            {"up_block_types": ("SimpleCrossAttnUpBlock2D", "UpBlock2D")},
            NotImplementedError,
            "there is no SimpleCrossAttnUpBlock2D: it attends to text and pixels at once",
        ),
        ({"down_block_types": (DownBlock2D, "DownBlock2D")}, NotImplementedError, "only UNet2dModel takes block classes"),
        ({"down_block_types": ("DownBlock2D",)}, ValueError, "down_block_types has 1 entries, block_out_channels has 2"),
        ({"up_block_types": ("Nonsense", "UpBlock2D")}, ValueError, "up_block_types: 'Nonsense' is not known"),
        ({"attention_head_dim": (2, 9)}, ValueError, r"attention_head_dim must be at most block_out_channels\[1\] 8, .*, got 9"),
        ({"attention_head_dim": (2, 2, 2)}, ValueError, "attention_head_dim has 3 entries, block_out_channels has 2"),
        ({"attention_head_dim": None}, ValueError, r"attention_head_dim\[0\] must be an int of at least 1, got None"),
        ({"cross_attention_dim": (6, 7)}, ValueError, r"cross_attention_dim must be the same for all levels, .* got \[6, 7\]"),
        ({"layers_per_block": (1, 0)}, ValueError, r"layers_per_block\[1\] must be an int of at least 1, got 0"),
        ({"only_cross_attention": (True, 2)}, ValueError, r"only_cross_attention\[1\] must be False or True, got 2"),
        ({"conv_in_kernel": 2}, ValueError, "conv_in_kernel must be odd, .* got 2"),
        ({"norm_num_groups": 3}, ValueError, r"block_out_channels\[0\] 4 is not divisible by norm_num_groups 3"),
        ({"use_linear_projection": "yes"}, ValueError, "use_linear_projection must be False or True, got 'yes'"),
        ({"freq_shift": 2}, ValueError, "freq_shift must be less than 2"),
        ({"cross_attention_dim": 2**25}, ValueError, r"cross_attention_dim\[0\] must be at most 16777216"),
    ],
)
def test_bad_arguments(changes, error, message):
    with pytest.raises(error, match=f"^UNet2DConditionModel: .*{message}"):
        UNet2DConditionModel(**TWO | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (draw((2, 3, 5)), r"encoder_hidden_states must be of shape \(batch, tokens, 6\), got shape \(2, 3, 5\)"),
        (None, "got NoneType"),
        (draw((2, 3, 6), np.float64), "encoder_hidden_states must be float32, as the weights are, got float64"),
        (draw((1, 3, 6)), "encoder_hidden_states must be 2, one per image, got 1"),
    ],
)
def test_bad_texts(text, message):
    with pytest.raises(ValueError, match=f"UNet2DConditionModel: .*{message}|{message}"):
        UNet2DConditionModel(**TWO, generator=0)(draw((2, 2, 4, 4)), 3, text)


def test_an_image_listens_to_its_own_text_alone():
    model = UNet2DConditionModel(**TWO, generator=0)
    sample, text = draw((2, 2, 4, 4)), draw((2, 3, 6), seed=2)
    with model.inference():
        y, other = model(sample, 3, text), model(sample, 3, np.stack([text[0], -text[1]]))
    np.testing.assert_allclose(y[0], other[0], atol=1e-6)
    assert np.abs(y[1] - other[1]).max() > 1e-4


def test_a_pipeline_with_a_text_is_saved_and_samples(tmp_path):
    model, scheduler = UNet2DConditionModel(**TWO, out_channels=2, generator=0), hcrot.DDIMScheduler(clip_sample=False)
    pipelines.save(tmp_path / "pipeline", model, scheduler)
    assert '"diffusers"' in (tmp_path / "pipeline" / "model_index.json").read_text()
    loaded, _ = pipelines.load(tmp_path / "pipeline")
    assert type(loaded) is UNet2DConditionModel

    x, text, nothing = draw((3, 2, 6, 4)), draw((3, 4, 6)), draw((1, 4, 6))
    options = {"generator": 0, "sample": x, "num_inference_steps": 2, "prompt_embeds": text, "progress": False}
    step = next(pipelines.steps(loaded, scheduler, **options, guidance_scale=3, negative_prompt_embeds=nothing))
    t = step.timestep
    without, with_text = model(x, t, nothing.repeat(3, axis=0)), model(x, t, text)
    expected = scheduler.step(without + 3 * (with_text - without), t, x).prev_sample
    np.testing.assert_allclose(step.prev_sample, expected, atol=1e-4)
    plain = next(pipelines.steps(loaded, scheduler, **options)).prev_sample
    np.testing.assert_allclose(plain, scheduler.step(with_text, t, x).prev_sample, atol=1e-5)
    for wrong, message in (
        ({"guidance_scale": 2}, "prompt_embeds and negative_prompt_embeds"),
        ({"negative_prompt_embeds": nothing[0]}, r"of shape \(3, K, D\) or \(1, K, D\), got \(4, 6\)"),
        ({"prompt_embeds": text[:2]}, "prompt_embeds of 2, sample of 3"),
        ({"prompt_embeds": None, "negative_prompt_embeds": nothing}, "prompt_embeds and negative_prompt_embeds"),
    ):
        with pytest.raises(ValueError, match=message):
            pipelines.steps(loaded, scheduler, **{**options, "guidance_scale": 2, **wrong})
