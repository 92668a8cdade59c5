"""From noise to images in one call.

    x_T ~ N(0, sigma^2)                                sigma: the scheduler's ``init_noise_sigma``
    x_s = step(model(x_t, t, class_labels), t, x_t)    for each t of the scheduler's timesteps
    images = clip(x_0, -1, 1)

One loop, :func:`steps`, serves every scheduler, and :func:`sample` runs it to its end; :func:`ddpm` and :func:`ddim` are that with the
scheduler that their name says, whatever scheduler the model was trained with. Unlike diffusers' pipelines they take class labels.

What else one does with a trained model is this loop, begun elsewhere or with something done between its steps: begin with an image that was
noised to a level (``sample``, ``start_timestep``), change what a step gave (``after_step``), show the network another image beside x_t
(``condition``), or ask for more of a class than the network gives (``guidance_scale``).

**Classifier-free guidance** (Ho & Salimans 2022, arXiv:2207.12598, eq. 6). Trained with labels that were now and then replaced by a label
for "no class", a network tells both. Their difference points towards the class, and is made longer:

    m = m(x, null) + w (m(x, label) - m(x, null))      w = guidance_scale; 1: the network as it is

At high noise that makes the images alike, at low noise it does little: guided in an interval between, they are clear and various
(Kynkaanniemi et al. 2024, arXiv:2404.07724).
"""

import difflib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from tqdm import tqdm

import hcrot.schedulers
from hcrot.init import as_generator, is_int, is_real
from hcrot.models.unet_2d import UNet2dModel
from hcrot.module import Module, describe_shape
from hcrot.pipelines.generators import GeneratorPerImage
from hcrot.pipelines.score_step import score_step
from hcrot.schedulers.base import NoiseScheduler
from hcrot.schedulers.score_sde import ScoreSdeScheduler
from hcrot.schedulers.score_sde_ve import ScoreSdeVeScheduler

__all__ = ["Step", "ddim", "ddpm", "sample", "steps"]

GIVEN = ("model_output", "timestep", "sample", "generator", "noise", "return_dict", "predict", "scheduler", "last")
"""Arguments of `scheduler.step` that the loop itself settles."""


class Step(NamedTuple):
    """One step of the loop.

    Attributes:
        timestep: t.
        sample: x_t, (B, C, H, W).
        pred_original_sample: the estimate of x_0 that the step was made with; None from schedulers that have none.
        prev_sample: x_s, what the step gave.
        prev_timestep: s, the timestep to come; -1 if x_s is the image.
    """

    timestep: Any
    sample: np.ndarray
    pred_original_sample: np.ndarray | None
    prev_sample: np.ndarray
    prev_timestep: Any


@overload
def sample(model: Module, scheduler: NoiseScheduler, *, generator: Any, trajectory: Literal[False] = ..., **options: Any) -> np.ndarray: ...


@overload
def sample(
    model: Module, scheduler: NoiseScheduler, *, generator: Any, trajectory: Literal[True], **options: Any
) -> tuple[np.ndarray, np.ndarray]: ...


def sample(
    model: Module,
    scheduler: NoiseScheduler,
    *,
    generator: np.random.Generator | int | Sequence[np.random.Generator | int],
    class_labels: int | np.ndarray | None = None,
    batch_size: int | None = None,
    num_inference_steps: int | None = None,
    timesteps: Sequence[float] | None = None,
    sample: np.ndarray | None = None,
    start_timestep: float | None = None,
    condition: np.ndarray | None = None,
    guidance_scale: float = 1.0,
    guidance_interval: tuple[float, float] | None = None,
    null_label: int | None = None,
    prompt_embeds: np.ndarray | None = None,
    negative_prompt_embeds: np.ndarray | None = None,
    after_step: Callable[[Step], np.ndarray | None] | None = None,
    progress: bool = True,
    trajectory: bool = False,
    **step_options: Any,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Draw images: start from noise, and let the scheduler take one step for each prediction of the model.

    Args:
        model: with ``sample_size`` in its config, an int or (H, W); with ``sample`` any module that is called ``model(x, t)``, or with
            labels ``model(x, t, class_labels)``, with a text ``model(x, t, prompt_embeds)``.
        scheduler: any of hcrot's; its timesteps are set.
        generator: source of all noise, or the seed of a new one. With a list of B generators or seeds image k takes its noise from
            the k-th alone, so it is the same, but for rounding, in a batch of any size.
        class_labels: for a model with classes, one for all images or (B,), one for each.
        batch_size: B; None: as many as there are class_labels, generators or samples, else 1.
        num_inference_steps: None: the scheduler's timesteps as they are, which are all before `set_timesteps` is called.
        timesteps: instead, a list of them for `scheduler.set_timesteps`.
        sample: x_t to begin with, (B, C, H, W), instead of noise; such as ``scheduler.add_noise(images, noise, t)``.
        start_timestep: t of ``sample``: the loop begins at the first timestep that is not above it. None: at the first of all.
        condition: (B, K, H, W), joined to x_t along channels wherever the network sees it. The network then has K ``in_channels`` more.
        guidance_scale: w of classifier-free guidance; with another than 1 the network is called with twice as many images. With DDIM and
            clip_sample, ``use_clipped_model_output=True`` should go with it: else the noise of a step does not belong to its x_0.
        guidance_interval: (lowest, highest) timestep that is guided, as the others cost half and keep what is various; None: all are.
        null_label: the label that means "no class".
        prompt_embeds: what a network with a text is given as ``encoder_hidden_states``, (B, K, D), or (1, K, D) for all images.
        negative_prompt_embeds: the same for "no text", for guidance. What has no such second value is the same on both sides of w.
        after_step: called with each :class:`Step`. If it returns an array, that takes the place of x_s.
        progress: whether to show a bar on stderr; there is none where a program has no stderr (windowed ones on Windows).
        trajectory: whether to return what the images came from, too.
        step_options: further arguments of every `scheduler.step`, such as eta. For the ScoreSde schedulers, which have none:
            ``correct_steps``, ``snr`` and ``time_scale`` of hcrot/pipelines/score_step.py, predictor-corrector sampling.

    Returns:
        images (B, C, H, W) in [-1, 1], of the dtype of the model's parameters; for diffusers' images divide by 2 and add 0.5.
        With ``trajectory`` further (N + 1, B, C, H, W), not clipped: the noise and what each of N steps made of it.

    Raises:
        ValueError: no sample_size; arguments that disagree about the number or the shape of images; a start_timestep below all timesteps;
            guidance without null_label or negative_prompt_embeds; further what model and scheduler raise for these arguments.
        TypeError: a generator that is neither a numpy.random.Generator nor an int nor a list of them; an option that the scheduler's
            `step` does not take.

    Example:
        >>> model, scheduler = hcrot.UNet2dModel(
        ...     sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=4,
        ...     down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, generator=0,
        ... ), hcrot.DDPMScheduler(num_train_timesteps=100)
        >>> hcrot.pipelines.sample(model, scheduler, batch_size=2, num_inference_steps=3, generator=0).shape
        (2, 1, 8, 8)
    """
    loop = steps(
        model, scheduler, generator=generator, class_labels=class_labels, batch_size=batch_size, num_inference_steps=num_inference_steps,
        timesteps=timesteps, sample=sample, start_timestep=start_timestep, condition=condition, guidance_scale=guidance_scale,
        guidance_interval=guidance_interval, null_label=null_label, prompt_embeds=prompt_embeds,
        negative_prompt_embeds=negative_prompt_embeds, after_step=after_step, progress=progress, **step_options,
    )  # fmt: skip
    kept: list[np.ndarray] = []
    for step in loop:
        if trajectory:
            kept += [step.sample, step.prev_sample] if not kept else [step.prev_sample]
    images = np.clip(step.prev_sample, -1, 1)
    return (images, np.stack(kept)) if trajectory else images


def steps(
    model: Module,
    scheduler: NoiseScheduler,
    *,
    generator: np.random.Generator | int | Sequence[np.random.Generator | int],
    class_labels: int | np.ndarray | None = None,
    batch_size: int | None = None,
    num_inference_steps: int | None = None,
    timesteps: Sequence[float] | None = None,
    sample: np.ndarray | None = None,
    start_timestep: float | None = None,
    condition: np.ndarray | None = None,
    guidance_scale: float = 1.0,
    guidance_interval: tuple[float, float] | None = None,
    null_label: int | None = None,
    prompt_embeds: np.ndarray | None = None,
    negative_prompt_embeds: np.ndarray | None = None,
    after_step: Callable[[Step], np.ndarray | None] | None = None,
    progress: bool = True,
    **step_options: Any,
) -> Iterator[Step]:
    """The loop of :func:`sample`, step by step: ``for step in steps(model, scheduler, generator=0): ...``.

    Arguments and errors are those of `sample`; errors are raised by this call, before the first step. The last step's ``prev_sample`` are
    the images, not clipped.
    """
    _check_options("sample", scheduler, step_options)
    noise = GeneratorPerImage(generator) if isinstance(generator, Sequence) else as_generator("pipelines.sample", generator)
    batch = _batch_size(batch_size, class_labels, prompt_embeds, noise, sample=sample, condition=condition)
    shape = (batch, *(_image_shape(model, condition) if sample is None else sample.shape[1:]))
    if condition is not None and condition.shape[2:] != shape[2:]:
        raise ValueError(f"pipelines.sample: condition has shape {condition.shape}, expected ({batch}, K, {shape[2]}, {shape[3]})")
    if start_timestep is not None and sample is None:
        raise ValueError("pipelines.sample: start_timestep is given, but no sample that is at that level")
    pairs = {"prompt_embeds": (prompt_embeds, negative_prompt_embeds), "class_labels": (class_labels, null_label)}
    predict = _prediction(model, batch, condition, guidance_scale, guidance_interval, pairs)

    if num_inference_steps is not None or timesteps is not None:
        given: dict[str, Any] = {"num_inference_steps": num_inference_steps, "timesteps": timesteps}
        scheduler.set_timesteps(**{name: value for name, value in given.items() if value is not None})
        if isinstance(scheduler, ScoreSdeVeScheduler):
            scheduler.set_sigmas(len(scheduler.timesteps))
    visited = visited_from("pipelines.sample: start_timestep", scheduler, start_timestep)
    if len(visited) < len(scheduler.timesteps) and visited[:1] == visited[1:2]:
        del visited[0]  # a timestep that comes twice ends one step and begins the next
    if sample is None:
        sample = noise.standard_normal(shape, dtype=model.parameters()[0].data.dtype) * scheduler.init_noise_sigma
    return _walk(predict, scheduler, visited, sample, noise, after_step, progress, step_options)


def visited_from(what: str, scheduler: NoiseScheduler, start_timestep: float | None) -> list[Any]:
    """Those of the scheduler's timesteps that are not above this one; None: all.

    Raises:
        ValueError: there are none; the message begins with ``what``.
    """
    visited = [t for t in scheduler.timesteps if start_timestep is None or t <= start_timestep]
    if not visited:
        raise ValueError(f"{what} {start_timestep} is below all timesteps, of which {min(scheduler.timesteps)} is the lowest")
    return visited


def _walk(
    predict: Callable[[np.ndarray, Any], np.ndarray],
    scheduler: NoiseScheduler,
    visited: list[Any],
    x: np.ndarray,
    noise: np.random.Generator,
    after_step: Callable[[Step], np.ndarray | None] | None,
    progress: bool,
    options: Mapping[str, Any],
) -> Iterator[Step]:
    """The loop itself, from x at the first timestep on."""
    bar = tqdm(visited, desc="sampling", disable=not progress or sys.stderr is None)
    for t, following in zip(bar, [*visited[1:], -1], strict=True):
        if isinstance(scheduler, ScoreSdeScheduler):
            output = score_step(predict, scheduler, t, x, noise, following == -1, **options)
        else:
            output = scheduler.step(predict(scheduler.scale_model_input(x, t), t), t, x, generator=noise, **options)
        step = Step(t, x, output.pred_original_sample, output.prev_sample, following)
        changed = after_step(step) if after_step else None
        if changed is not None:
            if not isinstance(changed, np.ndarray) or changed.shape != x.shape or changed.dtype != x.dtype:
                raise ValueError(f"pipelines.sample: after_step gave {describe_shape(changed)}, expected {x.dtype} {x.shape} or None")
            step = step._replace(prev_sample=changed)
        yield step
        x = step.prev_sample


def _prediction(
    model: Module,
    batch: int,
    condition: np.ndarray | None,
    guidance_scale: float,
    interval: tuple[float, float] | None,
    pairs: Mapping[str, tuple[Any, Any]],
) -> Callable[[np.ndarray, Any], np.ndarray]:
    """A function of x_t and t: what the network says, in inference, guided if asked for.

    ``pairs`` has what the network is told of the images, in the order of its arguments, and what tells it nothing: of a text, of labels.
    """
    if isinstance(guidance_scale, bool) or not is_real(guidance_scale) or not np.isfinite(guidance_scale):
        raise ValueError(f"pipelines.sample: guidance_scale must be a finite number, got {guidance_scale!r}")
    guided = guidance_scale != 1
    if guided and not any(given is not None and null is not None for given, null in pairs.values()):
        raise ValueError(
            f"pipelines.sample: guidance_scale {guidance_scale} needs class_labels and null_label, the label of no class, or prompt_embeds "
            "and negative_prompt_embeds"
        )
    if interval is not None and not (np.shape(interval) == (2,) and all(map(is_real, interval)) and interval[0] <= interval[1]):
        raise ValueError(f"pipelines.sample: guidance_interval must be (lowest, highest) timestep, got {interval!r:.60}")
    lowest, highest = interval or (-np.inf, np.inf)
    told = [_with_and_without(name, given, null, batch) for name, (given, null) in pairs.items() if given is not None]

    def predict(x: np.ndarray, t: Any) -> np.ndarray:
        channels = x.shape[1]
        seen = x if condition is None else np.concatenate([x, condition.astype(x.dtype, copy=False)], axis=1)
        here = guided and lowest <= t <= highest
        of_images = [np.concatenate(both) if here else both[0] for both in told]
        with nullcontext() if getattr(model, "needs_backward", False) else model.inference():
            output = model(np.concatenate([seen, seen]) if here else seen, t, *of_images)
        if not here:
            return output
        with_class, without = output[:batch], output[batch:]
        m = without[:, :channels] + x.dtype.type(guidance_scale) * (with_class[:, :channels] - without[:, :channels])
        return m if output.shape[1] == channels else np.concatenate([m, with_class[:, channels:]], axis=1)  # the rest: a learned variance

    return predict


def _with_and_without(name: str, given: Any, null: Any, batch: int) -> list[np.ndarray]:
    """What the network is given for each image of a batch, and what tells it nothing; the same twice if there is none."""
    rows = []
    for value in (given, given if null is None else null):
        value = np.asarray(value).reshape(-1) if name == "class_labels" else np.asarray(value)
        if name == "prompt_embeds" and (value.ndim != 3 or len(value) not in (1, batch)):
            raise ValueError(f"pipelines.sample: {name} must be of shape ({batch}, K, D) or (1, K, D), got {value.shape}")
        rows.append(np.ascontiguousarray(np.broadcast_to(value, (batch, *value.shape[1:]))))
    return rows


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
    parameters = inspect.signature(score_step if isinstance(scheduler, ScoreSdeScheduler) else scheduler.step).parameters
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


def _batch_size(
    batch_size: int | None, class_labels: Any, prompt_embeds: Any, noise: np.random.Generator, **arrays: np.ndarray | None
) -> int:
    sizes = {"batch_size": batch_size} if batch_size is not None else {}
    if np.ndim(class_labels):
        sizes["class_labels"] = len(class_labels)
    if np.ndim(prompt_embeds) and len(prompt_embeds) != 1:
        sizes["prompt_embeds"] = len(prompt_embeds)
    if isinstance(noise, GeneratorPerImage):
        sizes["generator"] = len(noise.generators)
    for name, array in arrays.items():
        if array is not None and (not isinstance(array, np.ndarray) or array.ndim != 4):
            raise ValueError(f"pipelines.sample: {name} must be images (B, C, H, W), got {describe_shape(array)}")
        if array is not None:
            sizes[name] = len(array)
    if len(set(sizes.values())) > 1 or not all(is_int(size) and size > 0 for size in sizes.values()):
        got = ", ".join(f"{name} of {size}" for name, size in sizes.items())
        raise ValueError(f"pipelines.sample: expected one and the same number of images, an int of at least 1, got {got}")
    return int(next(iter(sizes.values()), 1))


def _image_shape(model: Module, condition: np.ndarray | None) -> tuple[int, int, int]:
    """C, H and W of the images that a network makes, by its config."""
    config = getattr(model, "config", {})
    size = config.get("sample_size")
    if size is None:
        raise ValueError("pipelines.sample: the model's config has sample_size None, expected an int or (height, width)")
    height, width = (size, size) if is_int(size) else size
    channels, of_condition = config["in_channels"], 0 if condition is None else condition.shape[1]
    if channels <= of_condition:
        raise ValueError(f"pipelines.sample: condition has {of_condition} channels, but in_channels of the model are {channels}")
    return channels - of_condition, height, width
