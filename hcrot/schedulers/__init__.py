"""Noise schedulers: how an image is noised in training, and how noise becomes an image again in sampling."""

from hcrot.schedulers.ddpm import DDPMScheduler, DDPMSchedulerOutput

__all__ = ["DDPMScheduler", "DDPMSchedulerOutput"]
