"""The variational bound and the hybrid loss: closed forms, quadrature, central differences, extreme and bad input."""

import numpy as np
import pytest

from hcrot.schedulers import DDPMScheduler
from hcrot.training.losses import mse_loss
from hcrot.training.variational_bound import HALF_LEVEL, _decoder, bits_per_dimension, hybrid_loss

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
FIXED = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
LEARNED = ("learned", "learned_range")
predictions = pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
learned = pytest.mark.parametrize("variance_type", LEARNED)


def alphas_cumprod(num_steps, first=1e-3, last=0.2):
    return np.cumprod(1 - np.linspace(first, last, num_steps))


def images(rng, shape):
    """256 levels from -1 to 1, with both ends among them."""
    levels = rng.integers(0, 256, shape)
    levels.flat[:2] = 0, 255
    return levels / 127.5 - 1


def outputs(rng, shape, variance_type):
    """What a model may return: a prediction and, as variances, positive numbers or numbers around the range's [-1, 1]."""
    prediction, y = rng.normal(size=(2, *shape))
    return np.concatenate([prediction, 0.02 * np.exp(y) if variance_type == "learned" else y], axis=1)


# the Gaussian data set ----------------------------------------------------------------------------------------------

MEAN, STD = 0.1, 0.15  # of the data: the ends -1 and 1 are seven standard deviations away


class Oracle:
    """All there is to know about x_0 ~ N(MEAN, STD^2 I) under a forward process, and the model that knows it.

    x_0 and x_t are jointly Gaussian, so with u = abar STD^2 + 1 - abar, the variance of x_t,

        x_0' = E[x_0 | x_t] = MEAN + sqrt(abar) STD^2/u (x_t - sqrt(abar) MEAN),    V = var(x_0 | x_t) = STD^2 (1 - abar)/u

    and the error e = x_0 - x_0' is N(0, V) for each x_t. The noise and v follow from x_0' and x_t. By (e) the two means of
    L_t are c e apart, c = sqrt(abar_s) beta/(1 - abar), so that the expectations of the terms are, in nats,

        L_T = 1/2 [abar (MEAN^2 + STD^2 - 1) - log(1 - abar)]
        L_t = 1/2 [(c^2 V + beta_tilde)/sigma^2 - 1 - log(beta_tilde/sigma^2)]
        L_0 = E[-log(Phi((e + 1/255)/sigma) - Phi((e - 1/255)/sigma))]          (quadrature over e ~ N(0, V))

    The best variance is that of the true reverse process, sigma^2 = beta_tilde + c^2 V, which leaves of L_t
    1/2 log(1 + c^2 V/beta_tilde). At t = 0 the code of the papers has the beta_tilde of t = 1 for the fixed variances.
    """

    def __init__(self, abar, variance_type):
        self.abar, self.variance_type = abar.astype(np.float64), variance_type
        abar, before = self.abar, np.append(1.0, self.abar[:-1])
        self.beta = 1 - abar / before
        self.beta_tilde = (1 - before) / (1 - abar) * self.beta
        self.beta_tilde[0] = self.beta_tilde[1]
        self.error_variance = STD**2 * (1 - abar) / (abar * STD**2 + 1 - abar)
        self.distance = before * (self.beta / (1 - abar)) ** 2 * self.error_variance
        self.best = self.distance + np.append(0.0, self.beta_tilde[1:])
        if variance_type in LEARNED:
            self.variance = self.best
        elif variance_type.startswith("fixed_small"):
            self.variance = self.beta_tilde
        else:
            self.variance = np.append(self.beta_tilde[0], self.beta[1:])

    def model(self, prediction_type):
        def predict(x, timesteps):
            assert timesteps.shape == x.shape[:1] and timesteps.dtype == np.int64 and np.ptp(timesteps) == 0
            t = timesteps[0]
            a = self.abar[t]
            x0 = MEAN + np.sqrt(a) * STD**2 / (a * STD**2 + 1 - a) * (x - np.sqrt(a) * MEAN)
            eps = (x - np.sqrt(a) * x0) / np.sqrt(1 - a)
            v = np.sqrt(a) * eps - np.sqrt(1 - a) * x0
            output = {"epsilon": eps, "sample": x0, "v_prediction": v}[prediction_type]
            if self.variance_type in FIXED:
                return output
            y = self.best[t]
            if self.variance_type == "learned_range":
                y = 2 * np.log(y / self.beta_tilde[t]) / np.log(self.beta[t] / self.beta_tilde[t]) - 1
            return np.concatenate([output, np.full_like(output, y)], axis=1)

        return predict

    def terms(self):
        """E[L_0] .. E[L_{T-1}] and E[L_T], in bits."""
        ratio = self.beta_tilde / self.variance
        nats = 0.5 * (self.distance / self.variance + ratio - 1 - np.log(ratio))
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        mass = [level_mass(abs(e), np.sqrt(self.variance[0])) for e in nodes * np.sqrt(self.error_variance[0])]
        nats[0] = -np.log(mass) @ weights / weights.sum()
        prior = 0.5 * (self.abar[-1] * (MEAN**2 + STD**2 - 1) - np.log(1 - self.abar[-1]))
        return nats / np.log(2), prior / np.log(2)


def level_mass(error, sigma):
    """The mass of N(0, sigma^2) in error +- 1/255, by quadrature of the density."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    density = np.exp(-0.5 * ((error + HALF_LEVEL * nodes) / sigma) ** 2) / np.sqrt(2 * np.pi) / sigma
    return HALF_LEVEL * density @ weights


class Nodes(np.random.Generator):
    """A generator that always draws the same noise: the nodes of a quadrature."""

    def __init__(self, noise):
        super().__init__(np.random.PCG64(0))
        self.noise = noise

    def standard_normal(self, size, dtype):
        assert size == self.noise.shape
        return self.noise.astype(dtype)


def expected_bits(oracle, prediction_type, dtype=np.float64):
    """E[L_0] .. E[L_{T-1}] and E[L_T] of the bound itself, by Gauss-Hermite quadrature over images of one number and noise."""
    (x, x_weights), (z, z_weights) = (np.polynomial.hermite_e.hermegauss(count) for count in (12, 40))
    x0, noise = (grid.reshape(-1, 1) for grid in np.meshgrid(MEAN + STD * x, z, indexing="ij"))
    weights = np.outer(x_weights / x_weights.sum(), z_weights / z_weights.sum()).ravel()
    bound = bits_per_dimension(
        oracle.model(prediction_type),
        x0.astype(dtype),
        oracle.abar,
        Nodes(noise),
        prediction_type,
        oracle.variance_type,
        clip_sample=False,
    )
    np.testing.assert_allclose(bound.total, bound.prior + bound.terms.sum(axis=1), rtol=1e-14)
    return weights @ bound.terms, weights @ bound.prior


@predictions
@pytest.mark.parametrize("variance_type", FIXED + LEARNED)
def test_bound_of_a_gaussian_is_the_closed_form(variance_type, prediction_type):
    oracle = Oracle(alphas_cumprod(40), variance_type)
    terms, prior = expected_bits(oracle, prediction_type)
    expected_terms, expected_prior = oracle.terms()
    np.testing.assert_allclose(terms, expected_terms, rtol=1e-10, atol=1e-12)
    assert prior == pytest.approx(expected_prior, abs=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_bound_of_a_gaussian_over_a_thousand_float32_steps(schedule):
    oracle = Oracle(DDPMScheduler(beta_schedule=schedule).alphas_cumprod, "fixed_small")
    terms, prior = expected_bits(oracle, "epsilon", np.float32)
    expected_terms, expected_prior = oracle.terms()
    assert terms.sum() + prior == pytest.approx(expected_terms.sum() + expected_prior, abs=1e-6)


def test_the_best_bound_of_a_gaussian_is_its_entropy():
    """With the true reverse variances nothing is lost: the bound is the entropy of the data, in levels of 2/255."""
    terms, prior = expected_bits(Oracle(alphas_cumprod(100, first=0.02, last=0.3), "learned"), "epsilon")
    entropy = 0.5 * np.log2(2 * np.pi * np.e * STD**2) - np.log2(2 * HALF_LEVEL)
    assert terms.sum() + prior == pytest.approx(entropy, abs=1e-5)


def test_bound_of_drawn_images_and_noise():
    """The bound of images of three axes as it is used, within 4 standard errors of the closed form, for each term."""
    oracle, rng = Oracle(alphas_cumprod(50), "fixed_large"), np.random.default_rng(0)
    x0 = MEAN + STD * rng.standard_normal((400, 3, 7, 5))
    before = x0.copy()
    bound = bits_per_dimension(
        oracle.model("epsilon"), x0, oracle.abar, rng, variance_type="fixed_large", clip_sample=False
    )
    terms, prior = oracle.terms()
    assert bound.terms.shape == (400, 50) and bound.prior.shape == bound.total.shape == (400,)
    assert bound.terms.dtype == bound.prior.dtype == np.float64
    for values, expected in ((bound.terms, terms), (bound.prior, prior), (bound.total, terms.sum() + prior)):
        standard_error = values.std(axis=0) / np.sqrt(len(x0))
        assert np.all(np.abs(values.mean(axis=0) - expected) < 4 * standard_error)
    np.testing.assert_array_equal(x0, before)


def test_clipping_helps_a_prediction_beyond_the_images():
    """A model that always says x_0 = 3 is as far off as one that says 1, if clipped."""
    rng, abar = np.random.default_rng(1), alphas_cumprod(7)
    x0 = images(rng, (2, 1, 3, 5))

    def total(level, **options):
        draws = np.random.default_rng(2)
        return bits_per_dimension(lambda x, t: np.full_like(x, level), x0, abar, draws, "sample", **options).total

    np.testing.assert_allclose(total(3.0), total(1.0), rtol=1e-12)
    assert np.all(total(3.0, clip_sample=False) > 1.5 * total(1.0))


# the hybrid loss ----------------------------------------------------------------------------------------------------


def hybrid_case(variance_type, shape=(4, 2, 3, 5)):
    """A model's output and the other arguments of hybrid_loss, t = 0 and t = T - 1 among the timesteps."""
    rng = np.random.default_rng(3)
    output = outputs(rng, shape, variance_type)
    return output, (images(rng, shape), rng.normal(size=shape), np.array([0, 3, 5, 0]), alphas_cumprod(6))


@learned
@predictions
def test_hybrid_gradient(prediction_type, variance_type):
    """Of the variances the differences of the value; of the prediction those of L_simple alone, however large lambda."""
    output, (x0, noise, timesteps, abar) = hybrid_case(variance_type)
    options = {"prediction_type": prediction_type, "variance_type": variance_type, "vlb_weight": 0.3}
    value, dout = hybrid_loss(output, x0, noise, timesteps, abar, **options)
    assert type(value) is float and dout.shape == output.shape

    numeric = np.empty_like(output)
    eps = 1e-6
    for index in np.ndindex(output.shape):
        moved = [output.copy(), output.copy()]
        moved[0][index] += eps
        moved[1][index] -= eps
        above, below = (hybrid_loss(x, x0, noise, timesteps, abar, **options)[0] for x in moved)
        numeric[index] = (above - below) / (2 * eps)
    np.testing.assert_allclose(dout[:, 2:], numeric[:, 2:], rtol=1e-5, atol=1e-6 * np.abs(numeric[:, 2:]).max())

    a = abar[timesteps].reshape(-1, 1, 1, 1)
    velocity = np.sqrt(a) * noise - np.sqrt(1 - a) * x0
    target = {"epsilon": noise, "sample": x0, "v_prediction": velocity}[prediction_type]
    simple, dsimple = mse_loss(output[:, :2], target)
    np.testing.assert_allclose(dout[:, :2], dsimple, rtol=1e-12)
    assert np.abs(numeric[:, :2] - dsimple).max() > 0.1 * np.abs(dsimple).max()  # the bound does depend on the prediction
    larger, dlarger = hybrid_loss(output, x0, noise, timesteps, abar, **{**options, "vlb_weight": 300.0})
    np.testing.assert_array_equal(dlarger[:, :2], dout[:, :2])
    np.testing.assert_allclose(dlarger[:, 2:], 1000 * dout[:, 2:], rtol=1e-12)
    assert larger - simple == pytest.approx(1000 * (value - simple), rel=1e-9)


@learned
@predictions
def test_hybrid_loss_estimates_the_bound(prediction_type, variance_type):
    """Its L_vlb, averaged over all t, is the sum of the terms that bits_per_dimension finds with the same noise."""
    rng, abar = np.random.default_rng(4), alphas_cumprod(6)
    x0, noise = images(rng, (3, 2, 3, 5)), rng.normal(size=(3, 2, 3, 5))
    output = outputs(rng, x0.shape, variance_type)
    bound = bits_per_dimension(lambda x, t: output, x0, abar, Nodes(noise), prediction_type, variance_type, False)
    types = {"prediction_type": prediction_type, "variance_type": variance_type}

    def loss(t, vlb_weight):
        return hybrid_loss(output, x0, noise, np.full(3, t), abar, **types, vlb_weight=vlb_weight)[0]

    mean = np.mean([loss(t, 2.0) - loss(t, 1.0) for t in range(6)])
    assert mean == pytest.approx(bound.terms.sum(axis=1).mean(), rel=1e-9)


@pytest.mark.parametrize("variance_type", LEARNED)
def test_hybrid_loss_keeps_dtype_order_and_inputs(variance_type):
    output, (x0, noise, timesteps, abar) = hybrid_case(variance_type)
    _, dout = hybrid_loss(output, x0, noise, timesteps, abar, variance_type=variance_type)
    last = np.ascontiguousarray(output.astype(np.float32).transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    given = [last, x0.astype(np.float32), noise.astype(np.float32), timesteps, abar]
    before = [array.copy() for array in given]
    value, dlast = hybrid_loss(*given, variance_type=variance_type)
    assert dlast.dtype == np.float32 and dlast.strides == last.strides and type(value) is float
    np.testing.assert_allclose(dlast, dout, rtol=1e-4, atol=1e-6 * np.abs(dout).max())
    for array, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_extreme_outputs_stay_finite():
    """Float32 output far off, variances at and beyond the ends of the range, saturated images, the first and last t."""
    abar = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
    x0 = np.array([-1, 1, 0, -1, 1, 0], np.float32).reshape(3, 2, 1)
    for y in (-50.0, -1.0, 1.0, 50.0):
        for prediction in (-1e4, 0.0, 1e4):
            output = np.concatenate([np.full_like(x0, prediction), np.full_like(x0, y)], axis=1)
            value, dout = hybrid_loss(output, x0, np.zeros_like(x0), [0, 1, 999], abar)
            assert np.isfinite(value) and np.isfinite(dout).all()


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
def test_zero_terminal_signal(prediction_type):
    """With abar = 0 at the end the prior is exactly N(0, I), and L_{T-1} is finite for the types that can tell x_0."""
    rng, abar = np.random.default_rng(5), np.append(alphas_cumprod(5), 0.0)
    x0 = images(rng, (2, 1, 3, 5))
    bound = bits_per_dimension(lambda x, t: 0.1 * x, x0, abar, rng, prediction_type)
    np.testing.assert_array_equal(bound.prior, 0)
    assert np.isfinite(bound.terms).all()


def test_a_single_step():
    """T = 1: a prior and a decoder, whose fixed variance is beta for want of a second step."""
    x0 = images(np.random.default_rng(6), (2, 1, 3, 5))
    bound = bits_per_dimension(lambda x, t: x0, x0, np.array([0.3]), np.random.default_rng(7), "sample")
    nll, _ = _decoder(x0, np.zeros_like(x0), np.full_like(x0, np.log(0.7)))
    np.testing.assert_allclose(bound.terms, nll.mean(axis=(1, 2, 3))[:, None] / np.log(2), rtol=1e-12)
    np.testing.assert_allclose(
        bound.prior, 0.5 * (0.3 * (x0**2 - 1) - np.log(0.7)).mean(axis=(1, 2, 3)) / np.log(2), rtol=1e-12
    )


# bad input ----------------------------------------------------------------------------------------------------------

X0, ABAR = np.zeros((2, 3, 4, 4)), alphas_cumprod(5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": lambda x, t: x[:, :2]}, ValueError, r"the model's output has shape \(2, 2, 4, 4\), expected \(2, 3, 4, 4\)"),
        ({"model": lambda x, t: x.astype(int)}, TypeError, "the model's output must be .*, got one of int64"),
        ({"variance_type": "learned"}, ValueError, r"the model's output has shape .*, expected \(2, 6, 4, 4\)"),
        ({"variance_type": "small"}, ValueError, "variance_type 'small' is unknown, expected one of fixed_small, "),
        ({"variance_type": None}, ValueError, "variance_type None is unknown, expected one of fixed_small, "),
        ({"prediction_type": "noise"}, ValueError, "prediction_type 'noise' is unknown, expected one of epsilon, "),
        ({"generator": None}, TypeError, "generator must be a numpy.random.Generator or an int .*, got None"),
        ({"original_samples": X0 + 255}, ValueError, r"original_samples must lie in \[-1, 1\], got 255 .. 255"),
        ({"original_samples": X0.astype(int)}, TypeError, "original_samples must be .*, got one of int64"),
        ({"original_samples": X0[:0]}, ValueError, r"original_samples .* not empty, got \(0, 3, 4, 4\)"),
        ({"original_samples": np.zeros(3)}, ValueError, r"original_samples must be an array of \(B, C, ...\)"),
        ({"alphas_cumprod": list(ABAR)}, TypeError, "alphas_cumprod must be .*, got list"),
        ({"alphas_cumprod": ABAR[::-1]}, ValueError, "alphas_cumprod must fall strictly"),
        ({"alphas_cumprod": np.append(ABAR, 0.0)}, ValueError, "alphas_cumprod ends with 0"),
    ],
)
def test_bad_input_of_bits_per_dimension(changes, error, message):
    arguments = {
        "model": lambda x, t: x, "original_samples": X0, "alphas_cumprod": ABAR, "generator": np.random.default_rng(0)
    }  # fmt: skip
    bits_per_dimension(**arguments)
    with pytest.raises(error, match=f"^bits_per_dimension: {message}"):
        bits_per_dimension(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model_output": X0}, ValueError, r"the model's output has shape \(2, 3, 4, 4\), expected \(2, 6, 4, 4\)"),
        ({"model_output": np.zeros((2, 6, 4, 4), np.float16)}, TypeError, "the model's output must be .* one of float16"),
        ({"variance_type": "learned"}, ValueError, "for \"learned\" .* sigma\\^2 > 0, got 0"),
        ({"variance_type": "fixed_small"}, ValueError, "variance_type 'fixed_small' is unknown, expected one of learned, "),
        ({"noise": X0[:1]}, ValueError, r"noise has shape \(1, 3, 4, 4\), expected \(2, 3, 4, 4\)"),
        ({"original_samples": X0 + 1.01}, ValueError, "original_samples must lie in"),
        ({"timesteps": [0, 5]}, ValueError, "expected timesteps 0 .. 4, got 0 .. 5"),
        ({"timesteps": [-1, 4]}, ValueError, "expected timesteps 0 .. 4, got -1 .. 4"),
        ({"timesteps": [0.0, 1.0]}, TypeError, "timesteps must be integers, got dtype float64"),
        ({"timesteps": [0]}, ValueError, r"1 timesteps do not fit original_samples \(2, 3, 4, 4\)"),
        ({"timesteps": 0}, ValueError, r"timesteps must have the shape \(B,\), one for each image, got \(\)"),
        ({"vlb_weight": 0}, ValueError, "vlb_weight is 0, expected a positive number"),
        ({"vlb_weight": "1"}, TypeError, "vlb_weight is '1', expected a number"),
    ],
)
def test_bad_input_of_hybrid_loss(changes, error, message):
    arguments = {
        "model_output": np.zeros((2, 6, 4, 4)), "original_samples": X0, "noise": X0, "timesteps": [0, 4], "alphas_cumprod": ABAR
    }  # fmt: skip
    hybrid_loss(**arguments)
    with pytest.raises(error, match=f"^hybrid_loss: {message}"):
        hybrid_loss(**{**arguments, **changes})
