"""Learn the score of points in the plane, and with it draw new ones, follow the flow, and tell how probable each point is.

    python examples/score_2d.py                     15 seconds of training on two cores, then 12 for the picture
    python examples/score_2d.py --seconds 120       the same, learned better

Two moons, two spirals and a mixture of seven normal distributions: for each a small network learns the score (Song et al. 2021,
arXiv:2011.13456, with the VP process). The picture has a row for each:

    data                 fresh points of the distribution
    score                which way more probable points lie, at the time t when the noise has a standard deviation of 0.2
    flow                 the probability flow: every noise (outer end) goes its own way to a sample (bright end), without chance
    samples              by predictor and corrector, with chance
    learned, true        log p, by the flow and the hand-written backward of the network, and by the formula

All three are mixtures of round normal distributions, the curves of 400 each, so their true density is a sum, and how many nats the
network's log-likelihood is short of the truth can be told.
"""

import argparse
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from tqdm import tqdm

import hcrot
from hcrot.files.json_and_arrays import replacing
from hcrot.init import default_generator
from hcrot.pipelines.sde import log_likelihood, predictor_corrector, probability_flow
from hcrot.tools.stopping import end_on_signals

PAGE, INK = "#1c1c1c", "#e8e8e8"
VIEW = 2.6  # the pictures show -VIEW .. VIEW
END = 1e-3  # of sampling and likelihood: the noise of that time has a standard deviation of 0.01
BATCH = 384


# the data -------------------------------------------------------------------------------------------------------------


class Mixture(NamedTuple):
    """K round normal distributions in the plane."""

    weights: np.ndarray  # (K,)
    means: np.ndarray  # (K, 2)
    stds: np.ndarray  # (K,)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count, 2) float32."""
        k = rng.choice(len(self.weights), size=count, p=self.weights)
        return (self.means[k] + self.stds[k, None] * rng.standard_normal((count, 2))).astype(np.float32)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """log sum_k w_k N(x; mu_k, sigma_k^2 I), (B,) for x (B, 2)."""
        squares = ((x[:, None, :] - self.means) ** 2).sum(axis=2)
        logs = np.log(self.weights) - squares / (2 * self.stds**2) - np.log(2 * math.pi * self.stds**2)
        return np.logaddexp.reduce(logs, axis=1)


def moons() -> Mixture:
    angle = np.linspace(0, math.pi, 200)
    upper = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], axis=1)
    return curve(1.25 * np.concatenate([upper, -upper]), 0.11)


def spirals() -> Mixture:
    turn = 3 * math.pi * np.sqrt(np.linspace(0.04, 1, 200))
    arm = np.stack([turn * np.cos(turn), turn * np.sin(turn)], axis=1) / (3 * math.pi)
    return curve(2 * np.concatenate([arm, -arm]), 0.07)


def curve(points: np.ndarray, std: float) -> Mixture:
    return Mixture(np.full(len(points), 1 / len(points)), points, np.full(len(points), std))


def seven() -> Mixture:
    """One in the middle, six around it, of falling weights and widths."""
    angle = np.arange(6) * math.pi / 3
    means = np.concatenate([[[0.0, 0.0]], 1.6 * np.stack([np.cos(angle), np.sin(angle)], axis=1)])
    weights = np.array([5.0, 6, 5, 4, 3, 2, 1])
    return Mixture(weights / weights.sum(), means, np.array([0.25, 0.32, 0.28, 0.24, 0.2, 0.16, 0.12]))


DATA = {"two moons": moons, "two spirals": spirals, "seven normal": seven}


# the network ------------------------------------------------------------------------------------------------------------


class Waves(hcrot.Module):
    """``y = [x, a sin(F x), a cos(F x)]``, ``a = exp(-s^2 |F|^2/2)``, with fixed random frequencies F (D, 2): what is fine in x is then
    easy to learn (Tancik et al. 2020), but only where noise of standard deviation s (B,) leaves anything so fine: a sin(F x) is the mean of
    sin(F x') over x' ~ N(x, s^2 I). Without a, the score is rough where it should be smooth, and the divergence of the flow is wrong.

    Backward: ``dx = dy_x + a (cos(F x) dy_sin - sin(F x) dy_cos) F``.
    """

    def __init__(self, count: int, generator: np.random.Generator):
        self.frequencies = hcrot.Parameter(3 * generator.standard_normal((count, 2), dtype=np.float32), trainable=False)

    def forward(self, x: np.ndarray, std: np.ndarray) -> np.ndarray:
        frequencies = self.frequencies.data
        angles, left = x @ frequencies.T, np.exp(-0.5 * std[:, None] ** 2 * np.square(frequencies).sum(axis=1)).astype(x.dtype)
        sines, cosines = left * np.sin(angles), left * np.cos(angles)
        self.save(sines, cosines)
        return np.concatenate([x, sines, cosines], axis=1)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        sines, cosines = self.saved()
        dx, dsines, dcosines = np.split(dy, (2, 2 + sines.shape[1]), axis=1)
        return dx + (cosines * dsines - sines * dcosines) @ self.frequencies.data


class Block(hcrot.Module):
    """``y = h + linear_2(silu(linear_1(h) + time(e)))``, with e the embedding of the time."""

    def __init__(self, width: int, generator: np.random.Generator):
        self.linear_1, self.time, self.linear_2 = (hcrot.Linear(width, width, generator=generator) for _ in range(3))
        self.act = hcrot.SiLU()

    def forward(self, h: np.ndarray, e: np.ndarray) -> np.ndarray:
        return self.linear_2(self.act(self.linear_1(h, residual=self.time(e))), residual=h)

    def backward(self, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        da = self.act.backward(self.linear_2.backward(dy))
        return self.linear_1.backward(da, residual=dy), self.time.backward(da)


class ScoreOfPoints(hcrot.Module):
    """``score(x, t) = F(x, t)/sqrt(s(t)^2 + 0.1^2)`` of points x (B, 2) at times t (B,), with F a network; backward returns dx.

    0.1 is about how narrow the data are, and so how steep log p is where hardly any noise is left.
    """

    def __init__(self, sde: hcrot.VPSDE, width: int = 64, depth: int = 1, *, generator: np.random.Generator | int | None = None):
        generator = default_generator("ScoreOfPoints", generator)
        self.sde = sde
        self.waves_of_time, self.waves = hcrot.Timesteps(32), Waves(64, generator)
        self.embed = hcrot.TimestepEmbedding(32, width, generator=generator)
        self.first = hcrot.Linear(2 + 2 * 64, width, generator=generator)
        self.blocks = [Block(width, generator) for _ in range(depth)]
        self.act = hcrot.SiLU()
        self.last = hcrot.Linear(width, 2, generator=generator)

    def forward(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        std = self.sde.std(t)
        e, h = self.embed(self.waves_of_time(1000 * t, dtype=x.dtype)), self.first(self.waves(x, std))
        for block in self.blocks:
            h = block(h, e)
        steepness = (1 / np.hypot(std, 0.1)).astype(x.dtype)[:, None]
        self.save(steepness)
        return self.last(self.act(h)) * steepness

    def backward(self, dout: np.ndarray) -> np.ndarray:
        dh, de = self.act.backward(self.last.backward(dout * self.saved())), np.float32(0)
        for block in reversed(self.blocks):
            dh, of_block = block.backward(dh)
            de = de + of_block
        self.embed.backward(de)
        return self.waves.backward(self.first.backward(dh))


def mean_noise(x: np.ndarray, x0: np.ndarray, signal: np.ndarray, std: np.ndarray) -> np.ndarray:
    """z of x = m x_0 + s z, averaged over all the points x_0 that may lie behind x, as probable as they are: (B, 2) like x.

        E[z | x] = (x - m sum_j w_j x_0j)/s,  w_j ~ exp(-|x - m x_0j|^2/(2 s^2)),  sum_j w_j = 1

    It has nearly the same mean as the one z that x was made with, which is all that denoising score matching needs, and far less variance
    (Xu, Tong & Jaakkola 2023, arXiv:2302.00670, eq. 8). The x_0 (N, 2) are those of the batch; m and s are (B,).
    """
    m, s = signal.astype(x.dtype)[:, None], std.astype(x.dtype)[:, None]
    logs = (m * (x @ x0.T) - 0.5 * m**2 * np.square(x0).sum(axis=1)) / s**2
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return (x - m * (weights @ x0)) / s


def train(data: Mixture, sde: hcrot.VPSDE, seconds: float, rng: np.random.Generator, name: str) -> ScoreOfPoints:
    """For so many seconds after the first step, which may have to compile kernels; the learning rate falls to 0 by the clock."""
    model = ScoreOfPoints(sde, generator=rng)
    optimizer = hcrot.Adam(model.parameters(), lr=1e-2)
    ema = hcrot.EMA(model.parameters(), decay=0.99)
    start, elapsed, average = time.perf_counter(), 0.0, 1.0
    form = "{desc} {percentage:3.0f}%|{bar}| {n:.0f} of {total:.0f} s{postfix}"
    with tqdm(total=seconds, desc=f"{name:12}", bar_format=form, disable=sys.stderr is None) as bar:
        while elapsed < seconds:
            optimizer.lr = 1e-2 * 0.5 * (1 + math.cos(math.pi * elapsed / seconds))
            x0, noise = data.sample(BATCH, rng), rng.standard_normal((BATCH, 2), dtype=np.float32)
            t = END ** ((np.arange(BATCH) + rng.random()) / BATCH)  # log t evenly: by log s(t) the loss is near the likelihood's
            x, std = sde.add_noise(x0, noise, t), sde.std(t)
            loss, dout = hcrot.denoising_score_matching_loss(model(x, t), mean_noise(x, x0, sde.signal(t), std), std)
            model.backward(dout)
            optimizer.step()
            model.zero_grad()
            ema.step()
            average += 0.01 * (loss - average)
            start = time.perf_counter() if optimizer.step_count == 1 else start
            now = time.perf_counter() - start
            bar.set_postfix_str(f"step {optimizer.step_count}, loss {average:.3f}", refresh=False)
            bar.update(min(now, seconds) - elapsed)
            elapsed = min(now, seconds)
    with ema.swapped_in():
        learned = model.state_dict()
    model.load_state_dict(learned)
    return model


# the picture ------------------------------------------------------------------------------------------------------------


def draw(rows: list[tuple[str, Mixture, ScoreOfPoints]], sde: hcrot.VPSDE, rng: np.random.Generator, path: Path) -> None:
    titles = ("data", "score", "flow", "samples", "learned log p", "true log p")
    figure = Figure(figsize=(15, 2.62 * len(rows)), dpi=130, facecolor=PAGE, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for axis in axes.ravel():
        axis.set(xlim=(-VIEW, VIEW), ylim=(-VIEW, VIEW), xticks=[], yticks=[], aspect="equal", facecolor="black")
        axis.spines[:].set_color("#555555")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, color=INK)

    for (data, field, flow, samples, learned, true), (name, mixture, score) in zip(axes, tqdm(rows, desc="drawing"), strict=True):
        data.set_ylabel(name, color=INK)
        dots = {"s": 2, "alpha": 0.7, "linewidths": 0}
        data.scatter(*mixture.sample(2500, rng).T, color="#9ec3e6", **dots)
        draw_field(field, score, sde, mixture, rng)
        draw_flow(flow, score, sde, rng)
        points = predictor_corrector(score, sde, (2500, 2), num_steps=100, sampling_eps=END, generator=rng)
        samples.scatter(*points.T, color="#f0b67f", **dots)

        line = np.linspace(-VIEW, VIEW, 56)
        grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2).astype(np.float32)
        found, _ = log_likelihood(score, sde, grid, probes="exact", sampling_eps=END, rtol=1e-3, atol=1e-3)
        for axis, values in ((learned, found), (true, mixture.log_density(grid))):
            image = {"extent": (-VIEW, VIEW) * 2, "origin": "lower", "interpolation": "bilinear"}
            axis.imshow(values.reshape(len(line), -1), cmap="magma", vmin=-6, vmax=0.5, **image)

        fresh = mixture.sample(400, rng)
        found, _ = log_likelihood(score, sde, fresh, probes="exact", sampling_eps=END, rtol=1e-4, atol=1e-4)
        means = found.mean(), mixture.log_density(fresh).mean()
        print(f"{name}: log-likelihood of fresh points {means[0]:.3f} nats, true {means[1]:.3f}, {means[1] - means[0]:.3f} short of it")
        for axis, mean in zip((learned, true), means, strict=True):
            axis.text(0.03, 0.03, f"mean of data {mean:.2f} nats", color=INK, fontsize=8, transform=axis.transAxes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png")


def draw_field(axis, score: ScoreOfPoints, sde: hcrot.VPSDE, mixture: Mixture, rng: np.random.Generator) -> None:
    """Arrows s(t) score at the t with s(t) = 0.2, and where the noised data are."""
    times = np.linspace(END, 1, 1000)
    t = times[np.argmin(np.abs(sde.std(times) - 0.2))]
    clean = mixture.sample(3000, rng)
    axis.scatter(*sde.add_noise(clean, rng.standard_normal(clean.shape, dtype=np.float32), t).T, s=1, color="#33506b", linewidths=0)
    line = np.linspace(-VIEW, VIEW, 25)[1:-1]
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2).astype(np.float32)
    with score.inference():
        arrows = float(sde.std(t)) * score(grid, np.full(len(grid), t))
    strength = np.linalg.norm(arrows, axis=1)
    arrows /= np.maximum(strength, 1)[:, None]  # far away they would cover each other
    axis.quiver(*grid.T, *arrows.T, np.minimum(strength, 4), cmap="viridis", angles="xy", scale_units="xy", scale=5.5, width=0.005)


def draw_flow(axis, score: ScoreOfPoints, sde: hcrot.VPSDE, rng: np.random.Generator) -> None:
    """The ways of 150 points from t = 1 to END, dim where they begin and bright where they end."""
    noise = sde.prior_sample((150, 2), rng)
    times = END ** np.linspace(0, 1, 60)  # the last part of the way is the shortest, but that is where the points part
    path = probability_flow(score, sde, noise, times)
    pieces = np.stack([path[:-1], path[1:]], axis=2).reshape(-1, 2, 2)  # (piece, end, coordinate)
    progress = np.repeat(np.linspace(0, 1, len(times) - 1), len(noise))
    axis.add_collection(LineCollection(pieces, array=progress, cmap="plasma", linewidths=0.7, alpha=0.7))
    axis.scatter(*noise.T, s=2, color="#6a5acd", linewidths=0)
    axis.scatter(*path[-1].T, s=5, color="#fff3a0", linewidths=0, zorder=3)


# the program --------------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}\n")  # one sentence, without the usage before it


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def main() -> None:
    parser = Parser(prog="score_2d.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=positive, default=15.0, help="of training, for all three together (default: 15)")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn (default: 0)")
    parser.add_argument("--output", type=Path, default=Path("runs/score_2d.png"), help="the picture (default: runs/score_2d.png)")
    args = parser.parse_args()
    if args.output.is_dir() or args.seed < 0:
        parser.error(f"--output {args.output} is a folder" if args.output.is_dir() else f"--seed {args.seed}: expected 0 or more")
    end_on_signals()
    rng, sde, start = np.random.default_rng(args.seed), hcrot.VPSDE(), time.perf_counter()
    rows = []
    for name, make in DATA.items():
        data = make()
        rows.append((name, data, train(data, sde, args.seconds / len(DATA), rng, name)))
    draw(rows, sde, rng, args.output)
    print(f"The picture is {args.output}, {time.perf_counter() - start:.0f} seconds after the start.")


if __name__ == "__main__":
    main()
