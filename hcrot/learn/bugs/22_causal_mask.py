"""Attention that sees the past only.

Token i may look at the tokens 0 to i. What it may not see gets the score minus infinity, so that its weight is exactly zero.
"""

import numpy as np


def masked(scores: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The scores (T, T), with minus infinity where ``hidden`` is True."""
    # bug: begin
    return np.where(hidden, scores, -np.inf)
    # bug: mended
    return np.where(hidden, -np.inf, scores)
    # bug: end


def attention_weights(scores: np.ndarray) -> np.ndarray:
    """Each row: softmax over what a token may see; all alike if it sees nothing."""
    hidden = np.triu(np.ones(scores.shape, bool), k=1)
    visible = masked(scores, hidden)
    top = visible.max(axis=1, keepdims=True)
    powers = np.exp(visible - np.where(np.isfinite(top), top, 0))
    total = powers.sum(axis=1, keepdims=True)
    return np.where(total > 0, powers / np.where(total > 0, total, 1), 1 / len(scores))


# kept back: the learner's file ends here

SYMPTOM = """
My model of sequences reaches a wonderful loss, far better than anybody else's, within minutes. What it then writes is nonsense.
"""

HINTS = [
    "A loss that is too good is a symptom. From what could the next token be told so easily?",
    "Print attention_weights(np.zeros((4, 4))). Which tokens does token 0 look at?",
    "hidden is True above the diagonal, that is in the future. Follow one such entry through the code.",
]

EXPLANATION = """
The two branches were swapped: the past was hidden and the future was seen. The model copied the answer from the next token, and when it
writes, there is none. The last token saw nothing at all, and got equal weights. The predecessor's masked_fill was like this (B31). A
mask's name has to say what True means: hidden, or visible.
"""


def check(yours, check) -> None:
    scores = check.normal(5, 5)
    weights = yours.attention_weights(scores)
    check.equal("the sum of each row", weights.sum(axis=1), np.ones(5))
    scores[1, 3] += 3.0
    changed = np.abs(yours.attention_weights(scores)[:4] - weights[:4]).max()
    check.that(changed == 0, f"when only the score of a token for a later one changes, a weight changes by {changed:.2g}")
    check.equal("the weights of two tokens with equal scores", yours.attention_weights(np.zeros((2, 2))), [[1, 0], [0.5, 0.5]])
