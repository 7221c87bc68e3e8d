"""DnCNN: a denoiser that predicts the noise."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from neurodeploy.networks.teachers.conv_stack import conv_stack, stack_shape


class DnCNN(nn.Module):
    """``y = x - stack(x)`` with a stack of 3x3 convolutions (zero padding), ReLU between them.

    Source: Zhang, Zuo, Chen, Meng, Zhang, "Beyond a Gaussian denoiser: residual learning of deep CNN for image
    denoising", IEEE TIP 2017. Published: 17 layers of 64 for one noise level (DnCNN-S), 20 layers for the blind and
    the colour ones, and 20 gray layers for DnCNN-3, which removes noise, JPEG blocks and the blur of bicubic
    up-scaling alike (give it the up-scaled image).

    Args:
        channels: 1 for gray, 3 for RGB.
        width: Feature maps of the hidden layers.
        depth: Number of convolutions, the last one included.
        batch_norm: Batch norm after every convolution but the first and the last (as it was trained); without it, it
            is taken as folded into the convolutions.
        bias: Whether the convolutions have a bias.
    """

    def __init__(
        self, channels: int = 1, width: int = 64, depth: int = 17, *, batch_norm: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        self.channels = channels
        self.model = conv_stack(channels, width, channels, depth, batch_norm=batch_norm, bias=bias)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> DnCNN:
        """The network whose layers these tensors name, with fresh weights."""
        shape = stack_shape(state, "model.")
        return cls(shape.outputs, shape.width, shape.depth, batch_norm=shape.batch_norm, bias=shape.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Removes the noise (or other degradation) that the weights were trained for.

        Args:
            x: Degraded images (B, C, H, W) in [0, 1] units, any size.

        Returns:
            Restored images (B, C, H, W), not clipped.
        """
        noise: Tensor = self.model(x)
        return x - noise
