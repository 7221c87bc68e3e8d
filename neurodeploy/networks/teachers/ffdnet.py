"""FFDNet: a denoiser that is told the noise level and works at half resolution."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from neurodeploy.networks.teachers.conv_stack import conv_stack, stack_shape
from neurodeploy.networks.teachers.padding import pad_to_multiple


class FFDNet(nn.Module):
    """``y = shuffle(stack(concat(unshuffle(x), sigma)))``: the clean image itself, not a residual.

    The image is padded to even sizes by replicating its last row and column, its 2x2 blocks become 4 channels each, a
    constant map of the noise level is appended, and a stack of 3x3 convolutions (zero padding, ReLU between them)
    gives the clean 2x2 blocks. Source: Zhang, Zuo, Zhang, "FFDNet: Toward a fast and flexible solution for CNN-based
    image denoising", IEEE TIP 2018. The published networks are 15 layers of 64 (gray) and 12 layers of 96 (colour),
    with batch norm folded into the convolutions.

    Args:
        channels: 1 for gray, 3 for RGB.
        width: Feature maps of the hidden layers.
        depth: Number of convolutions, the last one included.
    """

    def __init__(self, channels: int = 1, width: int = 64, depth: int = 15) -> None:
        super().__init__()
        self.channels = channels
        self.model = conv_stack(4 * channels + 1, width, 4 * channels, depth)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> FFDNet:
        """The network whose layers these tensors name, with fresh weights."""
        shape = stack_shape(state, "model.")
        return cls(max(shape.outputs // 4, 1), shape.width, shape.depth)

    def forward(self, x: Tensor, noise_level: Tensor) -> Tensor:
        """Removes white Gaussian noise of a known level.

        Args:
            x: Noisy images (B, C, H, W) in [0, 1] units, any size.
            noise_level: Standard deviation of each image's noise (B,), in the units of ``x`` (25/255 for sigma 25).

        Returns:
            Clean images (B, C, H, W), not clipped.
        """
        height, width = x.shape[-2:]
        blocks = functional.pixel_unshuffle(pad_to_multiple(x, 2, "replicate"), 2)
        level = noise_level.to(blocks.dtype).view(-1, 1, 1, 1)
        level_map = level.expand(blocks.shape[0], 1, blocks.shape[2], blocks.shape[3])
        restored: Tensor = functional.pixel_shuffle(self.model(torch.cat((blocks, level_map), dim=1)), 2)
        return restored[..., :height, :width]
