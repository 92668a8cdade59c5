"""Networks made of layers: diffusers' U-Nets, their residual block, SR3, and a classifier of digits. None of them has loops of its own."""

from hcrot.models.digit_classifier import DigitClassifier
from hcrot.models.sr3 import SR3Diffusion, SR3UNet
from hcrot.models.unet_2d import UNet2dModel
from hcrot.models.unet_2d_blocks import ResnetBlock2D
from hcrot.models.unet_2d_condition import UNet2DConditionModel

__all__ = ["DigitClassifier", "ResnetBlock2D", "SR3Diffusion", "SR3UNet", "UNet2DConditionModel", "UNet2dModel"]
