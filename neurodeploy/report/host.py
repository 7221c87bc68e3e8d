"""Measuring what an ANN costs on this machine, written as a hardware profile of the kind ``measured``."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from neurodeploy.energy.meters import Measured, Meter, Nvml, Rapl, measure
from neurodeploy.errors import UserError
from neurodeploy.files import writing_file
from neurodeploy.hardware.profile import load_profile
from neurodeploy.model.base import Model
from neurodeploy.model.teacher import TeacherModel

SCHEMA_VERSION = 1
Host = Literal["cpu", "gpu"]

SIDE = 256
"""Side of the picture that the network restores while it is measured."""
WIDTH, DEPTH = 64, 8
"""Shape of the network that is measured where none is named: 3x3 convolutions with ReLU, as denoisers have them."""


def measure_host(
    host: Host,
    out: str | Path,
    *,
    teacher: Model | None = None,
    batches: tuple[int, ...] = (1, 8),
    repeats: int = 10,
    force: bool = False,
    meter: Meter | None = None,
) -> dict[str, Any]:
    """Measures a network without spikes on this machine and writes a profile.

    The energy is what the counter gives while the network runs, less the idle power measured before; both are told. The
    price of a MAC is that of batch 1, the case of one picture at a time; its range spans the confidence interval.

    Args:
        host: ``"cpu"`` or ``"gpu"``.
        out: The ``.toml`` to write.
        teacher: The network to run; by default eight 3x3 convolutions of 64 channels.
        batches: Batch sizes, 1 among them.
        repeats: Measurements each.
        force: Replace the file.
        meter: The counter; by default this machine's.

    Returns:
        ``device, boundary, profile`` (its path), ``idle_w``, ``batches[]`` with joules a picture and pJ a MAC.

    Raises:
        UserError: The counters cannot be read (the message says why and what to do), or torch has no such device.
    """
    if 1 not in batches:
        raise UserError("batch 1 is the price of a MAC", node="--batch", have=str(batches), instead="keep 1 among them")
    counter: Meter = meter if meter is not None else (Rapl() if host == "cpu" else Nvml())
    device = "cpu" if host == "cpu" else "cuda"
    with writing_file(out, force=force) as path:  # before: a file in the way is said before minutes of measuring
        work, macs, name = _workload(teacher, device)
        rows, found = [], {}
        for batch in sorted(set(batches)):
            run = work(batch)
            found[batch] = measure(counter, run, repeats=repeats)
            rows.append(_row(batch, found[batch], macs))
        facts = {"device": counter.device, "boundary": counter.boundary, "network": name}
        path.write_text(_toml(host, facts, rows, found[1]), encoding="utf-8")
    load_profile(out)
    return {
        "schema_version": SCHEMA_VERSION,
        "report": "host",
        "ok": True,
        **facts,
        "macs": macs,
        "profile": str(out),
        "idle_w": found[1].idle_watts,
        "batches": rows,
    }


def _row(batch: int, found: Measured, macs: int) -> dict[str, Any]:
    def a_mac(joules: float | None) -> float | None:
        return None if joules is None else joules / (batch * macs) * 1e12

    return {
        "batch": batch,
        "repeats": found.repeats,
        "seconds": found.seconds,
        "joules_per_image": {key: None if value is None else value / batch for key, value in found.joules.items()},
        "total_joules_per_image": {
            key: None if value is None else value / batch for key, value in found.total_joules.items()
        },
        "pj_per_mac": a_mac(found.joules["mean"]),
        "pj_per_mac_ci95": [a_mac(found.joules["ci95_low"]), a_mac(found.joules["ci95_high"])],
    }


def _workload(teacher: Model | None, device: str) -> tuple[Callable[[int], Callable[[], object]], int, str]:
    """What to run at a batch size, its MACs a picture, and its name.

    Raises:
        UserError: torch cannot use the device, or the model has spikes.
    """
    import torch

    from neurodeploy.networks.macs import count_macs

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"torch cannot use it: {reason}", node=device, instead="install torch for this card") from error
    if teacher is None:
        name = f"{DEPTH} convolutions 3x3 of {WIDTH} channels, ReLU"
        layers: list[torch.nn.Module] = []
        for place in range(DEPTH):
            layers += [torch.nn.Conv2d(1 if place == 0 else WIDTH, WIDTH, 3, padding=1), torch.nn.ReLU()]
        network: Any = torch.nn.Sequential(*layers)
        channels, extra = 1, 0
    elif isinstance(teacher, TeacherModel):
        name, network, channels, extra = teacher.name, teacher.teacher, teacher.channels, 1
    else:
        raise UserError("has spikes: what is measured is an ANN", node=teacher.name, instead="name a teacher")
    arguments = [torch.zeros(1, channels, SIDE, SIDE)] + [torch.zeros(1)] * extra
    macs = count_macs(network, tuple(arguments)).total.in_bounds
    network = network.eval().to(device)

    def at(batch: int) -> Callable[[], object]:
        image = torch.rand(batch, channels, SIDE, SIDE, device=device)
        more = [torch.full((batch,), 25 / 255, device=device)] * extra

        def run() -> None:
            with torch.inference_mode():
                network(image, *more)
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    return at, macs, f"{name}, {SIDE}x{SIDE}, fp32"


def _toml(host: Host, facts: dict[str, str], rows: list[dict[str, Any]], one: Measured) -> str:
    """The profile as text."""
    now = datetime.now(UTC)
    first = next(row for row in rows if row["batch"] == 1)
    low, high = first["pj_per_mac_ci95"]
    value = first["pj_per_mac"]
    others = "; ".join(f"batch {row['batch']}: {row['pj_per_mac']:.4g} pJ" for row in rows if row["batch"] != 1)
    idle = one.idle_watts["mean"] or 0.0
    slug = re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-")[:40] or host
    static = f'idle = {{ value = {idle:.6g}, unit = "W", {_facts()} }}\n' if idle > 0 else ""
    return (
        f"# Written by neurodeploy energy-report --measure {host}, {now:%Y-%m-%d}.\n"
        "schema = 1\n"
        f'id = "measured-{host}-{slug}"\n'
        f"name = {_quoted(facts['device'])}\n"
        'model = "host"\n'
        f'caveat = """Measured here on {now:%Y-%m-%d}: {_safe(facts["network"])}, {one.repeats} repetitions, idle power'
        f' subtracted. It holds {_safe(facts["boundary"])}. One network at one size; others cost otherwise."""\n'
        '\n[arithmetic]\npayload = ["graded"]\n'
        "\n[energy]\n"
        f"mac = {{ value = {value:.6g}, low = {max(0.0, min(low, value)):.6g}, high = {max(high, value):.6g},"
        f' unit = "pJ", {_facts()}, note = {_quoted(f"batch 1, 95 % interval; {others}" if others else "batch 1")} }}\n'
        f"\n[static]\n{static}"
        "\n[sources]\n"
        f'here = {{ ref = {_quoted("measured by neurodeploy on " + facts["device"])}, verified = "primary",'
        f' seen = "{now:%Y-%m}" }}\n'
    )


def _facts() -> str:
    return 'kind = "measured", bound = "exact", source = "here"'


def _safe(text: str) -> str:
    """Text that can stand between TOML's triple quotes."""
    return re.sub(r'["\\\x00-\x1f\x7f]', " ", text)


def _quoted(text: str) -> str:
    return f'"{_safe(text)}"'
