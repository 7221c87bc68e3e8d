"""The script behind the page of operations, targets and readers, on two operations."""

from __future__ import annotations

from pathlib import Path

from tests.conformance import matrix
from tests.conformance.matrix import EQUAL, cells, page

SAMPLES = {operation.title: operation for operation in matrix.OPERATIONS}


def test_a_cell_is_a_run_or_a_reason(tmp_path: Path) -> None:
    held = cells(SAMPLES["1x1 kernel"], "nir", tmp_path)
    assert held["reference"] == held["float"] == EQUAL
    assert all(text == EQUAL or len(text) > 10 for text in held.values())
    refused = cells(SAMPLES["groups"], "nir", tmp_path)
    assert list(refused) == [""] and "groups" in refused[""]
    versions = {"reference": "1", "float": "1", "lava": "2"}
    written = page({"nir": {"1x1 kernel": held, "groups": refused}}, ["python -m matrix", "python -m other"], versions)
    assert "$ python -m matrix\n$ python -m other\n" in written and "| lava 2 |" not in written
    assert "## `nir`" in written and "| 1x1 kernel | equal | equal" in written
    assert "| groups | no [1]" in written and f"1. {refused['']}" in written.replace("\n", " \n")
