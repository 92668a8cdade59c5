"""A case of every module there is, for the laws of tests/test_contract.py."""

from collections.abc import Callable
from typing import Any

import numpy as np

from hcrot.layers import (
    activation,
    attention,
    batch_norm,
    conv,
    conv1d,
    cross_attention,
    dropout,
    embedding,
    linear,
    norm,
    padding,
    pixel_shuffle,
    pooling,
    resample,
    reshape,
    residual,
    rms_norm,
)
from hcrot.models import digit_classifier, unet_2d, unet_2d_blocks
from hcrot.module import Identity, Module, Sequential
from support.case import (
    LABELS,
    Case,
    attention_of,
    block_backward,
    block_inputs,
    down_backward,
    down_forward,
    images,
    resnet_of,
    up_backward,
    up_forward,
)
from support.system_cases import SYSTEM_CASES


def small_unet(generator, **options):
    return unet_2d.UNet2dModel(
        in_channels=2,
        out_channels=3,
        block_out_channels=(4, 6),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=2,
        attention_head_dim=3,
        layers_per_block=1,
        generator=generator,
        **options,
    )


CASES = [
    Case("Identity", lambda g: Identity(), images),
    Case(
        "Sequential",
        lambda g: Sequential(conv.Conv2d(4, 6, 3, 2, generator=g), Identity(), conv.Conv2d(6, 2, 1, generator=g)),
        images,
    ),
    Case("Linear", lambda g: linear.Linear(5, 3, generator=g), lambda draw: (draw(7, 5),)),
    Case("Linear without bias", lambda g: linear.Linear(6, 3, False, generator=g), images),
    Case("Conv2d", lambda g: conv.Conv2d(4, 6, 3, padding=1, generator=g), images),
    Case("Conv2d 1x1", lambda g: conv.Conv2d(4, 3, 1, bias=False, generator=g), images),
    Case("Conv2d strided", lambda g: conv.Conv2d(4, 3, (2, 3), (2, 1), (0, 1, 2, 0), generator=g), images),
    Case("Conv2d in groups", lambda g: conv.Conv2d(4, 6, 3, 1, "same", (1, 2), 2, generator=g), images),
    Case(
        "Conv2d with shift and residual",
        lambda g: conv.Conv2d(4, 2, 3, padding=1, generator=g),
        lambda draw: (draw(3, 4, 5, 6), draw(3, 2), draw(3, 2, 5, 6)),
        backward=lambda module, dout: (module.backward(dout), dout.sum(axis=(2, 3)), dout),
    ),
    Case("ConvTranspose2d", lambda g: conv.ConvTranspose2d(4, 3, (4, 3), 2, 1, (1, 0), generator=g), images),
    Case("Conv2d with mirrored padding", lambda g: conv.Conv2d(4, 3, 3, padding=(2, 1), padding_mode="reflect", generator=g), images),
    Case("Conv2d of one image", lambda g: conv.Conv2d(4, 3, (2, 3), 2, generator=g), lambda draw: (draw(4, 5, 6),)),
    Case(
        "ConvTranspose2d in groups, dilated",
        lambda g: conv.ConvTranspose2d(4, 6, (2, 3), 2, groups=2, dilation=(1, 2), generator=g),
        lambda draw: (draw(4, 3, 2),),
    ),
    Case("Conv1d", lambda g: conv1d.Conv1d(4, 6, 3, 2, 1, generator=g), lambda draw: (draw(3, 4, 7),)),
    Case(
        "Conv1d of one sequence, in groups",
        lambda g: conv1d.Conv1d(4, 2, 2, 1, "same", 3, 2, False, generator=g),
        lambda draw: (draw(4, 9),),
    ),
    *[Case(f"Pad2d, {mode}", lambda g, mode=mode: padding.Pad2d((1, 3, 2, 0), mode), images) for mode in padding.MODES],
    Case("SiLU", lambda g: activation.SiLU(), images),
    Case("ReLU", lambda g: activation.ReLU(), images),
    Case("GELU", lambda g: activation.GELU(), images),
    Case("GELU by tanh", lambda g: activation.GELU("tanh"), images),
    Case("Mish", lambda g: activation.Mish(), images),
    Case("Sigmoid", lambda g: activation.Sigmoid(), images),
    Case("Tanh", lambda g: activation.Tanh(), images),
    Case("Softmax", lambda g: activation.Softmax(), images),
    Case("Softmax over channels", lambda g: activation.Softmax(1), images),
    Case("Dropout", lambda g: dropout.Dropout(0.4, generator=g), images, random=True),
    Case("Dropout of nothing", lambda g: dropout.Dropout(0, generator=g), images),
    Case("Embedding", lambda g: embedding.Embedding(5, 3, generator=g), lambda draw: (LABELS,)),
    Case("Timesteps", lambda g: embedding.Timesteps(6), lambda draw: (LABELS, draw(1).dtype)),
    Case("GaussianFourierProjection", lambda g: embedding.GaussianFourierProjection(6, generator=g), lambda draw: (LABELS + 1,)),
    Case("TimestepEmbedding", lambda g: embedding.TimestepEmbedding(4, 6, generator=g), lambda draw: (draw(3, 4),)),
    Case("MaxPool2d", lambda g: pooling.MaxPool2d((2, 3), (1, 2), (1, 0)), images),
    Case("AvgPool2d", lambda g: pooling.AvgPool2d((2, 3), (1, 2), (1, 0)), images),
    Case("MaxPool2d with a last window", lambda g: pooling.MaxPool2d(3, 2, 1, (1, 2), ceil_mode=True), images),
    Case("AvgPool2d of one image", lambda g: pooling.AvgPool2d(3, 2, 1, True, False), lambda draw: (draw(4, 6, 5),)),
    Case("Flatten", lambda g: reshape.Flatten(), images),
    Case("Upsample", lambda g: resample.Upsample(4, 3, generator=g), images),
    Case("Upsample to a size", lambda g: resample.Upsample(4, use_conv=False), lambda draw: (draw(3, 4, 5, 6), (8, 11))),
    Case("Downsample", lambda g: resample.Downsample(4, 3, generator=g), images),
    Case("Downsample by the mean", lambda g: resample.Downsample(4, use_conv=False), images),
    Case("GroupNorm", lambda g: norm.GroupNorm(2, 4), images),
    Case("GroupNorm without affine", lambda g: norm.GroupNorm(4, 4, affine=False), images),
    Case("GroupNorm of vectors", lambda g: norm.GroupNorm(2, 6), lambda draw: (draw(5, 6),)),
    Case("GroupNormSiLU", lambda g: norm.GroupNormSiLU(2, 4), images),
    Case("LayerNorm", lambda g: norm.LayerNorm(6), images),
    Case("LayerNorm over two axes", lambda g: norm.LayerNorm((5, 6), bias=False), images),
    Case("LayerNorm without affine", lambda g: norm.LayerNorm(6, elementwise_affine=False), images),
    Case("RMSNorm", lambda g: rms_norm.RMSNorm(6), images),
    Case("RMSNorm over two axes", lambda g: rms_norm.RMSNorm((5, 6), 1e-3, False), images),
    Case("BatchNorm2d", lambda g: batch_norm.BatchNorm2d(4), images, random=True),
    Case("BatchNorm2d without a past", lambda g: batch_norm.BatchNorm2d(4, 1e-3, None, False, False), images),
    Case("PixelShuffle", lambda g: pixel_shuffle.PixelShuffle(2), images),
    Case("PixelUnshuffle", lambda g: pixel_shuffle.PixelUnshuffle(3), lambda draw: (draw(2, 4, 3, 6),)),
    Case("Residual", lambda g: residual.Residual(conv.Conv2d(4, 4, 3, padding=1, generator=g)), images),
    Case("Attention", lambda g: attention.Attention(6, 3, 2, generator=g), lambda draw: (draw(3, 6, 4, 5),)),
    Case(
        "Attention of other widths",
        lambda g: attention.Attention(7, 3, None, residual_connection=False, rescale_output_factor=2, generator=g),
        lambda draw: (draw(2, 7, 3, 2),),
    ),
    Case("Attention wider than its input", lambda g: attention.Attention(4, 3, 2, heads=3, generator=g), images),
    Case(
        "CrossAttention",
        lambda g: cross_attention.CrossAttention(4, 3, 2, 5, generator=g),
        lambda draw: (draw(2, 6, 4), draw(2, 3, 3)),
    ),
    Case(
        "CrossAttention of images",
        lambda g: cross_attention.CrossAttention(4, None, 1, 3, True, generator=g),
        lambda draw: (draw(3, 4, 5, 2), draw(3, 7, 4)),
    ),
    Case("ActivatedGroupNorm", lambda g: unet_2d_blocks.ActivatedGroupNorm(2, 4, 1e-5, activation.Mish()), images),
    Case("ScaleShift", lambda g: unet_2d_blocks.ScaleShift(), lambda draw: (draw(3, 4, 5, 6), draw(3, 8))),
    Case("ResnetBlock2D", lambda g: unet_2d_blocks.ResnetBlock2D(4, 6, 5, 2, generator=g), block_inputs, backward=block_backward),
    Case(
        "ResnetBlock2D with dropout",
        lambda g: unet_2d_blocks.ResnetBlock2D(4, 4, 5, 2, dropout=0.3, generator=g),
        block_inputs,
        backward=block_backward,
        random=True,
    ),
    Case(
        "ResnetBlock2D that scales, shifts and doubles",
        lambda g: unet_2d_blocks.ResnetBlock2D(4, 6, 5, 2, scale_shift=True, act_fn="mish", resample="up", generator=g),
        block_inputs,
        lambda module, x, temb: module(x, temb, size=(9, 11)),
        block_backward,
    ),
    Case(
        "ResnetBlock2D that halves and divides",
        lambda g: unet_2d_blocks.ResnetBlock2D(4, 4, 5, 2, act_fn="gelu", output_scale_factor=1.5, resample="down", generator=g),
        block_inputs,
        backward=block_backward,
    ),
    Case(
        "DownBlock2D",
        lambda g: unet_2d_blocks.DownBlock2D(
            4, 6, 2, resnet=resnet_of(g), attention=attention_of(g), downsample=lambda channels: resample.Downsample(channels, generator=g)
        ),
        block_inputs,
        down_forward,
        down_backward,
    ),
    Case(
        "DownBlock2D that halves in a residual block",
        lambda g: unet_2d_blocks.DownBlock2D(
            4, 6, 1, resnet=resnet_of(g), downsample=lambda channels: resnet_of(g, resample="down")(channels, channels)
        ),
        block_inputs,
        down_forward,
        down_backward,
    ),
    Case(
        "DownBlock2D at the end",
        lambda g: unet_2d_blocks.DownBlock2D(4, 6, 1, resnet=resnet_of(g), attention=attention_of(g)),
        block_inputs,
        down_forward,
        down_backward,
    ),
    Case(
        "UNetMidBlock2D",
        lambda g: unet_2d_blocks.UNetMidBlock2D(4, resnet=resnet_of(g), attention=attention_of(g)),
        block_inputs,
        backward=block_backward,
    ),
    Case(
        "UpBlock2D",
        lambda g: unet_2d_blocks.UpBlock2D(
            4, 6, (2, 4), resnet=resnet_of(g), attention=attention_of(g), upsample=lambda channels: resample.Upsample(channels, generator=g)
        ),
        lambda draw: (*block_inputs(draw), draw(3, 2, 5, 6), draw(3, 4, 5, 6)),
        up_forward,
        up_backward,
    ),
    Case(
        "UpBlock2D that doubles in a residual block",
        lambda g: unet_2d_blocks.UpBlock2D(
            4, 6, (2,), resnet=resnet_of(g), upsample=lambda channels: resnet_of(g, resample="up")(channels, channels)
        ),
        lambda draw: (*block_inputs(draw), draw(3, 2, 5, 6)),
        up_forward,
        up_backward,
    ),
    Case("UNet2dModel", lambda g: small_unet(g, num_class_embeds=5), lambda draw: (draw(4, 2, 5, 7), np.array([0, 999, 3, 500]), LABELS)),
    Case(
        "UNet2dModel of random frequencies, given embeddings",
        lambda g: small_unet(g, time_embedding_type="fourier", class_embed_type="identity", center_input_sample=True, attention_heads=3),
        lambda draw: (draw(4, 2, 5, 7), np.array([1, 2, 3, 4]), draw(4, 16)),
    ),
    Case(
        "UNet2dModel of learned times and labels like times",
        lambda g: small_unet(g, time_embedding_type="learned", num_train_timesteps=9, class_embed_type="timestep", dropout=0.2),
        lambda draw: (draw(4, 2, 5, 7), np.array([8, 0, 3, 1]), LABELS),
        random=True,
    ),
    Case(
        "DigitClassifier",
        lambda g: digit_classifier.DigitClassifier(9, 4, (3, 4, 5), 6, generator=g),
        lambda draw: (draw(3, 1, 9, 9),),
    ),
    *SYSTEM_CASES,
]

# ---------------------------------------------------------------- what the tests share


def as_tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)


class Use:
    """A case's module, with parameters away from 0 and 1, its inputs and cotangents: all the same in every Use of one case."""

    def __init__(self, case: Case, dtype: type = np.float64, order: Callable = lambda array: array):
        self.case = case
        rng = np.random.default_rng(1)
        self.inputs = tuple(
            order(value.astype(value.dtype)) if isinstance(value, np.ndarray) else value
            for value in case.inputs(lambda *shape: rng.standard_normal(shape).astype(dtype))
        )
        self.module = self.build(0).astype(dtype)
        self.generators = [v for part in self.module.modules() for v in vars(part).values() if isinstance(v, np.random.Generator)]
        self.states = [generator.bit_generator.state for generator in self.generators]
        with self.module.inference():
            shapes = [y.shape for y in self.forward()]
        self.douts = tuple(order(rng.standard_normal(shape).astype(dtype)) for shape in shapes)

    def build(self, seed: int) -> Module:
        module, rng = self.case.make(np.random.default_rng(seed)), np.random.default_rng(100 + seed)
        for parameter in module.parameters():
            parameter.data += 0.3 * rng.standard_normal(parameter.shape).astype(np.float32)
        return module

    def forward(self) -> tuple[np.ndarray, ...]:
        """The outputs; random numbers are the same each time."""
        for generator, state in zip(self.generators, self.states, strict=True):
            generator.bit_generator.state = state
        return as_tuple(self.case.forward(self.module, *self.inputs))

    def backward(self) -> tuple[np.ndarray, ...]:
        """The gradients of the floating-point inputs."""
        gradients = as_tuple(self.case.backward(self.module, *self.douts))
        return gradients if any(map(is_float, self.inputs)) else ()

    @property
    def has_backward(self) -> bool:
        return type(self.module).backward is not Module.backward

    def results(self) -> dict[str, np.ndarray]:
        """Outputs and all gradients of one pass, by name."""
        results = {f"output {i}": y for i, y in enumerate(self.forward())}
        if self.has_backward:
            results |= {f"input gradient {i}": gradient for i, gradient in enumerate(self.backward())}
            results |= {f"gradient of {name}": parameter.grad for name, parameter in self.module.named_parameters()}
        return results


def assert_close(got: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    """Equal relative to each array's largest entry."""
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].shape == array.shape
        np.testing.assert_allclose(got[name], array, rtol=0, atol=tolerance * max(1, np.abs(array).max()), err_msg=name)


def arrays_held(module: Module) -> list[str]:
    """Names of the attributes, other than parameters, in which a module at or below this one holds an array."""

    def holds(value: Any) -> bool:
        if isinstance(value, dict):
            value = list(value.values())
        return isinstance(value, np.ndarray) or (isinstance(value, (tuple, list)) and any(map(holds, value)))

    return [f"{path}.{name}" for path, part in module.named_modules() for name, value in vars(part).items() if holds(value)]
