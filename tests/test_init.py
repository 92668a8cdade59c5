"""Where random numbers come from: a Generator, or an int that one is made of, wherever ``generator`` is an argument."""

import inspect

import numpy as np
import pytest

import hcrot
from hcrot import init, pipelines
from hcrot.data import Batches, random_flip, random_shift
from hcrot.schedulers import DDPMScheduler
from support import small_unets

X = np.random.default_rng(5).uniform(-1, 1, (3, 1, 5, 6))
MODEL = small_unets.tiny_model(dropout=0.5)
LAYERS = {
    "Attention": (4, 2),
    "Conv1d": (2, 4, 3),
    "Conv2d": (2, 4, 3),
    "ConvTranspose2d": (2, 4, 3),
    "CrossAttention": (4, 6),
    "DigitClassifier": (8, 3, (2, 3), 5),
    "Downsample": (4,),
    "Embedding": (5, 3),
    "GaussianFourierProjection": (4,),
    "Linear": (3, 2),
    "ResnetBlock2D": (4, 6, 5, 2, 1e-5, 0.5),
    "TimestepEmbedding": (4, 4),
    "Upsample": (4,),
}


class Nothing(hcrot.Module):
    """A network that sees its input and says nothing."""

    def forward(self, x, *_):
        return 0 * x


USES = {
    **{name: lambda generator, name=name: weights(getattr(hcrot, name)(*LAYERS[name], generator=generator)) for name in LAYERS},
    "Downsample without convolution": lambda generator: weights(hcrot.Downsample(4, use_conv=False, generator=generator)),
    "Dropout": lambda generator: hcrot.Dropout(generator=generator)(X),
    "UNet2dModel": lambda generator: drawn(hcrot.UNet2dModel(**small_unets.TINY, dropout=0.5, generator=generator)),
    "UNet2dModel.from_config": lambda generator: drawn(hcrot.UNet2dModel.from_config(MODEL.config, generator=generator)),
    "UNet2DConditionModel": lambda generator: weights(conditioned(generator)),
    "orthogonal_": lambda generator: init.orthogonal_(np.zeros((3, 4)), generator=generator),
    "Batches": lambda generator: np.concatenate([rows for (rows,) in Batches(np.arange(20), batch_size=7, generator=generator)]),
    "random_flip": lambda generator: random_flip(X, generator),
    "random_shift": lambda generator: random_shift(X, 1, generator),
    "check_gradients": lambda generator: hcrot.check_gradients(hcrot.Linear(3, 2, generator=0), X[:, 0, 0, :3], generator=generator).lines,
    "bits_per_dimension": lambda generator: hcrot.bits_per_dimension(lambda x, t: x, X, np.linspace(0.9, 0.1, 4), generator).total,
    **{
        f"pipelines.{name}": lambda generator, name=name: getattr(pipelines, name)(
            MODEL, DDPMScheduler(40), generator=generator, class_labels=1, num_inference_steps=2, progress=False
        )
        for name in ("sample", "ddpm", "ddim")
    },
    "pipelines.steps": lambda generator: list(
        pipelines.steps(MODEL, DDPMScheduler(40), generator=generator, class_labels=1, num_inference_steps=2, progress=False)
    )[-1].prev_sample,
    "drop_labels": lambda generator: hcrot.drop_labels(np.arange(50), 50, 0.5, generator),
    "GaussianDiffusion": lambda generator: hcrot.GaussianDiffusion(Nothing(), np.linspace(0.1, 0.5, 4), generator=generator).q_sample(X, 3),
    "SR3UNet": lambda generator: weights(hcrot.models.SR3UNet(1, (4, 8), (), 1, 0.0, 2, generator=generator)),
    "SR3Diffusion": lambda generator: hcrot.models.SR3Diffusion(Nothing(), np.linspace(0.1, 0.5, 4), generator=generator).loss(X, X)[0],
}
"""What each function and class of the public ones draws with a generator."""


def conditioned(generator):
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",), "block_out_channels": (4,)}
    return hcrot.UNet2DConditionModel(**blocks, norm_num_groups=2, attention_head_dim=2, cross_attention_dim=3, generator=generator)


EACH = pytest.mark.parametrize("use", USES.values(), ids=USES)


def weights(module):
    return np.concatenate([parameter.data.ravel() for parameter in module.parameters()] or [np.zeros(0)])


def drawn(model):
    """The weights, and an output in training, for which dropout draws."""
    return np.concatenate([weights(model), model(X.astype(np.float32), 3, 1).ravel()])


def test_every_public_name_with_a_generator_is_tried():
    rooms = (hcrot, hcrot.layers, hcrot.models, hcrot.data, pipelines, hcrot.functional)
    public = {f"{'pipelines.' * (room is pipelines)}{name}": getattr(room, name) for room in rooms for name in room.__all__}
    public = {name: value for name, value in public.items() if inspect.isroutine(value) or isinstance(value, type)}
    public = {name: value for name, value in public.items() if not (isinstance(value, type) and issubclass(value, Exception))}
    takers = {name for name, value in public.items() if "generator" in inspect.signature(value).parameters}
    takers |= {"pipelines.ddpm", "pipelines.ddim"}  # among their **options
    assert takers <= USES.keys(), takers - USES.keys()


@EACH
@pytest.mark.parametrize("seed", [3, np.int64(3), np.uint8(3)], ids=lambda seed: type(seed).__name__)
def test_an_int_is_the_seed_of_one_generator(use, seed):
    np.testing.assert_array_equal(use(seed), use(np.random.default_rng(3)))


@EACH
@pytest.mark.parametrize(
    ("generator", "error"),
    [(True, TypeError), (np.True_, TypeError), (3.0, TypeError), ("3", TypeError), (np.random.RandomState(0), TypeError), (-1, ValueError)],  # noqa: NPY002
)
def test_other_things_are_no_seeds(use, generator, error):
    with pytest.raises(error, match=r"^[\w.]+: generator (must be a numpy.random.Generator or an int|is '3', expected a).*"):
        use(generator)


def test_the_error_names_who_asks_and_what_came():
    with pytest.raises(TypeError, match="^Linear: generator must be a numpy.random.Generator or an int of at least 0 .*, got 1.5$"):
        hcrot.Linear(3, 2, generator=1.5)
    with pytest.raises(ValueError, match="^Linear: generator must be a numpy.random.Generator or an int of at least 0 .*, got -2$"):
        hcrot.Linear(3, 2, generator=np.int8(-2))


def test_a_generator_is_handed_on_and_none_is_always_another():
    generator = np.random.default_rng(0)
    assert init.as_generator("x", generator) is init.default_generator("x", generator) is generator
    assert init.default_generator("x", None).random() != init.default_generator("x", None).random()


@pytest.mark.parametrize(("value", "expected"), [(3, True), (-1, True), (np.int8(3), True), (np.uint64(2**63), True)] + [
    (value, False) for value in (True, np.True_, 3.0, np.float32(3), "3", None, np.array(3), [3])
])  # fmt: skip
def test_what_an_int_is(value, expected):
    assert init.is_int(value) is expected


@pytest.mark.parametrize("shape", [(3, 2, 2, 2), (6, 2, 1, 2), (4, 4)])
def test_orthogonal_rows_or_columns(shape):
    array = np.zeros(shape, np.float32)
    assert init.orthogonal_(array, 1.5, generator=0) is array
    matrix = array.reshape(shape[0], -1).astype(np.float64)
    product = matrix @ matrix.T if shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, 1.5**2 * np.eye(len(product)), atol=1e-6)


def test_orthogonal_matrices_are_uniform():
    """The trace of a uniform orthogonal n x n matrix has mean 0 and variance 1 (Diaconis & Shahshahani 1994); QR's own has not."""
    rng = np.random.default_rng(0)
    traces = [np.trace(init.orthogonal_(np.zeros((3, 3)), generator=rng)) for _ in range(4000)]
    assert abs(np.mean(traces)) < 4 / np.sqrt(4000) and abs(np.var(traces) - 1) < 0.1


@pytest.mark.parametrize(
    ("array", "gain", "error", "message"),
    [
        ([[1.0]], 1.0, TypeError, "array must be an array of floats, got list"),
        (np.zeros((2, 2), int), 1.0, TypeError, "array must be an array of floats, got int64"),
        (np.zeros(3), 1.0, ValueError, r"array must have at least two axes, got shape \(3,\)"),
        (np.zeros((2, 2)), np.inf, ValueError, "gain must be a finite number, got inf"),
    ],
)
def test_bad_arguments_of_orthogonal(array, gain, error, message):
    with pytest.raises(error, match=f"^orthogonal_: {message}"):
        init.orthogonal_(array, gain)
