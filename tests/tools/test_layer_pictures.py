"""Pictures of layers: what is on the axes is what was found, and the figures show themselves."""

import numpy as np
import pytest

import hcrot

X = np.random.default_rng(0).standard_normal((2, 4, 3, 5), dtype=np.float32)


@pytest.fixture(scope="module")
def model():
    parts = [hcrot.Conv2d(4, 4, 3, padding=1, generator=0), hcrot.ReLU(), hcrot.Residual(hcrot.Attention(4, 2, generator=0))]
    return hcrot.Sequential(*parts)


@pytest.fixture(scope="module")
def seen(model):
    with hcrot.watch(model, attention=True, keep=["0"], bins=7) as seen:
        model(X)
        model.backward(X)
    return seen


def names_of(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_a_summary_shows_leaves_in_order_and_the_largest_of_them(model, tmp_path):
    summary = hcrot.summary(model, X)
    figure = hcrot.plotting.plot_summary(summary, tmp_path / "a.png", layers=3)
    names = names_of(figure.axes[0])
    assert len(names) == 3 and names[0] == "0 (Conv2d)" and "1 (ReLU)" not in names and not any("Sequential" in name for name in names)
    assert figure.axes[0].patches[0].get_width() == summary["0"].parameters
    assert figure.axes[2].patches[0].get_width() == pytest.approx(summary["0"].kept / 1e6)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert figure._repr_png_()[:4] == b"\x89PNG"


def test_a_profile_shows_the_slowest_first(model):
    profile = hcrot.profile(model, X, repeats=1)
    left, right = hcrot.plotting.plot_profile(profile).axes
    widths = [patch.get_width() for patch in left.patches]
    slowest = max(profile.lines, key=lambda line: line.own)
    assert widths[0] + widths[len(widths) // 2] == pytest.approx(1e3 * slowest.own)
    assert names_of(left)[0].startswith(slowest.name) and names_of(right) == list(profile.by_kind)


def test_a_watch_shows_sizes_histograms_activations_and_attention(model, seen):
    (axes,) = hcrot.plotting.plot_watch(seen).axes
    assert names_of(axes)[:2] == ["Sequential", "0 (Conv2d)"]
    assert axes.get_lines()[0].get_xdata()[1] == seen["0"].output.rms
    figure = hcrot.plotting.plot_histograms(seen, names=["0", "1"], columns=2)
    assert len(figure.axes) == 4
    np.testing.assert_array_equal(figure.axes[1].patches[0].get_data().values, seen["0"].gradient.counts)
    activations = seen["0"].outputs[0][0]
    figure = hcrot.plotting.plot_activations(activations, channels=3, columns=2)
    np.testing.assert_array_equal(figure.axes[2].get_images()[0].get_array(), activations[2])
    weights = seen["2.module"].attention[0][0]
    figure = hcrot.plotting.plot_attention(weights, queries=[7, 0], shape=(3, 5))
    np.testing.assert_array_equal(figure.axes[0].get_images()[0].get_array(), weights[0, 7].reshape(3, 5))
    assert figure.axes[0].get_lines()[0].get_xydata().tolist() == [[2, 1]]


def test_what_is_not_finite_is_a_cross(model):
    with hcrot.watch(model) as seen, np.errstate(invalid="ignore"):
        model(np.full_like(X, np.nan))
    model.forget()
    (axes,) = hcrot.plotting.plot_watch(seen).axes
    assert "output not finite" in [text.get_text() for text in axes.get_legend().get_texts()]
    hcrot.plotting.plot_histograms(seen)


def test_bad_arguments_are_named(seen):
    with hcrot.watch(hcrot.ReLU()) as nothing, pytest.raises(ValueError, match="plot_watch: no module was called"):
        hcrot.plotting.plot_watch(nothing)
    with pytest.raises(ValueError, match=r"plot_activations: activations must be an array \(channels, height, width\)"):
        hcrot.plotting.plot_activations(X)
    with pytest.raises(ValueError, match=r"plot_attention: attention must be \(heads, queries, 6\)"):
        hcrot.plotting.plot_attention(np.ones((2, 6, 5)), queries=[0], shape=(2, 3))
    with pytest.raises(ValueError, match="plot_attention: queries must be from 0 to 5"):
        hcrot.plotting.plot_attention(np.ones((2, 6, 6)), queries=[6], shape=(2, 3))


def test_pictures_of_a_run_show_themselves_too_and_need_no_path():
    for figure in (hcrot.plotting.plot_loss([1, 2], [3.0, 2.0]), hcrot.plotting.image_grid(np.tanh(X[:, :3]), columns=2)):
        assert figure._repr_png_()[:4] == b"\x89PNG"
