"""The networks that the page can use: the digits that come with hcrot, and those of the runs folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import hcrot
from hcrot.files.json_and_arrays import read_json
from hcrot.files.runs import SMALL
from hcrot.models.unet_2d import UNet2dModel
from hcrot.samplers import SAMPLERS, sampler_of
from hcrot.schedulers.base import NoiseScheduler
from hcrot.schedulers.ddim import DDIMScheduler
from hcrot.view.messages import Request

__all__ = ["BUNDLED", "Loaded", "Networks"]

BUNDLED = "digits"
KEPT = 3  # networks in memory, the latest ones
DIGITS = Path(__file__).with_name("digits")


@dataclass(eq=False)
class Loaded:
    """A network, its scheduler, and what is known of its classes.

    Attributes:
        classes: their names; [] if it has none.
        null: the label that means "of any class"; None: there is none, and no guidance.
        shape: (C, H, W) of its pictures.
        large: of a run of two networks the second one, which enlarges these pictures, and its scheduler; else None.
    """

    model: UNet2dModel
    scheduler: NoiseScheduler
    classes: list[str]
    null: int | None
    shape: tuple[int, int, int]
    large: tuple[UNet2dModel, NoiseScheduler] | None = None

    def labels(self, request: Request, name: str = "labels") -> np.ndarray | None:
        """Of a request: a label for each picture; None of a network without classes."""
        if not self.classes:
            return None
        return np.array(request.labels(name, len(self.classes) + (self.null is not None), self.null))

    def how(self, request: Request, labels: np.ndarray | None, sampler: NoiseScheduler) -> dict[str, Any]:
        """Of a request: what ``hcrot.pipelines.sample`` is told of classes, guidance and the number of steps, for a sampler."""
        scale, options = request.number("guidance", 0, 20), dict[str, Any](progress=False)
        options["num_inference_steps"] = request.whole("steps", 1, len(self.scheduler))
        if labels is not None:
            options["class_labels"] = labels
            if scale != 1 and self.null is not None and (labels != self.null).any():
                options |= {"guidance_scale": scale, "null_label": self.null}
                if isinstance(sampler, DDIMScheduler):  # a guided x_0 is clipped so often that the noise no longer goes with it
                    options["use_clipped_model_output"] = True
        return options

    def sampler(self, request: Request) -> NoiseScheduler:
        return sampler_of(request.choice("sampler", SAMPLERS), self.scheduler)


class Networks:
    """Those that there are, each loaded when it is first used, and again when its file has changed.

    Args:
        runs: the folder of the runs.
    """

    def __init__(self, runs: Path):
        self.runs = runs
        self._loaded: dict[str, tuple[list[float], Loaded]] = {}

    def names(self) -> list[str]:
        """The bundled one first, then runs with a checkpoint that can draw, the latest first."""
        names = {path.name for path in self.runs.glob("*") if (self._checkpoint(path.name) / "scheduler_config.json").is_file()}
        return [BUNDLED, *sorted(names - {BUNDLED}, key=lambda name: -self._checkpoint(name).stat().st_mtime)]

    def about(self) -> list[dict[str, Any]]:
        """What the page's lists show; of each network its name, classes, the size of its pictures, the times of its noise."""
        described = []
        for name in self.names():
            try:
                config = read_json(self._config(name))
                size, classes, times = config.get("sample_size"), self._classes(name, config), self._times(name)
                large = [read_json(folder / "config.json").get("sample_size") for folder in self._large(name)]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # a run that is just being written, or damaged
            if isinstance(size, int):
                null = bool(classes) and (config.get("num_class_embeds") or 0) > len(classes)
                channels = config.get("in_channels")
                about = {"name": name, "classes": classes, "guided": null, "size": size, "channels": channels, "times": times}
                described.append(about | {"enlarged": large[0] if large else None})
        return described

    def get(self, request: Request) -> Loaded:
        """The network that a request names.

        Raises:
            ValueError: there is none of that name, or it is no U-Net; OSError, ValueError: its files are damaged.
        """
        name = request.choice("network", self.names())
        changed = [path.stat().st_mtime for path in [self._config(name), *(folder / "config.json" for folder in self._large(name))]]
        if name not in self._loaded or self._loaded[name][0] != changed:
            model, scheduler = hcrot.pipelines.load(DIGITS if name == BUNDLED else self._checkpoint(name))
            if not isinstance(model, UNet2dModel) or not isinstance(model.config["sample_size"], int):
                raise ValueError(f"{name} is a {type(model).__name__}, expected a UNet2dModel of square pictures")
            classes = self._classes(name, model.config)
            count, size = model.config["num_class_embeds"] or 0, model.config["sample_size"]
            null = count - 1 if count > len(classes) else None
            large = None
            for folder in self._large(name):
                second, its_scheduler = hcrot.pipelines.load(folder)
                large = second.eval(), its_scheduler
            while len(self._loaded) >= KEPT:
                del self._loaded[next(iter(self._loaded))]
            shape = (model.config["in_channels"], size, size)
            self._loaded[name] = (changed, Loaded(model.eval(), scheduler, classes, null, shape, large))
        return self._loaded[name][1]

    def _checkpoint(self, name: str) -> Path:
        """Of a run of two networks the first one's."""
        inner = self.runs / name / SMALL / "checkpoint"
        return inner if inner.is_dir() else self.runs / name / "checkpoint"

    def _large(self, name: str) -> list[Path]:
        """Of a run of two networks the second one's checkpoint; none as long as the first one learns."""
        outer = self.runs / name / "checkpoint"
        return [outer] if self._checkpoint(name) != outer and (outer / "scheduler_config.json").is_file() else []

    def _config(self, name: str) -> Path:
        return (DIGITS / "unet" if name == BUNDLED else self._checkpoint(name)) / "config.json"

    def _times(self, name: str) -> int:
        folder = DIGITS / "scheduler" if name == BUNDLED else self._checkpoint(name)
        return int(read_json(folder / "scheduler_config.json")["num_train_timesteps"])

    def _classes(self, name: str, config: dict[str, Any]) -> list[str]:
        """classes.json of the run, else a number for each class; of ten or eleven they are the digits, and the eleventh is none."""
        path, count = self.runs / name / "classes.json", config.get("num_class_embeds") or 0
        if name != BUNDLED and path.is_file():
            return [str(word) for word in read_json(path)["classes"]]
        return [str(number) for number in range(min(count, 10) if count == 11 else count)]
