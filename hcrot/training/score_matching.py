"""The loss that teaches a network the score: denoising score matching.

Vincent 2011 (Neural Computation 23), eq. 9 to 11; with noise of all levels Song et al. 2021, arXiv:2011.13456, eq. 7. The score of
x = m x_0 + s z given x_0 is -z/s, and its mean over all x_0 that may lie behind an x is the score of x. So the minimum of

    L = mean(lambda |score(x, t) + z/s|^2)

is the score of the noised data, whatever lambda > 0 is. Two choices of lambda:

    s^2     every level counts the same; |s score + z|^2 is the loss of a network that predicts the noise. The default
    g(t)^2  L bounds the negative log-likelihood (Song, Durkan, Murray & Ermon 2021, arXiv:2101.09258, theorem 1)
"""

import numpy as np

from hcrot.training.checks import NOT_TAKEN_BY_LOSSES, SINGLE_OR_DOUBLE, check_floating, check_no_others, check_reduction

__all__ = ["denoising_score_matching_loss"]


def denoising_score_matching_loss(
    score: np.ndarray, noise: np.ndarray, std: np.ndarray, weights: np.ndarray | None = None, reduction: str = "mean", **others: None
) -> tuple[float | np.ndarray, np.ndarray]:
    """``value = k sum(lambda (score + z/s)^2)``, ``dout = 2 k lambda (score + z/s)``, k = 1/n for "mean" and 1 for "sum" and "none".

    Args:
        score: what the network says at (x, t), (B, ...) float32 or float64; n is its size.
        noise: z, floating point, the same shape.
        std: s of each image, (B,) floating point, all above 0.
        weights: lambda of each image, (B,) floating point; None: s^2.
        reduction: "mean", "sum" or "none", as for `mse_loss`.

    Returns:
        the value, a float or for "none" an array like score, and its gradient with respect to score, of the same shape and dtype.

    Raises:
        TypeError: one of the arrays is not a floating-point array. Also for an unknown keyword.
        ValueError: shapes differ or are empty, a std of 0 or below, an unknown reduction, or an option of PyTorch's losses.

    Example:
        >>> noise, std = np.array([[1.0, -2.0]]), np.array([0.5])
        >>> hcrot.denoising_score_matching_loss(-noise / std, noise, std)      # the score of what was drawn: -z/s
        (0.0, array([[0., 0.]]))
    """
    owner = "denoising_score_matching_loss"
    check_no_others(owner, others, NOT_TAKEN_BY_LOSSES)
    check_reduction(owner, reduction)
    check_floating(owner, "score", score, SINGLE_OR_DOUBLE)
    check_floating(owner, "noise", noise, (np.floating,))
    if noise.shape != score.shape or score.size == 0:
        raise ValueError(f"{owner}: score {score.shape} and noise {noise.shape} must have the same shape, and not be empty")
    for name, array in (("std", std), ("weights", weights)):
        if array is not None:
            check_floating(owner, name, array, (np.floating,))
            if array.shape != score.shape[:1]:
                raise ValueError(f"{owner}: {name} {array.shape} must be one for each image of score {score.shape}")
    if not np.all(std > 0):
        raise ValueError(f"{owner}: std must be above 0, got {std.min()}")

    column = (-1, *(1,) * (score.ndim - 1))
    s = std.astype(np.float64).reshape(column)
    relative = 1.0 if weights is None else weights.astype(np.float64).reshape(column) / s**2  # lambda/s^2
    error = s * score + noise  # s (score + z/s), which stays finite as s goes to 0
    terms, slopes = relative * error**2, 2 * relative * s * error
    if reduction == "none":
        return terms.astype(score.dtype), slopes.astype(score.dtype)
    k = 1 / score.size if reduction == "mean" else 1.0
    return k * float(terms.sum()), (k * slopes).astype(score.dtype)
