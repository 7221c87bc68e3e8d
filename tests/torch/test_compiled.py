"""A compiled library is taken when it is there, whole, and of this version."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the train extra")

from neurodeploy.networks import fused, winograd
from neurodeploy.networks.compiled import loaded


def test_what_is_not_a_library_of_this_version_is_left(tmp_path: Path) -> None:
    assert loaded(tmp_path / "none.so", "abi", 1) is None
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    assert loaded(broken, "abi", 1) is None


@pytest.mark.skipif(not winograd.available(), reason="the package was installed without a C compiler")
@pytest.mark.parametrize(
    ("package", "abi"), [(fused, "nd_fused_abi"), (winograd, "nd_winograd_abi")], ids=["fused", "winograd"]
)
def test_the_number_of_the_interface_decides(package, abi: str) -> None:
    file = Path(package.__file__).with_name(package.LIBRARY)
    assert loaded(file, abi, package.ABI) is not None
    assert loaded(file, abi, package.ABI + 1) is None
    assert loaded(file, "no_such_function", package.ABI) is None
