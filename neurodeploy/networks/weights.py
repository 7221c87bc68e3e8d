"""Reading published weights: plain tensors only, unwrapped, checked against the network before they are used."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from neurodeploy.errors import Finding, FindingsError, UserError

# Dictionaries that training programs put round the tensors, the one to prefer first: a running average of the weights
# is what its authors tested.
_WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict")
# Prefixes that torch.nn.DataParallel and torch.compile put before every key.
_PREFIXES = ("module.", "_orig_mod.")
# A file may not number its layers further than this many times its tensors: such a file is damaged or hostile.
_INDEX_SLACK = 8


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Reads a file of weights as a flat dictionary of dense float32 tensors on the CPU.

    A safetensors file is read as such, every other by ``torch.load(weights_only=True)``, which runs no code of the
    file. The wrappers ``params_ema``, ``params``, ``state_dict`` and ``model_state_dict`` are taken off (in that order
    of preference), and so are ``module.`` and ``_orig_mod.`` before every key. Integer tensors (the batch counters of
    batch norm) keep their type.

    Raises:
        UserError: The file is missing, empty, damaged, cut short, or holds something other than plain tensors.
        FindingsError: Some tensors are sparse, quantised, complex or not finite; all are listed.
    """
    path = Path(path).expanduser()
    start = _check_file(path)
    # A safetensors file opens with the length of its header in 8 bytes and the header's brace.
    safe = path.suffix == ".safetensors" or start[8:] == b"{"
    loaded = _read_safetensors(path) if safe else _read_pickle(path)
    state = _without_prefixes(_unwrap(loaded, path))
    return _plain(state, path)


def _check_file(path: Path) -> bytes:
    """The first bytes of a file that is there and not empty."""
    if not path.exists():
        raise UserError("no such file of weights", node=str(path))
    if not path.is_file():
        raise UserError("is not a file of weights", node=str(path), instead="name the file itself")
    try:
        with path.open("rb") as stream:
            start = stream.read(9)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", node=str(path)) from error
    if not start:
        raise UserError("is empty", node=str(path), instead="fetch the weights again")
    return start


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"is damaged, cut short or no file of weights: {why}", node=str(path))


def _reason(error: Exception) -> str:
    """The first sentence of what a reader said, where it means something to somebody who did not write the reader."""
    if isinstance(error, EOFError):
        return "it ends too early"
    if isinstance(error, (RuntimeError, SafetensorError)) and not isinstance(error, NotImplementedError):
        return str(error).strip().splitlines()[0].split(". ")[0][:160]
    return "torch cannot read it"


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise _damaged(path, _reason(error)) from error


def _read_pickle(path: Path) -> Any:
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            # torch warns of pickles it did not write, and then refuses them: the refusal is what is told.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _refused_object(str(error))
        if found is None:
            raise _damaged(path, "not a file that torch wrote") from error
        raise UserError(
            f"holds {found}, and only plain tensors are loaded (a pickle can run any program)",
            node=str(path),
            instead="save module.state_dict(), or convert the tensors to .safetensors, where you trust the file",
        ) from error
    except Exception as error:
        # A damaged file ends in whatever the reader trips over first: EOFError, KeyError, struct.error, RuntimeError.
        if "TorchScript" in str(error):
            raise UserError(
                "is a TorchScript program, and only plain tensors are loaded",
                node=str(path),
                instead="save the state_dict() of the module it was made from",
            ) from error
        raise _damaged(path, _reason(error)) from error


def _check_archive(path: Path) -> None:
    """Compares the check sums of a file in torch's newer, zipped form: torch itself does not look at them."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise _damaged(path, "its table of contents is broken") from error
    if broken is not None:
        raise _damaged(path, f"the check sum of {broken} is wrong")


def _refused_object(message: str) -> str | None:
    """What the restricted un-pickler refused, or None when the file is rather damaged."""
    match = re.search(r"(?:Unsupported global: GLOBAL|Can only build Tensor.*?but got|GLOBAL) ['\"]?([\w.]+)", message)
    if match:
        return f"an object of type {match.group(1)}"
    if "Unsupported class" in message or "not an allowed global" in message:
        return "Python objects"
    return None


def _unwrap(loaded: Any, path: Path) -> Mapping[str, Any]:
    if isinstance(loaded, Tensor):
        raise UserError("holds one bare tensor, not the named tensors of a network", node=str(path))
    seen = 0
    while isinstance(loaded, Mapping) and seen < len(_WRAPPERS):
        inner = next((key for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = loaded[inner]
        seen += 1
    if not isinstance(loaded, Mapping):
        raise UserError(f"holds a {type(loaded).__name__}, not the named tensors of a network", node=str(path))
    strange = [repr(key) for key, value in loaded.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strange or not loaded:
        have = ", ".join(strange[:8]) + (f" and {len(strange) - 8} more" if len(strange) > 8 else "")
        raise UserError(
            "is not a dictionary of named tensors",
            node=str(path),
            have=f"entries that are none: {have}" if strange else "nothing in it",
            instead=f"save state_dict(), plain or under one of {', '.join(_WRAPPERS)}",
        )
    return loaded


def _without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = dict(state)
    while True:
        prefix = next((p for p in _PREFIXES if all(key.startswith(p) for key in tensors)), None)
        if prefix is None:
            return tensors
        tensors = {key[len(prefix) :]: value for key, value in tensors.items()}


def _plain(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    findings = [finding for key, value in state.items() if (finding := _tensor_finding(key, value)) is not None]
    if findings:
        raise FindingsError(f"{path}: not every tensor can be used", findings, exit_code=2)
    return {
        key: (value.detach().float() if value.is_floating_point() else value.detach()).contiguous()
        for key, value in state.items()
    }


def _tensor_finding(key: str, value: Tensor) -> Finding | None:
    if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
        return Finding(key, "is not a dense real tensor", have=f"{value.layout}, {value.dtype}")
    # A stride of 0 lets a small file name a tensor of any size.
    if value.numel() > value.untyped_storage().nbytes() // max(value.element_size(), 1):
        return Finding(key, "names more values than the file holds", have=f"{tuple(value.shape)}")
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        return Finding(key, "holds values that are not finite")
    return None


def block_count(state: Mapping[str, Tensor], prefix: str) -> int:
    """One more than the highest N among the keys ``<prefix>N.*``; 0 without any.

    Raises:
        UserError: The numbers go far beyond what the file can hold.
    """
    pattern = re.compile(re.escape(prefix) + r"(\d{1,9})\.")
    numbers = [int(match.group(1)) for key in state if (match := pattern.match(key))]
    count = max(numbers, default=-1) + 1
    if count > _INDEX_SLACK * len(state) + _INDEX_SLACK:
        raise UserError(
            "the layers' numbers do not fit the tensors in the file",
            node=f"{prefix}{count - 1}",
            have=f"{len(state)} tensors",
        )
    return count


def axis_size(state: Mapping[str, Tensor], key: str, axis: int, default: int) -> int:
    """The length of one axis of a tensor, or ``default`` where the tensor is missing or has no such axis."""
    tensor = state.get(key)
    return default if tensor is None or tensor.ndim <= axis else int(tensor.shape[axis])


def check_weights(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Compares tensors with the network that they are meant for: names and shapes, all at once.

    Batch norm's ``num_batches_tracked`` may be missing: it plays no part in evaluation.

    Raises:
        FindingsError: Keys are missing or unexpected, or shapes differ; every one is listed (exit code 2).
    """
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    findings = [
        Finding(key, "missing from the file", limit=f"shape {shape}")
        for key, shape in wanted.items()
        if key not in state and not key.endswith("num_batches_tracked")
    ]
    findings += [
        Finding(key, "not a tensor of this network", have=f"shape {tuple(value.shape)}")
        for key, value in state.items()
        if key not in wanted
    ]
    findings += [
        Finding(key, "wrong shape", have=str(tuple(value.shape)), limit=str(wanted[key]))
        for key, value in state.items()
        if key in wanted and tuple(value.shape) != wanted[key]
    ]
    if findings:
        raise FindingsError(f"{source}: these weights do not fit the network", findings, exit_code=2)


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Checks the tensors and puts them in place; a network made on the meta device gets them as its own.

    Raises:
        FindingsError: See :func:`check_weights`.
    """
    check_weights(network, state, source)
    complete = {**_batch_counters(network.named_buffers()), **state}
    network.load_state_dict(complete, strict=True, assign=True)


def _batch_counters(buffers: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.zeros((), dtype=torch.long) for key, _ in buffers if key.endswith("num_batches_tracked")}
