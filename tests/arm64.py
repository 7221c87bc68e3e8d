"""What it takes to run the tests of the ARM paths on an x86 machine: ``python tests/arm64.py FOLDER``.

Fetches Debian's cross compiler, its emulator (qemu-user), a Python for 64-bit ARM and the wheels that it needs, and
unpacks them in a folder, without installing them. tests/external/test_arm64.py runs where ``NEURODEPLOY_ARM64`` names
such a folder.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE = ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user-static")
"""Debian's packages for this machine."""

THERE = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1", "libasan8", "libubsan1")
"""Those for the other one."""

NOT_NEEDED = (
    "lib*objc*",
    "libgc1",
    "libitm*",
    "lib*tsan*",
    "lib*hwasan*",
    "dpkg",
    "tar",
    "media-types",
    "readline-common",
)
WHEELS = ("numpy", "h5py", "nir", "pydantic", "safetensors", "click", "rich", "jinja2", "pillow", "hypothesis")

CONFIGURATION = """
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::State "{folder}";
Dir::State::status "{status}";
Dir::Cache "{folder}";
Dir::Etc::sourcelist "-";
Dir::Etc::sourceparts "{folder}/sources";
"""

COMPILER = """#!/bin/sh
LD_LIBRARY_PATH="{root}/usr/lib/x86_64-linux-gnu" exec "{root}/usr/bin/aarch64-linux-gnu-gcc" "$@"
"""

PYTHON = """#!/bin/sh
export QEMU_LD_PREFIX="{folder}/arm64" PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{folder}/wheels"
exec "{folder}/x86/usr/bin/qemu-aarch64-static" "{python}" "$@"
"""


def apt(folder: Path, architecture: str, status: Path) -> dict[str, str]:
    """An environment in which apt-get knows Debian's packages for a machine, of this machine's release."""
    sources = folder / "sources"
    for part in ("lists/partial", "archives/partial", "sources"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    known = [Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")]
    shutil.copy(next(file for file in known if file.is_file()), sources)
    configuration = folder / "apt.conf"
    configuration.write_text(CONFIGURATION.format(architecture=architecture, folder=folder, status=status))
    environment = {"APT_CONFIG": str(configuration), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, check=True)
    return environment


def unpack(folder: Path, environment: dict[str, str], packages: Sequence[str], target: Path) -> None:
    """Packages with all that they need and this machine lacks, without what only takes space."""
    command = ["apt-get", "install", "--simulate", "--no-install-recommends", *packages]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    names = [line.split()[1] for line in said.splitlines() if line.startswith("Inst ")]
    names = [name for name in names if not any(Path(name).match(pattern) for pattern in NOT_NEEDED)]
    subprocess.run(["apt-get", "download", "-qq", *names], cwd=folder, env=environment, check=True)
    target.mkdir()
    left_out = [f"--exclude={name}" for name in ("*/share/doc", "*/share/man", "*/share/locale", "*lto-dump*")]
    if "qemu-user-static" in packages:
        left_out.append("--exclude=*/bin/qemu-[!a]*")
    for package in folder.glob("*.deb"):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as archive:
            subprocess.run(["tar", "-x", "-C", target, *left_out], stdin=archive.stdout, check=True)
        package.unlink()


def script(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o755)


def prepare(folder: Path) -> None:
    """Makes FOLDER/cc and FOLDER/python."""
    folder.mkdir(parents=True)
    here, there = folder / "apt-x86", folder / "apt-arm64"
    unpack(here, apt(here, "amd64", Path("/var/lib/dpkg/status")), HERE, folder / "x86")
    environment = apt(there, "arm64", there / "status")
    (there / "status").touch()
    unpack(there, environment, THERE, folder / "arm64")
    libraries = folder / "x86/usr/aarch64-linux-gnu/lib"
    linked = libraries / "libc.so"  # names files where an installation would have put them
    linked.write_text(linked.read_text().replace("/usr/aarch64-linux-gnu/lib/", ""))
    script(folder / "cc", COMPILER.format(root=folder / "x86"))
    python = next((folder / "arm64/usr/bin").glob("python3.*"))
    script(folder / "python", PYTHON.format(folder=folder, python=python))
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 27, 17)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--no-compile"]
    pip += ["--target", str(folder / "wheels"), "--constraint", str(ROOT / "constraints.txt"), "--only-binary=:all:"]
    version = f"--python-version={python.name.removeprefix('python')}"
    subprocess.run([*pip, *platforms, "--implementation=cp", version, *WHEELS], check=True)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    missing = [name for name in ("apt-get", "dpkg-deb", "tar") if shutil.which(name) is None]
    if missing:
        sys.exit(f"there is no {missing[0]}: this is for Debian")
    try:
        prepare(folder)
    except (OSError, StopIteration, subprocess.CalledProcessError) as error:
        sys.exit(f"the tools for 64-bit ARM cannot be had: {error!r}")


if __name__ == "__main__":
    main()
