"""Whole sampling loops, and whole pipelines in folders.

:func:`sample` draws images with any scheduler, :func:`ddpm` and :func:`ddim` with the one of that name, and :func:`steps` gives the loop
step by step. :func:`save` and :func:`load` write and read the folder of a pipeline, which diffusers opens, too.

What else one does with a trained model: ``interpolation.py``; ``editing.py`` (SDEdit, RePaint, ILVR, DDIM inversion); ``wrapping.py``
(classifier guidance, corrections of x_0); ``inverse_problems.py`` (deblurring, super-resolution, MRI).
"""

from hcrot.pipelines.editing import ilvr, inpaint, invert, regenerate, sdedit
from hcrot.pipelines.folder import load, save
from hcrot.pipelines.interpolation import interpolate
from hcrot.pipelines.inverse_problems import MRI, Blur, Inpainting, LinearOperator, SuperResolution, ddnm, dps
from hcrot.pipelines.sample import Step, ddim, ddpm, sample, steps
from hcrot.pipelines.wrapping import CorrectedModel, GuidedByClassifier

__all__ = [
    "MRI", "Blur", "CorrectedModel", "GuidedByClassifier", "Inpainting", "LinearOperator", "Step", "SuperResolution", "ddim", "ddnm",
    "ddpm", "dps", "ilvr", "inpaint", "interpolate", "invert", "load", "regenerate", "sample", "save", "sdedit", "steps",
]  # fmt: skip
