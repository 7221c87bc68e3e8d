"""The registry: names, near misses, plugins that load and plugins that do not."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

import neurodeploy.targets as registry
from neurodeploy.errors import Finding, UserError
from neurodeploy.targets import TARGETS, get_target, support_table, target_names
from neurodeploy.targets.ops import OPERATIONS


def test_every_target_says_what_it_owes() -> None:
    for name in TARGETS:
        target = get_target(name)
        assert target.name == name and target.summary
        assert all(values for values in target.option_values.values())


def test_a_near_miss_is_named() -> None:
    with pytest.raises(UserError, match=r"no target is called 'lohi2'.*did you mean 'loihi2'\?"):
        get_target("lohi2")
    with pytest.raises(UserError, match="targets: lava, loihi2, nir, onnx, speck, spinnaker2"):
        get_target("zzz")


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group="neurodeploy.targets")


def plug(monkeypatch: pytest.MonkeyPatch, *entries: EntryPoint) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [one for one in entries if one.group == group])


def test_a_plugin_is_a_target_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(
        target=SimpleNamespace(
            name="odd",
            summary="refuses everything",
            option_values={},
            profile=None,
            template=None,
            supports=lambda node: Finding(node.name, "no"),
            check=lambda job: [Finding("network", "nothing fits here")],
            write=None,
            read=None,
        )
    )
    monkeypatch.setitem(sys.modules, "odd_target", module)  # type: ignore[arg-type]
    plug(monkeypatch, entry("odd", "odd_target:target"))
    assert target_names() == ("lava", "loihi2", "nir", "odd", "onnx", "speck", "spinnaker2")
    assert get_target("odd").summary == "refuses everything"
    assert {row["odd"] for row in support_table().values()} == {"network: nothing fits here"}


BROKEN: dict[str, tuple[Any, str]] = {
    "a module that is not there": ("absent_module_of_a_plugin:target", "ModuleNotFoundError"),
    "a name that is not there": ("json:target", "AttributeError"),
    "an object that is no target": ("json:dumps", "lacks name, summary"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_plugin_that_fails_to_load_fails(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    value, words = BROKEN[case]
    plug(monkeypatch, entry("broken", value))
    with pytest.raises(UserError, match=f"'broken' of a plugin.*{words}"):
        get_target("broken")


def test_two_targets_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, entry("nir", "json:dumps"))
    with pytest.raises(UserError, match="two targets are called 'nir'"):
        target_names()
    plug(monkeypatch, entry("x", "json:dumps"), entry("x", "json:loads"))
    with pytest.raises(UserError, match="two targets are called 'x'"):
        target_names()


def test_the_support_table_has_every_operation_and_target() -> None:
    table = support_table()
    assert list(table) == [operation.title for operation in OPERATIONS]
    assert all(set(row) == set(target_names()) for row in table.values())
    assert table["convolution and LIF, one step"] == dict.fromkeys(TARGETS, "")
    assert table["sum edge"]["lava"] == table["sum edge"]["nir"] == ""
    assert "groups" in table["groups"]["nir"] and table["groups"]["lava"] == ""


def test_the_registry_loads_no_target_and_no_torch() -> None:
    code = (
        "import sys, neurodeploy.targets as t; t.target_names();"
        "assert 'neurodeploy.targets.lava' not in sys.modules;"
        "import neurodeploy.targets.verify, neurodeploy.targets.export;"
        "assert not {'torch', 'norse', 'snntorch', 'spikingjelly'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
