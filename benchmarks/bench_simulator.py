"""The compiled simulator against the libraries of others, against Lava, against what the machine can do at best.

    python benchmarks/bench_simulator.py [--quick | --full] [--parts peers lava dense counting paths]
        [--pixels 64 128 256 512] [--steps 4 8 16] [--threads 1 2] [--rounds 9]
        [--budget 600] [--widths 32 48 64 96] [--out FOLDER]

Everything that is timed is compared first: the kernel with the reference, bit for bit; the peers, which compute in
float, with a plain loop in float64 (the largest difference of the output stands beside them). Candidates take turns; a
ratio is the median of the ratios of the same rounds, the median of at least nine. What runs on one thread is judged by
the CPU time of that thread, which a busy machine hardly changes; what runs on two by the clock.

  peers     the same network in SpikingJelly, snnTorch, sinabs and norse (float32, no gradients), in a process whose
            allocator keeps what is freed: torch's tensors of 32 MiB and more cost several times as much otherwise
  lava      the same integers in Lava's bit-accurate CPU models at 128 x 128, where its environment is installed
  dense     the dense form of hidden layers against a loop of nothing but int8 products, of each kind of instruction
  counting  what counting operations adds to runs of students
  paths     the instruction paths of this machine and the reference

Writes simulator.json and simulator.svg.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.charts import bars
from benchmarks.peers import ROOT, ensure, keep_memory, versions
from benchmarks.timing import interleaved

PARTS = ("peers", "lava", "dense", "counting", "paths")
PEERS = ("spikingjelly", "snntorch", "sinabs", "norse")
OURS = "neurodeploy"
GOALS = {"fastest peer": 10.0, "Lava": 500.0, "int8 peak": 1.5, "counting": 1.1}

Row = dict[str, Any]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="128 x 128, T = 4, one thread: about two minutes")
    size.add_argument("--full", action="store_true", help="every size with every T; otherwise all T at 128 x 128 only")
    parser.add_argument("--pixels", type=int, nargs="+", help="only pictures of these sizes")
    parser.add_argument("--steps", type=int, nargs="+", help="only these T")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--budget", type=float, default=600.0, help="seconds a case, after three rounds")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 48, 64, 96], help="channels of the dense form")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    return parser.parse_args()


def cases(chosen: argparse.Namespace) -> list[tuple[int, int]]:
    """(size, T) of the comparison with the peers."""
    if chosen.quick:
        return [(128, 4)]
    sizes, steps = (64, 128, 256, 512), (4, 8, 16)
    found = [(size, count) for count in steps for size in sizes if chosen.full or count == 4 or size == 128]
    return [
        (size, count) for size, count in found if size in (chosen.pixels or sizes) and count in (chosen.steps or steps)
    ]


def against_peers(chosen: argparse.Namespace) -> list[Row]:
    import numpy as np
    import torch

    from benchmarks.simulator_nets import image, in_float, network, peers, spike_rates
    from neurodeploy.simulate import kernel, reference

    rows = []
    for rate in (0.1, 0.3):
        nets = {steps: network(rate, steps) for steps in {steps for _, steps in cases(chosen)}}
        for size, steps in cases(chosen):
            net, codes = nets[steps], image(size)
            if not np.array_equal(kernel.run(net, codes), reference.run(net, codes)):
                raise SystemExit("the kernel differs from the reference")
            expected, x = in_float(net, codes), torch.from_numpy(codes).float()[None]
            models = peers(net)
            with torch.inference_mode():
                found = {name: model(x)[0].double().numpy() for name, model in models.items()}
            differs = {
                name: float(np.abs(out - expected).max() / np.abs(expected).max()) for name, out in found.items()
            }
            rates = spike_rates(net, codes)
            for threads in [1] if chosen.quick else chosen.threads:
                torch.set_num_threads(threads)
                calls = {OURS: lambda net=net, codes=codes, n=threads: kernel.run(net, codes, threads=n)}
                calls |= {name: lambda model=model, x=x: model(x) for name, model in models.items()}
                with torch.inference_mode():
                    timed = interleaved(calls, chosen.rounds, chosen.budget, OURS)
                judged, clock = ("cpu_ratio", "cpu_ms") if threads == 1 else ("ratio", "wall_ms")
                times = {name: timed[name][judged] for name in timed if name != OURS}
                fastest = min(times, key=lambda name: times[name])
                row = {"pixels": size, "T": steps, "threads": threads, "rate": statistics.mean(rates.values())}
                row |= {"judged_by": judged, "times_fastest": times[fastest]}
                rows.append(row | {"rates": rates, "calls": timed, "fastest_peer": fastest, "differs": differs})
                print(
                    f"{size:4d} px, T = {steps:2d}, rate {row['rate']:.2f}, {threads} thread{'s'[: threads - 1]}: "
                    f"{timed[OURS][clock]:7.2f} ms; {fastest} {times.pop(fastest):.1f} x, "
                    + ", ".join(f"{name} {ratio:.1f}" for name, ratio in times.items()),
                    flush=True,
                )
    return rows


def against_lava(chosen: argparse.Namespace) -> Row | None:
    """Milliseconds a time step of Lava and of the kernel, by turns; None where Lava is not installed."""
    import numpy as np

    from benchmarks.simulator_nets import image, network
    from neurodeploy import lava_env
    from neurodeploy.hardware.shapes import layer_shapes
    from neurodeploy.simulate import kernel
    from neurodeploy.targets.lava_write import write_net

    python = lava_env.python()
    if python is None:
        print(f"Lava is not installed in {lava_env.folder()} (neurodeploy doctor --install-lava): left out")
        return None
    size, steps, rows = 128, 4, []
    rounds = 1 if chosen.quick else 3
    for rate in (0.1, 0.3):
        net, codes = network(rate, steps), image(size)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.net"
            factor = net.host.unshuffle
            write_net(path, net, layer_shapes(net, (size * factor, size * factor)))
            np.save(
                Path(folder) / "codes.npy", np.repeat(codes.transpose(2, 1, 0)[..., None], steps, -1).astype(np.int32)
            )
            script = Path(__file__).with_name("lava_clock.py")
            for _ in range(rounds):
                command = [str(python), str(script), str(path), f"{folder}/codes.npy", str(steps), "3"]
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
                if done.returncode:
                    raise SystemExit(done.stderr[-2000:])
                said = json.loads(done.stdout.strip().splitlines()[-1])
                ours = {}
                for threads in chosen.threads:
                    call = {"": lambda net=net, codes=codes, n=threads: kernel.run(net, codes, threads=n)}
                    clock = "cpu_ms" if threads == 1 else "wall_ms"
                    ours[threads] = interleaved(call, 15, chosen.budget, "")[""][clock] / 1e3 / steps
                lava = statistics.median(said["seconds_a_step"])
                row = {"rate": rate, "lava_ms": 1e3 * lava, "ours_ms": {n: 1e3 * ms for n, ms in ours.items()}}
                rows.append(row | {"ratio": {n: lava / ms for n, ms in ours.items()}})
                print(
                    f"Lava {said['lava-nc']} (its own processes, {os.cpu_count()} cores), {size} px, rate {rate}: "
                    f"{1e3 * lava:.0f} ms a step; "
                    + "; ".join(f"{lava / ms:.0f} x ours on {n} thread{'s'[: n - 1]}" for n, ms in ours.items()),
                    flush=True,
                )
    return {"pixels": size, "lava-nc": said["lava-nc"], "lava-dl": said["lava-dl"], "runs": rows}


def dense_form(chosen: argparse.Namespace) -> list[Row]:
    """Hidden layers in the dense form, with their neurons, against nothing but products of int8, on one core."""
    from benchmarks.simulator_nets import image, network
    from neurodeploy.simulate.kernel.build import compile_kernel
    from neurodeploy.simulate.kernel.library import library
    from neurodeploy.simulate.kernel.runner import seconds_by_layer

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "peak.so"
        reason = compile_kernel(made, source=Path(__file__).with_name("peak.c"))
        if reason is not None:
            raise SystemExit(reason)
        probe = ctypes.CDLL(str(made))
    for call in (probe.nd_peak, probe.nd_avx2_peak, probe.nd_amx_peak):
        call.argtypes, call.restype = (ctypes.c_int64,), ctypes.c_int64
    probe.nd_peak_macs.restype = probe.nd_amx_peak_macs.restype = ctypes.c_int64
    macs = int(probe.nd_peak_macs())
    if not macs:
        print("no int8 products on this machine: the dense form has no peak to be compared with")
        return []
    codes, rounds, loaded = image(128), 4_000_000, library()

    def peak(call: Any, times: int, macs_a_round: int) -> float:
        start = time.thread_time()
        call(times)
        return times * macs_a_round / (time.thread_time() - start)

    probes = {"vpmaddubsw": lambda: peak(probe.nd_avx2_peak, rounds, 12 * 32)}
    if macs == 12 * 64:
        probes["vpdpbusd"] = lambda: peak(probe.nd_peak, rounds, macs)
    if "amx" in loaded.paths:
        probes["AMX"] = lambda: peak(probe.nd_amx_peak, rounds // 10, int(probe.nd_amx_peak_macs()))
    paths = [path for path in loaded.paths if path in ("avx2", "vbmi2", "amx")]
    rows = []
    for width in chosen.widths:
        net, work = network(0.3, 4, (1, width, width, width, width, 1)), 9 * width * width * 128 * 128 * 4
        found: dict[str, list[float]] = {name: [] for name in (*probes, *paths)}
        for turn in range(max(9, chosen.rounds) + 1):
            for name, call in probes.items():
                found[name].append(call())
            for path in paths:
                found[path].append(work / statistics.median(seconds_by_layer(net, codes, path=path, form="dense")[1:4]))
            if not turn:  # what only the first round has to prepare
                found = {name: [] for name in found}
        row: Row = {"width": width, "gmacs": {name: statistics.median(all_) / 1e9 for name, all_ in found.items()}}
        row["ratio"] = {
            path: {
                name: statistics.median(one / other for one, other in zip(found[name], found[path], strict=True))
                for name in probes
            }
            for path in paths
        }
        rows.append(row)
        for path, ratios in row["ratio"].items():
            print(
                f"dense form, hidden layer {width} -> {width} with its neurons, 128 px, T = 4, {path}: "
                f"{row['gmacs'][path]:.0f} GMAC/s; "
                + ", ".join(
                    f"peak of {name} {row['gmacs'][name]:.0f}: {ratio:.2f} x" for name, ratio in ratios.items()
                ),
                flush=True,
            )
    return rows


def counting(chosen: argparse.Namespace) -> list[Row]:
    import numpy as np

    from neurodeploy.energy.count import OperationCounter
    from neurodeploy.simulate import kernel
    from neurodeploy.simulate.kernel.library import library
    from neurodeploy.zoo import resolve
    from tests.kernel_nets import student_like

    small = resolve("denoise-gray-25-small").integer()
    cases = [(f"denoise-gray-25-small, {size} px", small, size) for size in (128, 256, 512)]
    for steps, levels in ((1, 4), (4, 1)):
        title = f"student of 48 channels and 7 layers, 512 px, T = {steps}, D = {levels}"
        cases.append((title, student_like(steps, levels, width=48, depth=7), 512))
    rows = []
    for path in [path for path in library().paths if path in ("avx2", "vbmi2", "amx")]:
        for title, net, size in cases:
            codes = np.random.default_rng(0).integers(-64, 128, (4, size // 2, size // 2))
            counter = OperationCounter(net)

            def plain(net: Any = net, codes: Any = codes, path: str = path) -> None:
                kernel.run(net, codes, threads=1, path=path)

            def counted(net: Any = net, codes: Any = codes, path: str = path, counter: Any = counter) -> None:
                kernel.run(net, codes, observer=counter, threads=1, path=path)
                counter.begin("")

            timed = interleaved({"run": plain, "run and count": counted}, max(15, chosen.rounds), chosen.budget, "run")
            rows.append({"case": title, "path": path, "calls": timed})
            print(
                f"counting, {title}, {path}: {timed['run']['cpu_ms']:.2f} ms, "
                f"counted {timed['run and count']['cpu_ms']:.2f}: "
                f"{100 * timed['run and count']['cpu_ratio'] - 100:+.1f} %",
                flush=True,
            )
    return rows


def paths(chosen: argparse.Namespace) -> list[Row]:
    import numpy as np

    from benchmarks.simulator_nets import image, network
    from neurodeploy.simulate import kernel, reference
    from neurodeploy.simulate.kernel.library import library

    rows = []
    for rate in (0.1, 0.3):
        net, codes = network(rate, 4), image(128)
        expected = reference.run(net, codes)
        calls: dict[str, Any] = {}
        for path in reversed(library().paths):
            for form in ("auto", "dense", "events", *(["sets"] if path == "avx2" else [])):
                if not np.array_equal(kernel.run(net, codes, path=path, form=form), expected):
                    raise SystemExit(f"{path}, {form} differs from the reference")
                calls[f"{path} {form}"] = lambda n=net, c=codes, p=path, f=form: kernel.run(
                    n, c, path=p, form=f, threads=1
                )
        calls["reference"] = lambda n=net, c=codes: reference.run(n, c)
        timed = interleaved(calls, chosen.rounds, chosen.budget / 10, next(iter(calls)))
        rows.append({"pixels": 128, "T": 4, "rate": rate, "calls": timed})
        print(
            f"paths, 128 px, T = 4, rate {rate}: "
            + ", ".join(f"{n} {row['cpu_ms']:.1f} ms" for n, row in timed.items())
        )
    return rows


def verdicts(found: dict[str, Any]) -> list[str]:
    """One line for each goal: the worst figure of the run, and whether it is met."""
    lines = []

    def line(name: str, worst: float, goal: float, met: bool) -> None:
        lines.append(f"{name}: {worst:.4g} (goal {goal:g}): {'met' if met else 'MISSED'}")

    for threads in sorted({row["threads"] for row in found.get("peers", [])}):
        ratios = [row["times_fastest"] for row in found["peers"] if row["threads"] == threads]
        goal = GOALS["fastest peer"]
        name = f"times the fastest peer, {threads} thread{'s'[: threads - 1]}"
        line(f"{name}, median {statistics.median(ratios):.1f}, least", min(ratios), goal, min(ratios) >= goal)
    if found.get("lava"):
        for threads in found["lava"]["runs"][0]["ratio"]:
            least = min(run["ratio"][threads] for run in found["lava"]["runs"])
            line(
                f"times Lava, {threads} thread{'s'[: threads - 1]}, least", least, GOALS["Lava"], least >= GOALS["Lava"]
            )
    if found.get("dense"):
        for path, name in (("avx2", "vpmaddubsw"), ("vbmi2", "vpdpbusd"), ("amx", "AMX")):
            ratios = [row["ratio"][path][name] for row in found["dense"] if name in row["ratio"].get(path, {})]
            if ratios:
                worst = f"int8 peak of {name} over dense form on {path}, most"
                line(worst, max(ratios), GOALS["int8 peak"], max(ratios) <= GOALS["int8 peak"])
    if found.get("counting"):
        for path in dict.fromkeys(row["path"] for row in found["counting"]):
            ratios = [row["calls"]["run and count"]["cpu_ratio"] for row in found["counting"] if row["path"] == path]
            line(
                f"run and count over run, {path}, most",
                max(ratios),
                GOALS["counting"],
                max(ratios) <= GOALS["counting"],
            )
    return lines


def plot(found: dict[str, Any]) -> str:
    groups = []
    for row in found.get("peers", []):
        title = f"{row['pixels']} px, T = {row['T']}, rate {row['rate']:.2f}, threads: {row['threads']}"
        groups.append((title, [(name, call["wall_ms"]) for name, call in row["calls"].items()]))
    return bars("Milliseconds a picture", groups, ours=OURS)


def main() -> None:
    chosen = options()
    if "peers" in chosen.parts:
        keep_memory()
        ensure(PEERS)
    from neurodeploy.simulate import kernel

    found: dict[str, Any] = {"machine": platform.platform(), "kernel": kernel.describe()}
    print(kernel.describe())
    if "peers" in chosen.parts:
        found["versions"] = versions(["torch", *PEERS])
        print(", ".join(f"{name} {number}" for name, number in found["versions"].items()))
    parts = {"peers": against_peers, "lava": against_lava, "dense": dense_form, "counting": counting, "paths": paths}
    for name, part in parts.items():
        if name in chosen.parts and not (chosen.quick and name == "lava" and chosen.parts == PARTS):
            found[name] = part(chosen)
    found["verdicts"] = verdicts(found)
    print("\n".join(found["verdicts"]))
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "simulator.json").write_text(json.dumps(found, indent=1) + "\n")
    if found.get("peers"):
        (chosen.out / "simulator.svg").write_text(plot(found))
    print(chosen.out / "simulator.json")


if __name__ == "__main__":
    main()
