"""What `inspect` says of the models of the zoo."""

from __future__ import annotations

import pytest

from neurodeploy.report.inspect import inspect_path
from neurodeploy.zoo import zoo_entries


@pytest.mark.parametrize("name", [entry.name for entry in zoo_entries()])
def test_a_model_by_its_name(name: str) -> None:
    """Its weights where it has some, else the recipe; the same as by the file's path."""
    (entry,) = (entry for entry in zoo_entries() if entry.name == name)
    file = entry.file("weights") or entry.file("recipe")
    found = inspect_path(name)
    assert found == inspect_path(str(file))
    assert found["kind"] == "recipe" if entry.file("weights") is None else found["kind"] != "recipe"
