"""The kernels of a backward pass, compiled by a process of its own while the first forward pass waits for those that it needs.

Compiling is the work of one core, for Numba lets no two threads do it at once, and half of what a training step needs is needed only after
the forward pass. The two processes share the cache on disk: what one has compiled, the other loads. What is needed last is compiled first,
so that the two meet in the middle and seldom compile the same kernel. (Attention, which many networks have not, comes at the end.)
"""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from hcrot.kernels import jit

__all__ = ["compile_backward", "start"]


def start() -> None:
    """Start that process and go on; it ends by itself. With one thread it would take turns with this process. Where Python is part of
    another program there is nothing to start it with."""
    if jit.get_num_threads() == 1 or getattr(sys, "frozen", False) or "python" not in Path(sys.executable or "").name.lower():
        return
    program = f"import sys; sys.path[:] = {sys.path!r}; from hcrot.kernels import ahead; ahead.compile_backward()"
    nowhere = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    threading.Thread(target=subprocess.run, args=([sys.executable, "-c", program],), kwargs=nowhere, daemon=True).start()


def compile_backward() -> None:
    """Call each kernel of a training step's second half once, with small float32 arrays."""
    from hcrot.kernels.activation import silu_gradient
    from hcrot.kernels.attention import attention_backward
    from hcrot.kernels.channels import pixel_sums, plus, split
    from hcrot.kernels.conv import conv2d_input_gradient, conv2d_weight_gradient
    from hcrot.kernels.im2col import make_geometry
    from hcrot.kernels.norm import group_norm_backward
    from hcrot.kernels.optim import Arrays, adam, square_sum
    from hcrot.kernels.resample import nearest_gradient

    jit.before_compiling.clear()  # this is that process
    images, vector = np.ones((1, 4, 4, 4), np.float32), np.ones(4, np.float32)
    weight, tokens = np.ones((4, 4, 3, 3), np.float32), np.ones((1, 4, 4), np.float32)
    arrays = Arrays([vector])
    same, halved = make_geometry(3, 1, 1), make_geometry(3, 2, 1)

    adam(arrays, arrays, arrays, arrays, 1, 0.1, 0.9, 0.999, 1e-8, 0.0, 0.0)
    square_sum(arrays)
    silu_gradient(images, images)
    conv2d_input_gradient(images[:, :, :2, :2], weight, halved, 4, 4)
    nearest_gradient(images, 2, 2)
    plus(images, images)
    split(images, 2)
    pixel_sums(images)
    conv2d_weight_gradient(images, images, same, "im2col")
    conv2d_weight_gradient(images, images, same, "winograd")
    group_norm_backward(images, images, vector[:1, None], vector[:1, None], vector, vector, True)
    attention_backward(tokens, tokens, tokens, tokens, np.ones((1, 1, 4), np.float32), 1)
