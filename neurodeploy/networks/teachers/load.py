"""Finding a teacher by what a user writes: ``dncnn:weights.pth``, ``package.module:Class``, ``network.onnx``."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neurodeploy.errors import UserError
from neurodeploy.networks.teachers.base import Teacher, describe_channels, nearest
from neurodeploy.networks.teachers.catalogue import ARCHITECTURES, build_teacher, look_alike, published_keys
from neurodeploy.networks.teachers.conv_stack import relu_names
from neurodeploy.networks.teachers.onnx_file import load_onnx
from neurodeploy.networks.weights import load_weights, read_weights

_FORMS = "ARCH:WEIGHTS (such as dncnn:weights.pth), package.module:Class[@WEIGHTS] or FILE.onnx"
_IMPORT = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)(?:@(?P<weights>.+))?")
_WEIGHT_SUFFIXES = {".pth", ".pt", ".ckpt", ".bin", ".safetensors"}


def load_teacher(spec: str, *, channels: int | None = None) -> Teacher:
    """Loads a teacher.

    Args:
        spec: ``ARCH:WEIGHTS`` with an architecture of the catalogue and a ``.pth`` or ``.safetensors`` file;
            ``package.module:Class`` or ``package.module:Class@WEIGHTS`` for a network of one's own, imported from the
            current folder or the installed environment and made without arguments; or a ``.onnx`` file.
        channels: What the images will have, 1 or 3; a teacher for other images is refused. A network of one's own
            that does not tell its channels is taken to have these.

    Returns:
        The teacher, on the CPU, in evaluation mode.

    Raises:
        UserError: The form, name, file or class is unknown or unusable, the weights are another architecture's, or the
            channels differ.
        FindingsError: The weights do not fit the network; every key is listed.
    """
    teacher = _load(spec, channels)
    if channels is not None and teacher.channels != channels:
        raise UserError(
            f"the teacher restores {describe_channels(teacher.channels)} images",
            node=spec,
            have=f"{describe_channels(channels)} images",
            instead="choose a teacher for them, or convert the images",
        )
    return teacher


def _load(spec: str, channels: int | None) -> Teacher:
    if spec.lower().endswith(".onnx"):
        head, _, tail = spec.partition(":")
        return load_onnx(tail if head.lower() == "onnx" and tail else spec, channels=channels)
    name, colon, rest = spec.partition(":")
    if name.lower() in ARCHITECTURES and colon:
        if not rest:
            raise UserError("names an architecture but no weights", node=spec, instead=f"write {name}:weights.pth")
        return build_teacher(name.lower(), read_weights(rest), rest)
    if not colon:
        raise _not_a_teacher(spec)
    match = _IMPORT.fullmatch(spec)
    if match is None or _is_weights(rest):
        raise UserError(f"unknown architecture {name!r}", node=spec, instead=nearest(name.lower(), list(ARCHITECTURES)))
    return _own_teacher(spec, match["module"], match["name"], match["weights"], channels)


def _is_weights(text: str) -> bool:
    return Path(text).suffix.lower() in _WEIGHT_SUFFIXES and "@" not in text


def _not_a_teacher(spec: str) -> UserError:
    """The error for a spec without a colon: a file is looked into, so that the right form can be named."""
    if _is_weights(spec) and Path(spec).is_file():
        seen = look_alike(published_keys(read_weights(spec)))
        way_out = f"write {seen}:{spec}" if seen else f"write ARCH:{spec} with one of {', '.join(ARCHITECTURES)}"
        return UserError("weights alone do not name a teacher", node=spec, instead=way_out)
    if spec.lower() in ARCHITECTURES:
        return UserError("names an architecture but no weights", node=spec, instead=f"write {spec}:weights.pth")
    return UserError("does not name a teacher", node=spec, instead=f"write {_FORMS}")


def _own_teacher(spec: str, module: str, name: str, weights: str | None, channels: int | None) -> Teacher:
    """A teacher from a class that somebody else wrote.

    The class may say ``channels``, ``hint_points``, ``needs_noise_level`` and ``multiple`` as attributes of its
    instances; see :class:`Teacher` for their meaning.
    """
    network = _make(spec, module, name)
    if weights is not None:
        load_weights(network, read_weights(weights), weights)
    points = getattr(network, "hint_points", None)
    return Teacher(
        network,
        name=f"{module}:{name}",
        channels=_channels_of(spec, network, channels),
        hint_points=_default_points(network) if points is None else tuple(str(point) for point in points),
        weights_source=weights or spec,
        needs_noise_level=bool(getattr(network, "needs_noise_level", False)),
        multiple=int(getattr(network, "multiple", 1)),
    )


def _make(spec: str, module: str, name: str) -> nn.Module:
    maker = getattr(_import(spec, module), name, None)
    if not callable(maker):
        raise UserError(f"the module {module} has no class {name}", node=spec)
    try:
        # The class may draw its first weights; the caller's random numbers are left as they were.
        with torch.random.fork_rng(devices=[]):
            network = maker()
    except Exception as error:
        raise UserError(
            f"{name} cannot be made without arguments: {_first_line(error)}",
            node=spec,
            instead="name a class or function that needs none",
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{name} does not give a torch module", node=spec, have=type(network).__name__)
    return network


def _import(spec: str, module: str) -> Any:
    """Imports a module; the current folder comes first while it is imported, and only then."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise UserError(f"the module {module} needs {error.name}, which is not installed", node=spec) from error
        raise UserError(
            f"no module {module} in the current folder or the environment",
            node=spec,
            instead=nearest(module.lower(), list(ARCHITECTURES)) if "." not in module else "",
        ) from error
    except Exception as error:
        raise UserError(f"the module {module} cannot be imported: {_first_line(error)}", node=spec) from error
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


def _channels_of(spec: str, network: nn.Module, channels: int | None) -> int:
    told = getattr(network, "channels", None)
    if isinstance(told, int):
        return told
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels in (1, 3):
        return int(first.in_channels)
    if channels is not None:
        return channels
    raise UserError(
        "the network does not say for how many channels it is", node=spec, instead="give it an attribute channels"
    )


def _default_points(network: nn.Module) -> tuple[str, ...]:
    """The ReLUs of a network that names no hint points, or its convolutions where it has none."""
    relus = relu_names(network)
    convs = tuple(name for name, module in network.named_modules() if isinstance(module, nn.Conv2d) and name)
    return relus or convs[:-1]
