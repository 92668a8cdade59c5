"""The samplers by the names that the command line and ``hcrot view`` give them. Importing this file imports nothing heavy."""

from typing import TYPE_CHECKING, Any

__all__ = ["BEST", "SAMPLERS", "sampler_of"]

if TYPE_CHECKING:
    from hcrot.schedulers.base import NoiseScheduler

SAMPLERS = {  # name: (scheduler, options that the name adds)
    "ddpm": ("DDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "dpmsolver++": ("DPMSolverMultistepScheduler", {}),
    "sde-dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
}
BEST = "sde-dpmsolver++"  # what is drawn with unless somebody says otherwise


def sampler_of(name: str, scheduler: "NoiseScheduler", **options: Any) -> "NoiseScheduler":
    """The scheduler of this name, with the options of the one that the network was trained with.

    A multistep solver begins at T-1 ("trailing" spacing), where its first step can: if x_0 is limited, or not divided by the signal.
    """
    import hcrot
    from hcrot.schedulers.multistep import MultistepScheduler

    kind, own = SAMPLERS[name]
    sampler: NoiseScheduler = getattr(hcrot, kind).from_config(scheduler.config, **own | options)
    limited = sampler.config.get("thresholding") or sampler.config["prediction_type"] != "epsilon"
    if isinstance(sampler, MultistepScheduler) and limited and "timestep_spacing" not in options:
        return type(sampler).from_config(sampler.config, timestep_spacing="trailing")
    return sampler
