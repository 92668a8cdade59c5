"""Noise schedulers: how an image is noised in training, and how noise becomes an image again in sampling."""

from hcrot.schedulers.base import NoiseScheduler, SchedulerOutput
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
from hcrot.schedulers.score_sde_ve import ScoreSdeVeScheduler, SdeVeOutput
from hcrot.schedulers.score_sde_vp import ScoreSdeVpScheduler
from hcrot.schedulers.sde import SDE, VESDE, VPSDE, SubVPSDE
from hcrot.schedulers.unipc_multistep import UniPCMultistepScheduler

__all__ = [
    "DDIMInverseScheduler",
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "NoiseScheduler",
    "PNDMScheduler",
    "SDE",
    "SchedulerOutput",
    "ScoreSdeVeScheduler",
    "ScoreSdeVpScheduler",
    "SdeVeOutput",
    "SubVPSDE",
    "UniPCMultistepScheduler",
    "VESDE",
    "VPSDE",
]
