"""Whole sampling loops, and whole pipelines in folders.

:func:`sample` draws images with any scheduler, :func:`ddpm` and :func:`ddim` with the one of that name. :func:`save` and :func:`load`
write and read the folder of a pipeline, which diffusers opens, too.
"""

from hcrot.pipelines.folder import load, save
from hcrot.pipelines.sample import ddim, ddpm, sample

__all__ = ["ddim", "ddpm", "load", "sample", "save"]
