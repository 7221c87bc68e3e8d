"""Fuzzes the kernel against the reference, compiled with the address and undefined-behaviour sanitizers.

    python tests/fuzz_kernel.py [--seconds 25] [--networks 0] [--seed N]

Random networks with extreme numbers run on every instruction path, in all forms, on one thread and two, counted over
the whole layer or a part of it; every spike, every sum, every operation that is counted and the output must be those of
the reference, and no access may lie outside its buffer. Ends when both the time is up and that many networks have been
seen, with what was compared; a difference is shrunk and shown, and the exit code is not 0.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neurodeploy.simulate.kernel.build import compile_kernel
from neurodeploy.simulate.kernel.library import LIMIT

FLAGS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
EXAMPLES = 20
"""Networks between two looks at the clock."""


def runtime() -> str | None:
    """The address sanitizer's library, which has to be loaded before Python's own; None where there is none."""
    try:
        asked = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    file = Path(asked.stdout.strip())
    return str(file) if file.is_absolute() and file.exists() else None


def fuzz(library: Path, seconds: float, least: int, first: int) -> None:
    """Compares until the time is up, and that many networks have been seen."""
    from hypothesis import HealthCheck, given, seed, settings
    from hypothesis import strategies as st

    from neurodeploy.energy.count import OperationCounter
    from neurodeploy.quantize.network import IntegerConv, IntegerDense
    from neurodeploy.simulate import kernel
    from neurodeploy.simulate.kernel import library as loading
    from neurodeploy.simulate.observe import takes_counts
    from tests.kernel_strategies import (
        assert_counted,
        assert_same,
        by_reference,
        counted_by_reference,
        networks,
        networks_in_time,
        shaped_networks,
        windows,
    )

    loaded = loading.load(library)
    if isinstance(loaded, str):
        raise SystemExit(loaded)
    loading._loaded = lambda: loaded  # type: ignore[assignment]
    compared: Counter[str] = Counter()
    held = {path: loading.load(library, path) for path in loaded.paths}

    def one(drawn: Any, data: st.DataObject, threads: int) -> None:
        net, codes = drawn
        if kernel.declines(net, codes) is not None:
            return
        same_size = all(
            node.stride == (1, 1) and 2 * node.padding[0] == node.dilation[0] * (node.weight.shape[2] - 1)
            for node in net.nodes.values()
            if isinstance(node, IntegerConv)
        ) and not any(isinstance(node, IntegerDense) for node in net.nodes.values())
        owned = data.draw(st.none() | windows(*codes.shape[-2:])) if same_size else None
        known = by_reference(net, codes)
        for path in loaded.paths:
            for form in ("auto", "dense", "events", *(["sets"] if path == "avx2" else [])):  # the others have no sets
                found = assert_same(net, codes, path, threads, form, owned, known)  # type: ignore[arg-type]
                compared["runs"] += 1
                compared["neurons and steps"] += sum(layer.size for layer in found.layers.values())
        operations = counted_by_reference(net, codes) if takes_counts(OperationCounter(net)) else None
        for found in held.values() if operations else ():
            loading._loaded = lambda found=found: found  # type: ignore[assignment,misc]
            assert_counted(net, codes, known=operations)
        loading._loaded = lambda: loaded  # type: ignore[assignment]
        compared["networks"] += 1

    begin, turn = time.monotonic(), 0
    while time.monotonic() - begin < seconds or compared["networks"] < least:
        checks = settings(max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
        seed(first + turn)(
            checks(given(networks() | shaped_networks() | networks_in_time(), st.data(), st.integers(1, 2))(one))
        )()
        turn += 1
    done = ", ".join(f"{count} {what}" for what, count in compared.items())
    print(f"no finding: {done}; paths {', '.join(loaded.paths)}; seeds {first}..{first + turn - 1}")


def main() -> None:
    """Compiles, and starts itself anew behind the sanitizer's library."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--networks", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--library", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.library is not None:
        fuzz(chosen.library, chosen.seconds, chosen.networks, chosen.seed)
        return
    sanitizer = runtime()
    if sanitizer is None:
        print("left out: gcc or its address sanitizer is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "kernel.so"
        os.environ["CC"] = "gcc"
        reason = compile_kernel(made, flags=FLAGS)
        if reason is not None:
            raise SystemExit(reason)
        environment = {**os.environ, "LD_PRELOAD": sanitizer, "ASAN_OPTIONS": "detect_leaks=0"}
        environment.pop(LIMIT, None)
        again = [sys.executable, __file__, "--library", str(made), "--seconds", str(chosen.seconds)]
        again += ["--networks", str(chosen.networks), "--seed", str(chosen.seed)]
        done = subprocess.run(again, env=environment, check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
