"""From noise to images in one call, and whole pipelines in diffusers' folders.

    x_T ~ N(0, sigma^2)                                sigma: the scheduler's ``init_noise_sigma``
    x_s = step(model(x_t, t, class_labels), t, x_t)    for each t of the scheduler's timesteps
    images = clip(x_0, -1, 1)

One loop, :func:`sample`, serves every scheduler; :func:`ddpm` and :func:`ddim` are that loop with the scheduler that their name
says, whatever scheduler the model was trained with. Unlike diffusers' pipelines they take class labels.

A pipeline's folder holds ``model_index.json``, which says what there is, ``unet/`` and ``scheduler/``; diffusers opens it with
``DDPMPipeline.from_pretrained`` or ``DDIMPipeline.from_pretrained``.
"""

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

import hcrot.schedulers
from hcrot.files import DIFFUSERS_VERSION, find_folder, read_json, replacing_folder, write_json
from hcrot.models.unet_2d import UNet2dModel
from hcrot.pretrained import MODEL_FILES, PIPELINE_NAME, size_in_bytes, write_model
from hcrot.schedulers.config import CONFIG_NAME as SCHEDULER_NAME
from hcrot.schedulers.config import SchedulerConfig

# ---------------------------------------------------------------- sampling


def sample(
    model: UNet2dModel,
    scheduler: SchedulerConfig,
    *,
    generator: np.random.Generator | Sequence[np.random.Generator],
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
        generator: source of all noise. With a list of B generators image k takes its noise from the k-th alone, so it is the
            same, but for rounding, in a batch of any size; `[np.random.default_rng(seed) for seed in seeds]` makes one.
        class_labels: for a model with classes, one for all images or (B,), one for each.
        batch_size: B; None: as many as there are class_labels or generators, else 1.
        num_inference_steps: None: the scheduler's timesteps as they are, which are all before `set_timesteps` is called.
        progress: whether to show a bar on stderr.
        trajectory: whether to return what the images came from, too.
        step_options: further arguments of every `scheduler.step`, such as eta.

    Returns:
        images (B, in_channels, H, W) in [-1, 1], of the dtype of the model's parameters; for diffusers' images divide by 2 and add 0.5.
        With ``trajectory`` further (N + 1, B, in_channels, H, W), not clipped: the noise and what each of N steps made of it.

    Raises:
        ValueError: no sample_size; class_labels, generators and batch_size that disagree; further what model and scheduler have
            against the arguments.
        TypeError: a generator that is neither a numpy.random.Generator nor a list of them.
    """
    size = model.config["sample_size"]
    if size is None:
        raise ValueError("sample: the model's config has sample_size None, expected an int or (height, width)")
    height, width = (size, size) if isinstance(size, int) else size
    noise = generator if isinstance(generator, np.random.Generator) else GeneratorPerImage(generator)
    shape = (_batch_size(batch_size, class_labels, noise), model.config["in_channels"], height, width)

    if num_inference_steps is not None:
        scheduler.set_timesteps(num_inference_steps)
    x = noise.standard_normal(shape, dtype=model.parameters()[0].data.dtype)
    x *= scheduler.init_noise_sigma
    steps = [x]
    for t in tqdm(scheduler.timesteps, desc="sampling", disable=not progress):
        with model.inference():
            prediction = model(scheduler.scale_model_input(x, t), t, class_labels)
        x = scheduler.step(prediction, t, x, generator=noise, **step_options).prev_sample
        if trajectory:
            steps.append(x)
    images = np.clip(x, -1, 1)
    return (images, np.stack(steps)) if trajectory else images


def ddpm(model: UNet2dModel, scheduler: SchedulerConfig, **options: Any) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """:func:`sample` with a DDPMScheduler: ``scheduler`` itself, or one of its configuration (Ho et al. 2020, algorithm 2).

    Further arguments, results and errors are those of `sample`.
    """
    return sample(model, _as_kind(hcrot.schedulers.DDPMScheduler, scheduler), **options)


def ddim(
    model: UNet2dModel, scheduler: SchedulerConfig, *, eta: float = 0.0, num_inference_steps: int = 50, **options: Any
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """:func:`sample` with a DDIMScheduler: ``scheduler`` itself, or one of its configuration (Song et al. 2021, eq. 12).

    Args:
        eta: how much noise each step adds: 0, none, the images depend on the first noise alone; 1, as much as DDPM.

    Further arguments, results and errors are those of `sample`; `use_clipped_model_output` is another option of the steps.
    """
    scheduler = _as_kind(hcrot.schedulers.DDIMScheduler, scheduler)
    return sample(model, scheduler, num_inference_steps=num_inference_steps, eta=eta, **options)


def _as_kind(kind: type[SchedulerConfig], scheduler: SchedulerConfig) -> SchedulerConfig:
    return scheduler if isinstance(scheduler, kind) else kind.from_config(scheduler.config)


class GeneratorPerImage(np.random.Generator):
    """Draws a batch of normal numbers, each image's from a generator of its own."""

    def __init__(self, generators: Sequence[np.random.Generator]):
        if not isinstance(generators, Sequence) or not generators or not all(isinstance(g, np.random.Generator) for g in generators):
            raise TypeError(f"sample: generator must be a numpy.random.Generator or a list of them, got {generators!r:.60}")
        if len({id(generator) for generator in generators}) < len(generators):
            raise ValueError("sample: the list of generators has one of them twice, expected one for each image")
        super().__init__(generators[0].bit_generator)
        self.generators = generators

    def standard_normal(self, size: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:
        return np.stack([generator.standard_normal(size[1:], dtype=dtype) for generator in self.generators])


def _batch_size(batch_size: int | None, class_labels: int | np.ndarray | None, noise: np.random.Generator) -> int:
    sizes = {"batch_size": batch_size} if batch_size is not None else {}
    if np.ndim(class_labels):
        sizes["class_labels"] = len(class_labels)
    if isinstance(noise, GeneratorPerImage):
        sizes["generator"] = len(noise.generators)
    if len(set(sizes.values())) > 1 or not all(isinstance(size, int) and size > 0 for size in sizes.values()):
        got = ", ".join(f"{name} of {size}" for name, size in sizes.items())
        raise ValueError(f"sample: expected one and the same number of images, at least 1, got {got}")
    return next(iter(sizes.values()), 1)


# ---------------------------------------------------------------- folders


def save(folder: str | os.PathLike, model: UNet2dModel, scheduler: SchedulerConfig, *, max_shard_size: int | str = "10GB") -> None:
    """Write a pipeline's folder, in the place of the one that is there, in one move.

    Args:
        folder: made with its parents if need be. An earlier pipeline in it is replaced.
        model, scheduler: what the pipeline consists of.
        max_shard_size: as in `model.save_pretrained`.

    Raises:
        FileExistsError, ValueError, OSError: as `model.save_pretrained`.
    """
    limit, kind = size_in_bytes(max_shard_size), type(scheduler).__name__
    index = {
        "_class_name": "DDIMPipeline" if kind == "DDIMScheduler" else "DDPMPipeline",
        "_diffusers_version": DIFFUSERS_VERSION,
        "unet": ["diffusers", model.class_name],
        "scheduler": ["diffusers", kind],
    }
    files = rf"{re.escape(PIPELINE_NAME)}|unet/({MODEL_FILES})|scheduler/{re.escape(SCHEDULER_NAME)}"
    with replacing_folder("pipelines.save", folder, files) as new:
        write_json(new / PIPELINE_NAME, index)
        (new / "unet").mkdir()
        write_model(new / "unet", model, limit)
        scheduler.save_pretrained(new / "scheduler")


def load(folder: str | os.PathLike) -> tuple[UNet2dModel, SchedulerConfig]:
    """The model and the scheduler of a pipeline's folder that hcrot or diffusers wrote; both may lie in the folder itself, too.

    Raises:
        FileNotFoundError: no such folder, or one of the files is missing.
        ValueError: a file that is damaged, a pipeline of something else, weights that do not fit; the message names the file.
        NotImplementedError: a model or a scheduler that hcrot does not have.
    """
    folder = find_folder("pipelines.load", folder)
    path = folder / PIPELINE_NAME
    index = read_json(path)
    parts = {name: index.get(name) for name in ("unet", "scheduler")}
    for name, part in parts.items():
        if not isinstance(part, list) or len(part) != 2 or not isinstance(part[1], str):
            raise ValueError(f"pipelines.load: {path} says of {name} {part!r:.60}, expected a library and a class")
    kind = vars(hcrot.schedulers).get(parts["scheduler"][1])
    if parts["unet"][1] != UNet2dModel.class_name or not (isinstance(kind, type) and issubclass(kind, SchedulerConfig)):
        raise NotImplementedError(f"pipelines.load: {path} asks for {parts['unet'][1]} with {parts['scheduler'][1]}, hcrot has no such two")
    model = UNet2dModel.from_pretrained(folder)
    place = (folder / "scheduler" if (folder / "scheduler").is_dir() else folder) / SCHEDULER_NAME
    config = read_json(place)
    try:
        return model, kind.from_config(config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"pipelines.load: {place}: {error}") from error
