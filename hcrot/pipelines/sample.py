"""From noise to images in one call.

    x_T ~ N(0, sigma^2)                                sigma: the scheduler's ``init_noise_sigma``
    x_s = step(model(x_t, t, class_labels), t, x_t)    for each t of the scheduler's timesteps
    images = clip(x_0, -1, 1)

One loop, :func:`sample`, serves every scheduler; :func:`ddpm` and :func:`ddim` are that loop with the scheduler that their name
says, whatever scheduler the model was trained with. Unlike diffusers' pipelines they take class labels.
"""

import difflib
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np
from tqdm import tqdm

import hcrot.schedulers
from hcrot.init import as_generator, is_int
from hcrot.models.unet_2d import UNet2dModel
from hcrot.schedulers.base import NoiseScheduler

__all__ = ["ddim", "ddpm", "sample"]

GIVEN = ("model_output", "timestep", "sample", "generator", "noise", "return_dict")
"""Arguments of `scheduler.step` that the loop itself settles."""

@overload
def sample(
    model: UNet2dModel, scheduler: NoiseScheduler, *, generator: Any, trajectory: Literal[False] = ..., **options: Any
) -> np.ndarray: ...


@overload
def sample(
    model: UNet2dModel, scheduler: NoiseScheduler, *, generator: Any, trajectory: Literal[True], **options: Any
) -> tuple[np.ndarray, np.ndarray]: ...


def sample(
    model: UNet2dModel,
    scheduler: NoiseScheduler,
    *,
    generator: np.random.Generator | int | Sequence[np.random.Generator | int],
    class_labels: int | np.ndarray | None = None,
    batch_size: int | None = None,
    num_inference_steps: int | None = None,
    progress: bool = True,
    trajectory: bool = False,
    **step_options: Any,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Draw images: start from noise, and let the scheduler take one step for each prediction of the model.

    Args:
        model: with ``sample_size`` in its config, an int or (H, W).
        scheduler: any of hcrot's; its timesteps are set.
        generator: source of all noise, or the seed of a new one. With a list of B generators or seeds image k takes its noise from
            the k-th alone, so it is the same, but for rounding, in a batch of any size.
        class_labels: for a model with classes, one for all images or (B,), one for each.
        batch_size: B; None: as many as there are class_labels or generators, else 1.
        num_inference_steps: None: the scheduler's timesteps as they are, which are all before `set_timesteps` is called.
        progress: whether to show a bar on stderr; there is none where a program has no stderr (windowed ones on Windows).
        trajectory: whether to return what the images came from, too.
        step_options: further arguments of every `scheduler.step`, such as eta.

    Returns:
        images (B, in_channels, H, W) in [-1, 1], of the dtype of the model's parameters; for diffusers' images divide by 2 and add 0.5.
        With ``trajectory`` further (N + 1, B, in_channels, H, W), not clipped: the noise and what each of N steps made of it.

    Raises:
        ValueError: no sample_size; class_labels, generators and batch_size that disagree; further what model and scheduler raise
            for these arguments.
        TypeError: a generator that is neither a numpy.random.Generator nor an int nor a list of them; an option that the scheduler's
            `step` does not take.
    """
    _check_options("sample", scheduler, step_options)
    size = model.config["sample_size"]
    if size is None:
        raise ValueError("pipelines.sample: the model's config has sample_size None, expected an int or (height, width)")
    height, width = (size, size) if is_int(size) else size
    noise = GeneratorPerImage(generator) if isinstance(generator, Sequence) else as_generator("pipelines.sample", generator)
    shape = (_batch_size(batch_size, class_labels, noise), model.config["in_channels"], height, width)

    if num_inference_steps is not None:
        scheduler.set_timesteps(num_inference_steps)
    x = noise.standard_normal(shape, dtype=model.parameters()[0].data.dtype)
    x *= scheduler.init_noise_sigma
    steps = [x]
    for t in tqdm(scheduler.timesteps, desc="sampling", disable=not progress or sys.stderr is None):
        with model.inference():
            prediction = model(scheduler.scale_model_input(x, t), t, class_labels)
        x = scheduler.step(prediction, t, x, generator=noise, **step_options).prev_sample
        if trajectory:
            steps.append(x)
    images = np.clip(x, -1, 1)
    return (images, np.stack(steps)) if trajectory else images


@overload
def ddpm(model: UNet2dModel, scheduler: NoiseScheduler, *, trajectory: Literal[False] = ..., **options: Any) -> np.ndarray: ...


@overload
def ddpm(
    model: UNet2dModel, scheduler: NoiseScheduler, *, trajectory: Literal[True], **options: Any
) -> tuple[np.ndarray, np.ndarray]: ...


def ddpm(model: UNet2dModel, scheduler: NoiseScheduler, **options: Any) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """:func:`sample` with a DDPMScheduler: ``scheduler`` itself, or one of its configuration (Ho et al. 2020, algorithm 2).

    Further arguments, results and errors are those of `sample`.
    """
    scheduler = _as_kind(hcrot.schedulers.DDPMScheduler, scheduler)
    _check_options("ddpm", scheduler, options)
    return sample(model, scheduler, **options)


@overload
def ddim(model: UNet2dModel, scheduler: NoiseScheduler, *, trajectory: Literal[False] = ..., **options: Any) -> np.ndarray: ...


@overload
def ddim(
    model: UNet2dModel, scheduler: NoiseScheduler, *, trajectory: Literal[True], **options: Any
) -> tuple[np.ndarray, np.ndarray]: ...


def ddim(
    model: UNet2dModel, scheduler: NoiseScheduler, *, eta: float = 0.0, num_inference_steps: int = 50, **options: Any
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """:func:`sample` with a DDIMScheduler: ``scheduler`` itself, or one of its configuration (Song et al. 2021, eq. 12).

    Args:
        eta: how much noise each step adds: 0, none, the images depend on the first noise alone; 1, as much as DDPM.

    Further arguments, results and errors are those of `sample`; `use_clipped_model_output` is another option of the steps.
    """
    scheduler = _as_kind(hcrot.schedulers.DDIMScheduler, scheduler)
    _check_options("ddim", scheduler, options)
    return sample(model, scheduler, num_inference_steps=num_inference_steps, eta=eta, **options)


def _as_kind(kind: type[NoiseScheduler], scheduler: NoiseScheduler) -> NoiseScheduler:
    return scheduler if isinstance(scheduler, kind) else kind.from_config(scheduler.config)


def _check_options(function: str, scheduler: NoiseScheduler, options: Mapping[str, Any]) -> None:
    """Raise a TypeError unless each option is one of `sample`'s or of the scheduler's `step`, so that a misspelt one costs no time."""
    if function != "sample" and "generator" not in options:
        raise TypeError(f"pipelines.{function}: generator is missing: a numpy.random.Generator, or an int to seed one")
    if not isinstance(scheduler, NoiseScheduler):
        raise TypeError(f"pipelines.{function}: scheduler is a {type(scheduler).__name__}, expected a noise scheduler")
    parameters = inspect.signature(scheduler.step).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    taken = [name for name in parameters if name not in GIVEN]
    own = [name for name, parameter in inspect.signature(sample).parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]
    for name in options:
        if name not in taken + own:
            near = difflib.get_close_matches(name, taken + own, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            takes = f"{type(scheduler).__name__}.step takes {', '.join(taken) or 'no options'}"
            raise TypeError(f"pipelines.{function}: unknown option {name!r}; {takes}{hint}")


class GeneratorPerImage(np.random.Generator):
    """Draws a batch of normal numbers, each image's from a generator of its own, or from a new one with a seed of its own."""

    def __init__(self, generators: Sequence[np.random.Generator | int]):
        if not generators or isinstance(generators, str | bytes):
            expected = "expected a numpy.random.Generator, an int, or a list with one for each image"
            raise TypeError(f"pipelines.sample: generator is {generators!r:.60}, {expected}")
        self.generators = [as_generator(f"pipelines.sample: image {index}", given) for index, given in enumerate(generators)]
        if len({id(generator) for generator in self.generators}) < len(generators):
            raise ValueError("pipelines.sample: the list of generators has one of them twice, expected one for each image")
        super().__init__(self.generators[0].bit_generator)

    # NumPy's has more arguments, which no scheduler needs.
    def standard_normal(self, size: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:  # type: ignore[override]
        return np.stack([generator.standard_normal(size[1:], dtype=dtype) for generator in self.generators])


def _batch_size(batch_size: int | None, class_labels: Any, noise: np.random.Generator) -> int:
    sizes = {"batch_size": batch_size} if batch_size is not None else {}
    if np.ndim(class_labels):
        sizes["class_labels"] = len(class_labels)
    if isinstance(noise, GeneratorPerImage):
        sizes["generator"] = len(noise.generators)
    if len(set(sizes.values())) > 1 or not all(is_int(size) and size > 0 for size in sizes.values()):
        got = ", ".join(f"{name} of {size}" for name, size in sizes.items())
        raise ValueError(f"pipelines.sample: expected one and the same number of images, an int of at least 1, got {got}")
    return int(next(iter(sizes.values()), 1))
