"""Noise schedulers: how an image is noised in training, and how noise becomes an image again in sampling."""

from hcrot.schedulers.base import NoiseScheduler, SchedulerOutput
from hcrot.schedulers.ddpm import DDPMScheduler

__all__ = ["DDPMScheduler", "NoiseScheduler", "SchedulerOutput"]
