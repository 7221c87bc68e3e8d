"""The architectures that are known by name, and which one a file of weights looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from neurodeploy.errors import UserError
from neurodeploy.networks.teachers.aodnet import AODNet
from neurodeploy.networks.teachers.base import Teacher
from neurodeploy.networks.teachers.conv_stack import relu_names, stack_shape
from neurodeploy.networks.teachers.dncnn import DnCNN
from neurodeploy.networks.teachers.ffdnet import FFDNet
from neurodeploy.networks.teachers.nafnet import NAFNet, NAFNetShape
from neurodeploy.networks.teachers.prenet import ProgressiveNet
from neurodeploy.networks.teachers.restormer import Restormer, RestormerShape
from neurodeploy.networks.weights import load_weights

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """One architecture: how to tell its weights, make its network, and where its hints lie."""

    name: str
    task: str
    recognise: Callable[[State], bool]
    build: Callable[[State], nn.Module]
    hint_points: Callable[[nn.Module], tuple[str, ...]]
    needs_noise_level: bool = False


def _is_stack(state: State, expansion: int, extra: int) -> bool:
    """Whether the tensors are a conv stack of c*expansion + extra channels in and c*expansion out, for some c."""
    if "model.0.weight" not in state:
        return False
    shape = stack_shape(state, "model.")
    return shape.outputs % expansion == 0 and shape.inputs == shape.outputs + extra


def _has(*keys: str, lacks: str = "") -> Callable[[State], bool]:
    """Whether a key starts with each of ``keys``, and none with ``lacks``."""

    def holds(state: State) -> bool:
        present = all(any(key.startswith(start) for key in state) for start in keys)
        return present and not (lacks and any(key.startswith(lacks) for key in state))

    return holds


def _stages(network: nn.Module) -> tuple[str, ...]:
    return tuple(f"stages.{k}" for k in range(len(list(network.get_submodule("stages").children()))))


def _decoders(network: nn.Module) -> tuple[str, ...]:
    return tuple(f"decoders.{k}" for k in range(len(list(network.get_submodule("decoders").children()))))


def _decoder_levels(_network: nn.Module) -> tuple[str, ...]:
    return ("decoder_level3", "decoder_level2", "decoder_level1", "refinement")


def _aodnet(_state: State) -> nn.Module:
    return AODNet()


def _nafnet(state: State) -> nn.Module:
    return NAFNet(NAFNetShape.from_state(state))


def _restormer(state: State) -> nn.Module:
    return Restormer(RestormerShape.from_state(state))


ARCHITECTURES: dict[str, Architecture] = {
    entry.name: entry
    for entry in (
        Architecture("dncnn", "denoising", partial(_is_stack, expansion=1, extra=0), DnCNN.from_state, relu_names),
        Architecture(
            "ffdnet",
            "denoising",
            partial(_is_stack, expansion=4, extra=1),
            FFDNet.from_state,
            relu_names,
            needs_noise_level=True,
        ),
        Architecture(
            "prenet",
            "deraining",
            _has("conv0.0.", "res_conv1.", "conv_i."),
            partial(ProgressiveNet.from_state, lstm=True),
            _stages,
        ),
        Architecture(
            "prn",
            "deraining",
            _has("conv0.0.", "res_conv1.", lacks="conv_"),
            partial(ProgressiveNet.from_state, lstm=False),
            _stages,
        ),
        Architecture("nafnet", "restoration", _has("intro.", "middle_blks.", "downs."), _nafnet, _decoders),
        Architecture(
            "restormer",
            "restoration",
            _has("patch_embed.", "encoder_level1.", "latent.", lacks="prompt"),
            _restormer,
            _decoder_levels,
        ),
        Architecture("aodnet", "dehazing", _has("e_conv1.", "e_conv5.", lacks="e_conv6."), _aodnet, relu_names),
    )
}


def look_alike(state: State) -> str | None:
    """The name of the architecture that the tensors look like, or None."""
    return next((name for name, entry in ARCHITECTURES.items() if entry.recognise(state)), None)


def published_keys(state: State) -> dict[str, Tensor]:
    """The tensors with DnCNN's second container name, ``dncnn.``, written ``model.`` like the first."""
    if state and all(key.startswith("dncnn.") for key in state):
        return {f"model.{key.removeprefix('dncnn.')}": value for key, value in state.items()}
    return dict(state)


def build_teacher(name: str, state: State, source: str) -> Teacher:
    """Makes a teacher of a known architecture from its tensors; the sizes are read off the tensors' shapes.

    Args:
        name: A key of :data:`ARCHITECTURES`.
        state: Tensors under the keys that the architecture's authors published.
        source: Where they came from, for messages and reports.

    Raises:
        UserError: The tensors look like another architecture.
        FindingsError: Keys are missing or unexpected, or shapes differ.
    """
    entry = ARCHITECTURES[name]
    tensors = published_keys(state)
    seen = look_alike(tensors)
    if seen is not None and seen != name:
        raise UserError(f"these weights look like {seen}, not {name}", node=source, instead=f"write {seen}:{source}")
    if any(key.startswith("skip_conv.") for key in tensors) and name == "restormer":
        raise UserError("is a Restormer for dual-pixel images, which take two photographs at once", node=source)
    # Made on the meta device: nothing is drawn from the caller's random numbers, and a file that names absurd sizes
    # costs no memory before it is refused.
    with torch.device("meta"):
        network = entry.build(tensors)
    load_weights(network, tensors, source)
    return Teacher(
        network,
        name=name,
        channels=int(getattr(network, "channels")),  # noqa: B009  (nn.Module's attributes are Tensor | Module to mypy)
        hint_points=entry.hint_points(network),
        weights_source=source,
        needs_noise_level=entry.needs_noise_level,
    )
