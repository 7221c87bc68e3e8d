"""A Dask cluster as the place where tiles and pictures run: equal results, and a worker that dies costs only time."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurodeploy.errors import UserError
from neurodeploy.images.datasets import DegradedFolder
from neurodeploy.images.degradations import parse_degradation
from neurodeploy.images.io import write_image
from neurodeploy.model.base import Facts
from neurodeploy.model.integer import IntegerModel
from neurodeploy.report.evaluate import evaluate
from neurodeploy.report.measure import run_pictures
from neurodeploy.report.pictures import How, simulate
from neurodeploy.simulate import cluster as clusters
from neurodeploy.simulate.cluster import connected
from tests.kernel_nets import student_like

NET = student_like(steps=2, levels=1, width=8, depth=2)


def model() -> IntegerModel:
    return IntegerModel(net=NET, facts=Facts("model"))


def test_without_an_address_nothing_is_asked_of_dask() -> None:
    with connected(None) as pool:
        assert pool is None


def test_without_dask_the_option_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match="needs dask") as caught, connected("tcp://127.0.0.1:1"):
        pass
    assert "neurodeploy[cluster]" in str(caught.value)


def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(clusters, "CONNECT_S", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(UserError, match="no scheduler answers"), connected(address):
            pass


class _Client:
    def __init__(self, versions: dict[str, str] | Exception) -> None:
        self.versions = versions

    def run(self, function: Any) -> dict[str, str]:
        if isinstance(self.versions, Exception):
            raise self.versions
        return self.versions


def test_workers_that_cannot_do_the_work_are_named() -> None:
    for versions, words in (
        ({}, "has no worker"),
        ({"a": "0.0.1"}, "another version"),
        (ModuleNotFoundError("No module named 'neurodeploy'"), "cannot run this program"),
    ):
        with pytest.raises(UserError, match=words):
            clusters._check_workers(_Client(versions), "tcp://here")


@pytest.fixture(scope="module")
def dask() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number in range(6):
        image = np.random.default_rng(number).random((1, 90, 120), np.float32)
        write_image(tmp_path / "in" / f"f{number}.png", image)
    return tmp_path / "in"


def same(first: dict[str, Any], second: dict[str, Any]) -> None:
    for one, other in zip(first["images"], second["images"], strict=True):
        assert one["layers"] == other["layers"]
        assert Path(one["output"]).read_bytes() == Path(other["output"]).read_bytes()


@pytest.mark.slow
def test_the_cluster_gives_what_this_machine_gives(dask: Any, folder: Path, tmp_path: Path) -> None:
    here = simulate(model(), [folder], tmp_path / "here")
    pairs = DegradedFolder(folder, parse_degradation("gaussian:25"), 1)
    with connected(dask.scheduler_address) as pool:
        assert pool is not None and pool.workers == 2
        same(simulate(model(), [folder], tmp_path / "there", how=How(tile=32, pool=pool)), here)
        scores = evaluate(model(), pairs, pool=pool)
        runs = run_pictures(NET, pairs, len(pairs), pool=pool)
        with pytest.raises(UserError, match="only the chip's integers"):
            evaluate(model(), pairs, arithmetic="float", pool=pool)
    local = evaluate(model(), pairs)
    drop = ("seconds",)
    for one, other in zip(scores["images"], local["images"], strict=True):
        assert {k: v for k, v in one.items() if k not in drop} == {k: v for k, v in other.items() if k not in drop}
    assert runs.counts.as_dict() == run_pictures(NET, pairs, len(pairs)).counts.as_dict()


@pytest.mark.slow
def test_a_worker_that_dies_costs_only_time(dask: Any, folder: Path, tmp_path: Path) -> None:
    """One of the two is killed once some tiles are back; what it held is done again."""
    here = simulate(model(), [folder], tmp_path / "here")
    killed = threading.Event()

    def progress(done: int, total: int, name: str) -> None:
        if done >= 5 and not killed.is_set():
            killed.set()
            victim = next(iter(dask.workers.values()))
            os.kill(victim.process.pid, signal.SIGKILL)
            assert done < total - 10

    with connected(dask.scheduler_address) as pool:
        there = simulate(model(), [folder], tmp_path / "there", how=How(tile=16, pool=pool), progress=progress)
    assert killed.is_set()
    same(there, here)
