"""Large pictures from small ones: a cascade of two networks (Ho et al. 2021, arXiv:2106.15282).

The first network draws small pictures, y. There are few pixels, so it learns quickly what belongs where. The second one says what a picture
has that the small one, enlarged, has not (Li et al. 2021, SRDiff, arXiv:2104.14951). It is a diffusion model of that difference r, and sees
u beside the noisy r:

    y ~ p(y)                          hcrot.pipelines.sample
    u = enlarge(y + s z),             z ~ N(0, I), s = 0.1
    r ~ p(r | u)                      hcrot.pipelines.sample, condition=u
    x = clip(u + r, -1, 1)

The noise s z hides the small mistakes of the first network, so the second one does not trust every pixel of y ("conditioning augmentation",
Ho et al., section 4.2). It is trained with s between 0 and 0.3, and with real pictures that were made small. Each network is an ordinary
one, which can be trained, saved and opened by itself; enlarging and shrinking are bicubic (:func:`hcrot.data.resize`).

A second network that has learned nothing yet draws the first one's picture, enlarged, and noise; one that has to draw all draws noise only.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hcrot.data.resize import resize
from hcrot.init import as_generator
from hcrot.models.unet_2d import UNet2dModel
from hcrot.module import describe_shape
from hcrot.pipelines.generators import GeneratorPerImage
from hcrot.pipelines.sample import Step, sample, steps
from hcrot.schedulers.base import NoiseScheduler

__all__ = ["cascade", "enlarged", "enlarges", "enlarging", "parted"]

STRENGTH = 0.1  # s when drawing
STRONGEST = 0.3  # s in training is uniform from 0 to this


def enlarges(model: UNet2dModel) -> bool:
    """Whether this is a second network: it sees twice the channels that it says something of."""
    return bool(model.config["in_channels"] == 2 * model.config["out_channels"])


def parted(images: np.ndarray, small: int, generator: np.random.Generator | int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures as the second network learns from them.

    Args:
        images: x, (B, C, H, W) in [-1, 1].
        small: the height and width of y; H and W are multiples of it.
        generator: of s and z, or its seed.

    Returns:
        the difference r = x - u, and u, the condition; both (B, C, H, W).
    """
    rng = as_generator("parted", generator)
    y = resize(images, small)
    s = rng.uniform(0, STRONGEST, (len(images), 1, 1, 1)).astype(images.dtype)
    u = resize(y + s * rng.standard_normal(y.shape, dtype=np.float32), images.shape[2:])
    return images - u, u


def enlarged(
    model: UNet2dModel,
    scheduler: NoiseScheduler,
    images: np.ndarray,
    *,
    generator: Any,
    strength: float = STRENGTH,
    trajectory: bool = False,
    **options: Any,
) -> Any:
    """What the second network makes of small pictures.

    Args:
        model: the second network, which draws pictures of its ``sample_size``.
        scheduler: any of hcrot's.
        images: y, (B, C, h, w) in [-1, 1].
        generator: of all noise, or a seed, or a list with one for each picture, as of :func:`hcrot.pipelines.sample`.
        strength: s.
        trajectory: whether to return what the pictures came from, too.
        options: further ones of `sample`, such as class_labels and num_inference_steps.

    Returns:
        x, (B, C, H, W) in [-1, 1]; with ``trajectory`` further u + r for each r on the way, (N + 1, B, C, H, W), not clipped.

    Raises:
        ValueError: a network that does not see twice the channels of the pictures. TypeError, ValueError: further what `sample` raises.
    """
    u, loop = enlarging(model, scheduler, images, generator=generator, strength=strength, **options)
    kept: list[np.ndarray] = []
    for step in loop:
        if trajectory:
            kept += [u + step.prev_sample] if kept else [u + step.sample, u + step.prev_sample]
    pictures = np.clip(u + step.prev_sample, -1, 1)
    return (pictures, np.stack(kept)) if trajectory else pictures


def enlarging(
    model: UNet2dModel, scheduler: NoiseScheduler, images: np.ndarray, *, generator: Any, strength: float = STRENGTH, **options: Any
) -> tuple[np.ndarray, Iterator[Step]]:
    """The loop of :func:`enlarged`, step by step, for who shows what happens in it.

    Arguments and errors are those of `enlarged`; errors are raised by this call, before the first step.

    Returns:
        u, (B, C, H, W), and the steps of r: the picture is clip(u + r, -1, 1) with the last step's ``prev_sample`` as r.
    """
    channels = (model.config["in_channels"], model.config["out_channels"])
    if images.ndim != 4 or channels != (2 * images.shape[1], images.shape[1]):
        came = f"{describe_shape(images)} and a network with {channels[0]} in_channels and {channels[1]} out_channels"
        raise ValueError(f"enlarged: expected images (B, C, h, w) and a network with 2 C in_channels and C out_channels, got {came}")
    noise = _as_one("enlarged", generator)
    z = noise.standard_normal(images.shape, dtype=images.dtype.type)
    u = resize(images + images.dtype.type(strength) * z, model.config["sample_size"])
    return u, steps(model, scheduler, generator=noise, condition=u, **options)


def cascade(
    small: tuple[UNet2dModel, NoiseScheduler],
    large: tuple[UNet2dModel, NoiseScheduler],
    *,
    generator: Any,
    guided: Mapping[str, Any] | None = None,
    trajectory: bool = False,
    **options: Any,
) -> Any:
    """Draw small pictures and enlarge them.

    Args:
        small, large: both networks, each with its sampler.
        generator: of all noise, or a seed, or a list with one for each picture.
        guided: guidance_scale and null_label of `sample`, for the first network. The second one sees what it has to draw.
        trajectory: whether to return what the pictures came from, too.
        options: further ones of `sample`, for both.

    Returns:
        x, (B, C, H, W) in [-1, 1]; with ``trajectory`` further the steps of both networks, (N, B, C, H, W), small ones enlarged.
    """
    noise = _as_one("cascade", generator)
    network, sampler = small
    if not trajectory:
        y = sample(network, sampler, generator=noise, **options, **guided or {})
        return enlarged(*large, y, generator=noise, **options)
    y, before = sample(network, sampler, generator=noise, trajectory=True, **options, **guided or {})
    pictures, after = enlarged(*large, y, generator=noise, trajectory=True, **options)
    return pictures, np.concatenate([resize(before, pictures.shape[2:]), after])


def _as_one(owner: str, generator: Any) -> np.random.Generator:
    """The source of all noise, which both networks go on with: were seeds taken anew, both would begin from the same numbers."""
    return GeneratorPerImage(generator) if isinstance(generator, Sequence) else as_generator(owner, generator)
