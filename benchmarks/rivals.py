"""hcrot beside every engine that a user could pick instead: the same networks, the same weights, one run.

    python benchmarks/rivals.py                                  all that is installed (half an hour)
    python benchmarks/rivals.py --only seed-forward-1            one line
    python benchmarks/rivals.py --rivals "ONNX Runtime" JAX      some rivals

Install what is to be compared, best in an environment of its own: ``pip install -e ".[parity,rivals]"``. What is not installed is left out,
and the run says so. What fails is left out as well, with its first line.

Each engine has a process of its own. They take turns, a tenth of a second of steps (at least one) each. Before that, each one's first
output or loss is compared with PyTorch's: the table of differences shows the largest, divided by the largest number of the output. Engines
in half precision are marked with a star; they are no rivals in float32. The engines for inference alone have no training step.
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from common import OwnProcess, Parser, Table, alternate, duration, has_torch, headline, picture, write_results
from networks import NETWORKS, hcrot_step, torch_model
from rival_steps import jax_step, ncnn_step, onnxruntime_step, openvino_step, torch_variant

CASES = {
    "seed-forward-1": ("seed", "forward", 1),
    "seed-forward-10": ("seed", "forward", 10),
    "seed-forward-100": ("seed", "forward", 100),
    "cifar10-forward-1": ("ddpm-cifar10-32", "forward", 1),
    "rgb32-forward-10": ("rgb32", "forward", 10),
    "seed-train-64": ("seed", "train", 64),
    "rgb32-train-16": ("rgb32", "train", 16),
}
"""Network, task, batch."""

TORCH = {
    "PyTorch": frozenset[str](),
    "PyTorch, channels_last": frozenset({"channels_last"}),
    "torch.compile": frozenset({"compile"}),
    "torch.compile, frozen": frozenset({"compile", "freezing"}),
    "PyTorch, bfloat16 *": frozenset({"bfloat16"}),
    "torch.compile, bfloat16 *": frozenset({"compile", "bfloat16"}),
}

PACKAGES = {
    "JAX": ["jax"],
    "ONNX Runtime": ["onnxruntime", "onnxscript"],
    "OpenVINO": ["openvino", "onnxscript"],
    "ncnn": ["ncnn", "pnnx"],
    "OpenVINO, bfloat16 *": ["openvino", "onnxscript"],
}
"""What must be installed for the rivals that are not PyTorch."""

ONLY_FORWARD = {"torch.compile, frozen", "ONNX Runtime", "OpenVINO", "ncnn", "OpenVINO, bfloat16 *"}
RIVALS = [*TORCH, *PACKAGES]


def rival_of(name: str, folder: Path, threads: int) -> tuple[Callable, tuple]:
    """The function of ``rival_steps`` that makes this rival's step, and its arguments after config, task and batch."""
    if name in TORCH:
        return torch_variant, (TORCH[name],)
    return {
        "JAX": (jax_step, ()),
        "ONNX Runtime": (onnxruntime_step, (folder, threads)),
        "OpenVINO": (openvino_step, (folder, threads, "f32")),
        "OpenVINO, bfloat16 *": (openvino_step, (folder, threads, "bf16")),
        "ncnn": (ncnn_step, (folder, threads)),
    }[name]


def measure(case: str, options: argparse.Namespace) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Seconds of a step, the difference of its first result from PyTorch's, and what failed, by engine."""
    network, task, batch = CASES[case]
    config = NETWORKS[network]
    weights = {name: value.detach().numpy() for name, value in torch_model(config).state_dict().items()}
    results: dict[str, np.ndarray] = {}
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        steps = {"hcrot": stack.enter_context(OwnProcess(options.threads, hcrot_step, config, task, batch, weights))}
        results["hcrot"] = np.asarray(steps["hcrot"]())
        for name in options.rivals:
            if task == "train" and name in ONLY_FORWARD:
                continue
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            make, arguments = rival_of(name, folder, options.threads)
            step = stack.enter_context(OwnProcess(options.threads, make, config, task, batch, *arguments))
            try:
                results[name] = np.asarray(step())
            except RuntimeError as error:  # of whatever it needs and does not find
                failures[name] = next((line for line in str(error).splitlines() if line.strip()), "it failed")
            else:
                steps[name] = step
        exact = results.get("PyTorch", results["hcrot"])
        differences = {name: float(np.abs(found - exact).max() / np.abs(exact).max()) for name, found in results.items()}
        return alternate(steps, options.seconds), differences, failures


def draw(options: argparse.Namespace, rows: list[dict]) -> None:
    """For each step a line of points: the engines' times as multiples of hcrot's."""
    with picture(options.output / "rivals.png", 10, [1.6 + 0.55 * len(rows)]) as axes:
        axis = axes[0, 0]
        markers = dict(zip(RIVALS, "osDv^<>pXhP", strict=True))
        for name in RIVALS:
            points = [(row["seconds"][name] / row["seconds"]["hcrot"], place) for place, row in enumerate(rows) if name in row["seconds"]]
            if points:
                face = "none" if name.endswith("*") else None
                axis.plot(*zip(*points, strict=True), linestyle="", marker=markers[name], markersize=7, label=name, markerfacecolor=face)
        axis.axvline(1, color="#14507f", linewidth=2, label="hcrot")
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.set_xlabel("time of a step / hcrot's (right of 1: slower than hcrot)")
        axis.set_title("Every engine beside hcrot (hollow: half precision)", loc="left", size=11)
        axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(__doc__, seconds=30)
    parser.add_threads()
    parser.add_argument("--only", choices=CASES, nargs="+", default=list(CASES), help="which lines (default: all)")
    parser.add_argument("--rivals", choices=RIVALS, nargs="+", help="which rivals (default: all that are installed)")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds, options.only = min(options.seconds, 1.0), options.only[:1]
    missing = {name: [package for package in PACKAGES.get(name, []) if not importlib.util.find_spec(package)] for name in RIVALS}
    if not has_torch():
        parser.error('needs PyTorch and diffusers, pip install -e ".[parity,rivals]"')
    options.rivals = options.rivals or [name for name in RIVALS if not missing[name]]
    for name in options.rivals:
        if missing[name]:
            parser.error(f"--rivals {name!r} needs {' and '.join(missing[name])}, which is not installed")
    parser.prepare(options)

    headline("Every engine beside hcrot", options)
    for name, packages in missing.items():
        if packages and name not in options.rivals:
            print(f"{name} is left out: {', '.join(packages)} is not installed")
    rows = []
    for case in options.only:
        seconds, differences, failures = measure(case, options)
        print(f"\n{case}")
        table = Table(["engine", "a step", "/ hcrot", "difference"], options.markdown)
        for name, spent in seconds.items():
            table.row(name, duration(spent), f"{spent / seconds['hcrot']:.2f}", f"{differences[name]:.0e}")
        for name, failure in failures.items():
            print(f"  {name} fails here: {failure}", flush=True)
        rows.append({"name": case, "seconds": seconds, "differences": differences, "failures": failures})
    write_results(options, "rivals", rows=rows)
    draw(options, rows)


if __name__ == "__main__":
    main()
