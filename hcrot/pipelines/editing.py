"""Images changed by a trained model: a scribble refined, a hole filled, a low-pass kept, an image turned into its noise and back.

Each is the sampling loop (:func:`hcrot.pipelines.steps`), begun with the image instead of noise, or with something put back after each
step. Images are (B, C, H, W) in [-1, 1].
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from hcrot.init import as_generator, is_int
from hcrot.module import Module
from hcrot.pipelines.inverse_problems import SuperResolution
from hcrot.pipelines.sample import Step, sample, steps, visited_from
from hcrot.schedulers.base import NoiseScheduler
from hcrot.schedulers.ddim import DDIMScheduler
from hcrot.schedulers.ddim_inverse import DDIMInverseScheduler

__all__ = ["ilvr", "inpaint", "invert", "low_pass", "noised", "regenerate", "sdedit"]


def sdedit(
    model: Module, scheduler: NoiseScheduler, images: np.ndarray, *, start_timestep: int, generator: Any, **options: Any
) -> np.ndarray:
    """A rough picture becomes a likely one (SDEdit, Meng et al. 2022, arXiv:2108.01073, algorithm 1): noise is added up to a level, which
    drowns details and leaves the large shapes, and removed again.

    Args:
        model, scheduler: trained together.
        images: the rough pictures.
        start_timestep: up to where noise is added; the higher, the more likely and the less alike is the result.
        generator: source of noise, or its seed.
        options: those of :func:`hcrot.pipelines.sample`.

    Raises:
        ValueError, TypeError: as `sample`; a timestep that is none of training's.
    """
    generator = as_generator("sdedit", generator)
    if options.get("num_inference_steps") is not None:
        scheduler.set_timesteps(options.pop("num_inference_steps"))
    first = visited_from("sdedit: start_timestep", scheduler, start_timestep)[0]
    noise = generator.standard_normal(images.shape, dtype=images.dtype)
    noisy = scheduler.add_noise(images, noise, np.full(len(images), first))
    return sample(model, scheduler, sample=noisy, start_timestep=first, generator=generator, **options)


def inpaint(
    model: Module,
    scheduler: NoiseScheduler,
    images: np.ndarray,
    mask: np.ndarray,
    *,
    generator: Any,
    repeats: int = 1,
    num_inference_steps: int | None = None,
    **options: Any,
) -> np.ndarray:
    """Fill a hole (RePaint, Lugmayr et al. 2022, arXiv:2201.09865, algorithm 1).

        x_s  <-  mask (known image, noised to s) + (1 - mask) x_s                after each step
        x_t  <-  sqrt(alpha) x_s + sqrt(1 - alpha) z,  and the step once more     ``repeats - 1`` times: so that hole and rim agree

    Args:
        model, scheduler: trained together; a scheduler that keeps nothing from step to step: DDPM or DDIM.
        images: what is known of them is kept as it is.
        mask: 1 where known, 0 in the hole, of a shape that broadcasts to the images'.
        generator: source of noise, or its seed.
        repeats: how often each step is taken (their r; 10 in the paper, 1 costs least).
        num_inference_steps: None: the scheduler's timesteps as they are.
        options: those of :func:`hcrot.pipelines.steps`, such as class_labels.

    Raises:
        ValueError: a mask with other numbers than 0 and 1, repeats below 1; further what `sample` raises.
    """
    mask, generator = np.asarray(mask), as_generator("inpaint", generator)
    if not np.isin(mask, (0, 1)).all():
        raise ValueError("inpaint: mask must have 0 and 1 only")
    if not is_int(repeats) or repeats < 1:
        raise ValueError(f"inpaint: repeats must be an int of at least 1, got {repeats!r}")
    known, progress = mask.astype(bool), options.pop("progress", True)
    if num_inference_steps is not None:
        scheduler.set_timesteps(num_inference_steps)
    x = generator.standard_normal(images.shape, dtype=images.dtype)
    for t in tqdm(scheduler.timesteps, desc="inpainting", disable=not progress or sys.stderr is None):
        for repeat in range(repeats):
            step = next(steps(model, scheduler, sample=x, start_timestep=t, generator=generator, progress=False, **options))
            x = np.where(known, noised(scheduler, images, step.prev_timestep, generator), step.prev_sample)
            if step.prev_timestep < 0:
                break
            if repeat < repeats - 1:
                x = noised_from(scheduler, x, step.prev_timestep, t, generator)
    return np.clip(x, -1, 1)


def ilvr(
    model: Module, scheduler: NoiseScheduler, references: np.ndarray, *, factor: int, generator: Any, until: int = -1, **options: Any
) -> np.ndarray:
    """New images with the large shapes of a reference (ILVR, Choi et al. 2021, arXiv:2108.02938, algorithm 1).

        x_s  <-  x_s + phi(reference, noised to s) - phi(x_s)      phi: :func:`low_pass`

    Args:
        model, scheduler: trained together, of the variance-preserving process.
        references: images whose large shapes are wanted.
        factor: phi keeps what is left when images are made so many times smaller: the larger, the freer.
        generator: source of noise, or its seed.
        until: steps that lead below this timestep are free; -1: none is.
        options: those of :func:`hcrot.pipelines.sample`.
    """
    generator = as_generator("ilvr", generator)

    def pull(step: Step) -> np.ndarray | None:
        if step.prev_timestep < until:
            return None
        target = noised(scheduler, references, step.prev_timestep, generator)
        return step.prev_sample + low_pass(target - step.prev_sample, factor)

    return sample(model, scheduler, batch_size=len(references), generator=generator, after_step=pull, **options)


def low_pass(images: np.ndarray, factor: int) -> np.ndarray:
    """Images made ``factor`` times smaller, each square by its mean, and as large as before again. Twice is as good as once.

    Raises:
        ValueError: sizes that do not divide.
    """
    height, width = images.shape[2:]
    if not is_int(factor) or factor < 1 or height % factor or width % factor:
        raise ValueError(f"low_pass: factor {factor!r} does not divide images of {height}x{width}")
    squares = SuperResolution(factor)
    return squares.pseudo_inverse(squares.forward(images))


def invert(
    model: Module,
    scheduler: NoiseScheduler,
    images: np.ndarray,
    *,
    num_inference_steps: int | None = None,
    timesteps: Sequence[int] | None = None,
    **options: Any,
) -> np.ndarray:
    """The noise that DDIM would make these images of (Song et al. 2021, section 4.3), (B, C, H, W). :func:`regenerate` goes back.

    Args:
        model, scheduler: trained together; of the scheduler its configuration is used. x_0 is not clipped on the way, whatever that says:
            clipped estimates lose what the way back needs, and the more steps there are the more is lost.
        images: to be inverted.
        num_inference_steps: how many steps; the more, the nearer do both ways come to each other.
        timesteps: instead, a descending list of them, the first of which is the level to stop at.
        options: class_labels, guidance_scale, null_label, progress of :func:`hcrot.pipelines.sample`.
    """
    inverse = DDIMInverseScheduler.from_config(scheduler.config, clip_sample=False, thresholding=False)
    inverse.set_timesteps(num_inference_steps, timesteps=timesteps, follow_timesteps=True)
    for step in steps(model, inverse, sample=images, generator=0, **options):
        noise = step.prev_sample
    return noise


def regenerate(
    model: Module,
    scheduler: NoiseScheduler,
    noise: np.ndarray,
    *,
    num_inference_steps: int | None = None,
    timesteps: Sequence[int] | None = None,
    **options: Any,
) -> np.ndarray:
    """The images that DDIM makes of this noise, with as many steps as :func:`invert` took: the same images, nearly; with another label
    images that are as alike as that label lets them be.

    Arguments as there; the result is not clipped.
    """
    ddim = DDIMScheduler.from_config(scheduler.config, clip_sample=False, thresholding=False)
    ddim.set_timesteps(num_inference_steps, timesteps=timesteps, follow_timesteps=True)
    for step in steps(model, ddim, sample=noise, generator=0, **options):
        images = step.prev_sample
    return images


def noised(scheduler: NoiseScheduler, images: np.ndarray, timestep: int, generator: np.random.Generator) -> np.ndarray:
    """Images at the level of a timestep; at -1 the images themselves."""
    if timestep < 0:
        return images
    noise = generator.standard_normal(images.shape, dtype=images.dtype)
    return scheduler.add_noise(images, noise, np.full(len(images), timestep))


def noised_from(scheduler: NoiseScheduler, x: np.ndarray, before: int, timestep: int, generator: np.random.Generator) -> np.ndarray:
    """x at one level, noised to a higher one: ``sqrt(alpha) x + sqrt(1 - alpha) z`` with ``alpha = abar_t / abar_s``."""
    alpha = scheduler.alphas_cumprod[timestep] / scheduler.alphas_cumprod[before]
    z = generator.standard_normal(x.shape, dtype=x.dtype)
    return np.sqrt(alpha).astype(x.dtype) * x + np.sqrt(1 - alpha).astype(x.dtype) * z

