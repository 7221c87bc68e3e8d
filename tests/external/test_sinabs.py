"""Bundles of target speck in sinabs itself: difference 0, and the three lines that it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from neurodeploy.targets.base import Deployable
from neurodeploy.targets.export import export
from neurodeploy.targets.ops import OPERATIONS
from neurodeploy.targets.sinabs_run import sinabs_version
from neurodeploy.targets.verify import verify
from tests.unit.test_targets_events import network

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(
        sinabs_version() is None, reason="sinabs is not installed ($NEURODEPLOY_SINABS names no python)"
    ),
]

SAMPLES = {operation.title: operation for operation in OPERATIONS}


@pytest.mark.parametrize(
    "title", ["convolution and LIF, one step", "LIF without leak (IF)", "stride", "1x1 kernel"]
)  # fmt: skip
def test_sinabs_spikes_as_the_integers_do(tmp_path: Path, title: str) -> None:
    export(SAMPLES[title].sample("speck"), "speck", tmp_path / "b")
    answer = verify(tmp_path / "b", ["sinabs"])
    row = {reader["name"]: reader for reader in answer["readers"]}["sinabs"]
    assert row["equal"] is True and row["version"], row["first_difference"]


@pytest.mark.parametrize("steps", [1, 6])
def test_deeper_networks_and_more_steps(tmp_path: Path, steps: int) -> None:
    net = network(steps=steps, v_decay=4096 if steps == 1 else 0, bias=steps == 1)
    export(Deployable("m", net, (12, 10)), "speck", tmp_path / "b")
    row = {r["name"]: r for r in verify(tmp_path / "b", ["sinabs"])["readers"]}["sinabs"]
    assert row["equal"] is True, row["first_difference"]
