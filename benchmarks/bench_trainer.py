"""One training step of one network, here and in SpikingJelly, snnTorch and norse: time and peak memory.

    python benchmarks/bench_trainer.py [--threads 1 2] [--rounds 9] [--batch 8] [--patch 64] [--steps 4] [--out FOLDER]

The network is conv 3 x 3 and LIF four times (1-32-32-32-32-1 channels, decay 1/2, hard reset, ATan surrogate), the loss
L1, the optimiser AdamW. All candidates have the same weights. Every peer stands here twice: written as its
documentation writes it, and "folded", with our own shortcuts (first convolution once, last one on the mean over time);
the faster counts. Outputs and gradients are compared before anything is timed. Candidates take turns, a ratio is the
median of the ratios of the same rounds. "cpu" is the time that the process computed, which a busy machine hardly
changes; with one thread it is the one to trust. Memory is measured in a process for each candidate: the peak of three
steps above what was resident before them, after warming up and giving freed memory back; the median of some processes.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.charts import bars
from benchmarks.peers import ROOT, ensure, versions

PEERS = ("spikingjelly", "snntorch", "norse")
OURS = ("ours fp32", "ours winograd", "ours bf16")
WIDTH, DEPTH, DECAY, THETA = 32, 4, 0.5, 0.507


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for each number of threads, after 3 rounds")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="time steps T")
    parser.add_argument("--memory-runs", type=int, default=3, help="processes for each candidate; 0: measure no memory")
    parser.add_argument("--memory-of", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    return parser.parse_args()


def networks(steps: int) -> dict[str, Callable[[], object]]:
    """Name -> maker of a module that restores a batch; all start from the same weights."""
    import torch
    from torch import Tensor, nn

    from neurodeploy.graph.spec import StudentSpec
    from neurodeploy.networks import winograd
    from neurodeploy.networks.student import SpikingStudent

    spec = StudentSpec(width=WIDTH, depth=DEPTH, levels=1, steps=steps, decay=DECAY, unshuffle=1, input_scale=64.0)

    def student() -> SpikingStudent:
        torch.manual_seed(0)
        made = SpikingStudent(spec, surrogate="atan")
        with torch.no_grad():
            for conv in made.convs:
                # on a grid: sums are the same numbers in any order, so all libraries have to give the same spikes
                conv.weight.copy_((conv.weight * 256).round() / 256)
            made.log_delta.fill_(torch.tensor(2 * THETA).log())
        return made.to(memory_format=torch.channels_last)

    class Ours(nn.Module):
        def __init__(self, precision: str) -> None:
            super().__init__()
            self.student, self.bf16 = student(), precision == "bf16"
            if precision == "winograd":
                self.student.convolve = winograd.conv2d

        def forward(self, x: Tensor) -> Tensor:
            x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                return self.student(x)[0]

    class Stepped(nn.Module):
        """A loop over time around a loop over layers; ``fire(layer, current, state) -> (spikes, state)``."""

        def __init__(self, folded: bool) -> None:
            super().__init__()
            self.convs, self.folded = student().to(memory_format=torch.contiguous_format).convs, folded

        def fire(self, layer: int, current: Tensor, state: object) -> tuple[Tensor, object]:
            raise NotImplementedError

        def forward(self, x: Tensor) -> Tensor:
            states: list[object] = [None] * DEPTH
            first = self.convs[0](x) if self.folded else None
            total: Tensor | float = 0.0
            for _ in range(steps):
                signal = x
                for layer in range(DEPTH):
                    current = first if layer == 0 and first is not None else self.convs[layer](signal)
                    signal, states[layer] = self.fire(layer, current, states[layer])
                total = total + (signal if self.folded else self.convs[DEPTH](signal))
            mean = total / steps
            return x - (self.convs[DEPTH](mean) if self.folded else mean)

    class SnnTorch(Stepped):
        def __init__(self, folded: bool) -> None:
            super().__init__(folded)
            import snntorch
            from snntorch import surrogate

            about = {"threshold": THETA, "reset_mechanism": "zero", "reset_delay": False}
            self.neurons = nn.ModuleList(
                snntorch.Leaky(beta=1 - DECAY, spike_grad=surrogate.atan(), **about) for _ in range(DEPTH)
            )

        def fire(self, layer: int, current: Tensor, state: object) -> tuple[Tensor, object]:
            return self.neurons[layer](current, self.neurons[layer].reset_mem() if state is None else state)

    class Norse(Stepped):
        def __init__(self, folded: bool) -> None:
            super().__init__(folded)
            from norse.torch import LIFBoxCell, LIFBoxParameters

            about = LIFBoxParameters(
                tau_mem_inv=torch.tensor(DECAY), v_th=torch.tensor(THETA * DECAY), alpha=torch.tensor(10.0)
            )
            self.neurons = nn.ModuleList(LIFBoxCell(about, dt=1.0) for _ in range(DEPTH))

        def fire(self, layer: int, current: Tensor, state: object) -> tuple[Tensor, object]:
            return self.neurons[layer](current, state)

    class SpikingJelly(nn.Module):
        """Multi-step mode: every layer over all steps before the next one, time folded into the batch."""

        def __init__(self, folded: bool) -> None:
            super().__init__()
            from spikingjelly.activation_based import functional, layer, neuron, surrogate

            self.forget, self.folded = functional.reset_net, folded
            plain = student().to(memory_format=torch.contiguous_format).convs
            self.convs = nn.ModuleList()
            for conv in plain:
                made = layer.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, step_mode="m")
                made.load_state_dict(conv.state_dict())
                self.convs.append(made)
            about = {"tau": 1 / DECAY, "decay_input": False, "v_threshold": THETA, "v_reset": 0.0, "step_mode": "m"}
            self.neurons = nn.ModuleList(
                neuron.LIFNode(surrogate_function=surrogate.ATan(), **about) for _ in range(DEPTH)
            )

        def forward(self, x: Tensor) -> Tensor:
            self.forget(self)
            if self.folded:
                current = self.convs[0](x[None]).expand(steps, -1, -1, -1, -1)
            else:
                current = self.convs[0](x.expand(steps, *x.shape))
            for conv, fire in zip(self.convs[1:-1], self.neurons[:-1], strict=True):
                current = conv(fire(current))
            signal = self.neurons[-1](current)
            last = self.convs[-1]
            return x - (last(signal.mean(0, keepdim=True))[0] if self.folded else last(signal).mean(0))

    class Bound(nn.Module):
        """No bound on spiking nets but a yardstick: the same convolutions over T steps with ReLU."""

        def __init__(self, bf16: bool) -> None:
            super().__init__()
            self.convs, self.bf16 = student().convs, bf16

        def forward(self, x: Tensor) -> Tensor:
            x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                signal = torch.relu(self.convs[0](x)).repeat(steps, 1, 1, 1)
                for conv in self.convs[1:-1]:
                    signal = torch.relu(conv(signal))
                mean = signal.view(steps, *x.shape[:1], *signal.shape[1:]).mean(0)
                return x - self.convs[-1](mean).float()

    return {
        "ours fp32": lambda: Ours("fp32"),
        "ours winograd": lambda: Ours("winograd"),
        "ours bf16": lambda: Ours("bf16"),
        "spikingjelly": lambda: SpikingJelly(False),
        "spikingjelly folded": lambda: SpikingJelly(True),
        "snntorch": lambda: SnnTorch(False),
        "snntorch folded": lambda: SnnTorch(True),
        "norse": lambda: Norse(False),
        "norse folded": lambda: Norse(True),
        "convolutions alone fp32": lambda: Bound(False),
        "convolutions alone bf16": lambda: Bound(True),
    }


def images(batch: int, patch: int) -> tuple[object, object]:
    import torch

    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 64, (batch, 1, patch, patch), generator=generator).float() / 64
    return x, (x + 0.1 * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def training_step(module: object, x: object, target: object) -> Callable[[], None]:
    import torch

    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-9, fused=True)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        (module(x) - target).abs().mean().backward()
        optimiser.step()

    return step


def compared(modules: dict[str, object], x: object, target: object) -> dict[str, dict[str, float]]:
    """Largest difference from ours in float32: of the output, and of the gradient of the weights, relative."""

    def answer(module: object) -> tuple[object, list[object]]:
        module.zero_grad()
        out = module(x)
        (out - target).abs().mean().backward()
        return out.detach(), [p.grad.clone() for name, p in module.named_parameters() if name.endswith("weight")]

    reference, gradients = answer(modules["ours fp32"])
    found = {}
    for name, module in modules.items():
        if not name.startswith("convolutions"):
            out, grads = answer(module)
            pairs = zip(grads, gradients, strict=True)
            relative = max(float((one - two).norm() / two.norm()) for one, two in pairs)
            found[name] = {"output": float((out - reference).abs().max()), "gradient": relative}
    return found


def timed(steps: dict[str, Callable[[], None]], rounds: int, budget: float) -> dict[str, dict[str, object]]:
    wall: dict[str, list[float]] = {name: [] for name in steps}
    busy: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
        step()
    begin = time.perf_counter()
    for turn in range(rounds):
        if turn >= 3 and time.perf_counter() - begin > budget:
            break
        for name, step in steps.items():
            start, worked = time.perf_counter(), time.process_time()
            step()
            busy[name].append(1e3 * (time.process_time() - worked))
            wall[name].append(1e3 * (time.perf_counter() - start))
    return {
        name: {
            "wall_ms": statistics.median(wall[name]),
            "wall_min_ms": min(wall[name]),
            "cpu_ms": statistics.median(busy[name]),
            "rounds": len(wall[name]),
            "walls": wall[name],
            "busys": busy[name],
        }
        for name in steps
    }


def own_steps() -> dict[str, Callable[[], None]]:
    """Whole steps of our trainer on a student of the zoo's kind, by arithmetic and with activations by torch."""
    import numpy as np
    import torch

    from neurodeploy.distill.recipe import load_recipe
    from neurodeploy.distill.trainer import Plan, Trainer
    from neurodeploy.images.patches import PatchBatch
    from neurodeploy.networks import fused

    student = {"width": 64, "depth": 8, "levels": 4, "steps": 1}
    clean = np.random.default_rng(0).random((16, 1, 64, 64), dtype=np.float32)
    batch = PatchBatch(clean + np.float32(0.1), clean, np.zeros(16, np.float32))
    steps: dict[str, Callable[[], None]] = {}
    compiled = fused.available
    for name, precision, available in (
        ("fp32", "fp32", compiled),
        ("winograd", "winograd", compiled),
        ("bf16", "bf16", compiled),
        ("bf16, torch's operators", "bf16", lambda: False),
    ):
        train = {"precision": precision, "sop_target": 1e5}
        trainer = Trainer(load_recipe({"name": "own", "student": student, "train": train}), None, torch.device("cpu"))

        def step(trainer: Trainer = trainer, available: Callable[[], bool] = available) -> None:
            fused.available = available
            trainer.advance(batch, Plan(10**6, 10**6))
            fused.available = compiled

        steps[name] = step
    return steps


def ratios(found: dict[str, dict[str, object]]) -> dict[str, dict[str, float | str]]:
    """How many times longer the fastest peer takes than each of ours."""
    peers = [name for name in found if name.split()[0] in PEERS]
    answer: dict[str, dict[str, float | str]] = {}
    for kind, median in (("walls", "wall_ms"), ("busys", "cpu_ms")):
        fastest = min(peers, key=lambda name: found[name][median])
        for ours in OURS:
            each = [peer / mine for peer, mine in zip(found[fastest][kind], found[ours][kind], strict=True)]
            answer.setdefault(ours, {})[median.removesuffix("_ms")] = statistics.median(each)
            answer[ours]["fastest_peer_" + median.removesuffix("_ms")] = fastest
    return answer


def peak_memory(chosen: argparse.Namespace) -> float:
    """MiB above the resident memory before three steps of one candidate, at their peak."""
    import torch

    torch.set_num_threads(1)
    if chosen.memory_of.startswith("ours"):
        from neurodeploy.distill.memory import keep_freed_memory

        keep_freed_memory()
    module = networks(chosen.steps)[chosen.memory_of]()
    step = training_step(module, *images(chosen.batch, chosen.patch))
    step()
    step()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for _ in range(3):
        step()
    return (_resident("VmHWM") - before) / 1024


def _resident(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return float(line.split()[1])


def memories(chosen: argparse.Namespace, names: list[str]) -> dict[str, float]:
    sizes = ["--batch", str(chosen.batch), "--patch", str(chosen.patch), "--steps", str(chosen.steps)]
    found = {}
    for name in names:
        command = [sys.executable, __file__, *sizes, "--memory-of", name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        peaks = []
        for _ in range(chosen.memory_runs):
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            peaks.append(float(done.stdout.split()[-1]))
        found[name] = statistics.median(peaks)
    return found


def main() -> None:
    chosen = options()
    ensure(PEERS)
    if chosen.memory_of:
        print(peak_memory(chosen))
        return
    import torch

    from neurodeploy.distill.memory import keep_freed_memory
    from neurodeploy.networks import fused

    used = versions(["torch", *PEERS])
    print(", ".join(f"{name} {number}" for name, number in used.items()))
    library = "compiled" if fused.available() else "by torch's operators"
    print(f"our activations: {library}; {chosen.batch} patches of {chosen.patch} x {chosen.patch}, T = {chosen.steps}")
    keep_freed_memory()  # for all candidates of this process alike
    modules = {name: make() for name, make in networks(chosen.steps).items()}
    x, target = images(chosen.batch, chosen.patch)
    differences = compared(modules, x, target)
    for name, difference in differences.items():
        output, gradient = difference["output"], difference["gradient"]
        print(f"  {name:20s} differs from ours fp32: output {output:.1e}, gradient {gradient:.1e}")
    steps = {name: training_step(module, x, target) for name, module in modules.items()}
    answer: dict[str, object] = {"versions": used, "differences": differences, "threads": {}}
    for threads in chosen.threads:
        torch.set_num_threads(threads)
        found = timed(steps, chosen.rounds, chosen.budget)
        faster = ratios(found)
        print(f"\n{threads} thread{'s' * (threads > 1)}, {found[OURS[0]]['rounds']} rounds")
        for name, row in found.items():
            print(f"  {name:24s} {row['wall_ms']:8.1f} ms, least {row['wall_min_ms']:8.1f}, cpu {row['cpu_ms']:8.1f}")
        for ours, ratio in faster.items():
            print(
                f"  {ours}: {ratio['wall']:.2f} times as fast as {ratio['fastest_peer_wall']} by the clock,"
                f" {ratio['cpu']:.2f} times as {ratio['fastest_peer_cpu']} by cpu time"
            )
        answer["threads"][str(threads)] = {"calls": found, "ratios": faster}
    torch.set_num_threads(1)
    own = timed(own_steps(), 3 * chosen.rounds, chosen.budget)
    print("\na step of our trainer: width 64, depth 8, D = 4, T = 1, 16 patches of 64 x 64, one thread")
    for name, row in own.items():
        print(f"  {name:24s} {row['wall_ms']:8.1f} ms, least {row['wall_min_ms']:8.1f}, cpu {row['cpu_ms']:8.1f}")
    answer["levels"] = own
    if chosen.memory_runs:
        found = memories(chosen, [name for name in modules if not name.startswith("convolutions")])
        least = min(value for name, value in found.items() if name.split()[0] in PEERS)
        print("\npeak memory of a step, one thread")
        for name, value in found.items():
            print(f"  {name:24s} {value:8.1f} MiB, {value / least:.2f} of the thriftiest peer's")
        answer["memory_mib"] = found
    write(chosen.out, answer)


def write(folder: Path, answer: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer.json").write_text(json.dumps(answer, indent=1) + "\n")
    groups = []
    for threads, part in answer["threads"].items():
        rows = [(name, row["cpu_ms" if threads == "1" else "wall_ms"]) for name, row in part["calls"].items()]
        groups.append((f"ms a training step, {threads} thread{'s' * (threads != '1')}", rows))
    if "memory_mib" in answer:
        groups.append(("peak memory of a step, MiB", list(answer["memory_mib"].items())))
    (folder / "trainer.svg").write_text(bars("A training step", groups, ours="ours"))
    print(f"\n{folder / 'trainer.json'}, {folder / 'trainer.svg'}")


if __name__ == "__main__":
    main()
