"""Channels split into the heads of attention.

x (N, T, C) holds T tokens of C = heads * D channels. Head h of each token has the channels h D to (h + 1) D - 1.
"""

import numpy as np


def split_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """(N, T, C) -> (N, heads, T, D)."""
    batch, tokens, channels = x.shape
    if channels % heads:
        raise ValueError(f"split_heads: {channels} channels cannot be split into {heads} heads")
    # bug: begin
    return x.reshape(batch, heads, tokens, channels // heads)
    # bug: mended
    return x.reshape(batch, tokens, heads, channels // heads).swapaxes(1, 2)
    # bug: end


def join_heads(y: np.ndarray) -> np.ndarray:
    """(N, heads, T, D) -> (N, T, C), the way back."""
    batch, heads, tokens, width = y.shape
    # bug: begin
    return y.reshape(batch, tokens, heads * width)
    # bug: mended
    return y.swapaxes(1, 2).reshape(batch, tokens, heads * width)
    # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
With one head my attention agrees with the reference. With four heads it does not, and it learns worse than with one. The shapes are right
everywhere, joining what was split gives back the input, and the gradient check passes.
"""

HINTS = [
    "Let x be np.arange(12).reshape(1, 2, 6): two tokens. Split it into two heads and print it. Which numbers are those of token 0?",
    "reshape never moves a number in memory. In which order are the numbers of x in memory, and in which are they to be?",
    "First reshape to (N, T, heads, D), which only names the parts of an axis; then swap two axes. The way back has to do the same.",
]

EXPLANATION = """
reshape to (N, heads, T, D) cuts memory into pieces: head 0 gets all channels of the first tokens. Each "head" then looks at another part
of the picture and not at other channels, and the tokens that attend to each other are mixed-up pieces. Only two steps are right: name the
parts of the last axis, then swap. Since the way back undoes the wrong order, neither a round trip nor a gradient check notices. One bug
in two places is one idea that was wrong: mend both.
"""


def check(yours, check) -> None:
    x = np.arange(24.0).reshape(1, 4, 6)
    split = yours.split_heads(x, 3)
    check.equal("the shape of four tokens in three heads", np.shape(split), (1, 3, 4, 2))
    alone = yours.split_heads(x[:, 2:3], 3)
    check.that(np.array_equal(split[:, :, 2:3], alone), "what the heads see of token 2 changes when the other tokens are taken away")
    check.equal("what was split and joined", yours.join_heads(split), x)
