"""examples/score_2d.py: its network's gradients, its densities, a short run, and how it refuses bad options."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hcrot
from hcrot.pipelines.sde import log_likelihood
from support.gaussian_mixture import MixtureScore

SCRIPT = Path(__file__).parent.parent / "examples" / "score_2d.py"


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("score_2d", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run(tmp_path, *options):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), *sys.path])}
    command = [sys.executable, SCRIPT, *options]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8")


def test_gradients_of_the_network(script):
    rng = np.random.default_rng(0)
    model, t = script.ScoreOfPoints(hcrot.VPSDE(), width=6, depth=2, generator=rng), np.array([0.01, 0.2, 0.5, 0.7, 1.0])
    model.waves.frequencies.data *= 0.2  # differences of slower waves are more exact
    hcrot.check_gradients(model, rng.standard_normal((5, 2)), forward=lambda one, x: one(x, t), rtol=1e-5)


def test_the_densities_are_those_of_the_samples(script):
    """Each integrates to 1, and has the mean of its samples."""
    line = np.linspace(-4, 4, 121)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    for make in script.DATA.values():
        mixture, cell = make(), (line[1] - line[0]) ** 2
        density = np.concatenate([np.exp(mixture.log_density(part)) for part in np.array_split(grid, 8)])
        assert density.sum() * cell == pytest.approx(1, abs=1e-3)
        samples = mixture.sample(5000, np.random.default_rng(1))
        np.testing.assert_allclose(samples.mean(axis=0), density @ grid * cell, atol=0.08)


def test_the_mean_noise_is_that_of_the_true_score(script):
    """Over many points -s score(x), and over the only point the noise itself."""
    rng, sde, mixture = np.random.default_rng(3), hcrot.VPSDE(), script.seven()
    t = np.linspace(0.1, 1, 200)
    points, x = mixture.sample(20_000, rng), sde.add_noise(mixture.sample(200, rng), rng.standard_normal((200, 2), dtype=np.float32), t)
    exact = MixtureScore(sde, *mixture)
    with exact.inference():
        true = -sde.std(t)[:, None] * exact(x, t)
    found = script.mean_noise(x, points, sde.signal(t), sde.std(t))
    assert np.sqrt(np.mean((found - true) ** 2)) < 0.03
    one, t, noise = points[:1], t[:1], np.array([[0.5, -2.0]], np.float32)
    alone = script.mean_noise(sde.add_noise(one, noise, t), one, sde.signal(t), sde.std(t))
    np.testing.assert_allclose(alone, noise, rtol=1e-5)


def test_training_brings_the_likelihood_near_the_truth(script):
    rng, sde = np.random.default_rng(2), hcrot.VPSDE()
    mixture = script.Mixture(np.array([0.5, 0.5]), np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([0.3, 0.3]))
    points = mixture.sample(100, rng)
    gaps = []
    for seconds in (0.01, 3.0):
        score = script.train(mixture, sde, seconds, rng, "test")
        found, _ = log_likelihood(score, sde, points, probes="exact", sampling_eps=script.END, rtol=1e-3, atol=1e-3)
        gaps.append(mixture.log_density(points).mean() - found.mean())
    assert gaps[1] < 1.0 < gaps[0]


def test_a_run_draws_its_picture(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "DATA", {"seven normal": script.seven})
    monkeypatch.setattr(sys, "argv", ["score_2d.py", "--seconds", "0.2", "--output", str(tmp_path / "new" / "picture.png")])
    monkeypatch.setattr(script, "log_likelihood", lambda *arguments, **options: (np.full(len(arguments[2]), -3.0), None))  # for time
    monkeypatch.setattr(script, "end_on_signals", lambda: None)
    script.main()
    assert "seven normal: log-likelihood of fresh points -3.000 nats, true -1." in capsys.readouterr().out
    with Image.open(tmp_path / "new" / "picture.png") as picture:
        assert picture.width > 1500 and len(picture.convert("RGB").getcolors(10**7)) > 500


@pytest.mark.parametrize(("options", "message"), [
    (["--seconds", "0"], "argument --seconds: expected a number above 0, got '0'"),
    (["--seconds", "soon"], "argument --seconds: expected a number above 0, got 'soon'"),
    (["--output", "."], "--output . is a folder"),
    (["--seed", "-1"], "--seed -1: expected 0 or more"),
])  # fmt: skip
def test_bad_options_are_refused_in_one_line(script, options, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["score_2d.py", *options])
    with pytest.raises(SystemExit) as end:
        script.main()
    assert end.value.code == 2 and capsys.readouterr().err == f"score_2d.py: {message}\n"


def test_help(tmp_path):
    shown = run(tmp_path, "--help")
    assert shown.returncode == 0 and all(option in shown.stdout for option in ("--seconds", "--seed", "--output"))
