"""PReNet and PRN: progressive networks that take rain away in a few recursive stages."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from neurodeploy.networks.weights import axis_size

BLOCKS = 5


def _conv_relu(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]


class ProgressiveNet(nn.Module):
    """Each stage sees the degraded image and the last stage's result, and adds its output to the degraded image.

    ``f = relu(conv0([x, y]))``, with ``lstm`` a convolutional LSTM over the stages in between, then five times
    ``f <- relu(f + relu(conv(relu(conv(f)))))``, then ``y <- x + conv(f)``; all stages share their weights and the
    first one starts from ``y = x``. Source: Ren, Zuo, Hu, Zhu, Meng, "Progressive image deraining networks: a better
    and simpler baseline", CVPR 2019: PReNet (``lstm``), PRN (without), and their ``_r`` forms (``shared_blocks``, one
    residual block used five times), all with six stages of 32.

    ``stages.k`` passes stage k's features (B, width, H, W) through: a place for hints.

    Args:
        channels: 1 for gray, 3 for RGB.
        width: Feature maps.
        stages: How often the network runs; the weights do not tell.
        lstm: Whether a convolutional LSTM joins the stages.
        shared_blocks: Whether the five residual blocks are one.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 32,
        stages: int = 6,
        *,
        lstm: bool = True,
        shared_blocks: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.width = width
        self.lstm = lstm
        self.blocks = ["res_conv1"] * BLOCKS if shared_blocks else [f"res_conv{k + 1}" for k in range(BLOCKS)]
        self.conv0 = nn.Sequential(*_conv_relu(2 * channels, width))
        for name in dict.fromkeys(self.blocks):
            self.add_module(name, nn.Sequential(*_conv_relu(width, width), *_conv_relu(width, width)))
        if lstm:
            self.conv_i = self._gate(nn.Sigmoid())
            self.conv_f = self._gate(nn.Sigmoid())
            self.conv_g = self._gate(nn.Tanh())
            self.conv_o = self._gate(nn.Sigmoid())
        self.conv = nn.Sequential(nn.Conv2d(width, channels, 3, padding=1))
        self.stages = nn.ModuleList(nn.Identity() for _ in range(stages))

    def _gate(self, activation: nn.Module) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(2 * self.width, self.width, 3, padding=1), activation)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], *, lstm: bool) -> ProgressiveNet:
        """The six-stage network whose layers these tensors name, with fresh weights."""
        return cls(
            axis_size(state, "conv.0.weight", 0, 3),
            axis_size(state, "conv0.0.weight", 0, 32),
            lstm=lstm,
            shared_blocks=not any(key.startswith("res_conv2.") for key in state),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Takes the rain away.

        Args:
            x: Degraded images (B, C, H, W) in [0, 1] units, any size.

        Returns:
            The last stage's images (B, C, H, W), not clipped.
        """
        hidden = x.new_zeros(x.shape[0], self.width, *x.shape[-2:])
        cell = hidden
        y = x
        for stage in self.stages:
            features = self.conv0(torch.cat((x, y), dim=1))
            if self.lstm:
                hidden, cell = self._lstm_step(features, hidden, cell)
                features = hidden
            for name in self.blocks:
                features = functional.relu(features + self.get_submodule(name)(features))
            y = x + self.conv(stage(features))
        return y

    def _lstm_step(self, features: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """``c <- f c + i g``, ``h <- o tanh(c)``, each gate a convolution of the features and the hidden state."""
        joined = torch.cat((features, hidden), dim=1)
        cell = self.conv_f(joined) * cell + self.conv_i(joined) * self.conv_g(joined)
        return self.conv_o(joined) * torch.tanh(cell), cell
