"""Counting a torch network's multiply-accumulates by watching the operations that really run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one pass.

    Attributes:
        in_bounds: Products of a weight and an activation that lies inside the image: taps that fall on a convolution's
            zero padding are left out.
        padded: The same with those taps, as most papers count.
    """

    in_bounds: int = 0
    padded: int = 0

    def __add__(self, other: Macs) -> Macs:
        return Macs(self.in_bounds + other.in_bounds, self.padded + other.padded)


@dataclass(frozen=True)
class NotCovered:
    """An operation that ran and whose arithmetic the counter does not know."""

    layer: str
    operation: str
    calls: int


@dataclass(frozen=True)
class MacCount:
    """What :func:`count_macs` found.

    Attributes:
        total: All layers together, for the whole batch.
        by_layer: The same by dotted module name, in the order of the pass; ``""`` is the module itself. A module that
            runs several times adds up.
        parameters: Numbers in all parameters, shared tensors once.
        other: Results of arithmetic without weights of its own (adding a bias is within its convolution): activations,
            norms, pooling, gates, softmax; by operation, one for each number in its outputs.
        not_covered: Operations outside the counter's tables. While there is any, ``total`` is a lower bound.
    """

    total: Macs
    by_layer: dict[str, Macs]
    parameters: int
    other: dict[str, int]
    not_covered: tuple[NotCovered, ...]


def count_parameters(module: nn.Module) -> int:
    """Numbers in all parameters, tensor by tensor, whatever the types of the layers; shared tensors count once."""
    seen: dict[object, int] = {}
    for parameter in module.parameters():
        storage = parameter.untyped_storage()
        # Two parameters may be views of one memory; a meta tensor has none and is told by its identity.
        key: object = (storage.data_ptr(), parameter.storage_offset(), parameter.shape, parameter.stride())
        seen[id(parameter) if storage.data_ptr() == 0 else key] = parameter.numel()
    return sum(seen.values())


@torch.no_grad()
def count_macs(module: nn.Module, example: Tensor | Sequence[object]) -> MacCount:
    """Runs a module once in evaluation mode and counts its multiply-accumulates exactly.

    Counted are convolutions (any stride, padding, dilation, groups, number of axes; transposed too), matrix products in
    every form, and scaled dot-product attention (both products, masks ignored). The counter sees the operations below
    the modules, so that functions, subclasses and cells built of convolutions count like layers. In-bounds counts
    are exact for a convolution's own zero padding; rows that were padded by an operation before it are data like any.

    Args:
        module: Any module; its training flags are put back afterwards.
        example: The input, or the tuple of the forward's arguments.

    Returns:
        The counts for this very input (a batch of 2 counts twice).
    """
    arguments = (example,) if isinstance(example, Tensor) else tuple(example)
    tally = _Tally()
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with _watch_layers(module, tally), _Counter(tally):
            module(*arguments)
    finally:
        for part in training:
            part.training = True
    missed = [NotCovered(layer, operation, calls) for (layer, operation), calls in tally.not_covered.items()]
    return MacCount(
        total=sum(tally.layers.values(), Macs()),
        by_layer=dict(tally.layers),
        parameters=count_parameters(module),
        other=dict(tally.other),
        not_covered=tuple(missed),
    )


@dataclass
class _Tally:
    """The counts as they grow, and the names of the modules that are running, outermost first."""

    layers: dict[str, Macs] = field(default_factory=dict)
    other: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    not_covered: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    running: list[str] = field(default_factory=list)

    @property
    def layer(self) -> str:
        return self.running[-1] if self.running else ""

    def add(self, macs: Macs) -> None:
        self.layers[self.layer] = self.layers.get(self.layer, Macs()) + macs


@contextmanager
def _watch_layers(module: nn.Module, tally: _Tally) -> Iterator[None]:
    """Keeps the names of the running modules.

    One that runs outside of torch counts its pass itself, or says why it cannot, and is noted as not covered.
    """

    def enter(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, inputs: tuple[object, ...]) -> None:
            tally.running.append(name)
            reason, count = getattr(part, "uncounted", None), getattr(part, "count_pass", None)
            if isinstance(reason, str):
                tally.not_covered[name, reason] += 1
            if callable(count):
                _add_pass(tally, name, count(*inputs))

        return hook

    def leave(_part: nn.Module, _inputs: object, _output: object) -> None:
        tally.running.pop()

    handles: list[Any] = []
    try:
        for name, part in module.named_modules():
            handles.append(part.register_forward_pre_hook(enter(name), prepend=True))
            handles.append(part.register_forward_hook(leave, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add_pass(tally: _Tally, name: str, count: Any) -> None:
    """Adds what a module that runs outside of torch has counted (``layers``, ``other``, ``not_covered``)."""
    for layer, macs in count.layers.items():
        key = f"{name}.{layer}" if name else layer
        tally.layers[key] = tally.layers.get(key, Macs()) + macs
    for operation, results in count.other.items():
        tally.other[operation] += results
    for layer, operation in count.not_covered:
        tally.not_covered[f"{name}.{layer}" if name else layer, operation] += 1


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every operation that reaches the dispatcher."""

    def __init__(self, tally: _Tally) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tally = tally

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if name not in _MACS and not _is_known(func, name):
            with self:
                # A compound operation (einsum, an LSTM layer, math attention) is taken apart and seen again in pieces.
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if name in _MACS:
            self.tally.add(_MACS[name](args, kwargs, out))
        elif name not in _MOVES and (torch.Tag.pointwise in func.tags or name in _REDUCTIONS):
            self.tally.other[name.removeprefix("aten::")] += _results(out)
        elif not _is_known(func, name):
            self.tally.not_covered[self.tally.layer, name] += 1
        return out


def _is_known(func: Any, name: str) -> bool:
    return func.is_view or name in _MOVES or name in _REDUCTIONS or torch.Tag.pointwise in func.tags


def _results(out: object) -> int:
    if isinstance(out, Tensor):
        return out.numel()
    return _results(out[0]) if isinstance(out, (tuple, list)) and out else 0


def taps(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Pairs (output o, tap k) along one axis with ``0 <= o * stride - padding + k * dilation < size``."""
    count = 0
    for k in range(kernel):
        shift = k * dilation - padding
        first = max(0, -(shift // stride))  # ceil(-shift / stride)
        last = min(out - 1, (size - 1 - shift) // stride)
        count += max(0, last - first + 1)
    return count


def _convolution(args: tuple[Any, ...], _kwargs: dict[str, Any], out: Tensor) -> Macs:
    x, weight, _bias, stride, padding, dilation, transposed, _output_padding, _groups = args[:9]
    axes = weight.ndim - 2
    stride, padding, dilation = (_per_axis(value, axes) for value in (stride, padding, dilation))
    # A transposed convolution is the convolution from its output back to its input, tap by tap.
    dense, sparse = (out, x) if transposed else (x, out)
    dense_sizes, sparse_sizes = dense.shape[-axes:], sparse.shape[-axes:]
    batch = x.shape[0] if x.ndim == axes + 2 else 1
    # weight is (out, in / groups, ...), or (in, out / groups, ...) when transposed: the product is the same.
    pairs = batch * weight.shape[0] * weight.shape[1]
    geometry = zip(dense_sizes, sparse_sizes, weight.shape[2:], stride, padding, dilation, strict=True)
    return Macs(
        in_bounds=pairs * prod(taps(*axis) for axis in geometry),
        padded=pairs * prod(sparse_sizes) * prod(weight.shape[2:]),
    )


def _per_axis(value: Sequence[int], axes: int) -> list[int]:
    return list(value) * axes if len(value) == 1 else list(value)


def _product(left: int, right: int) -> Callable[[tuple[Any, ...], dict[str, Any], Tensor], Macs]:
    """Macs of a matrix product whose factors are the arguments ``left`` and ``right``; batched or not."""

    def count(args: tuple[Any, ...], _kwargs: dict[str, Any], _out: Tensor) -> Macs:
        a, b = args[left], args[right]
        macs = a.numel() * (b.shape[-1] if b.ndim > 1 else 1)
        return Macs(macs, macs)

    return count


def _attention(args: tuple[Any, ...], _kwargs: dict[str, Any], _out: object) -> Macs:
    """``q k^T`` and its product with ``v``, for q (..., L, E), k (..., S, E), v (..., S, F)."""
    query, key, value = args[:3]
    macs = query.numel() // query.shape[-1] * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    return Macs(macs, macs)


def _fused_attention(args: tuple[Any, ...], _kwargs: dict[str, Any], _out: object) -> Macs:
    """Three projections, both products and the output's projection, for query, key, value (B, L or S, E)."""
    query, key, value, width = args[:4]
    batch, length, steps = query.shape[0], query.shape[1], key.shape[1]
    projections = (query.numel() + key.numel() + value.numel() + batch * length * width) * width
    macs = projections + 2 * batch * length * steps * width
    return Macs(macs, macs)


def _recurrent_layer(args: tuple[Any, ...], _kwargs: dict[str, Any], _out: object) -> Macs:
    """One direction of one layer of an LSTM or GRU, for x (T, B, I): all gates, at every step of every sample."""
    x, from_input, from_hidden = args[:3]
    macs = x.numel() // x.shape[-1] * (from_input.numel() + from_hidden.numel())
    return Macs(macs, macs)


_MACS: dict[str, Callable[[tuple[Any, ...], dict[str, Any], Any], Macs]] = {
    "aten::convolution": _convolution,
    "aten::_convolution": _convolution,
    "aten::mm": _product(0, 1),
    "aten::bmm": _product(0, 1),
    "aten::mv": _product(0, 1),
    "aten::dot": _product(0, 1),
    "aten::addmm": _product(1, 2),
    "aten::addmv": _product(1, 2),
    "aten::baddbmm": _product(1, 2),
    "aten::addbmm": _product(1, 2),
    "aten::_native_multi_head_attention": _fused_attention,
    "aten::mkldnn_rnn_layer": _recurrent_layer,
    "aten::_scaled_dot_product_flash_attention": _attention,
    "aten::_scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten::_scaled_dot_product_efficient_attention": _attention,
    "aten::_scaled_dot_product_cudnn_attention": _attention,
    "aten::_scaled_dot_product_fused_attention_overrideable": _attention,
}

# Arithmetic over several numbers at once that multiplies by no weight, or by one number a channel.
_REDUCTION_NAMES = """
mean sum prod var var_mean std std_mean amax amin max min any all argmax argmin norm linalg_vector_norm cumsum cumprod
_softmax _log_softmax logsumexp native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training
cudnn_batch_norm native_layer_norm native_group_norm _fused_rms_norm avg_pool1d avg_pool2d avg_pool3d
_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d max_pool2d_with_indices max_pool3d_with_indices
upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa upsample_bicubic2d _upsample_bicubic2d_aa
upsample_trilinear3d glu sort topk
"""
_REDUCTIONS = {f"aten::{name}" for name in _REDUCTION_NAMES.split()}

# Operations that only make, move or describe numbers.
_MOVE_NAMES = """
unsafe_split unsafe_split_with_sizes unsafe_chunk
clone copy copy_ cat stack constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
replication_pad2d replication_pad3d _to_copy to contiguous empty empty_like empty_strided zeros zeros_like ones
ones_like full full_like fill fill_ zero_ new_empty new_empty_strided new_zeros new_ones new_full arange linspace eye
scalar_tensor lift lift_fresh detach detach_ index index_select index_put index_put_ gather scatter select_scatter
slice_scatter masked_fill masked_select repeat repeat_interleave roll flip tril triu pixel_shuffle pixel_unshuffle
channel_shuffle im2col upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d embedding
nonzero resize_ set_ _unsafe_view _reshape_copy _reshape_alias native_dropout _assert_async _local_scalar_dense item
rand randn rand_like randn_like bernoulli bernoulli_ uniform_ normal_ randperm randint sym_size sym_numel is_nonzero
"""
_MOVES = {f"aten::{name}" for name in _MOVE_NAMES.split()} | {"prim::device", "prim::layout", "prim::dtype"}
