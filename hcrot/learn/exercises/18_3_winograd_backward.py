"""The backward pass of Winograd's algorithm, by its adjoint.

The layer takes tiles d (T, C, 4, 4) to outputs Y (T, O, 2, 2), with a weight g (O, C, 3, 3):

    U = G g G^T      V = B^T d B      M = sum over c of V * U, point by point      Y = A^T M A

Write backward: it takes dY, ADDS to the gradient of the weight, and returns dd, of the shape of d.
"""

import numpy as np

import hcrot

A_T = np.array([[1, 1, 1, 0], [0, 1, -1, 1]], float)
G = np.array([[-1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
B_T = np.array([[-1, 0, 1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]], float)


class WinogradTiles(hcrot.Module):
    def __init__(self, channels: int, outputs: int, generator: np.random.Generator):
        self.weight = hcrot.Parameter(generator.standard_normal((outputs, channels, 3, 3)))

    def forward(self, d: np.ndarray) -> np.ndarray:
        u = G @ self.weight.data @ G.T  # (O, C, 4, 4)
        v = B_T @ d @ B_T.T  # (T, C, 4, 4)
        self.save(u, v)
        m = np.einsum("tcij,ocij->toij", v, u)
        return A_T @ m @ A_T.T

    def backward(self, dY: np.ndarray) -> np.ndarray:
        u, v = self.saved()
        # yours: begin
        dm = A_T.T @ dY @ A_T
        self.weight.grad += G.T @ np.einsum("tcij,toij->ocij", v, dm) @ G
        dv = np.einsum("toij,ocij->tcij", dm, u)
        return B_T.T @ dv @ B_T
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Read forward from the bottom: first dM from dY, then dU and dV from dM, then the gradient of g from dU, and dd from dV.",
    "The adjoint of M -> A^T M A is dY -> A dY A^T. A is the transpose of A_T: dM is (T, O, 4, 4).",
    "In the einsum, sum over what the result does not have: dU over the tiles t, dV over the output channels o.",
]
DERIVATION = """
Y_ij = sum_kl A_ki M_kl A_lj, so dM_kl = sum_ij A_ki dY_ij A_lj: dM = A dY A^T. M_e = sum_c V_e U_e at each point e, so dU = sum_t V dM (all
tiles use the same weight) and dV = sum_o U dM. U = G g G^T and V = B^T d B are maps of the same kind as the first: dg = G^T dU G and
dd = B dV B^T. In a whole image, tiles overlap, and the dd of neighbours are added where they do. hcrot/kernels/winograd.py, the gradients;
Lavin & Gray 2016, arXiv:1509.09308, for the forward pass.
"""
WRONG = {
    "the gradient is set, not added": ("self.weight.grad += ", "self.weight.grad[...] = "),
    "the transform of forward once more": ("return B_T.T @ dv @ B_T", "return B_T @ dv @ B_T.T"),
    "dV from the inputs": ('np.einsum("toij,ocij->tcij", dm, u)', 'np.einsum("toij,ocij->tcij", dm, u[:, :, ::-1])'),
}


def check(yours, check: Check) -> None:
    for tiles, channels, outputs in ((5, 3, 2), (1, 1, 4)):
        layer = yours.WinogradTiles(channels, outputs, check.generator)
        d = check.normal(tiles, channels, 4, 4)
        check.gradients(layer, d)
        check.adds(layer, d)
