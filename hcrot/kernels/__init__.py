"""The fast loops: what layers compute, compiled by Numba and shared by all threads.

Each kernel stands beside a plain-NumPy function of the same signature, ``<name>_reference``, which says the same slowly and is tested
against it. Begin with ``im2col.py``, then ``conv.py``; ``winograd.py`` derives the fast 3x3 convolution. ``jit.py`` has the decorators that
compile kernels and share their work; ``launch.py``, ``cache.py`` and ``machine.py`` are what it is built from.

``plain.py`` has the switch that runs the references instead (``HCROT_PLAIN=1``), which is also what happens where Numba cannot be imported
(``compiler.py``). With ``NUMBA_DISABLE_JIT=1`` the kernels themselves run as plain Python, to be stepped through.
"""

from hcrot.kernels import ahead, compiler, jit

__all__: list[str] = []

jit.before_compiling.append(ahead.start)

if compiler.MISSING is not None:
    jit.say(f"Numba cannot be imported ({compiler.MISSING}): plain NumPy runs instead of the compiled kernels, which is slow")
