"""What lets an image attend to a text: the transformer between the residual blocks of a ``UNet2DConditionModel``.

    Transformer2DModel        an image's pixels as tokens, through some of
    BasicTransformerBlock     attention to themselves, attention to the context, a feed forward, each added to its input
    FeedForward, GEGLU        two linear layers with a gate between them

Names and parameter keys are diffusers'. The context, a text as vectors, goes to every block. So its gradient is added to an accumulator
that the caller owns, as that of ``temb`` is (``unet_2d_blocks.py``): ``forward(x, context)`` becomes ``backward(dy, dcontext) -> dx``.

Notation: B images, C channels, T = H W pixels or tokens, K tokens of the context, of D numbers each. Sources: Vaswani et al. 2017; Rombach
et al. 2022 (section 3.3 and appendix E.2.1); Shazeer 2020 for the gate.
"""

import numpy as np

from hcrot import init
from hcrot.layers.activation import GELU
from hcrot.layers.attention import images, tokens
from hcrot.layers.conv import Conv2d, check_images
from hcrot.layers.cross_attention import CrossAttention
from hcrot.layers.linear import Linear
from hcrot.layers.norm import GroupNorm, LayerNorm
from hcrot.module import Identity, Module, Sequential, check_gradient

__all__ = ["GEGLU", "BasicTransformerBlock", "FeedForward", "Transformer2DModel"]


class GEGLU(Module):
    """``y = a GELU(g)`` with ``(a, g) = proj(x)``: one half of the numbers is the gate of the other (Shazeer 2020, eq. 6).

    Backward: ``da = dy GELU(g)``, ``dg = dy a GELU'(g)``. Kept are a and GELU(g); GELU keeps g.

    Args:
        dim_in, dim_out: widths of x and y.
        generator: source of initial values.

    Shapes:
        x (..., dim_in) -> y (..., dim_out). ``proj.weight`` (2 dim_out, dim_in), ``proj.bias`` (2 dim_out,).

    Raises:
        ValueError: a size below 1; in forward, an x of another width or dtype.
    """

    def __init__(self, dim_in: int, dim_out: int, *, generator: np.random.Generator | int | None = None):
        dim_in, dim_out = init.check_positive("GEGLU", dim_in=dim_in, dim_out=dim_out)
        self.proj = Linear(dim_in, 2 * dim_out, generator=generator)
        self.gelu = GELU()

    def forward(self, x: np.ndarray) -> np.ndarray:
        a, g = np.split(self.proj(x), 2, axis=-1)
        gate = self.gelu(g)
        self.save(a, gate)
        return a * gate

    def backward(self, dout: np.ndarray) -> np.ndarray:
        a, gate = self.saved()
        check_gradient("GEGLU", dout, a.shape, a.dtype)
        return self.proj.backward(np.concatenate([dout * gate, self.gelu.backward(dout * a)], axis=-1))


class FeedForward(Module):
    """``y = linear(GEGLU(x))``, token by token, four times as wide in between.

    Args:
        dim: width of x and y.
        generator: source of initial values.

    Shapes:
        x (..., dim) -> y (..., dim). Parameters: ``net.0.proj`` and ``net.2``, as in diffusers, where dropout is between the two.

    Raises:
        ValueError: a dim below 1; in forward, an x of another width or dtype.
    """

    def __init__(self, dim: int, *, generator: np.random.Generator | int | None = None):
        (dim,) = init.check_positive("FeedForward", dim=dim)
        generator = init.default_generator("FeedForward", generator)
        self.net = Sequential(GEGLU(dim, 4 * dim, generator=generator), Identity(), Linear(4 * dim, dim, generator=generator))

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.net(x)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return self.net.backward(dout)


class BasicTransformerBlock(Module):
    """Three residual connections around three normalised branches.

        n = norm1(x);   h = x + attn1(n, n)           with only_cross_attention attn1(n, context)
                        h = h + attn2(norm2(h), context)
                        y = h + ff(norm3(h))

    Args:
        dim: C, width of the tokens.
        heads, dim_head: of both attentions.
        context_channels: D.
        only_cross_attention: whether attn1, too, attends to the context and not to x.
        generator: source of initial values.

    Shapes:
        x (B, T, C), context (B, K, D) -> y (B, T, C). ``backward(dy, dcontext) -> dx`` adds to ``dcontext`` (B, K, D).

    Raises:
        ValueError: a size below 1; in forward, arrays of another shape or dtype.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        dim_head: int,
        context_channels: int,
        only_cross_attention: bool = False,
        *,
        generator: np.random.Generator | int | None = None,
    ):
        generator = init.default_generator("BasicTransformerBlock", generator)
        self.only_cross_attention = bool(only_cross_attention)
        self.norm1 = LayerNorm(dim)
        self.attn1 = CrossAttention(dim, context_channels if only_cross_attention else dim, heads, dim_head, generator=generator)
        self.norm2 = LayerNorm(dim)
        self.attn2 = CrossAttention(dim, context_channels, heads, dim_head, generator=generator)
        self.norm3 = LayerNorm(dim)
        self.ff = FeedForward(dim, generator=generator)

    def forward(self, x: np.ndarray, context: np.ndarray) -> np.ndarray:
        n = self.norm1(x)
        h = x + self.attn1(n, context if self.only_cross_attention else n)
        h = h + self.attn2(self.norm2(h), context)
        return h + self.ff(self.norm3(h))

    def backward(self, dy: np.ndarray, dcontext: np.ndarray) -> np.ndarray:
        dh = dy + self.norm3.backward(self.ff.backward(dy))
        dn, dother = self.attn2.backward(dh)
        dcontext += dother
        dh = dh + self.norm2.backward(dn)
        dn, dother = self.attn1.backward(dh)
        if self.only_cross_attention:
            dcontext += dother
        else:
            dn = dn + dother
        return dh + self.norm1.backward(dn)


class Transformer2DModel(Module):
    """``y = x + proj_out(blocks(proj_in(norm(x))))``, with pixels as tokens: how an image takes what it needs from a context.

    proj_in and proj_out are 1x1 convolutions, or linear layers, which compute the same from weights of another shape.

    Args:
        channels: C.
        heads, dim_head: of attention; tokens are ``heads dim_head`` wide between proj_in and proj_out.
        context_channels: D.
        num_layers: blocks.
        norm_num_groups: of the GroupNorm, whose eps is 1e-6.
        use_linear_projection: whether proj_in and proj_out are linear layers.
        only_cross_attention: see :class:`BasicTransformerBlock`.
        generator: source of initial values.

    Shapes:
        x (B, C, H, W), context (B, K, D) -> y (B, C, H, W). ``backward(dy, dcontext) -> dx`` adds to ``dcontext`` (B, K, D). Parameters:
        ``norm``, ``proj_in``, ``transformer_blocks.0`` .., ``proj_out``.

    Raises:
        ValueError: a size below 1, or groups that do not divide the channels; in forward, arrays of another shape or dtype.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        dim_head: int,
        context_channels: int,
        num_layers: int = 1,
        norm_num_groups: int = 32,
        use_linear_projection: bool = False,
        only_cross_attention: bool = False,
        *,
        generator: np.random.Generator | int | None = None,
    ):
        name = "Transformer2DModel"
        channels, heads, dim_head, num_layers = init.check_positive(
            name, channels=channels, heads=heads, dim_head=dim_head, num_layers=num_layers
        )
        generator, inner = init.default_generator(name, generator), heads * dim_head
        self.channels, self.use_linear_projection = channels, bool(use_linear_projection)
        self.norm = GroupNorm(norm_num_groups, channels, 1e-6)
        self.proj_in = self.projection(channels, inner, generator)
        self.transformer_blocks = [
            BasicTransformerBlock(inner, heads, dim_head, context_channels, only_cross_attention, generator=generator)
            for _ in range(num_layers)
        ]
        self.proj_out = self.projection(inner, channels, generator)

    def projection(self, channels_in: int, channels_out: int, generator: np.random.Generator) -> Conv2d | Linear:
        if self.use_linear_projection:
            return Linear(channels_in, channels_out, generator=generator)
        return Conv2d(channels_in, channels_out, 1, generator=generator)

    def forward(self, x: np.ndarray, context: np.ndarray) -> np.ndarray:
        check_images("Transformer2DModel: x", x, self.channels, self.proj_in.weight.data.dtype)
        self.save(x.shape, x.dtype)
        n = self.norm(x)
        t = self.proj_in(tokens(n)) if self.use_linear_projection else tokens(self.proj_in(n))
        for block in self.transformer_blocks:
            t = block(t, context)
        if self.use_linear_projection:
            return images(self.proj_out(t, residual=tokens(x)), x.shape)
        return self.proj_out(images(t, x.shape), residual=x)

    def backward(self, dy: np.ndarray, dcontext: np.ndarray) -> np.ndarray:
        shape, dtype = self.saved()
        check_gradient("Transformer2DModel", dy, shape, dtype)
        dt = self.proj_out.backward(tokens(dy)) if self.use_linear_projection else tokens(self.proj_out.backward(dy))
        for block in reversed(self.transformer_blocks):
            dt = block.backward(dt, dcontext)
        dn = images(self.proj_in.backward(dt), shape) if self.use_linear_projection else self.proj_in.backward(images(dt, shape))
        return self.norm.backward(dn, residual=dy)

    def describe(self) -> str:
        return f"{self.channels}, use_linear_projection={self.use_linear_projection}"
