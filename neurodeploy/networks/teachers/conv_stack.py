"""The stack of 3x3 convolutions that DnCNN and FFDNet are made of."""

from __future__ import annotations

from torch import nn


def conv_stack(inputs: int, width: int, outputs: int, depth: int) -> nn.Sequential:
    """``depth`` 3x3 convolutions with zero padding 1 and bias, ReLU between them and none after the last.

    Convolution k is module ``2 * k`` of the sequence and its ReLU is ``2 * k + 1``. The ReLUs do not work in place, so
    that what a hook saw stays what it was. Weights start as He's normal (fan-in), which keeps the signal's size through
    any depth without batch norm (torch's own start loses a factor 6 of variance a layer), biases at 0.

    Args:
        inputs: Channels of the input.
        width: Channels between the convolutions.
        outputs: Channels of the output.
        depth: Number of convolutions, at least 2.
    """
    sizes = [inputs, *[width] * (depth - 1), outputs]
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
        conv = nn.Conv2d(fan_in, fan_out, 3, padding=1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        layers += [conv, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
