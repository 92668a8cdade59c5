"""A short training with a defect in one layer beside the same training without, and what the gradient check says of it."""

import copy
from typing import Any

import numpy as np

import hcrot
from hcrot.data import DIGITS_MAX, load_digits
from hcrot.gradcheck import GradientReport
from hcrot.samplers import sampler_of
from hcrot.view.defects import DEFECTS, plant
from hcrot.view.messages import Request, pack
from hcrot.view.networks import Networks
from hcrot.view.worker import Report

__all__ = ["about", "checked", "network", "run"]

BATCH = 32
DRAW_EVERY = 40  # steps
LINES = 60  # of the report


def network(seed: int) -> hcrot.UNet2dModel:
    """A U-Net for the 8x8 digits that come with hcrot, small enough to be trained while one looks on."""
    return hcrot.UNet2dModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=[16, 32], layers_per_block=1,
        down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2, norm_num_groups=4, num_class_embeds=10, generator=seed,
    )  # fmt: skip


def about() -> dict[str, Any]:
    """For the page's lists: each defect, and the layers that can have it."""
    modules = list(network(0).named_modules())
    defects = [
        {
            "name": name, "title": defect.title, "symptom": defect.symptom, "wrong": defect.wrong, "right": defect.right,
            "layers": [layer for layer, module in modules if defect.fits(module)],
        }
        for name, defect in DEFECTS.items()
    ]  # fmt: skip
    return {"defects": defects}


def run(networks: Networks, request: Request, report: Report) -> None:
    """Train both, and check the broken one.

    Reports "checked" with the lines of the report, then "step" with both losses for each step, and "drawn" now and then.
    """
    defect, steps = DEFECTS[request.choice("defect", list(DEFECTS))], request.whole("steps", 1, 2000)
    seed, lr = request.whole("seed", 0, 2**31), request.number("lr", 1e-6, 1)
    right = network(seed)
    broken = copy.deepcopy(right)
    parts = {name: module for name, module in broken.named_modules() if defect.fits(module)}
    layer = request.choice("layer", list(parts))
    plant(parts[layer], defect)
    report({"kind": "checked", **checked(broken, layer, seed)})
    images, labels = load_digits()
    clean = (images.astype(np.float32) / (DIGITS_MAX / 2) - 1)[:, None]
    scheduler, rng = hcrot.DDPMScheduler(beta_schedule="squaredcos_cap_v2"), np.random.default_rng(seed)
    both = {"right": right, "broken": broken}
    optimizers = {name: hcrot.AdamW(model.parameters(), lr=lr) for name, model in both.items()}
    for step in range(1, steps + 1):
        rows = rng.integers(len(clean), size=BATCH)
        noise, times = rng.standard_normal((BATCH, 1, 8, 8), dtype=np.float32), rng.integers(len(scheduler), size=BATCH)
        noisy, losses = scheduler.add_noise(clean[rows], noise, times), dict[str, float]()
        for name, model in both.items():
            losses[name], dout = hcrot.mse_loss(model(noisy, times, labels[rows].astype(np.int64)), noise)
            model.backward(dout)
            optimizers[name].step(max_grad_norm=1.0, zero_grad=True)
        report({"kind": "losses", "step": step, "of": steps, **losses})
        if step % DRAW_EVERY == 0 or step == steps:
            report({"kind": "drawn", "step": step, **{name: drawn(model, scheduler) for name, model in both.items()}})


def drawn(model: hcrot.UNet2dModel, scheduler: hcrot.DDPMScheduler) -> dict[str, Any]:
    """The ten digits, always from the same noise."""
    sampler = sampler_of("ddim", scheduler)
    images = hcrot.pipelines.sample(model, sampler, generator=0, class_labels=np.arange(10), num_inference_steps=12, progress=False)
    return pack(images)


def checked(model: hcrot.UNet2dModel, layer: str, seed: int) -> dict[str, Any]:
    """What ``hcrot.check_gradients`` says of one layer, with what that layer is given in the network; the wrong lines first."""
    module = dict(model.named_modules())[layer]
    rng, calls = np.random.default_rng(seed), list[list[Any]]()

    def noting(*inputs: Any, **options: Any) -> Any:
        calls.append([list(value) if isinstance(value, list) else value for value in inputs])  # blocks change the list of skips
        return type(module).forward(module, *inputs, **options)

    module.forward = noting  # type: ignore[method-assign]  # for one forward, as hcrot.watch does
    try:
        with model.inference():
            model(rng.standard_normal((2, 1, 8, 8), dtype=np.float32), np.array([10, 700]), np.array([3, 7]))
    finally:
        del module.forward
    try:
        found = hcrot.check_gradients(module, *calls[0])
    except hcrot.GradientError as error:
        found = error.report
    wrong = sum(line.verdict != "ok" for line in found.lines)
    return {"passed": found.passed, "problems": list(found.problems), "lines": lines_of(found), "of": len(found.lines), "wrong": wrong}


def lines_of(report: GradientReport) -> list[dict[str, Any]]:
    """At most LINES of them as the page shows them."""
    lines = sorted(report.lines, key=lambda line: line.verdict == "ok")[:LINES]
    return [{"name": line.name, "verdict": line.verdict, "error": line.error, "shape": list(line.shape)} for line in lines]
