"""psnr and ssim by hand, and against their definition written with SciPy."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

from hcrot.tools.metrics import psnr, ssim


def pairs(shape=(3, 2, 15, 19), seed=0):
    rng = np.random.default_rng(seed)
    references = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), (0,) * (len(shape) - 2) + (1.5, 1.5))
    references /= np.abs(references).max()
    return references + 0.1 * rng.standard_normal(shape), references


def ssim_by_definition(x, y, data_range, size=11, sigma=1.5, k1=0.01, k2=0.03):
    """One image (H, W): a two-dimensional window, moments as weighted sums of squared distances from the mean, window by window."""
    grid = np.arange(size) - size // 2
    window = np.exp(-(grid[:, None] ** 2 + grid**2) / (2 * sigma**2))
    window /= window.sum()
    values = []
    for i in range(x.shape[0] - size + 1):
        for j in range(x.shape[1] - size + 1):
            a, b = x[i : i + size, j : j + size], y[i : i + size, j : j + size]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            cov = (window * (a - mean_a) * (b - mean_b)).sum()
            c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
            values.append((2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    return np.mean(values)


def ssim_as_scikit_image(x, y, data_range):
    """Its way: filters over the mirrored image, moments in the biased form, a border of five pixels cut off."""
    blur = lambda a: scipy.ndimage.gaussian_filter(a, 1.5, truncate=3.5, mode="reflect")  # noqa: E731
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    ux, uy = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - ux * ux, blur(y * y) - uy * uy, blur(x * y) - ux * uy
    return (((2 * ux * uy + c1) * (2 * vxy + c2)) / ((ux**2 + uy**2 + c1) * (vx + vy + c2)))[5:-5, 5:-5].mean()


def test_psnr_by_hand():
    references = np.zeros((3, 1, 4, 5))
    images = references + np.array([0.5, 0.02, 0])[:, None, None, None]
    np.testing.assert_allclose(psnr(images, references, 2), [10 * np.log10(4 / 0.25), 40, np.inf])
    assert psnr(np.full((1, 2, 2), 10, np.uint8), np.full((1, 2, 2), 20, np.uint8), 255) == pytest.approx(20 * np.log10(25.5))


@pytest.mark.parametrize("options", [{}, {"size": 7, "sigma": 1.1, "k1": 0.02, "k2": 0.05}])
def test_ssim_is_its_definition(options):
    images, references = pairs()
    ours = {("window_size" if name == "size" else name): value for name, value in options.items()}
    found = ssim(images, references, 2, **ours)
    expected = [np.mean([ssim_by_definition(a, b, 2, **options) for a, b in zip(*pair, strict=True)])
                for pair in zip(images, references, strict=True)]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert ((found > 0.2) & (found < 0.95)).all()


def test_ssim_is_scikit_images():
    images, references = pairs((4, 23, 17), seed=5)
    expected = [ssim_as_scikit_image(x, y, 1.7) for x, y in zip(images, references, strict=True)]
    np.testing.assert_allclose(ssim(images, references, 1.7), expected, rtol=1e-10)


def test_ssim_of_equal_and_of_inverted_images():
    images, references = pairs()
    np.testing.assert_allclose(ssim(references, references, 2), 1, rtol=1e-12)
    waves = np.sin(np.arange(15)[:, None] * 2.0 + np.arange(19))[None]  # means near 0: what is inverted has the opposite structure
    assert ssim(-waves, waves, 2) < -0.9
    np.testing.assert_allclose(ssim(images, references, 2), ssim(references, images, 2), rtol=1e-12)
    np.testing.assert_allclose(ssim(127.5 * images, 127.5 * references, 255), ssim(images, references, 2), rtol=1e-10)


GOOD = np.zeros((2, 1, 12, 13))


@pytest.mark.parametrize("function", [psnr, ssim])
@pytest.mark.parametrize(
    ("images", "references", "data_range", "message"),
    [
        (GOOD[0, 0], GOOD[0, 0], 2, r"images must have the shape \(B, C, H, W\) or \(B, H, W\) and not be empty, got \(12, 13\)"),
        (GOOD[:0], GOOD[:0], 2, ".*not be empty"),
        (GOOD, GOOD[:, :, 1:], 2, r"images \(2, 1, 12, 13\) and references \(2, 1, 11, 13\) must have the same shape"),
        (GOOD, GOOD * np.nan, 2, "references has numbers that are not finite"),
        (GOOD, GOOD, 0, "data_range must be a finite number > 0, got 0"),
    ],
)
def test_refusals_of_both(function, images, references, data_range, message):
    with pytest.raises(ValueError, match=f"{function.__name__}: {message}"):
        function(images, references, data_range)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_size": 10}, r"window_size must be odd and at most the height and width \(12, 13\), got 10"),
        ({"window_size": 13}, "window_size must be odd"),
        ({"sigma": 0}, "sigma must be a finite number > 0, got 0"),
        ({"k1": -1}, "k1 must be"),
        ({"k2": np.inf}, "k2 must be"),
    ],
)
def test_refusals_of_ssim(options, message):
    with pytest.raises(ValueError, match=f"ssim: {message}"):
        ssim(GOOD, GOOD, 2, **options)
