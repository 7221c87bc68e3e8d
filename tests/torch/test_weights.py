"""The reader of weights: what it unwraps, what it refuses and how it says so."""

from __future__ import annotations

import os
import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.networks.weights import axis_size, block_count, check_weights, load_weights, read_weights

STATE = {"0.weight": torch.arange(12.0).view(2, 2, 3), "0.bias": torch.tensor([1.0, -2.0])}


class Payload:
    """Runs a command when a careless reader un-pickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def same(read: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    return read.keys() == wanted.keys() and all(torch.equal(read[key], wanted[key]) for key in wanted)


def refusal(path: Path) -> str:
    """The one line with which a file is refused, without a warning beside it."""
    with warnings.catch_warnings(), pytest.raises(UserError) as refused:
        warnings.simplefilter("error")
        read_weights(path)
    assert refused.value.exit_code == 2
    line = str(refused.value)
    assert path.name in line and "\n" not in line and len(line) < 400
    return line


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrapped",
    [
        STATE,
        {"params": STATE, "iter": 7},
        {"params_ema": STATE, "params": {"0.weight": torch.zeros(1)}},
        {"state_dict": STATE, "epoch": 3, "optimizer": {"lr": 0.1}},
        {"model_state_dict": {"params": STATE}},
        {f"module.{key}": value for key, value in STATE.items()},
        {"state_dict": {f"module._orig_mod.{key}": value for key, value in STATE.items()}},
    ],
)
def test_wrappers_and_prefixes_come_off(tmp_path: Path, wrapped: dict[str, object], zipped: bool) -> None:
    path = tmp_path / "weights.pth"
    torch.save(wrapped, path, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(path), STATE)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_safetensors_are_known_by_content(tmp_path: Path, name: str) -> None:
    save_file(STATE, tmp_path / name)
    assert same(read_weights(tmp_path / name), STATE)


def test_a_safetensors_file_written_by_hand(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    data = struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1.5, -3.0)
    (tmp_path / "hand.safetensors").write_bytes(data)
    assert read_weights(tmp_path / "hand.safetensors")["a"].tolist() == [1.5, -3.0]


def test_halves_and_doubles_become_float32_and_counters_stay(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2).half(), "b": torch.ones(2).double(), "n": torch.tensor(5)}, tmp_path / "w.pth")
    read = read_weights(tmp_path / "w.pth")
    assert [read[key].dtype for key in "abn"] == [torch.float32, torch.float32, torch.int64]


def test_a_prefix_that_only_some_keys_have_stays(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(state, tmp_path / "w.pth")
    assert same(read_weights(tmp_path / "w.pth"), state)


def test_a_pickle_that_would_run_a_program_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"a": Payload(tmp_path / "ran")}, tmp_path / "evil.pth")
    assert "mkdir" in refusal(tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    refusal(tmp_path / "plain.pth")
    assert not (tmp_path / "ran").exists()


def test_a_pickled_module_is_refused_by_its_type(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(1, 1, 3), tmp_path / "module.pth")
    line = refusal(tmp_path / "module.pth")
    assert "torch.nn.modules.conv.Conv2d" in line and "state_dict()" in line


def test_arrays_and_lists_and_bare_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"a": np.zeros(3)}, tmp_path / "array.pth")
    assert "only plain tensors" in refusal(tmp_path / "array.pth")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    assert "list" in refusal(tmp_path / "list.pth")
    torch.save(torch.ones(1), tmp_path / "bare.pth")
    assert "bare tensor" in refusal(tmp_path / "bare.pth")
    torch.save({"lr": 0.1, "a": torch.ones(1)}, tmp_path / "mixed.pth")
    assert "'lr'" in refusal(tmp_path / "mixed.pth")
    torch.save({}, tmp_path / "nothing.pth")
    assert "nothing in it" in refusal(tmp_path / "nothing.pth")


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent.pth")
    (tmp_path / "empty.pth").touch()
    assert "empty" in refusal(tmp_path / "empty.pth")
    (tmp_path / "empty.safetensors").touch()
    assert "empty" in refusal(tmp_path / "empty.safetensors")
    (tmp_path / "folder.pth").mkdir()
    assert "not a file" in refusal(tmp_path / "folder.pth")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.example/spec/v1\nsize 3\n")
    assert "damaged" in refusal(tmp_path / "pointer.pth")


@pytest.mark.parametrize("kind", ["zipped", "old", "safetensors"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("whole.safetensors" if kind == "safetensors" else "whole.pth")
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zipped")
    whole = path.read_bytes()
    assert same(read_weights(path), STATE)
    for length in sorted({1, 8, 9, *range(16, len(whole), max(len(whole) // 12, 1)), len(whole) - 1}):
        path.write_bytes(whole[:length])
        refusal(path)


def test_a_flipped_bit_in_a_zipped_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.full((50,), 1.5)}, path)
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<4f", 1.5, 1.5, 1.5, 1.5))
    data[at + 20] ^= 0x10
    path.write_bytes(bytes(data))
    assert "check sum" in refusal(path)


@given(st.binary(min_size=1, max_size=60), st.sampled_from([".pth", ".safetensors"]))
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"random{suffix}"
    path.write_bytes(data)
    refusal(path)


def test_every_unusable_tensor_is_listed(tmp_path: Path) -> None:
    torch.save(
        {
            "nan": torch.tensor([float("nan")]),
            "sparse": torch.ones(2).to_sparse(),
            "complex": torch.ones(2, dtype=torch.complex64),
            "bomb": torch.ones(1).expand(10**12),
            "good": torch.ones(2),
        },
        tmp_path / "odd.pth",
    )
    with pytest.raises(FindingsError) as refused:
        read_weights(tmp_path / "odd.pth")
    assert refused.value.exit_code == 2
    assert {finding.node for finding in refused.value.findings} == {"nan", "sparse", "complex", "bomb"}


def test_every_key_that_does_not_fit_is_listed() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 3))
    state = {key: value for key, value in network.state_dict().items() if not key.startswith("2.")}
    state |= {"0.bias": torch.ones(3), "extra": torch.ones(1)}
    with pytest.raises(FindingsError) as refused:
        check_weights(network, state, "file.pth")
    assert refused.value.exit_code == 2
    assert {(finding.node, finding.rule.split()[0]) for finding in refused.value.findings} == {
        ("2.weight", "missing"),
        ("2.bias", "missing"),
        ("extra", "not"),
        ("0.bias", "wrong"),
    }
    assert "(3,)" in str(refused.value) and "(2,)" in str(refused.value)


def test_batch_norm_needs_no_counter() -> None:
    network = nn.BatchNorm2d(2)
    state = {key: torch.full_like(value, 2.0) for key, value in network.state_dict().items() if value.ndim}
    with torch.device("meta"):
        target = nn.BatchNorm2d(2)
    load_weights(target, state, "file.pth")
    assert target.running_var is not None and target.running_var.tolist() == [2.0, 2.0]
    assert target.num_batches_tracked is not None and target.num_batches_tracked.item() == 0


def test_block_count_and_axis_size() -> None:
    state = {"a.0.weight": torch.ones(3, 4), "a.7.weight": torch.ones(1), "b.1.weight": torch.ones(1)}
    assert block_count(state, "a.") == 8 and block_count(state, "c.") == 0
    assert axis_size(state, "a.0.weight", 1, 9) == 4
    assert axis_size(state, "a.0.weight", 2, 9) == 9 and axis_size(state, "no", 0, 9) == 9
    with pytest.raises(UserError, match="do not fit"):
        block_count({"a.99999999.weight": torch.ones(1)}, "a.")
