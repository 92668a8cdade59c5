"""Images from measurements ``y = A x + noise`` with a trained diffusion model: deblurring, super-resolution, inpainting, MRI.

A is linear. What is known of it is A itself, its adjoint A^T (``<A x, y> = <x, A^T y>``) and its pseudo-inverse A+. Two ways:

**By projection** (:func:`ddnm`; Wang et al. 2023, arXiv:2212.00490, eq. 13; with A a low-pass filter close to ILVR, Choi et al. 2021).
In every estimate of x_0 the part that the measurement determines is replaced by what was measured; the network fills in the rest:

    x_0  <-  x_0 - A+ (A x_0 - y)

The result fits a measurement without noise exactly.

**By diffusion posterior sampling** (:func:`dps`; Chung et al. 2023, arXiv:2209.14687, algorithm 1). Each step is followed by one down the
slope of the error of the measurement, as a function of x_t:

    x_s  <-  x_s - zeta grad_{x_t} ||y - A x_0(x_t)||

x_0(x_t) goes through the network, and so does its gradient: by ``model.backward``, the only step of all samplers here that needs one.
With ``r = y - A x_0`` it begins with ``d||r|| / dx_0 = -A^T r / ||r||``, image by image.
"""

from typing import Any

import numpy as np

from hcrot.init import check_positive, is_real
from hcrot.module import Module
from hcrot.pipelines.guidance import CorrectedModel, gradient_through
from hcrot.pipelines.sample import Step, sample
from hcrot.schedulers.base import NoiseScheduler

__all__ = ["Blur", "Inpainting", "LinearOperator", "MRI", "SuperResolution", "ddnm", "dps"]


class LinearOperator:
    """A linear map of images (B, C, H, W). Subclasses give all three."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        """A x."""
        raise NotImplementedError

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """A^T y."""
        raise NotImplementedError

    def pseudo_inverse(self, y: np.ndarray) -> np.ndarray:
        """A+ y: of all x for which A x comes nearest to y the smallest."""
        raise NotImplementedError


class Inpainting(LinearOperator):
    """Known and unknown pixels: A is the mask itself, and so are A^T and A+.

    Args:
        mask: 1 or True where the image is known, of a shape that broadcasts to (B, C, H, W).
    """

    def __init__(self, mask: np.ndarray):
        mask = np.asarray(mask)
        if not np.isin(mask, (0, 1)).all():
            raise ValueError("Inpainting: mask must have 0 and 1 only")
        self.mask = mask.astype(bool)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x * self.mask

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        return y * self.mask

    def pseudo_inverse(self, y: np.ndarray) -> np.ndarray:
        return y * self.mask


class SuperResolution(LinearOperator):
    """The mean of each k x k square of pixels. ``A^T y`` is y, each pixel repeated, divided by k^2; ``A+ y`` is not divided.

    Args:
        factor: k.
    """

    def __init__(self, factor: int):
        (self.factor,) = check_positive("SuperResolution", factor=factor)

    def forward(self, x: np.ndarray) -> np.ndarray:
        batch, channels, height, width = x.shape
        k = self.factor
        if height % k or width % k:
            raise ValueError(f"SuperResolution: {height}x{width} images do not divide into squares of {k}x{k}")
        return x.reshape(batch, channels, height // k, k, width // k, k).mean(axis=(3, 5))

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        return self.pseudo_inverse(y) / y.dtype.type(self.factor**2)

    def pseudo_inverse(self, y: np.ndarray) -> np.ndarray:
        return y.repeat(self.factor, axis=2).repeat(self.factor, axis=3)


class _Spectral(LinearOperator):
    """What multiplies the Fourier transform F of an image by numbers h: unitary F, so ``A = F* h F``, ``A^T = F* conj(h) F`` and
    ``A+ = F* (1/h) F`` where |h| is above ``least``, 0 elsewhere."""

    least = 1e-3

    def spectrum(self, height: int, width: int) -> np.ndarray:
        """h, (H, W), such that real images stay real."""
        raise NotImplementedError

    def filtered(self, x: np.ndarray, h: np.ndarray) -> np.ndarray:
        return np.fft.ifft2(np.fft.fft2(x) * h).real.astype(x.dtype, copy=False)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.filtered(x, self.spectrum(*x.shape[2:]))

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        return self.filtered(y, self.spectrum(*y.shape[2:]).conj())

    def pseudo_inverse(self, y: np.ndarray) -> np.ndarray:
        h = self.spectrum(*y.shape[2:])
        large = np.abs(h) > self.least
        return self.filtered(y, np.where(large, 1 / np.where(large, h, 1), 0))


class Blur(_Spectral):
    """Convolution with a kernel, the image continued periodically.

    Args:
        kernel: (KH, KW), no larger than the image; its middle, ``(KH // 2, KW // 2)``, stands on the pixel that is computed.
        least: pseudo-inverse: frequencies that the blur leaves less than this of are given up, since noise there would be blown up.
    """

    def __init__(self, kernel: np.ndarray, least: float = 0.05):
        kernel = np.asarray(kernel, np.float64)
        if kernel.ndim != 2 or kernel.size == 0:
            raise ValueError(f"Blur: kernel must have the shape (KH, KW), got {kernel.shape}")
        self.kernel, self.least = kernel, float(least)

    @classmethod
    def gaussian(cls, std: float, least: float = 0.05) -> "Blur":
        """A Gaussian of this standard deviation, in pixels, of sum 1."""
        if not is_real(std) or not 0 < std < np.inf:
            raise ValueError(f"Blur.gaussian: std must be a positive number, got {std!r}")
        reach = int(np.ceil(3 * std))
        line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / std) ** 2)
        return cls(np.outer(line, line) / line.sum() ** 2, least)

    def spectrum(self, height: int, width: int) -> np.ndarray:
        kernel_h, kernel_w = self.kernel.shape
        if kernel_h > height or kernel_w > width:
            raise ValueError(f"Blur: the kernel {self.kernel.shape} is larger than images of {height}x{width}")
        padded = np.zeros((height, width))
        padded[:kernel_h, :kernel_w] = self.kernel
        return np.fft.fft2(np.roll(padded, (-(kernel_h // 2), -(kernel_w // 2)), axis=(0, 1)))


class MRI(_Spectral):
    """A scanner that measures some rows of the image's Fourier transform. What it measured is given as the image with all other
    frequencies 0, the zero-filled reconstruction, so A is a projection: ``A = A^T = A+``.

    Args:
        rows: (H,) of 0 and 1: which rows of frequencies are measured, the lowest in the middle as ``np.fft.fftshift`` puts it. A real image
            has the same numbers, conjugate, at opposite frequencies, so with a row its mirror counts as measured.
    """

    def __init__(self, rows: np.ndarray):
        rows = np.asarray(rows)
        if rows.ndim != 1 or not np.isin(rows, (0, 1)).all() or not rows.any():
            raise ValueError(f"MRI: rows must be a list of 0 and 1, not all 0, got shape {rows.shape}")
        unshifted = np.fft.ifftshift(rows.astype(bool))
        self.rows = unshifted | np.roll(unshifted[::-1], 1)

    @classmethod
    def random(cls, height: int, share: float, generator: np.random.Generator, middle: float = 0.15) -> "MRI":
        """A share of all rows: those of the lowest frequencies, a share ``middle``, and others at random."""
        kept = np.abs(np.arange(height) - height // 2) <= middle * height / 2
        free = np.flatnonzero(~kept)
        wanted = max(0, round(share * height) - int(kept.sum()))
        kept[generator.choice(free, min(wanted, len(free)), replace=False)] = True
        return cls(kept)

    def spectrum(self, height: int, width: int) -> np.ndarray:
        if height != len(self.rows):
            raise ValueError(f"MRI: rows are for images of height {len(self.rows)}, got {height}")
        return np.repeat(self.rows[:, None], width, axis=1).astype(np.float64)


def ddnm(model: Module, scheduler: NoiseScheduler, operator: LinearOperator, measurement: np.ndarray, **options: Any) -> np.ndarray:
    """Images that fit a measurement, by projection: see the text above.

    Args:
        model, scheduler: trained together, of the variance-preserving process; a scheduler whose timesteps are integers.
        operator: A.
        measurement: y.
        options: those of :func:`hcrot.pipelines.sample`; ``generator`` is needed. With a scheduler that clips, x_0 is clipped afterwards.

    Returns:
        images (B, C, H, W) in [-1, 1].

    Raises:
        ValueError: a measurement that does not fit the operator; further what `sample` raises.
    """
    known = operator.pseudo_inverse(measurement)

    def correct(x0: np.ndarray, x: np.ndarray, timestep: Any) -> np.ndarray:
        return x0 - operator.pseudo_inverse(operator.forward(x0)) + known

    options.setdefault("batch_size", len(measurement))
    return sample(CorrectedModel(model, scheduler, correct), scheduler, **options)


def dps(
    model: Module, scheduler: NoiseScheduler, operator: LinearOperator, measurement: np.ndarray, *, zeta: float = 1.0, **options: Any
) -> np.ndarray:
    """Images that fit a measurement, by posterior sampling with the gradient through the network: see the text above.

    Args:
        model, scheduler, operator, measurement, options: as in :func:`ddnm`.
        zeta: length of the steps down the slope.

    Returns, Raises: as :func:`ddnm`.
    """
    if not is_real(zeta) or not 0 <= zeta < np.inf:
        raise ValueError(f"dps: zeta must be a finite number of at least 0, got {zeta!r}")
    network = _Posterior(model, scheduler, operator, measurement)

    def after_step(step: Step) -> np.ndarray:
        return step.prev_sample - step.prev_sample.dtype.type(zeta) * network.slope

    options.setdefault("batch_size", len(measurement))
    return sample(network, scheduler, after_step=after_step, **options)


class _Posterior(Module):
    """The network, unchanged, which leaves behind the slope of ||y - A x_0(x_t)|| at the x_t that it saw last."""

    needs_backward = True

    def __init__(self, model: Module, scheduler: NoiseScheduler, operator: LinearOperator, measurement: np.ndarray):
        self.model, self.scheduler, self.operator, self.measurement = model, scheduler, operator, measurement
        self.config = getattr(model, "config", {})
        self.slope = np.zeros(0)

    def forward(self, x: np.ndarray, timestep: Any, *labels: np.ndarray) -> np.ndarray:
        def slope_by_x0(x0: np.ndarray) -> np.ndarray:
            r = self.measurement - self.operator.forward(x0)
            norms = np.sqrt(np.sum(r.astype(np.float64) ** 2, axis=(1, 2, 3), keepdims=True))
            return -self.operator.adjoint((r / np.maximum(norms, 1e-12)).astype(x0.dtype))

        prediction, self.slope = gradient_through(self.model, self.scheduler, x, timestep, labels, slope_by_x0)
        return prediction
