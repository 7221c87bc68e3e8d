"""The stack of 3x3 convolutions that DnCNN and FFDNet are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from neurodeploy.networks.weights import axis_size, block_count


def conv_stack(
    inputs: int, width: int, outputs: int, depth: int, *, batch_norm: bool = False, bias: bool = True
) -> nn.Sequential:
    """``depth`` 3x3 convolutions with zero padding 1, ReLU between them and none after the last.

    Without batch norm convolution k is module ``2 * k`` of the sequence and its ReLU is ``2 * k + 1``; with it, every
    convolution but the first and the last is followed by its batch norm and then its ReLU. The ReLUs do not work in
    place, so that what a hook saw stays what it was. Weights start as He's normal (fan-in), which keeps the signal's
    size through any depth without batch norm (torch's own start loses a factor 6 of variance a layer), biases at 0.

    Args:
        inputs: Channels of the input.
        width: Channels between the convolutions.
        outputs: Channels of the output.
        depth: Number of convolutions, at least 2.
        batch_norm: Batch norm after the inner convolutions.
        bias: Whether the convolutions have a bias.
    """
    sizes = [inputs, *[width] * (depth - 1), outputs]
    layers: list[nn.Module] = []
    for k, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        conv = nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=bias)
        if not conv.weight.is_meta:  # where weights are to be loaded, drawing some costs a second for nothing
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        norm = [nn.BatchNorm2d(fan_out)] if batch_norm and 0 < k < depth - 1 else []
        layers += [conv, *norm, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True)
class StackShape:
    """What the tensors of a conv stack say about it."""

    inputs: int
    width: int
    outputs: int
    depth: int
    batch_norm: bool
    bias: bool


def stack_shape(state: Mapping[str, Tensor], prefix: str) -> StackShape:
    """Reads a conv stack's layout from its tensors ``<prefix>N.weight``; missing ones are taken as usual.

    Raises:
        UserError: The layers' numbers do not fit the tensors in the file.
    """
    layers = block_count(state, prefix)
    batch_norm = any(key.startswith(prefix) and key.endswith("running_mean") for key in state)
    # conv, ReLU, (conv, norm, ReLU) * (depth - 2), conv   or   (conv, ReLU) * (depth - 1), conv
    depth = (layers - 3) // 3 + 2 if batch_norm else (layers - 1) // 2 + 1
    width = axis_size(state, f"{prefix}0.weight", 0, 64)
    inputs = axis_size(state, f"{prefix}0.weight", 1, 1)
    return StackShape(
        inputs=inputs,
        width=width,
        outputs=axis_size(state, f"{prefix}{layers - 1}.weight", 0, inputs),
        depth=max(depth, 2),
        batch_norm=batch_norm,
        bias=not state or any(_is_conv_bias(key, state) for key in state),
    )


def _is_conv_bias(key: str, state: Mapping[str, Tensor]) -> bool:
    weight = state.get(key.removesuffix("bias") + "weight")
    return key.endswith(".bias") and (weight is None or weight.ndim == 4)


def relu_names(network: nn.Module) -> tuple[str, ...]:
    """The dotted names of a network's ReLUs, in the order in which they are defined."""
    return tuple(name for name, module in network.named_modules() if isinstance(module, nn.ReLU))
