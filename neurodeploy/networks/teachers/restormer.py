"""Restormer: a U-shaped transformer whose attention runs over channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from neurodeploy.errors import UserError
from neurodeploy.networks.teachers.padding import pad_to_multiple
from neurodeploy.networks.weights import axis_size, block_count

_EXPANSION = 2.66


class PixelNorm(nn.Module):
    """Layer norm over the channels of each pixel, eps 1e-5.

    With bias ``(x - mean) / sqrt(var + eps) * weight + bias``; without, ``x / sqrt(var + eps) * weight``: the mean goes
    into the variance but is not taken away, as the denoising networks were trained.
    """

    def __init__(self, channels: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalises images (B, C, H, W)."""
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        scale = self.weight.view(1, -1, 1, 1)
        if self.bias is None:
            return x / torch.sqrt(variance + 1e-5) * scale
        return (x - mean) / torch.sqrt(variance + 1e-5) * scale + self.bias.view(1, -1, 1, 1)


class Norm(nn.Module):
    """Holds a :class:`PixelNorm` as ``body``, where the published keys want it."""

    def __init__(self, channels: int, *, bias: bool) -> None:
        super().__init__()
        self.body = PixelNorm(channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises images (B, C, H, W)."""
        normed: Tensor = self.body(x)
        return normed


class ChannelAttention(nn.Module):
    """Self-attention between the channels of each head: ``softmax(t * q k^T) v`` with unit-length q and k.

    Queries, keys and values come from one 1x1 and one depthwise 3x3 convolution; a query is one channel's whole
    image, so that the work grows with the number of pixels and not with its square.
    """

    def __init__(self, channels: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Attends over features (B, C, H, W)."""
        batch, channels, height, width = x.shape
        split = self.qkv_dwconv(self.qkv(x)).view(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = split.unbind(1)
        query = functional.normalize(query, dim=-1)
        key = functional.normalize(key, dim=-1)
        weights = torch.softmax(query @ key.transpose(-2, -1) * self.temperature, dim=-1)
        attended: Tensor = self.project_out((weights @ value).reshape(batch, channels, height, width))
        return attended


class GatedFeedForward(nn.Module):
    """``project_out(gelu(a) * b)`` with ``a, b`` the halves of a 1x1 and a depthwise 3x3 convolution of the input."""

    def __init__(self, channels: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """One feed-forward step on features (B, C, H, W)."""
        gate, passed = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        out: Tensor = self.project_out(functional.gelu(gate) * passed)
        return out


class TransformerBlock(nn.Module):
    """``x <- x + attn(norm1(x))``, then ``x <- x + ffn(norm2(x))``."""

    def __init__(self, channels: int, heads: int, hidden: int, *, bias: bool, norm_bias: bool) -> None:
        super().__init__()
        self.norm1 = Norm(channels, bias=norm_bias)
        self.attn = ChannelAttention(channels, heads, bias=bias)
        self.norm2 = Norm(channels, bias=norm_bias)
        self.ffn = GatedFeedForward(channels, hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """One block on features (B, C, H, W)."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.ffn(self.norm2(x))
        return out


class Resample(nn.Module):
    """A 3x3 convolution and a pixel shuffle: half the size and twice the channels, or the other way round."""

    def __init__(self, channels: int, *, up: bool) -> None:
        super().__init__()
        outputs = 2 * channels if up else channels // 2
        shuffle: nn.Module = nn.PixelShuffle(2) if up else nn.PixelUnshuffle(2)
        self.body = nn.Sequential(nn.Conv2d(channels, outputs, 3, padding=1, bias=False), shuffle)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) at the other size."""
        out: Tensor = self.body(x)
        return out


class PatchEmbed(nn.Module):
    """The first 3x3 convolution, held as ``proj``."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, dim, H, W) of images (B, C, H, W)."""
        out: Tensor = self.proj(x)
        return out


@dataclass(frozen=True)
class RestormerShape:
    """Sizes of a Restormer; the defaults are the published ones.

    ``blocks`` and ``heads`` go from the finest level to the latent one, ``decoder`` likewise without it.
    The decoder's and the refinement's finest level has ``2 * dim`` channels. A feed-forward step is
    ``int(channels * expansion)`` wide.
    """

    channels: int = 3
    dim: int = 48
    blocks: tuple[int, int, int, int] = (4, 6, 6, 8)
    decoder: tuple[int, int, int] = (4, 6, 6)
    refinement: int = 4
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    expansion: float = _EXPANSION
    bias: bool = False
    norm_bias: bool = True

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> RestormerShape:
        """Reads the sizes from a network's tensors; missing ones are taken as published.

        Raises:
            UserError: The layers' numbers do not fit the tensors in the file, or the heads not the channels.
        """
        levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
        dim = axis_size(state, "patch_embed.proj.weight", 0, 48)
        # The widest level settles the ratio best: half a channel more than what int() left of it.
        hidden = axis_size(state, "latent.0.ffn.project_out.weight", 1, int(8 * dim * _EXPANSION))
        heads = [axis_size(state, f"{level}.0.attn.temperature", 0, 1 << k) for k, level in enumerate(levels)]
        blocks = [block_count(state, f"{level}.") for level in levels]
        decoder = [block_count(state, f"decoder_level{k}.") for k in (1, 2, 3)]
        for k, count in enumerate(heads):
            if count < 1 or (dim << k) % count:
                raise UserError(
                    "the heads do not divide the channels",
                    node=f"{levels[k]}.0.attn.temperature",
                    have=f"{count} heads, {dim << k} channels",
                )
        return cls(
            channels=axis_size(state, "patch_embed.proj.weight", 1, 3),
            dim=dim,
            blocks=(blocks[0], blocks[1], blocks[2], blocks[3]),
            decoder=(decoder[0], decoder[1], decoder[2]),
            refinement=block_count(state, "refinement."),
            heads=(heads[0], heads[1], heads[2], heads[3]),
            expansion=(hidden + 0.5) / (8 * dim),
            bias=any(key.endswith("attn.qkv.bias") for key in state),
            norm_bias=any(key.endswith("norm1.body.bias") for key in state),
        )


class Restormer(nn.Module):
    """``y = x + output(refinement(decoder(latent(encoder(patch_embed(x))))))`` over four levels, joined by skips.

    Source: Zamir, Arora, Khan, Hayat, Khan, Yang, "Restormer: efficient transformer for high-resolution image
    restoration", CVPR 2022. The image is padded by mirroring to a multiple of 8, as its authors' test programs do.
    The form for dual-pixel defocus (6 channels in, no global residual) is not among these.

    Args:
        shape: Sizes.
    """

    def __init__(self, shape: RestormerShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or RestormerShape()
        self.channels = shape.channels
        dim = shape.dim
        self.patch_embed = PatchEmbed(shape.channels, dim)
        self.encoder_level1 = self._level(dim, shape.blocks[0], shape.heads[0])
        self.down1_2 = Resample(dim, up=False)
        self.encoder_level2 = self._level(2 * dim, shape.blocks[1], shape.heads[1])
        self.down2_3 = Resample(2 * dim, up=False)
        self.encoder_level3 = self._level(4 * dim, shape.blocks[2], shape.heads[2])
        self.down3_4 = Resample(4 * dim, up=False)
        self.latent = self._level(8 * dim, shape.blocks[3], shape.heads[3])
        self.up4_3 = Resample(8 * dim, up=True)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=shape.bias)
        self.decoder_level3 = self._level(4 * dim, shape.decoder[2], shape.heads[2])
        self.up3_2 = Resample(4 * dim, up=True)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=shape.bias)
        self.decoder_level2 = self._level(2 * dim, shape.decoder[1], shape.heads[1])
        self.up2_1 = Resample(2 * dim, up=True)
        self.decoder_level1 = self._level(2 * dim, shape.decoder[0], shape.heads[0])
        self.refinement = self._level(2 * dim, shape.refinement, shape.heads[0])
        self.output = nn.Conv2d(2 * dim, shape.channels, 3, padding=1, bias=shape.bias)

    def _level(self, channels: int, blocks: int, heads: int) -> nn.Sequential:
        shape = self.shape
        hidden = int(channels * shape.expansion)
        return nn.Sequential(
            *(
                TransformerBlock(channels, heads, hidden, bias=shape.bias, norm_bias=shape.norm_bias)
                for _ in range(blocks)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Restores images.

        Args:
            x: Degraded images (B, C, H, W) in [0, 1] units, any size.

        Returns:
            Restored images (B, C, H, W), not clipped.
        """
        height, width = x.shape[-2:]
        padded = pad_to_multiple(x, 8, "reflect")
        level1 = self.encoder_level1(self.patch_embed(padded))
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        latent = self.latent(self.down3_4(level3))
        features = self.reduce_chan_level3(torch.cat((self.up4_3(latent), level3), dim=1))
        features = self.reduce_chan_level2(torch.cat((self.up3_2(self.decoder_level3(features)), level2), dim=1))
        features = torch.cat((self.up2_1(self.decoder_level2(features)), level1), dim=1)
        restored: Tensor = padded + self.output(self.refinement(self.decoder_level1(features)))
        return restored[..., :height, :width]
