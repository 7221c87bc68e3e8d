"""The compiled kernel as Python sees it: loading, the structures that it takes, instruction paths, threads."""

from __future__ import annotations

import ctypes
import os
from functools import cache, partial
from pathlib import Path

from neurodeploy.errors import InternalError, UserError
from neurodeploy.simulate.kernel.build import LIBRARY, digest

FAMILIES = ("plain", "avx2", "avx512", "vbmi2", "amx"), ("plain", "neon", "dotprod", "i8mm")
"""Instruction paths of each kind of processor, x86 and ARM of 64 bits, slowest first."""

PATHS = {"plain": 1, "avx2": 2, "avx512": 4, "vbmi2": 8, "amx": 16, "neon": 32, "dotprod": 64, "i8mm": 128}
"""Instruction paths by name, as the bits of kernel.h."""

GROUPS = {"plain": 1, "neon": 1, "i8mm": 8}
"""Inputs whose weights lie together, for sources of counts; 4 on every other path."""

LIMIT = "NEURODEPLOY_KERNEL"
"""Environment variable: the widest instruction path that is used, or ``none`` for no kernel at all."""

BLOCK_MOST = 64
"""Most places that the kernel computes together (ND_BLOCK_MOST)."""

TILE_BYTES = 64
"""Bytes of a source that the AMX path reads together (ND_TILE_BYTES)."""

LANES = 16
"""Channels are padded to a multiple of this (ND_LANES)."""


class Term(ctypes.Structure):
    """``nd_term`` of kernel.h."""

    _fields_ = (
        ("source", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("events", ctypes.c_void_p),
        ("sets", ctypes.c_void_p),
        ("form", ctypes.c_void_p),
        ("reads", ctypes.c_void_p),
        ("shown", ctypes.c_void_p),
        ("alone", ctypes.c_void_p),
        ("masks", ctypes.c_void_p),
        ("mask_step", ctypes.c_int64),
        ("mask_row", ctypes.c_int64),
        ("mask_place", ctypes.c_int64),
        ("step_bytes", ctypes.c_int64),
        ("row_bytes", ctypes.c_int64),
        ("place_bytes", ctypes.c_int64),
        ("next_row", ctypes.c_int64),
        ("next_place", ctypes.c_int64),
        ("rows", ctypes.c_int32),
        ("columns", ctypes.c_int32),
        ("row_dilation", ctypes.c_int32),
        ("column_dilation", ctypes.c_int32),
        ("groups", ctypes.c_int32),
        ("graded", ctypes.c_int32),
        ("shift", ctypes.c_int32),
        ("run", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
        ("event_shift", ctypes.c_int32),
        ("narrow", ctypes.c_int32),
        ("thin", ctypes.c_int32),
        ("bits", ctypes.c_int32),
        ("joined", ctypes.c_int32),
        ("parts", ctypes.c_int32),
        ("chunks", ctypes.c_int32),
    )


class Link(ctypes.Structure):
    """``nd_link`` of kernel.h."""

    _fields_ = (
        ("row_class", ctypes.c_void_p),
        ("row_taps", ctypes.c_void_p),
        ("edges", ctypes.c_void_p),
        ("edge_class", ctypes.c_void_p),
        ("edge_missed", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("column_taps", ctypes.c_int32),
        ("edge_count", ctypes.c_int32),
        ("row_classes", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    )


class Arrival(ctypes.Structure):
    """``nd_arrival`` of kernel.h."""

    _fields_ = (
        ("marks", ctypes.c_void_p),
        ("mark_step", ctypes.c_int64),
        ("mark_row", ctypes.c_int64),
        ("rows", ctypes.c_int32),
        ("columns", ctypes.c_int32),
        ("kernel_rows", ctypes.c_int32),
        ("kernel_columns", ctypes.c_int32),
        ("row_stride", ctypes.c_int32),
        ("column_stride", ctypes.c_int32),
        ("row_padding", ctypes.c_int32),
        ("column_padding", ctypes.c_int32),
        ("row_dilation", ctypes.c_int32),
        ("column_dilation", ctypes.c_int32),
    )


class Layer(ctypes.Structure):
    """``nd_layer`` of kernel.h."""

    _fields_ = (
        ("terms", ctypes.POINTER(Term)),
        ("v_keep", ctypes.c_void_p),
        ("u_keep", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("threshold", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("out_step", ctypes.c_int64),
        ("out_row", ctypes.c_int64),
        ("masks", ctypes.c_void_p),
        ("mask_step", ctypes.c_int64),
        ("mask_row", ctypes.c_int64),
        ("form", ctypes.c_void_p),
        ("few", ctypes.c_int64),
        ("wraps_from", ctypes.c_int64),
        ("clips_from", ctypes.c_int64),
        ("links", ctypes.POINTER(Link)),
        ("found", ctypes.c_void_p),
        ("marks", ctypes.c_void_p),
        ("arrivals", ctypes.POINTER(Arrival)),
        ("reached", ctypes.c_void_p),
        ("term_count", ctypes.c_int32),
        ("steps", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("columns", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("levels", ctypes.c_int32),
        ("remembers", ctypes.c_int32),
        ("u_remembers", ctypes.c_int32),
        ("halvings", ctypes.c_int32),
        ("wraps", ctypes.c_int32),
        ("clips", ctypes.c_int32),
        ("constant", ctypes.c_int32),
        ("unread", ctypes.c_int32),
        ("summed", ctypes.c_int32),
        ("first_row", ctypes.c_int32),
        ("end_row", ctypes.c_int32),
        ("first_column", ctypes.c_int32),
        ("end_column", ctypes.c_int32),
        ("link_count", ctypes.c_int32),
        ("arrival_count", ctypes.c_int32),
        ("counting", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    )


class Network(ctypes.Structure):
    """``nd_network`` of kernel.h."""

    _fields_ = (
        ("layers", ctypes.POINTER(Layer)),
        ("codes", ctypes.c_void_p),
        ("frame_step", ctypes.c_int64),
        ("channel_step", ctypes.c_int64),
        ("row_step", ctypes.c_int64),
        ("held", ctypes.c_void_p),
        ("held_frame", ctypes.c_int64),
        ("held_row", ctypes.c_int64),
        ("held_place", ctypes.c_int64),
        ("shown", ctypes.c_void_p),
        ("code_max", ctypes.c_int64),
        ("largest", ctypes.c_int64),
        ("total", ctypes.c_void_p),
        ("offset", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
        ("scratch_stride", ctypes.c_int64),
        ("spent", ctypes.c_void_p),
        ("layer_count", ctypes.c_int32),
        ("frames", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("columns", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("counting", ctypes.c_int32),
    )


def up_to(widest: str) -> frozenset[str]:
    """The paths that are no wider than one of them, of its kind of processor."""
    return frozenset(name for family in FAMILIES if widest in family for name in family[: family.index(widest) + 1])


class Library:
    """A loaded kernel.

    Args:
        handle: The library.
        widest: The instruction path beyond which none is used.
    """

    def __init__(self, handle: ctypes.CDLL, widest: str | None = None) -> None:
        self._handle = handle
        handle.nd_run.argtypes = (ctypes.POINTER(Network), ctypes.c_int)
        handle.nd_scratch.argtypes = (ctypes.POINTER(Layer),)
        handle.nd_scratch.restype = ctypes.c_int64
        found = int(handle.nd_paths())
        self.machine = tuple(name for name, bit in PATHS.items() if found & bit)
        """Instruction paths that this machine has, slowest first."""
        self.paths = tuple(name for name in self.machine if widest is None or name in up_to(widest))
        """Those of them that may be used."""
        self.threaded = bool(handle.nd_threaded())
        """Whether it was built with threads."""
        number, size, address = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
        codes, receiving = handle.nd_count_codes, handle.nd_receiving
        codes.argtypes = (number, address, *3 * (size,), *4 * (number,), address, number, address, address)
        receiving.argtypes = (number, address, *4 * (number,), address, address)
        codes.restype = receiving.restype = None
        widest_bit = PATHS[self.paths[-1]]
        self.count_codes = partial(codes, widest_bit)
        """``nd_count_codes`` of kernel.h, on the widest path; all of them release Python's lock."""
        self.receiving = partial(receiving, widest_bit)

    def run(self, network: Network, path: str) -> bool:
        """Runs a network; False where its codes are larger than they may be, and nothing has run."""
        done = self._handle.nd_run(ctypes.byref(network), PATHS[path])
        if done == 1:
            raise InternalError(f"the kernel has no path {path}")
        return bool(done == 0)

    def scratch(self, layer: Layer) -> int:
        """Words of 32 bits that one thread needs for a layer."""
        return int(self._handle.nd_scratch(ctypes.byref(layer)))


def load(file: Path, widest: str | None = None) -> Library | str:
    """A compiled kernel, or why it cannot be used.

    Args:
        file: The shared library.
        widest: The instruction path beyond which none is used; ``none`` for no kernel.

    Raises:
        UserError: There is no such path.
    """
    if widest == "none":
        return f"the kernel is switched off ({LIMIT}=none)"
    if widest is not None and widest not in PATHS:
        raise UserError("no such instruction path", node=LIMIT, have=widest, limit=", ".join([*PATHS, "none"]))
    if not file.is_file():
        return "the kernel was not compiled when the package was installed (it needs a C compiler)"
    try:
        handle = ctypes.CDLL(str(file))
        handle.nd_sources.restype = ctypes.c_int64
        sources = int(handle.nd_sources())
    except (OSError, AttributeError) as error:
        return f"the compiled kernel cannot be loaded: {error}"
    if sources != digest():
        return "the compiled kernel is of another version of the program: install the package anew"
    return Library(handle, widest)


@cache
def _loaded() -> Library | str:
    return load(Path(__file__).with_name(LIBRARY), os.environ.get(LIMIT) or None)


def library() -> Library:
    """The kernel of this installation.

    Raises:
        UserError: There is none.
    """
    found = _loaded()
    if isinstance(found, str):
        raise UserError(found, node="kernel", instead="the reference simulator gives the same integers, slower")
    return found


def missing() -> str | None:
    """Why this installation has no kernel; None where it has one."""
    found = _loaded()
    return found if isinstance(found, str) else None


def describe() -> str:
    """One line for the doctor: the instruction path and the threads, or what is missing."""
    found = _loaded()
    if isinstance(found, str):
        return found
    threads = f"{default_threads()} threads" if found.threaded else "one thread, built without OpenMP"
    held = f" (held there by {LIMIT}: slower)" if found.paths != found.machine else ""
    return f"compiled, {found.paths[-1]} of {', '.join(found.machine)}{held}; {threads}"


def slower() -> str | None:
    """Why the simulator is slower here than it can be, and what to do; None where it is not."""
    found = _loaded()
    if isinstance(found, str):
        return f"{found}: the reference simulator gives the same integers some hundred times slower"
    if found.paths != found.machine:
        return f"{LIMIT} holds the simulator to {found.paths[-1]} instructions; unset it for {found.machine[-1]}"
    if found.paths[-1] == "plain":
        return "this machine has no vector instructions that the simulator knows: it runs several times slower"
    return None


def default_threads() -> int:
    """``OMP_NUM_THREADS``, or the cores that this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1
