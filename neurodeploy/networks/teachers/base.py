"""What every teacher offers: restoring images, and features by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from neurodeploy.errors import UserError
from neurodeploy.networks.macs import count_parameters
from neurodeploy.networks.teachers.padding import pad_to_multiple

_COLOURS = {1: "gray (1 channel)", 3: "colour (3 channels)"}


def describe_channels(channels: int) -> str:
    """``gray (1 channel)``, ``colour (3 channels)`` or the number."""
    return _COLOURS.get(channels, f"{channels} channels")


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for a misspelt name: the nearest known one, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"known: {shown}" if known else ""


class Teacher(nn.Module):
    """A restoration network that is run but not trained: always in evaluation mode, never with gradients.

    Args:
        network: Takes images (B, C, H, W) in [0, 1] units, and the noise level (B,) where ``needs_noise_level``, and
            gives the restored images at the same size.
        name: The architecture's name.
        channels: 1 for gray, 3 for RGB.
        hint_points: Dotted names of modules in ``network`` whose outputs make good hints, in the order of the pass.
        weights_source: Where the weights came from.
        needs_noise_level: Whether the network is told the noise level.
        multiple: What the sizes of its input must be multiples of; images are padded by their last rows and columns,
            and the result cropped. 1 where the network sees to it itself.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        channels: int,
        hint_points: tuple[str, ...],
        weights_source: str,
        needs_noise_level: bool = False,
        multiple: int = 1,
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.channels = channels
        self.hint_points = hint_points
        self.weights_source = weights_source
        self.needs_noise_level = needs_noise_level
        self.multiple = multiple
        self.requires_grad_(False)
        self.eval()

    @property
    def parameters_count(self) -> int:
        """Numbers in all parameters, tensor by tensor, shared ones once."""
        return count_parameters(self.network)

    def train(self, mode: bool = True) -> Self:
        """Leaves the teacher in evaluation mode, whatever is asked of the modules around it."""
        return super().train(False)

    def forward(self, x: Tensor, noise_level: Tensor | None = None) -> Tensor:
        """The same as :meth:`restore`."""
        return self.restore(x, noise_level)

    @torch.no_grad()
    def restore(self, x: Tensor, noise_level: Tensor | None = None) -> Tensor:
        """Restores images.

        Args:
            x: Degraded images (B, C, H, W) in [0, 1] units, any size.
            noise_level: Standard deviation of the noise of each image (B,), or one for all (), in the units of ``x``;
                ignored by teachers that are not told.

        Returns:
            Restored images (B, C, H, W) of the type and on the device of the network, not clipped.

        Raises:
            UserError: The images have the wrong number of channels, the noise level is missing, or the network gives
                something other than images of the same size.
        """
        x = self._checked(x)
        height, width = x.shape[-2:]
        padded = pad_to_multiple(x, self.multiple, "replicate")
        restored = self.network(padded, *self._noise_arguments(noise_level, x))
        return self._same_size(restored, padded)[..., :height, :width]

    def features(
        self, x: Tensor, points: Sequence[str], noise_level: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Restores images and keeps the outputs of some modules on the way.

        Args:
            x: See :meth:`restore`.
            points: Dotted names of modules in the network, from ``hint_points`` or any other.
            noise_level: See :meth:`restore`.

        Returns:
            The restored images, and for each point a copy of its output (B, c, h, w), in the order asked for; of a
            module that runs several times in a pass, the last one. Where the image was padded, so are the features.

        Raises:
            UserError: A point is unknown, did not run, or does not give one tensor; or see :meth:`restore`.
        """
        seen: dict[str, Tensor] = {}
        with self._watched(points, seen):
            restored = self.restore(x, noise_level)
        missing = [point for point in points if point not in seen]
        if missing:
            raise UserError(
                "gave no tensor in this pass and cannot be a hint",
                node=f"{self.name}: {', '.join(missing)}",
                instead=f"choose from {', '.join(self.hint_points)}" if self.hint_points else "",
            )
        return restored, {point: seen[point] for point in points}

    @contextmanager
    def _watched(self, points: Sequence[str], seen: dict[str, Tensor]) -> Iterator[None]:
        handles = []
        try:
            for point in dict.fromkeys(points):
                handles.append(self._module(point).register_forward_hook(_keeper(point, seen)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _module(self, point: str) -> nn.Module:
        modules: dict[str, nn.Module] = dict(self.network.named_modules(remove_duplicate=False))
        if not point or point not in modules:
            known = self.hint_points or tuple(name for name in modules if name)
            raise UserError(
                f"the teacher {self.name} has no hint point of this name", node=point, instead=nearest(point, known)
            )
        return modules[point]

    def _checked(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise UserError(
                "a teacher takes images (B, C, H, W)", node=self.name, have=f"a tensor of shape {tuple(x.shape)}"
            )
        if x.shape[1] != self.channels:
            raise UserError(
                f"the teacher restores {describe_channels(self.channels)} images",
                node=self.name,
                have=describe_channels(x.shape[1]),
                instead="convert the images, or choose a teacher for them",
            )
        parameter = next(self.network.parameters(), None)
        return x if parameter is None else x.to(parameter.dtype)

    def _same_size(self, restored: object, x: Tensor) -> Tensor:
        if isinstance(restored, Tensor) and restored.shape == x.shape:
            return restored
        raise UserError(
            "the teacher does not give an image of its input's size",
            node=self.name,
            have=str(tuple(restored.shape)) if isinstance(restored, Tensor) else type(restored).__name__,
            limit=str(tuple(x.shape)),
        )

    def _noise_arguments(self, noise_level: Tensor | None, x: Tensor) -> tuple[Tensor, ...]:
        if not self.needs_noise_level:
            return ()
        if noise_level is None:
            raise UserError(
                f"{self.name} has to be told the noise level of its input",
                node=self.weights_source,
                instead="give it with --sigma, in 8-bit units (25 means 25/255)",
            )
        if noise_level.numel() not in (1, x.shape[0]):
            raise UserError(
                "one noise level an image is needed",
                node=self.name,
                have=f"{noise_level.numel()} levels for {x.shape[0]} images",
            )
        return (noise_level.to(device=x.device, dtype=x.dtype).reshape(-1).expand(x.shape[0]),)


def _keeper(point: str, seen: dict[str, Tensor]) -> Any:
    """A forward hook that keeps a copy: a later layer may work in place on the very tensor."""

    def keep(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            seen[point] = output.detach().clone()

    return keep
