import math

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.embedding import Embedding, GaussianFourierProjection, TimestepEmbedding, Timesteps


def embedding(*arguments) -> Embedding:
    return Embedding(*arguments, generator=np.random.default_rng(0))


@pytest.mark.parametrize("indices", [np.array([[1, 1, 4], [0, 1, 2]]), np.array(3), np.array([2, 2], np.uint8)])
def test_embedding_gradients(indices):
    check_gradients(embedding(5, 3), indices)


def test_embedding_adds_up_repeated_indices():
    # B04: of equal labels only the last one's gradient was kept
    layer = embedding(4, 2)
    layer(np.array([1, 1, 2]))
    assert layer.backward(np.ones((3, 2), np.float32)) is None
    np.testing.assert_array_equal(layer.weight.grad, [[0, 0], [2, 2], [1, 1], [0, 0]])
    layer(np.array([0, 1, 1]))
    layer.backward(np.ones((3, 2), np.float32))
    np.testing.assert_array_equal(layer.weight.grad, [[1, 1], [4, 4], [1, 1], [0, 0]])


def test_embedding_looks_up_copies_of_rows():
    layer = embedding(4, 2)
    for indices in (np.array([3, 0]), np.array([[1]]), np.array(2), [1, 2], np.zeros((2, 0), int)):
        y = layer(indices)
        assert y.shape == (*np.shape(indices), 2)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, layer.weight.data[indices])
        assert not np.shares_memory(y, layer.weight.data)
    assert layer.astype(np.float64)(np.array([0])).dtype == np.float64


def test_embedding_starts_standard_normal():
    weight = embedding(200, 100).weight.data
    assert weight.dtype == np.float32
    assert abs(weight.mean()) < 0.03
    assert abs(weight.std() - 1) < 0.03


def test_embedding_padding_row_is_zero_and_stays_so():
    # B37: the gradient ignored it
    layer = embedding(4, 2, 1)
    with layer.inference():
        np.testing.assert_array_equal(layer(np.array([1])), [[0, 0]])
    layer(np.array([[1, 2], [2, 1]]))
    layer.backward(np.ones((2, 2, 2), np.float32))
    np.testing.assert_array_equal(layer.weight.grad, [[0, 0], [0, 0], [2, 2], [0, 0]])


@pytest.mark.parametrize("bad", [-1, 5, 100])
def test_embedding_names_the_index_out_of_range(bad):
    with pytest.raises(ValueError, match=f"Embedding: index {bad} is not from 0 to 4"):
        embedding(5, 3)(np.array([[0, 1], [bad, 2]]))


@pytest.mark.parametrize("indices", [np.array([0.0]), np.array([True]), "0"])
def test_embedding_wants_integers(indices):
    with pytest.raises(TypeError, match="Embedding: indices must be integers, got"):
        embedding(5, 3)(indices)


def test_embedding_checks_its_arguments():
    with pytest.raises(ValueError, match="Embedding: num_embeddings must be an int of at least 1, got None"):
        Embedding(None, 3)  # B07
    with pytest.raises(ValueError, match="Embedding: embedding_dim must be an int of at least 1, got 0"):
        Embedding(3, 0)
    for padding_idx in (3, -4, 1.0, True):
        with pytest.raises(ValueError, match=f"Embedding: padding_idx must be None or an int from -3 to 2, got {padding_idx}"):
            Embedding(3, 4, padding_idx)


@pytest.mark.parametrize(("dim", "shift"), [(8, 0), (8, 1), (7, 0), (6, 0.5)])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_timesteps_follow_the_formula(dim, shift, flip, dtype):
    timesteps = np.array([0, 1, 17, 999])
    y = Timesteps(dim, flip, shift)(timesteps, dtype)
    half = dim // 2
    assert y.dtype == dtype
    assert y.shape == (4, dim)
    for row, t in zip(y, timesteps, strict=True):
        angles = [t * math.exp(-math.log(10000) * i / (half - shift)) for i in range(half)]
        sines, cosines = [math.sin(a) for a in angles], [math.cos(a) for a in angles]
        expected = (cosines + sines if flip else sines + cosines) + [0] * (dim % 2)
        np.testing.assert_allclose(row, expected, atol=1e-4 if dtype == np.float32 else 1e-12)


def test_timesteps_may_be_fractions_and_of_any_number_type():
    layer = Timesteps(6)
    np.testing.assert_array_equal(layer(np.array([3], np.uint8)), layer(np.array([3.0])))
    assert layer(np.array([3, 4])).dtype == np.float32
    assert (layer(np.array([3.5])) != layer(np.array([3.0]))).any()


def test_timesteps_check_their_arguments():
    with pytest.raises(ValueError, match="Timesteps: num_channels must be an int of at least 1, got 0"):
        Timesteps(0)
    with pytest.raises(ValueError, match=r"Timesteps: downscale_freq_shift 2 must be less than num_channels // 2 = 2"):
        Timesteps(4, True, 2)
    with pytest.raises(ValueError, match=r"Timesteps: timesteps must be of shape \(batch,\), got \(\)"):
        Timesteps(4)(3)
    with pytest.raises(TypeError, match="Timesteps: timesteps must be integers or floating-point numbers, got bool"):
        Timesteps(4)(np.array([True]))
    with pytest.raises(TypeError, match="Timesteps: dtype must be float32 or float64, got int64"):
        Timesteps(4)(np.array([1]), np.int64)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-11)])
def test_random_frequencies_follow_the_formula(dtype, tolerance):
    layer = GaussianFourierProjection(5, 2.0, generator=np.random.default_rng(0)).astype(dtype)
    timesteps = np.array([1, 3, 999], np.uint16)
    y = layer(timesteps)
    assert y.dtype == dtype
    for row, t in zip(y, timesteps, strict=True):
        angles = [2 * math.pi * weight * math.log(t) for weight in layer.weight.data.astype(float)]
        np.testing.assert_allclose(row, [*map(math.sin, angles), *map(math.cos, angles)], atol=tolerance)


def test_random_frequencies_are_drawn_with_the_scale_and_not_learned():
    layer = GaussianFourierProjection(10_000, 16, generator=np.random.default_rng(0))
    assert abs(layer.weight.data.std() / 16 - 1) < 0.03
    assert layer.weight.data.dtype == np.float32
    assert list(layer.state_dict()) == ["weight"]
    assert layer.parameters() == []


def test_random_frequencies_check_their_arguments():
    with pytest.raises(ValueError, match="GaussianFourierProjection: embedding_size must be an int of at least 1, got 0"):
        GaussianFourierProjection(0)
    with pytest.raises(ValueError, match=r"GaussianFourierProjection: timesteps must be of shape \(batch,\), got \(\)"):
        GaussianFourierProjection(4)(3)
    with pytest.raises(TypeError, match="GaussianFourierProjection: timesteps must be integers or floating-point numbers, got bool"):
        GaussianFourierProjection(4)(np.array([True]))


def test_timestep_embedding():
    layer = TimestepEmbedding(4, 6, generator=np.random.default_rng(0))
    names = ["linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias"]
    assert [(name, parameter.shape) for name, parameter in layer.named_parameters()] == list(
        zip(names, [(6, 4), (6,), (6, 6), (6,)], strict=True)
    )
    x = np.random.default_rng(1).standard_normal((3, 4))
    check_gradients(layer, x)
    layer.astype(np.float64)
    w1, b1, w2, b2 = (parameter.data for parameter in layer.parameters())
    hidden = x @ w1.T + b1
    np.testing.assert_allclose(layer(x), hidden / (1 + np.exp(-hidden)) @ w2.T + b2, rtol=1e-12)
