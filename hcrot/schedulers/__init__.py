"""Noise schedulers: how an image is noised in training, and how noise becomes an image again in sampling."""

from hcrot.schedulers.base import NoiseScheduler, SchedulerOutput
from hcrot.schedulers.ddim import DDIMScheduler
from hcrot.schedulers.ddim_inverse import DDIMInverseScheduler
from hcrot.schedulers.ddpm import DDPMScheduler
from hcrot.schedulers.pndm import PNDMScheduler

__all__ = ["DDIMInverseScheduler", "DDIMScheduler", "DDPMScheduler", "NoiseScheduler", "PNDMScheduler", "SchedulerOutput"]
