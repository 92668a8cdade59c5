"""How good images are: what a classifier reads in samples, how far their features lie from those of real images, and how near a restored
image is to the one that it was made from."""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from hcrot.init import is_int

__all__ = ["accuracy", "accuracy_by_class", "frechet_distance", "precision_and_recall", "psnr", "ssim"]


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows whose largest logit is the label's. Of class-conditional samples, with the classes they were
    asked for as labels, it is their **label agreement**.

    Args:
        logits: (N, K), numbers without NaN; of equal ones the first counts as the largest.
        labels: (N,) integers in 0 .. K-1.

    Returns:
        from 0 to 1.

    Raises:
        TypeError, ValueError: an array of another shape or kind, no rows, NaN, or a label out of range.
    """
    return float(_is_right("accuracy", logits, labels).mean())


def accuracy_by_class(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """:func:`accuracy` among the rows of each label, float64 (K,); NaN for a class that is no row's label.

    Arguments and errors are those of :func:`accuracy`.
    """
    right = _is_right("accuracy_by_class", logits, labels)
    labels = labels.astype(np.intp)  # NumPy does not count uint64
    rows = np.bincount(labels, minlength=logits.shape[1])
    with np.errstate(invalid="ignore"):
        return np.bincount(labels, weights=right, minlength=logits.shape[1]) / rows


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """The Fréchet distance between two clouds of points, each taken for a Gaussian (Heusel et al. 2017, eq. 6).

        d^2 = |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    with means mu and covariances S (of n points, divided by n - 1). It is the squared distance, as is the custom. With
    classifier features in place of Inception's it compares models judged by the same classifier, and nothing else; and
    it falls as n grows, so compare equal n.

    No square root of a matrix is taken: with QR decompositions ``(x - mu) / sqrt(n - 1) = Q R``, hence ``S = R^T R``,

        tr S = |R|_F^2,    tr (S_a S_b)^(1/2) = sum of the singular values of R_a R_b^T

    which stays exact where S is singular: fewer points than features, features that are always zero.

    Args:
        features_a: (N, D), N >= 2, finite; computed in float64 whatever the dtype.
        features_b: (M, D), M >= 2, likewise.

    Returns:
        d^2 >= 0.

    Raises:
        ValueError: fewer than two rows, not two axes, different D, or numbers that are not finite.
    """
    (mean_a, root_a), (mean_b, root_b) = _gaussian("features_a", features_a), _gaussian("features_b", features_b)
    if mean_a.shape != mean_b.shape:
        raise ValueError(
            f"frechet_distance: features_a has {mean_a.size} features and features_b {mean_b.size}, expected equally many"
        )
    traces = np.square(root_a).sum() + np.square(root_b).sum()
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return max(0.0, float(np.square(mean_a - mean_b).sum() + traces - 2 * cross))


def precision_and_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> tuple[float, float]:
    """How many generated images look real, and how much of what is real was generated (Kynkäänniemi et al. 2019, eq. 1 and 2).

    Around each point of a cloud lies a ball that reaches to its k-th neighbour in that cloud; the balls together are where the cloud is.
    **Precision** is the share of generated points that lie where the real cloud is, **recall** the share of real ones that lie where the
    generated one is. A model that draws one perfect image again and again has precision 1 and recall near 0.

    Args:
        real: features (N, D) of real images, N > k, finite; computed in float64.
        generated: features (M, D) of generated ones, M > k. Both shares depend on N and M, so compare equal numbers.
        k: which neighbour, at least 1.

    Raises:
        ValueError: fewer rows than that, not two axes, different D, numbers that are not finite, or k below 1.
    """
    if not is_int(k) or k < 1:
        raise ValueError(f"precision_and_recall: k must be an int of at least 1, got {k!r}")
    for name, features in (("real", real), ("generated", generated)):
        if not isinstance(features, np.ndarray) or features.ndim != 2 or len(features) <= k or not np.isfinite(features).all():
            came = f"an array of shape {features.shape}" if isinstance(features, np.ndarray) else type(features).__name__
            raise ValueError(f"precision_and_recall: {name} must hold finite numbers (N, D) with N above k = {k}, got {came}")
    if real.shape[1] != generated.shape[1]:
        raise ValueError(f"precision_and_recall: real has {real.shape[1]} features and generated {generated.shape[1]}")
    return _share_within(generated, real, k), _share_within(real, generated, k)


def _share_within(points: np.ndarray, cloud: np.ndarray, k: int) -> float:
    """The share of points that lie in a ball around a point of the cloud which reaches to that point's k-th neighbour."""
    from scipy.spatial.distance import cdist

    radii = np.sort(cdist(cloud, cloud), axis=1)[:, k]  # column 0 is the point itself
    return float((cdist(points, cloud) <= radii).any(axis=1).mean())


def psnr(images: np.ndarray, references: np.ndarray, data_range: float) -> np.ndarray:
    """The peak signal-to-noise ratio of each image, in decibels: ``10 log10(R^2 / mean (x - y)^2)``.

    Args:
        images: x, (B, C, H, W) or (B, H, W); computed in float64 whatever the dtype.
        references: y, what they should be, of the same shape.
        data_range: R, the largest pixel that is possible minus the smallest: 2 for images in [-1, 1], 255 for uint8.

    Returns:
        (B,) float64; infinite for an image that equals its reference.

    Raises:
        ValueError: arrays of other or of different shapes, numbers that are not finite, or a range that is not above 0.
    """
    x, y = _images_and_references("psnr", images, references, data_range)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(data_range**2 / np.square(x - y).reshape(len(x), -1).mean(axis=1))


def ssim(
    images: np.ndarray,
    references: np.ndarray,
    data_range: float,
    *,
    window_size: int = 11,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
) -> np.ndarray:
    """The structural similarity of each image to its reference (Wang, Bovik, Sheikh & Simoncelli 2004, IEEE Trans. Image Processing 13).

        SSIM = (2 mu_x mu_y + C_1)(2 s_xy + C_2) / ((mu_x^2 + mu_y^2 + C_1)(s_x^2 + s_y^2 + C_2)),    C_i = (k_i R)^2     eq. 13

    with means mu, variances s^2 and covariance s_xy under a Gaussian window that sums to 1 (eq. 14 to 16), and then the mean over all
    places where the whole window lies within the image (eq. 17), and over channels. The defaults are the paper's.

    Args:
        images, references, data_range: as in :func:`psnr`.
        window_size: height and width of the window, odd, at most H and W.
        sigma: the Gaussian's standard deviation, in pixels, > 0.
        k1, k2: > 0, against division by nearly nothing.

    Returns:
        (B,) float64, at most 1, which only equal images reach.

    Raises:
        ValueError: as :func:`psnr`; a window that is not odd or larger than the images; sigma, k1 or k2 not above 0.
    """
    x, y = _images_and_references("ssim", images, references, data_range)
    if not is_int(window_size) or window_size < 1 or window_size % 2 == 0 or window_size > min(x.shape[-2:]):
        raise ValueError(f"ssim: window_size must be odd and at most the height and width {x.shape[-2:]}, got {window_size!r}")
    for name, value in (("sigma", sigma), ("k1", k1), ("k2", k2)):
        if not 0 < value < np.inf:
            raise ValueError(f"ssim: {name} must be a finite number > 0, got {value!r}")
    window = np.exp(-0.5 * np.square((np.arange(window_size) - window_size // 2) / sigma))
    window /= window.sum()

    def mean(values: np.ndarray) -> np.ndarray:
        """Under the window, which is the product of one along the rows and one along the columns."""
        rows = sliding_window_view(values, window_size, axis=-1) @ window
        return sliding_window_view(rows, window_size, axis=-2) @ window

    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return similarity.reshape(len(x), -1).mean(axis=1)


def _images_and_references(owner: str, images: np.ndarray, references: np.ndarray, data_range: float) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, after a look at all three."""
    x, y = np.asarray(images, dtype=np.float64), np.asarray(references, dtype=np.float64)
    if x.ndim not in (3, 4) or x.size == 0:
        raise ValueError(f"{owner}: images must have the shape (B, C, H, W) or (B, H, W) and not be empty, got {x.shape}")
    if x.shape != y.shape:
        raise ValueError(f"{owner}: images {x.shape} and references {y.shape} must have the same shape")
    for name, array in (("images", x), ("references", y)):
        if not np.isfinite(array).all():
            raise ValueError(f"{owner}: {name} has numbers that are not finite")
    if not 0 < data_range < np.inf:
        raise ValueError(f"{owner}: data_range must be a finite number > 0, got {data_range!r}")
    return x, y


def _gaussian(name: str, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mu (D,) and R (min(N, D), D) with S = R^T R, float64."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or features.shape[0] < 2 or features.shape[1] < 1:
        raise ValueError(f"frechet_distance: {name} must have the shape (at least 2, at least 1), got {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError(f"frechet_distance: {name} has numbers that are not finite")
    mean = features.mean(axis=0)
    root: Any = np.linalg.qr((features - mean) / np.sqrt(len(features) - 1), mode="r")  # an array; by NumPy's annotations a pair
    return mean, root


def _is_right(owner: str, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each row's largest logit is its label's, bool (N,)."""
    if not isinstance(logits, np.ndarray) or logits.ndim != 2 or logits.size == 0:
        came: object = logits.shape if isinstance(logits, np.ndarray) else type(logits).__name__
        raise ValueError(f"{owner}: logits must be an array of shape (N, K) and not be empty, got {came}")
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        came = f"an array of {labels.dtype}" if isinstance(labels, np.ndarray) else type(labels).__name__
        raise TypeError(f"{owner}: labels must be an array of integers, got {came}")
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"{owner}: labels {labels.shape} do not fit logits {logits.shape}, expected {logits.shape[:1]}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"{owner}: labels range from {labels.min()} to {labels.max()}, expected 0 .. {logits.shape[1] - 1}"
        )
    if np.isnan(logits).any():
        raise ValueError(f"{owner}: logits have NaN")
    return logits.argmax(axis=1) == labels
