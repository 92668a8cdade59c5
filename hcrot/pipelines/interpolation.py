"""Between two images: noised to a level, mixed there, and decoded (Ho et al. 2020, section 4.3 and figure 8).

    xbar_t = (1 - lambda) x_t^a + lambda x_t^b,    x_t^a, x_t^b ~ q(x_t | x_0^a), q(x_t | x_0^b)

and the reverse process begins with xbar_t *at t*. (Programs that begin at T - 1, or at t - 1, decode a level that xbar_t is not at.)

Mixed linearly, two independent noises cancel: at lambda = 1/2 what is left has 0.71 of its standard deviation. So by default both images
get the *same* noise, as in the paper's figure, and nothing cancels. With noises of their own the mixture is to be ``spherical``, along the
arc between the two (Shoemake 1985), which keeps the length:

    slerp(a, b) = sin((1 - lambda) omega) / sin omega  a + sin(lambda omega) / sin omega  b,    cos omega = <a, b> / (|a| |b|)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hcrot.init import as_generator
from hcrot.module import Module
from hcrot.pipelines.sample import sample, visited_from
from hcrot.schedulers.base import NoiseScheduler

__all__ = ["interpolate", "slerp"]


def interpolate(
    model: Module,
    scheduler: NoiseScheduler,
    first: np.ndarray,
    second: np.ndarray,
    *,
    timestep: int,
    weights: Sequence[float],
    generator: Any,
    shared_noise: bool = True,
    spherical: bool | None = None,
    **options: Any,
) -> np.ndarray:
    """Images between two.

    Args:
        model, scheduler: trained together.
        first, second: (C, H, W) in [-1, 1].
        timestep: t; the higher, the more of what lies between is the model's own.
        weights: the lambdas, from 0, the first image, to 1, the second.
        generator: source of noise, or its seed. All images of a row share their noise in the reverse process, too, as far as it draws any.
        shared_noise: whether both images are noised with the same noise.
        spherical: whether they are mixed along the arc; None: if the noise is not shared.
        options: those of :func:`hcrot.pipelines.sample`; class_labels one for all or (L,).

    Returns:
        (L, C, H, W), one image for each weight.

    Raises:
        ValueError: images of different shapes, no weights or weights outside 0 .. 1; further what `sample` raises.
    """
    lambdas = np.asarray(weights, np.float64)
    if lambdas.ndim != 1 or lambdas.size == 0 or not np.all((lambdas >= 0) & (lambdas <= 1)):
        raise ValueError(f"interpolate: weights must be numbers from 0 to 1, got {weights!r}")
    if first.shape != second.shape or first.ndim != 3:
        raise ValueError(f"interpolate: first and second must be two images (C, H, W), got {first.shape} and {second.shape}")
    rng = as_generator("interpolate", generator)
    if options.get("num_inference_steps") is not None:
        scheduler.set_timesteps(options.pop("num_inference_steps"))
    start = visited_from("interpolate: timestep", scheduler, timestep)[0]
    noise = rng.standard_normal((2, *first.shape), dtype=first.dtype)
    if shared_noise:
        noise[1] = noise[0]
    a, b = scheduler.add_noise(np.stack([first, second]), noise, np.full(2, start))
    along_arc = not shared_noise if spherical is None else spherical
    mixed = np.stack([slerp(a, b, weight) if along_arc else ((1 - weight) * a + weight * b).astype(a.dtype) for weight in lambdas])
    seed = int(rng.integers(2**63))
    generators = [np.random.default_rng(seed) for _ in lambdas]
    return sample(model, scheduler, sample=mixed, start_timestep=start, generator=generators, **options)


def slerp(a: np.ndarray, b: np.ndarray, weight: float) -> np.ndarray:
    """The point at ``weight`` of the arc from a to b, two arrays of one shape; where they point the same way, of the line."""
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    cosine = float(np.sum(a.astype(np.float64) * b) / lengths) if lengths > 0 else 1.0
    omega = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(omega) < 1e-6:
        return ((1 - weight) * a + weight * b).astype(a.dtype)
    return ((np.sin((1 - weight) * omega) * a + np.sin(weight * omega) * b) / np.sin(omega)).astype(a.dtype)
