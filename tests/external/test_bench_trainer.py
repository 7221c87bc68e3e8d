"""The benchmark of a training step, in its smallest form: all libraries compute the same network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the train extra")
for name in ("snntorch", "spikingjelly", "norse"):
    pytest.importorskip(name, reason="needs the interop extra")

pytestmark = pytest.mark.external
ROOT = Path(__file__).resolve().parents[2]


def test_the_peers_compute_what_we_compute(tmp_path: Path) -> None:
    small = ["--threads", "1", "--rounds", "1", "--batch", "2", "--patch", "16", "--steps", "3", "--memory-runs", "0"]
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_trainer.py"), *small, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "trainer.json").read_text())
    peers = [name for name in found["differences"] if not name.startswith("ours")]
    assert len(peers) == 6
    for name in (*peers, "ours fp32"):
        # the weights lie on a grid, so sums are the same in any order, and so are the spikes
        assert found["differences"][name]["output"] < 1e-6, name
    assert set(found["versions"]) == {"torch", "spikingjelly", "snntorch", "norse"}
    assert found["threads"]["1"]["ratios"]["ours fp32"]["wall"] > 0
    assert (tmp_path / "trainer.svg").read_text().startswith("<svg")
