"""Where the public names are. ``hcrot`` takes them from here when the first of them is used: ``hcrot --help`` does without."""

from hcrot.diffusion import GaussianDiffusion, generate_cosine_schedule, generate_linear_schedule
from hcrot.eyes.profile import profile
from hcrot.eyes.summary import summary
from hcrot.eyes.watch import watch
from hcrot.files.checkpoint import load_checkpoint, save_checkpoint
from hcrot.gradcheck import GradientError, check_gradients
from hcrot.kernels.im2col import col2im, im2col
from hcrot.kernels.jit import get_num_threads, set_num_threads
from hcrot.kernels.plain import plain, set_plain
from hcrot.layers.activation import GELU, Mish, ReLU, Sigmoid, SiLU, Softmax, Tanh
from hcrot.layers.attention import Attention
from hcrot.layers.batch_norm import BatchNorm2d
from hcrot.layers.conv import Conv2d, ConvTranspose2d
from hcrot.layers.conv1d import Conv1d
from hcrot.layers.cross_attention import CrossAttention
from hcrot.layers.dropout import Dropout
from hcrot.layers.embedding import Embedding, GaussianFourierProjection, TimestepEmbedding, Timesteps
from hcrot.layers.linear import Linear
from hcrot.layers.norm import GroupNorm, GroupNormSiLU, LayerNorm
from hcrot.layers.padding import Pad2d
from hcrot.layers.pixel_shuffle import PixelShuffle, PixelUnshuffle
from hcrot.layers.pooling import AvgPool2d, MaxPool2d
from hcrot.layers.resample import Downsample, Upsample
from hcrot.layers.reshape import Flatten
from hcrot.layers.residual import Residual
from hcrot.layers.rms_norm import RMSNorm
from hcrot.models.digit_classifier import DigitClassifier
from hcrot.models.sr3 import SR3Diffusion, SR3UNet
from hcrot.models.unet_2d import UNet2dModel
from hcrot.models.unet_2d_blocks import ResnetBlock2D, ScaleShift
from hcrot.models.unet_2d_condition import UNet2DConditionModel
from hcrot.module import Identity, Module, Parameter, Sequential
from hcrot.passes import InplaceError, detect_inplace, one_pass, set_detect_inplace
from hcrot.pipelines.folder import load_model, save_model
from hcrot.schedulers.ddim import DDIMScheduler
from hcrot.schedulers.ddim_inverse import DDIMInverseScheduler
from hcrot.schedulers.ddpm import DDPMScheduler
from hcrot.schedulers.dpmsolver_multistep import DPMSolverMultistepScheduler
from hcrot.schedulers.edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from hcrot.schedulers.edm_euler import EDMEulerScheduler
from hcrot.schedulers.euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from hcrot.schedulers.euler_discrete import EulerDiscreteScheduler
from hcrot.schedulers.flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from hcrot.schedulers.heun_discrete import HeunDiscreteScheduler
from hcrot.schedulers.pndm import PNDMScheduler
from hcrot.schedulers.score_sde_ve import ScoreSdeVeScheduler
from hcrot.schedulers.score_sde_vp import ScoreSdeVpScheduler
from hcrot.schedulers.sde import VESDE, VPSDE, SubVPSDE
from hcrot.schedulers.unipc_multistep import UniPCMultistepScheduler
from hcrot.training.ema import EMA
from hcrot.training.label_dropout import drop_labels
from hcrot.training.losses import (
    cross_entropy,
    flow_matching_loss,
    huber_loss,
    l1_loss,
    min_snr_weights,
    mse_loss,
    p2_weights,
    smooth_l1_loss,
)
from hcrot.training.lr_schedules import LRSchedule, get_scheduler
from hcrot.training.optim import SGD, Adam, AdamW, clip_grad_norm
from hcrot.training.score_matching import denoising_score_matching_loss
from hcrot.training.variational_bound import bits_per_dimension, hybrid_loss

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
