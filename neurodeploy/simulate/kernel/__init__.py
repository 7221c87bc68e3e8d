"""The compiled kernel: the reference's integers, bit for bit, from fused vector code in C.

Layer by layer, all time steps of a layer with its neurons in one pass; a layer of D populations hands on its counts
0..D as bytes and is never expanded. Whatever the kernel cannot hold it refuses by name (:func:`declines`).
"""

from neurodeploy.simulate.kernel.library import describe, missing, slower
from neurodeploy.simulate.kernel.program import Form
from neurodeploy.simulate.kernel.runner import auto, bytes_per_place, declines, run

__all__ = ["Form", "auto", "bytes_per_place", "declines", "describe", "missing", "run", "slower"]
