"""Whole sampling loops, and whole pipelines in folders.

:func:`sample` draws images with any scheduler, :func:`ddpm` and :func:`ddim` with the one of that name, and :func:`steps` gives the loop
step by step. :func:`save` and :func:`load` write and read the folder of a pipeline, which diffusers opens, too; :func:`load_small` reads
the first of two networks.

What else one does with a trained model is in files of its own, ``hcrot.pipelines.editing`` and so on:

    guidance            a classifier that pulls towards a class, by its gradient; corrections of x_0
    interpolation       what lies between two images
    editing             SDEdit, RePaint, ILVR; an image becomes its noise and another image of it
    inverse_problems    deblurring, super-resolution, inpainting, MRI
    cascade             large pictures from small ones, by two networks
    chain               all steps of DDIM as one function with a backward
    sde                 score-based models: predictor and corrector, Langevin dynamics, probability flow, likelihood
    likelihood          bits per dimension of images by the probability flow
"""

import importlib
from types import ModuleType

from hcrot.pipelines.folder import load, load_small, save
from hcrot.pipelines.sample import ddim, ddpm, sample, steps

__all__ = ["ddim", "ddpm", "load", "load_small", "sample", "save", "steps"]

FILES = ("cascade", "chain", "editing", "guidance", "interpolation", "inverse_problems", "likelihood", "sde")


def __getattr__(name: str) -> ModuleType:
    """Those files, imported when first used so that ``import hcrot`` stays fast."""
    if name in FILES:
        return importlib.import_module(f"hcrot.pipelines.{name}")
    raise AttributeError(f"module 'hcrot.pipelines' has no attribute {name!r}")
