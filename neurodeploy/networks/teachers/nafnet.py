"""NAFNet: a U-shaped restorer without activation functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neurodeploy.networks.teachers.padding import pad_to_multiple
from neurodeploy.networks.weights import axis_size, block_count


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel: ``y = (x - mean) / sqrt(var + 1e-6) * weight + bias``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises images (B, C, H, W)."""
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        scaled = (x - mean) / torch.sqrt(variance + 1e-6)
        return scaled * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def simple_gate(x: Tensor) -> Tensor:
    """The product of the two halves of the channels."""
    first, second = x.chunk(2, dim=1)
    return first * second


class NAFBlock(nn.Module):
    """Two residual steps, each scaled by a learnt number a channel (``beta``, ``gamma``).

    The first: norm, 1x1, depthwise 3x3, gate, channel attention ``f * conv(mean(f))``, 1x1. The second: norm, 1x1,
    gate, 1x1.

    Args:
        channels: Channels in and out.
        middle: Channels of the depthwise convolution, even.
        hidden: Channels between the second step's two convolutions, even.
    """

    def __init__(self, channels: int, middle: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, middle, 1)
        self.conv2 = nn.Conv2d(middle, middle, 3, padding=1, groups=middle)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(middle // 2, middle // 2, 1))
        self.conv3 = nn.Conv2d(middle // 2, channels, 1)
        self.norm2 = ChannelNorm(channels)
        self.conv4 = nn.Conv2d(channels, hidden, 1)
        self.conv5 = nn.Conv2d(hidden // 2, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """One block on features (B, C, H, W)."""
        features = simple_gate(self.conv2(self.conv1(self.norm1(x))))
        x = x + self.conv3(features * self.sca(features)) * self.beta
        step: Tensor = self.conv5(simple_gate(self.conv4(self.norm2(x)))) * self.gamma
        return x + step


@dataclass(frozen=True)
class NAFNetShape:
    """Sizes of a NAFNet; the defaults are the published GoPro network of width 32.

    Published besides: width 64 with the same blocks (GoPro, REDS), and ``encoder (2, 2, 4, 8), middle 12, decoder
    (2, 2, 2, 2)`` at widths 32 and 64 (SIDD).
    """

    channels: int = 3
    width: int = 32
    encoder: tuple[int, ...] = (1, 1, 1, 28)
    middle: int = 1
    decoder: tuple[int, ...] = (1, 1, 1, 1)
    depthwise_expansion: int = 2
    hidden_expansion: int = 2

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> NAFNetShape:
        """Reads the sizes from a network's tensors; missing ones are taken as published.

        Raises:
            UserError: The layers' numbers do not fit the tensors in the file.
        """
        width = axis_size(state, "intro.weight", 0, 32)
        first = next((key.removesuffix("conv1.weight") for key in state if key.endswith(".conv1.weight")), "")
        channels = max(axis_size(state, f"{first}conv1.weight", 1, width), 1)
        levels = block_count(state, "downs.")
        return cls(
            channels=axis_size(state, "intro.weight", 1, 3),
            width=width,
            encoder=tuple(block_count(state, f"encoders.{level}.") for level in range(levels)),
            middle=block_count(state, "middle_blks."),
            decoder=tuple(block_count(state, f"decoders.{level}.") for level in range(levels)),
            depthwise_expansion=max(axis_size(state, f"{first}conv1.weight", 0, 2 * channels) // channels, 1),
            hidden_expansion=max(axis_size(state, f"{first}conv4.weight", 0, 2 * channels) // channels, 1),
        )


class NAFNet(nn.Module):
    """``y = x + ending(decoders(middle(encoders(intro(x)))))`` with additive skips between equal levels.

    Each encoder level is followed by a 2x2 convolution of stride 2 that doubles the channels, each decoder level
    preceded by a 1x1 convolution and pixel shuffle. Source: Chen, Chu, Zhang, Sun, "Simple baselines for image
    restoration", ECCV 2022. The image is padded with zeros to a multiple of 2^levels, as its authors do. The channel
    attention averages over the whole image; the authors' figures for GoPro and REDS come from averages over windows of
    384x384 at test time, which this class leaves out.

    Args:
        shape: Sizes.
    """

    def __init__(self, shape: NAFNetShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or NAFNetShape()
        self.channels = shape.channels
        self.intro = nn.Conv2d(shape.channels, shape.width, 3, padding=1)
        self.ending = nn.Conv2d(shape.width, shape.channels, 3, padding=1)
        widths = [shape.width << level for level in range(len(shape.encoder) + 1)]
        self.encoders = nn.ModuleList(map(self._level, widths, shape.encoder))
        self.downs = nn.ModuleList(nn.Conv2d(width, 2 * width, 2, 2) for width in widths[:-1])
        self.middle_blks = self._level(widths[-1], shape.middle)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2)) for width in widths[:0:-1]
        )
        self.decoders = nn.ModuleList(map(self._level, widths[-2::-1], shape.decoder))

    def _level(self, width: int, blocks: int) -> nn.Sequential:
        shape = self.shape
        return nn.Sequential(
            *(NAFBlock(width, width * shape.depthwise_expansion, width * shape.hidden_expansion) for _ in range(blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Restores images.

        Args:
            x: Degraded images (B, C, H, W) in [0, 1] units, any size.

        Returns:
            Restored images (B, C, H, W), not clipped.
        """
        height, width = x.shape[-2:]
        padded = pad_to_multiple(x, 1 << len(self.downs), "constant")
        features = self.intro(padded)
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features)
            skips.append(features)
            features = down(features)
        features = self.middle_blks(features)
        for decoder, up in zip(self.decoders, self.ups, strict=True):
            features = decoder(up(features) + skips.pop())
        restored: Tensor = padded + self.ending(features)
        return restored[..., :height, :width]
