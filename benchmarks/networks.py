"""The networks that are measured, and one step of them in hcrot and in PyTorch.

A training step is forward, backward, clipping to norm 1 and AdamW; a forward step is one denoising forward in inference.
"""

from collections.abc import Callable

import numpy as np
from common import forget_peak, resident, set_threads

import hcrot

SEED = dict(sample_size=14, in_channels=1, out_channels=1, block_out_channels=(32, 64, 32), norm_num_groups=32, num_class_embeds=10,
            down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3)  # fmt: skip
MNIST28 = dict(sample_size=28, in_channels=1, out_channels=1, block_out_channels=(32, 64, 64), norm_num_groups=8, num_class_embeds=10,
               down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
               up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"))  # fmt: skip
RGB32 = dict(sample_size=32, in_channels=3, out_channels=3, block_out_channels=(64, 128, 256, 256), norm_num_groups=32, num_class_embeds=10,
             down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
             up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"))  # fmt: skip

DDPM_CIFAR10 = dict(sample_size=32, in_channels=3, out_channels=3, block_out_channels=(128, 256, 256, 256), attention_head_dim=None,
                    downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6,
                    down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
                    up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"))  # fmt: skip

NETWORKS = {"seed": SEED, "mnist28": MNIST28, "rgb32": RGB32, "ddpm-cifar10-32": DDPM_CIFAR10}
"""``UNet2dModel``'s arguments by name: the network of the experiment hcrot started from, one for MNIST, one for CIFAR-10's images, and
that of the published checkpoint google/ddpm-cifar10-32 (Ho et al. 2020)."""


def make_batch(config: dict, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Noisy images (batch, C, S, S), noise of the same shape, timesteps and, if the network has classes, labels (batch,)."""
    rng = np.random.default_rng(0)
    shape = (batch, config["in_channels"], config["sample_size"], config["sample_size"])
    images, noise = rng.standard_normal((2, *shape), dtype=np.float32)
    return images, noise, rng.integers(0, 1000, batch), rng.integers(0, 10, batch) if "num_class_embeds" in config else None


def hcrot_step(config: dict, task: str, batch: int, weights: dict[str, np.ndarray] | None = None) -> Callable[[], object]:
    """A function that does one step in hcrot and returns its loss (``task`` "train") or its output ("forward")."""
    model = hcrot.UNet2dModel(**config, generator=np.random.default_rng(0))
    if weights:
        model.load_state_dict(weights)
    images, noise, timesteps, labels = make_batch(config, batch)
    optimizer = hcrot.AdamW(model.parameters(), lr=1e-4)

    def train() -> float:
        loss, dout = hcrot.mse_loss(model(images, timesteps, labels), noise)
        model.backward(dout)
        optimizer.step(max_grad_norm=1.0, zero_grad=True)
        return loss

    def forward() -> np.ndarray:
        with model.inference():
            return model(images, 500, labels)

    return forward if task == "forward" else train


def torch_model(config: dict):
    """diffusers' network; on sizes that diffusers cannot halve and double back (14x14 on three levels) its way up is told the size."""
    import diffusers
    import torch

    torch.manual_seed(0)
    model = diffusers.UNet2DModel(**config)
    levels = len(config["block_out_channels"])
    if config["sample_size"] % 2 ** (levels - 1):
        size = config["sample_size"]
        for level, block in enumerate(model.up_blocks[:-1]):
            target = -(-size // 2 ** (levels - 2 - level))
            upsample = block.upsamplers[0]
            upsample.forward = lambda x, output_size=None, up=upsample, to=target: up.conv(
                torch.nn.functional.interpolate(x, size=(to, to), mode="nearest")
            )
    return model


def torch_step(config: dict, task: str, batch: int, compiled: bool = False) -> Callable[[], object]:
    """:func:`hcrot_step` in PyTorch, eager or through ``torch.compile``, which works when first called."""
    import torch

    model = torch_model(config)
    network = torch.compile(model) if compiled else model
    images, noise, timesteps, labels = (None if array is None else torch.from_numpy(array) for array in make_batch(config, batch))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def train() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(network(images, timesteps, labels).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    def forward() -> np.ndarray:
        with torch.no_grad():
            return network(images, 500, labels).sample.numpy()

    return forward if task == "forward" else train


STEPS = {"hcrot": hcrot_step, "PyTorch": torch_step}


def peak_memory(library: str, config: dict, batch: int, threads: int) -> float:
    """MB by which two training steps raise the peak of the process that runs this; to be run in one of its own."""
    make_step = STEPS[library]
    small_step = make_step(config, "train", 2)
    set_threads(threads)
    small_step()  # whatever is loaded or compiled on first use does not count
    forget_peak()
    before = resident(peak=True)
    step = make_step(config, "train", batch)
    step()
    step()
    return resident(peak=True) - before


def memory_over_steps(config: dict, batch: int, steps: int, threads: int) -> list[tuple[int, float]]:
    """``(step, MB held)`` at 50 places or so of a training run in hcrot; to be run in a process of its own."""
    set_threads(threads)
    step, every, held = hcrot_step(config, "train", batch), max(1, steps // 50), []
    for done in range(1, steps + 1):
        step()
        if done % every == 0:
            held.append((done, resident()))
    return held
