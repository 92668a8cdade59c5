"""One step of a network in each engine that ``rivals.py`` compares, with the weights of ``networks.torch_model``.

Each function here is called in a process of its own, ``(config, task, batch, ...)``, and returns a function that does one step and returns
its loss (``task`` "train") or its output ("forward").
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from networks import make_batch, torch_model


def torch_variant(config: dict, task: str, batch: int, options: frozenset[str]) -> Callable[[], object]:
    """PyTorch with any of the options ``channels_last``, ``compile``, ``freezing`` (of weights, by the compiler) and ``bfloat16``."""
    import torch

    model = torch_model(config)
    images, noise, timesteps, labels = (None if array is None else torch.from_numpy(array) for array in make_batch(config, batch))
    if "channels_last" in options:
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    if "freezing" in options:
        import torch._inductor.config

        torch._inductor.config.freezing = True
        model.eval()
    network = torch.compile(model) if "compile" in options else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def precision() -> contextlib.AbstractContextManager:
        return torch.autocast("cpu", torch.bfloat16) if "bfloat16" in options else contextlib.nullcontext()

    def train() -> float:
        optimizer.zero_grad()
        with precision():
            output = network(images, timesteps, labels).sample
        loss = torch.nn.functional.mse_loss(output.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    def forward() -> np.ndarray:
        with torch.no_grad(), precision():
            return network(images, 500, labels).sample.float().numpy()

    return forward if task == "forward" else train


def inputs(config: dict, batch: int) -> list[np.ndarray]:
    """Images, timesteps and, where there are classes, labels, of a forward step."""
    images, _, _, labels = make_batch(config, batch)
    return [images, np.full(batch, 500, np.int64), *([] if labels is None else [labels])]


def denoiser(config: dict):
    """The network as what exporters expect: arrays in, an array out."""
    import torch

    class Denoiser(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = torch_model(config)

        def forward(self, images, timesteps, labels=None):
            return self.model(images, timesteps, labels).sample

    return Denoiser().eval()


def write_onnx(config: dict, batch: int, path: Path) -> None:
    """The network as an ONNX file, for so many images."""
    import torch

    arguments = tuple(map(torch.from_numpy, inputs(config, batch)))
    names = ["images", "timesteps", "labels"][: len(arguments)]
    torch.onnx.export(denoiser(config), arguments, path, input_names=names, output_names=["output"], external_data=False, verbose=False)


def onnxruntime_step(config: dict, task: str, batch: int, folder: Path, threads: int) -> Callable[[], np.ndarray]:
    import onnxruntime

    write_onnx(config, batch, folder / "runtime.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "runtime.onnx", options, providers=["CPUExecutionProvider"])
    given = dict(zip([value.name for value in session.get_inputs()], inputs(config, batch), strict=True))
    return lambda: session.run(None, given)[0]


def openvino_step(config: dict, task: str, batch: int, folder: Path, threads: int, precision: str) -> Callable[[], np.ndarray]:
    import openvino

    path = folder / f"openvino-{precision}.onnx"
    write_onnx(config, batch, path)
    hints = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", hints).create_infer_request()
    given = inputs(config, batch)
    return lambda: np.array(request.infer(given)[0])


def ncnn_step(config: dict, task: str, batch: int, folder: Path, threads: int) -> Callable[[], np.ndarray]:
    """ncnn, through pnnx. It takes one image at a time."""
    import ncnn
    import pnnx
    import torch

    kinds = (np.float32, np.float32, np.int64)  # ncnn knows no conversion of timesteps
    path = folder / "network.pt"
    one = tuple(torch.from_numpy(array.astype(kind)) for array, kind in zip(inputs(config, 1), kinds, strict=False))
    pnnx.export(denoiser(config), str(path), one, fp16=False)
    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    net.load_param(str(path.with_suffix(".ncnn.param")))
    net.load_model(str(path.with_suffix(".ncnn.bin")))
    kinds = (np.float32, np.float32, np.int32)
    given = [array.astype(kind) for array, kind in zip(inputs(config, batch), kinds, strict=False)]

    def forward() -> np.ndarray:
        outputs = []
        for number in range(batch):
            extractor = net.create_extractor()
            for place, array in enumerate(given):
                value = array[number] if array.ndim > 1 else array[number : number + 1]
                extractor.input(f"in{place}", ncnn.Mat(np.ascontiguousarray(value)).clone())
            outputs.append(np.array(extractor.extract("out0")[1]))
        return np.stack(outputs)

    return forward


def jax_step(config: dict, task: str, batch: int) -> Callable[[], object]:
    from rival_jax import jax_step

    return jax_step(config, task, batch)
