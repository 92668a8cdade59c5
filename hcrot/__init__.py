"""hcrot: deep learning without autograd. Every layer has an explicit forward and backward, and the CPU is used well.

The names below are the library; ``hcrot.data`` has data sets and one's own pictures, ``hcrot.functional`` parts for blocks of
one's own, ``hcrot.pipelines`` whole sampling loops, ``hcrot.plotting`` the pictures, ``hcrot.learn`` exercises.
"""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `__getattr__` imports these when they are used
    from hcrot import data as data
    from hcrot import functional as functional
    from hcrot import pipelines as pipelines
    from hcrot.names import *
    from hcrot.tools import metrics as metrics
    from hcrot.tools import plotting as plotting

__version__ = "0.1.0"

ROOMS = ("data", "functional", "learn", "pipelines")
"""What is spelled ``hcrot.data`` and so on."""

TOOLS = {"metrics": "hcrot.tools.metrics", "plotting": "hcrot.tools.plotting"}
"""What is spelled ``hcrot.metrics`` and ``hcrot.plotting``, where it was before there were rooms."""


class Tools:
    """``import hcrot.plotting`` finds ``hcrot.tools.plotting``, which is imported then: it brings NumPy, for which ``hcrot --help``
    does not wait."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        room, _, tool = name.rpartition(".")
        return ModuleSpec(name, cls) if room == "hcrot" and tool in TOOLS else None  # type: ignore[arg-type]  # enough for it

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        return None

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(TOOLS[module.__name__.rpartition(".")[2]])


sys.meta_path.append(Tools)


def __getattr__(name: str) -> Any:
    """The modules of ``ROOMS`` and ``TOOLS`` and the public names, imported when they are used first: ``import hcrot`` itself is fast."""
    if name in (*ROOMS, *TOOLS):
        return importlib.import_module(f"hcrot.{name}")
    if name in __all__:
        module = importlib.import_module("hcrot.names")
        globals().update({public: getattr(module, public) for public in __all__})
        return globals()[name]
    raise AttributeError(f"module 'hcrot' has no attribute {name!r}", name=name, obj=sys.modules[__name__])  # Python suggests a name


def __dir__() -> list[str]:
    return sorted({*globals(), *ROOMS, *TOOLS, *__all__})


__all__ = [
    "EMA", "GELU", "SGD", "VESDE", "VPSDE", "Adam", "AdamW", "Attention", "AvgPool2d", "BatchNorm2d", "Conv1d", "Conv2d",
    "ConvTranspose2d", "CrossAttention", "DDIMInverseScheduler", "DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler",
    "DigitClassifier", "Downsample", "Dropout", "EDMDPMSolverMultistepScheduler", "EDMEulerScheduler", "Embedding",
    "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "Flatten", "FlowMatchEulerDiscreteScheduler", "GaussianDiffusion",
    "GaussianFourierProjection", "GradientError", "GroupNorm", "GroupNormSiLU", "HeunDiscreteScheduler", "Identity", "InplaceError",
    "LRSchedule", "LayerNorm", "Linear", "MaxPool2d", "Mish", "Module", "PNDMScheduler", "Pad2d", "Parameter", "PixelShuffle",
    "PixelUnshuffle", "RMSNorm", "ReLU", "Residual", "ResnetBlock2D", "SR3Diffusion", "SR3UNet", "ScaleShift", "ScoreSdeVeScheduler",
    "ScoreSdeVpScheduler", "Sequential", "SiLU", "Sigmoid", "Softmax", "SubVPSDE", "Tanh", "TimestepEmbedding", "Timesteps",
    "UNet2DConditionModel", "UNet2dModel", "UniPCMultistepScheduler", "Upsample", "bits_per_dimension", "check_gradients",
    "clip_grad_norm", "col2im", "cross_entropy", "denoising_score_matching_loss", "detect_inplace", "drop_labels", "flow_matching_loss",
    "generate_cosine_schedule", "generate_linear_schedule", "get_num_threads", "get_scheduler", "huber_loss", "hybrid_loss", "im2col",
    "l1_loss", "load_checkpoint", "load_model", "min_snr_weights", "mse_loss", "one_pass", "p2_weights", "plain", "profile",
    "save_checkpoint", "save_model", "set_detect_inplace", "set_num_threads", "set_plain", "smooth_l1_loss", "summary", "watch",
]  # fmt: skip
