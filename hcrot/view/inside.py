"""The picture of the U-Net, and what every layer of it holds: outputs, attention, the gradient that flows back, and time."""

import inspect
import textwrap
from typing import Any

import numpy as np

import hcrot
from hcrot.eyes.profile import Profile
from hcrot.eyes.watch import Seen, Watch
from hcrot.models.unet_2d import UNet2dModel
from hcrot.models.unet_2d_blocks import Level
from hcrot.training.progress import target_of
from hcrot.view.edit import first_picture
from hcrot.view.messages import Request, pack, symmetric
from hcrot.view.networks import Loaded, Networks
from hcrot.view.worker import Report

__all__ = ["Inside", "graph"]

CHANNELS = 64  # of a layer are shown
HOW = {"steps": 15, "guidance": 1.5}  # how the picture is drawn that the network looks at


class Inside:
    """Looks into a network. The last look is kept, so that a click on another layer need not compute anything."""

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._look: tuple[Watch, dict[str, Any]] | None = None

    def look(self, networks: Networks, request: Request, report: Report) -> None:
        """Reports "network", the picture with the numbers of each layer, and "layer", the maps of one layer, if the request names one."""
        loaded = networks.get(request)
        labels, seed = loaded.labels(request), request.whole("seed", 0, 2**31)
        t, layer = request.whole("t", 0, len(loaded.scheduler) - 1), request.values.get("layer")
        key = (loaded, None if labels is None else labels.tolist(), seed, t)
        if self._look is None or key != self._key:
            self._look, self._key = looked(loaded, labels, seed, t), key
        seen, about = self._look
        report({"kind": "network", **about})
        if layer is not None:
            report({"kind": "layer", **layer_maps(loaded.model, seen, request.choice("layer", list(seen.layers)))})


def looked(loaded: Loaded, labels: np.ndarray | None, seed: int, t: int) -> tuple[Watch, dict[str, Any]]:
    """One step of training that learns nothing: a picture is noised, the noise predicted, and the error sent back."""
    model, picture = loaded.model, first_picture(loaded, labels, seed, Request(HOW))[None]
    nodes, skips = graph(model)
    noise = np.random.default_rng([seed, 1]).standard_normal(picture.shape, dtype=np.float32)
    times = np.array([t])
    noisy = loaded.scheduler.add_noise(picture, noise, times)
    inputs = (noisy, times) if labels is None else (noisy, times, labels[:1])
    target = target_of(loaded.scheduler, loaded.scheduler.config["prediction_type"], picture, noise, times)
    model.train()
    try:
        with hcrot.watch(model, keep=True, attention=True) as seen:
            output = model(*inputs)
            loss, dout = hcrot.mse_loss(output, target)
            model.backward(dout)
        norms = {name: float(np.linalg.norm(parameter.grad)) for name, parameter in model.named_parameters()}
        times_ = hcrot.profile(model, *inputs, repeats=3)
    finally:
        model.zero_grad()
        model.eval()
    numbers = [node | numbers_of(node["name"], seen, times_, norms) for node in nodes]
    about = {
        "nodes": numbers, "skips": skips, "loss": loss, "parameters": model.num_parameters(),
        "forward": 1e3 * times_.forward, "backward": 1e3 * times_.backward,
        "images": {"x0": pack(picture), "xt": pack(noisy), "output": pack(output), "target": pack(target)},
    }  # fmt: skip
    return seen, about


def numbers_of(name: str, seen: Watch, times: Profile, norms: dict[str, float]) -> dict[str, Any]:
    """Of one layer: its shape, the sizes of its output, of the gradient that came back to it and of its parameters' gradients, and ms."""
    layer, line = seen[name], times[name]
    own = [norm for key, norm in norms.items() if key.startswith(f"{name}.")]
    return {
        "shape": list(layer.output.shape[1:]) if layer.output else [], "rms": layer.output.rms if layer.output else None,
        "gradient": layer.gradient.rms if layer.gradient else None, "parameter_gradient": float(np.hypot.reduce(own)) if own else None,
        "forward": 1e3 * line.forward, "backward": 1e3 * line.backward,
    }  # fmt: skip


def layer_maps(model: UNet2dModel, seen: Watch, name: str) -> dict[str, Any]:
    """Everything the page shows of a layer that was clicked."""
    layer, module = seen[name], dict(model.named_modules())[name]
    parts = [f"{name}.{part}" for part, _ in module.named_children() if f"{name}.{part}" in seen.layers]
    message: dict[str, Any] = {
        "name": name, "class": layer.kind, "parts": parts, "calls": layer.calls,
        "forward_source": source_of(module, "forward"), "backward_source": source_of(module, "backward"),
        "output": maps_of(layer, layer.outputs), "gradients": maps_of(layer, layer.gradients),
    }  # fmt: skip
    for what, numbers in (("output", layer.output), ("gradients", layer.gradient)):
        if numbers is not None and message[what]:
            message[what] |= {"rms": numbers.rms, "min": numbers.min, "max": numbers.max, "zeros": numbers.zeros / numbers.size}
    if layer.attention:
        _, heads, queries, keys = layer.attention[-1].shape
        message["attention"] = {"heads": heads, "queries": queries, "keys": keys, "maps": symmetric(layer.attention[-1][0])}
    return message


def maps_of(layer: Seen, arrays: list[np.ndarray]) -> dict[str, Any] | None:
    """The latest of a layer's arrays as heat maps: (C, H, W) as it is, (C,) as one row."""
    if not arrays:
        return None
    array = arrays[-1][0]
    maps = array if array.ndim == 3 else array.reshape(1, 1, -1)
    return {"channels": len(array), "maps": symmetric(maps[:CHANNELS])}


def source_of(module: hcrot.Module, way: str) -> str:
    """Of a module's method; "" where there is none to be read."""
    try:
        return textwrap.dedent(inspect.getsource(getattr(type(module), way)))
    except (OSError, TypeError):
        return ""


def graph(model: UNet2dModel) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """The layers that the picture shows, in the order of the forward, and the skips as pairs of names.

    The stack of skips is walked as the blocks walk it: down blocks push, up blocks pop.

    Raises:
        ValueError: a network with blocks of one's own, whose parts this cannot know.
    """
    nodes, stack, skips = list[dict[str, Any]](), list[str](), list[list[str]]()

    def add(name: str, side: str, level: int, kind: str) -> str:
        nodes.append({"name": name, "side": side, "level": level, "kind": kind})
        return name

    def layers(block: Any, prefix: str, side: str, level: int, pops: bool = False) -> list[str]:
        """Residual blocks with what follows each; the last part of each gives its result."""
        if not isinstance(block, Level):
            raise ValueError(f"{type(block).__name__} is no block of hcrot's, and this page cannot know its parts")
        results = []
        for index in range(len(block.resnets)):
            result = add(f"{prefix}.resnets.{index}", side, level, "resnet")
            if pops:
                skips.append([stack.pop(), result])
            if index < len(block.attentions):
                result = add(f"{prefix}.attentions.{index}", side, level, "attention")
            results.append(result)
        return results

    add("time_embedding", "time", 0, "embedding")
    if model.class_embedding:
        add("class_embedding", "time", 0, "embedding")
    stack.append(add("conv_in", "down", 0, "conv"))
    last = len(model.down_blocks) - 1
    for level, block in enumerate(model.down_blocks):
        stack += layers(block, f"down_blocks.{level}", "down", level)
        if level < last:
            stack.append(add(f"down_blocks.{level}.downsamplers.0", "down", level, "down"))
    if model.mid_block:
        layers(model.mid_block, "mid_block", "mid", last)
    for index, block in enumerate(model.up_blocks):
        layers(block, f"up_blocks.{index}", "up", last - index, pops=True)
        if index < last:
            add(f"up_blocks.{index}.upsamplers.0", "up", last - index, "up")
    add("conv_norm_out", "up", 0, "norm")
    add("conv_out", "up", 0, "conv")
    return nodes, skips
