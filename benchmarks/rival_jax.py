"""diffusers' UNet2DModel in JAX, from its weights, for ``rivals.py``: images channels-last, compiled by XLA."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from networks import make_batch, torch_model

Weights = dict[str, jax.Array]

DEFAULTS = {"norm_num_groups": 32, "norm_eps": 1e-5, "attention_head_dim": 8, "layers_per_block": 2, "downsample_padding": 1,
            "flip_sin_to_cos": True, "freq_shift": 0}  # fmt: skip
"""diffusers' own."""


class Network:
    """The network's formulas. An array x is (B, H, W, C); ``w`` has the weights by diffusers' names."""

    def __init__(self, config: dict):
        self.config = DEFAULTS | config

    def __call__(self, w: Weights, x: jax.Array, timesteps: jax.Array, labels: jax.Array | None) -> jax.Array:
        config = self.config
        temb = self.time_embedding(w, timesteps, config["block_out_channels"][0])
        if labels is not None:
            temb = temb + w["class_embedding.weight"][labels]
        x = conv(w, "conv_in", x)
        skips, last = [x], len(config["block_out_channels"]) - 1
        for level, kind in enumerate(config["down_block_types"]):
            block = f"down_blocks.{level}"
            for number in range(config["layers_per_block"]):
                x = self.layer(w, block, number, x, temb, kind.startswith("Attn"))
                skips.append(x)
            if level < last:
                padding = config["downsample_padding"]
                x = conv(w, f"{block}.downsamplers.0.conv", x, 2, (padding, padding) if padding else (0, 1))
                skips.append(x)
        x = self.resnet(w, "mid_block.resnets.0", x, temb)
        x = self.resnet(w, "mid_block.resnets.1", self.attention(w, "mid_block.attentions.0", x), temb)
        for level, kind in enumerate(config["up_block_types"]):
            block = f"up_blocks.{level}"
            for number in range(config["layers_per_block"] + 1):
                x = self.layer(w, block, number, jnp.concatenate([x, skips.pop()], 3), temb, kind.startswith("Attn"))
            if level < last:
                height, width = skips[-1].shape[1:3]
                x = x[:, jnp.arange(height) * x.shape[1] // height][:, :, jnp.arange(width) * x.shape[2] // width]
                x = conv(w, f"{block}.upsamplers.0.conv", x)
        return conv(w, "conv_out", jax.nn.silu(self.norm(w, "conv_norm_out", x)))

    def time_embedding(self, w: Weights, timesteps: jax.Array, channels: int) -> jax.Array:
        half = channels // 2
        frequencies = jnp.exp(-math.log(10000) * jnp.arange(half) / (half - self.config["freq_shift"]))
        angles = timesteps[:, None] * frequencies
        parts = [jnp.sin(angles), jnp.cos(angles)]
        waves = jnp.concatenate(parts[::-1] if self.config["flip_sin_to_cos"] else parts, 1)
        return linear(w, "time_embedding.linear_2", jax.nn.silu(linear(w, "time_embedding.linear_1", waves)))

    def layer(self, w: Weights, block: str, number: int, x: jax.Array, temb: jax.Array, attends: bool) -> jax.Array:
        x = self.resnet(w, f"{block}.resnets.{number}", x, temb)
        return self.attention(w, f"{block}.attentions.{number}", x) if attends else x

    def resnet(self, w: Weights, name: str, x: jax.Array, temb: jax.Array) -> jax.Array:
        h = conv(w, f"{name}.conv1", jax.nn.silu(self.norm(w, f"{name}.norm1", x)))
        h = h + linear(w, f"{name}.time_emb_proj", jax.nn.silu(temb))[:, None, None]
        h = conv(w, f"{name}.conv2", jax.nn.silu(self.norm(w, f"{name}.norm2", h)))
        return h + (conv(w, f"{name}.conv_shortcut", x, 1, (0, 0)) if f"{name}.conv_shortcut.weight" in w else x)

    def attention(self, w: Weights, name: str, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        size = self.config["attention_head_dim"] or channels
        tokens = self.norm(w, f"{name}.group_norm", x).reshape(batch, height * width, channels)
        q, k, v = (linear(w, f"{name}.to_{part}", tokens).reshape(batch, height * width, -1, size) for part in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bihc,bjhc->bhij", q, k) / math.sqrt(size), -1)
        mixed = jnp.einsum("bhij,bjhc->bihc", weights, v).reshape(batch, height * width, channels)
        return x + linear(w, f"{name}.to_out.0", mixed).reshape(x.shape)

    def norm(self, w: Weights, name: str, x: jax.Array) -> jax.Array:
        grouped = x.reshape(*x.shape[:3], self.config["norm_num_groups"], -1)
        mean, variance = grouped.mean((1, 2, 4), keepdims=True), grouped.var((1, 2, 4), keepdims=True)
        flat = ((grouped - mean) * lax.rsqrt(variance + self.config["norm_eps"])).reshape(x.shape)
        return flat * w[f"{name}.weight"] + w[f"{name}.bias"]


def conv(w: Weights, name: str, x: jax.Array, stride: int = 1, padding: tuple[int, int] = (1, 1)) -> jax.Array:
    numbers = ("NHWC", "OIHW", "NHWC")
    y = lax.conv_general_dilated(x, w[f"{name}.weight"], (stride, stride), [padding, padding], dimension_numbers=numbers)
    return y + w[f"{name}.bias"]


def linear(w: Weights, name: str, x: jax.Array) -> jax.Array:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def jax_step(config: dict, task: str, batch: int) -> Callable[[], object]:
    """A function that does one step of the network with PyTorch's weights: ``networks.torch_step`` in JAX."""
    network = Network(config)
    w = {name: jnp.asarray(value.detach().numpy()) for name, value in torch_model(config).state_dict().items()}
    images, noise, timesteps, labels = (None if array is None else jnp.asarray(array) for array in make_batch(config, batch))
    images, noise = images.transpose(0, 2, 3, 1), noise.transpose(0, 2, 3, 1)
    if task == "forward":
        forward = jax.jit(network.__call__)
        same = jnp.full(batch, 500)
        return lambda: np.asarray(forward(w, images, same, labels)).transpose(0, 3, 1, 2)

    def loss_of(w: Weights) -> jax.Array:
        return jnp.mean((network(w, images, timesteps, labels) - noise) ** 2)

    @jax.jit
    def train(state: tuple) -> tuple[jax.Array, tuple]:
        """Clipping to norm 1 and AdamW with PyTorch's constants."""
        w, m, v, step = state
        loss, gradient = jax.value_and_grad(loss_of)(w)
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in gradient.values()))
        gradient = {name: g * jnp.minimum(1.0, 1.0 / (norm + 1e-6)) for name, g in gradient.items()}
        m = {name: 0.9 * m[name] + 0.1 * g for name, g in gradient.items()}
        v = {name: 0.999 * v[name] + 0.001 * g * g for name, g in gradient.items()}
        rate, root = 1e-4 / (1 - 0.9**step), jnp.sqrt(1 - 0.999**step)
        w = {name: p * (1 - 1e-6) - rate * m[name] / (jnp.sqrt(v[name]) / root + 1e-8) for name, p in w.items()}
        return loss, (w, m, v, step + 1)

    zeros = {name: jnp.zeros_like(value) for name, value in w.items()}
    state = [(w, zeros, zeros, jnp.float32(1))]

    def step() -> float:
        loss, state[0] = train(state[0])
        return float(loss)

    return step
