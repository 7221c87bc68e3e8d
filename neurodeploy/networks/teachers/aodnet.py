"""AOD-Net: a very small dehazing network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AODNet(nn.Module):
    """``y = relu(K x - K + 1)`` with ``K`` from five convolutions of 3 feature maps (kernels 1, 3, 5, 7, 3).

    ``K`` joins transmission and atmospheric light of the scattering model ``x = J t + A (1 - t)``. Source: Li, Peng,
    Wang, Xu, Feng, "AOD-Net: all-in-one dehazing network", ICCV 2017. RGB in and out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.channels = 3
        self.e_conv1 = nn.Conv2d(3, 3, 1)
        self.e_conv2 = nn.Conv2d(3, 3, 3, padding=1)
        self.e_conv3 = nn.Conv2d(6, 3, 5, padding=2)
        self.e_conv4 = nn.Conv2d(6, 3, 7, padding=3)
        self.e_conv5 = nn.Conv2d(12, 3, 3, padding=1)
        # One ReLU a convolution, so that each can be hooked.
        self.relu1, self.relu2, self.relu3, self.relu4, self.relu5 = (nn.ReLU() for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        """Takes the haze away.

        Args:
            x: Hazy images (B, 3, H, W) in [0, 1] units, any size.

        Returns:
            Clear images (B, 3, H, W), not negative, not clipped at 1.
        """
        x1 = self.relu1(self.e_conv1(x))
        x2 = self.relu2(self.e_conv2(x1))
        x3 = self.relu3(self.e_conv3(torch.cat((x1, x2), dim=1)))
        x4 = self.relu4(self.e_conv4(torch.cat((x2, x3), dim=1)))
        k: Tensor = self.relu5(self.e_conv5(torch.cat((x1, x2, x3, x4), dim=1)))
        return torch.relu(k * x - k + 1)
