"""How many times faster the compiled kernel is than the reference, and what counting operations adds.

    python benchmarks/bench_simulator.py [--threads N] [--sizes 128 512] [--rounds 5] [--out FILE.json]

The demo's shape (pixel-unshuffle 2, 48 channels, 7 layers, 3 x 3) with random weights and thresholds set so that every
layer spikes. Outputs are compared before anything is timed. Candidates take turns; a ratio is of medians of the same
rounds. The CPU time of the calling thread stands beside the wall clock: on a busy machine it is the one to trust, and
it says what one thread needs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of the kernel and of numpy alike")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 512], help="sides of the pictures, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds a case, after three rounds")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / "simulator.json")
    return parser.parse_args()


def interleaved(calls: dict[str, Callable[[], object]], rounds: int, budget: float) -> dict[str, dict[str, float]]:
    """Median and least milliseconds of every call, wall clock and CPU of this thread."""
    wall: dict[str, list[float]] = {name: [] for name in calls}
    busy: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    for turn in range(rounds):
        if turn >= 3 and time.perf_counter() - begin > budget:
            break
        for name, call in calls.items():
            start, worked = time.perf_counter(), time.thread_time()
            call()
            busy[name].append(1e3 * (time.thread_time() - worked))
            wall[name].append(1e3 * (time.perf_counter() - start))
    return {
        name: {
            "wall_ms": statistics.median(wall[name]),
            "wall_min_ms": min(wall[name]),
            "cpu_ms": statistics.median(busy[name]),
            "rounds": len(wall[name]),
        }
        for name in calls
    }


def main() -> None:
    chosen = options()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(chosen.threads)
    import numpy as np

    from neurodeploy.energy.count import OperationCounter
    from neurodeploy.simulate import kernel, reference
    from neurodeploy.simulate.kernel.library import library
    from tests.kernel_nets import student_like

    paths = library().paths
    cases = []
    print(f"{kernel.describe()}; this run: {chosen.threads} threads")
    for steps, levels in ((1, 4), (4, 1)):
        net = student_like(steps, levels, width=48, depth=7)
        for size in chosen.sizes:
            codes = np.random.default_rng(0).integers(-64, 128, (4, size // 2, size // 2))
            counter = OperationCounter(net)
            expected = reference.run(net, codes, observer=counter)
            rate = counter.counts().total("spikes") / counter.counts().total("neuron_updates")
            calls: dict[str, Callable[[], object]] = {}
            for path in reversed(paths):
                if not np.array_equal(kernel.run(net, codes, path=path), expected):
                    raise SystemExit(f"{path} differs from the reference")
                calls[f"kernel {path}"] = lambda net=net, codes=codes, path=path: kernel.run(net, codes, path=path)

            def counted(net=net, codes=codes) -> None:
                tally = OperationCounter(net)
                kernel.run(net, codes, observer=tally)
                tally.counts()

            calls["kernel + counting"] = counted
            calls["reference"] = lambda net=net, codes=codes: reference.run(net, codes)
            found = interleaved(calls, chosen.rounds, chosen.budget)
            best = found[f"kernel {paths[-1]}"]
            print(
                f"\n{size} x {size} pixels, T = {steps}, D = {levels}, spike rate {rate:.2f}, {best['rounds']} rounds"
            )
            for name, row in found.items():
                print(
                    f"  {name:20s} {row['wall_ms']:9.1f} ms, least {row['wall_min_ms']:9.1f}, CPU {row['cpu_ms']:9.1f};"
                    f" {row['wall_ms'] / best['wall_ms']:7.1f} x the fastest path by clock,"
                    f" {row['cpu_ms'] / best['cpu_ms']:7.1f} x by CPU"
                )
            cases.append({"pixels": size, "T": steps, "D": levels, "spike_rate": rate, "calls": found})
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    answer = {"machine": platform.machine(), "paths": paths, "threads": chosen.threads, "cases": cases}
    chosen.out.write_text(json.dumps(answer, indent=1) + "\n")
    print(f"\n{chosen.out}")


if __name__ == "__main__":
    main()
