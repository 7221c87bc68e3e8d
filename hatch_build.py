"""The build hook: compiles the program's C code, and lets the installation go on without it where that fails."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "neurodeploy/simulate/kernel"


class Part(NamedTuple):
    """A shared library of the program: where it lies, what it is made of, what there is without it."""

    folder: str
    source: str
    library: str
    flags: tuple[str, ...]
    without: str


PARTS = (
    Part(FOLDER, "kernel.c", "_kernel.so", (), "without the compiled simulator, the slower one runs"),
    Part(
        "neurodeploy/networks/fused",
        "fused.c",
        "_fused.so",
        ("-fno-math-errno", "-fno-trapping-math"),
        "without the compiled activations, training is slower",
    ),
    Part(
        "neurodeploy/networks/winograd",
        "winograd.c",
        "_winograd.so",
        ("-ffp-contract=fast",),
        "without Winograd's convolutions, training may be slower",
    ),
)


class KernelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the compiled libraries into a wheel, or beside their sources for an editable installation."""

    made: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles; a wheel that holds machine code is tagged with its platform, any other is for all of them."""
        builder = _builder(Path(self.root) / FOLDER / "build.py")
        if version != "editable":
            self.made = Path(tempfile.mkdtemp(prefix="neurodeploy-kernel-"))
        for part in PARTS:
            home = Path(self.root) / part.folder
            target = (self.made or home) / part.library
            target.unlink(missing_ok=True)  # one that an earlier installation left is no longer of this source
            reason = builder.compile_kernel(target, flags=part.flags, source=home / part.source)
            if reason is not None:
                self.app.display_warning(f"neurodeploy: {part.without} ({reason})")
            elif version != "editable":
                build_data["force_include"][str(target)] = f"{part.folder}/{part.library}"
                build_data["pure_python"] = False
                platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
                build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes what was compiled for a wheel; it is in the wheel now."""
        if self.made is not None:
            shutil.rmtree(self.made)


def _builder(file: Path) -> ModuleType:
    """The program's own module that compiles, loaded from its file: the package is not installed yet."""
    spec = importlib.util.spec_from_file_location("neurodeploy_kernel_build", file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
