"""Two hundred random graphs of the portable vocabulary in the frameworks of others: every spike, and the output.

Every reader that is installed reads the exported file and runs the proof; it is equal, or it says why it cannot.
Run with ``pytest -m external``.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from neurodeploy.targets.export import export
from neurodeploy.targets.verify import verify
from tests.conformance.graphs import Sample, samples

pytestmark = pytest.mark.external

FRAMEWORKS = ("norse", "snntorch", "spikingjelly")

KNOWN = (
    "tau / dt must be finite and greater than 1",  # SpikingJelly refuses neurons that forget everything
    "before",  # norse's executor: the graph's sum edge
    "tau_mem > 1.0",
)


def test_two_hundred_graphs_spike_alike_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("norse")
    met: Counter[str] = Counter()
    refused: Counter[str] = Counter()

    @settings(max_examples=200, suppress_health_check=list(HealthCheck))
    @given(sample=samples())
    def every(sample: Sample) -> None:
        shutil.rmtree(tmp_path / "b", ignore_errors=True)
        bundle = export(sample.deployable(), "nir", tmp_path / "b")
        met["graphs"] += 1
        for row in verify(bundle.path)["readers"]:
            if row["equal"] is None:
                refused[f"{row['name']}: {row['skipped_reason']}"] += 1
                continue
            assert row["equal"], row
            met[row["name"]] += 1

    every()
    print(dict(met), dict(refused))
    assert met["graphs"] >= 200 and met["reference"] == met["float"] == met["graphs"]
    for name in FRAMEWORKS:
        skipped = [reason for reason in refused if reason.startswith(f"{name}: ")]
        if any("not installed" in reason for reason in skipped):
            continue
        assert met[name] >= 100, skipped
        assert all(any(known in reason for known in KNOWN) for reason in skipped), skipped
