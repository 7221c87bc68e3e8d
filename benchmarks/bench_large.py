"""Large pictures: how long a restoration takes, and how much memory, from 0.25 to 8 megapixels.

    python benchmarks/bench_large.py [--model MODEL] [--rounds 3] [--megapixels 0.25 1 8.3] [--out FOLDER]

Every measurement is a process of its own, `neurodeploy simulate`, which reads a gray PNG, restores it in the chip's
integers and writes a PNG; its peak memory is what the system says of it. Sizes take turns. Without --model it is the
demo's student with weights that nobody trained. The least time of the rounds counts. Writes large.json and large.svg.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SIZES = {0.25: (384, 640), 0.5: (544, 944), 1.0: (768, 1312), 2.0: (1088, 1904), 4.0: (1536, 2656), 8.3: (2160, 3840)}
"""Megapixels -> (rows, columns)."""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="what to restore with (default: the demo's shape, untrained)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megapixels", type=float, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--threads", type=int, help="cores to use (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    return parser.parse_args()


def untrained(folder: Path) -> str:
    from neurodeploy.graph.student_file import write_student
    from neurodeploy.shipped import shipped
    from neurodeploy.untrained import untrained_model

    path = folder / "student.safetensors"
    write_student(path, untrained_model(shipped("models") / "demo" / "recipe.toml").file)
    return str(path)


def write_picture(path: Path, size: tuple[int, int]) -> None:
    """Edges, gradients and noise of sigma 25."""
    from neurodeploy.images.io import write_image

    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    scene = 0.5 + 0.25 * np.sin(rows / 41) * np.cos(columns / 67) + 0.2 * ((rows // 90 + columns // 130) % 2)
    noise = np.random.RandomState(0).randn(*size).astype(np.float32) * np.float32(25 / 255)
    write_image(path, (scene + noise)[None])


def high_water(process: int) -> float:
    """Peak memory so far, in megabytes. What wait4 says begins with the memory of the parent."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def measured(model: str, picture: Path, threads: int | None) -> dict[str, float]:
    """Seconds of the restoration and of the whole process, its CPU seconds, and its peak memory in megabytes."""
    environment = dict(os.environ)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    out = picture.with_suffix("")
    command = [sys.executable, "-m", "neurodeploy", "--json", "-q", "simulate", model, str(picture), "--out", str(out)]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as answer:
        process = subprocess.Popen([*command, "--force"], stdout=answer, cwd=ROOT, env=environment)
        peak, done = 0.0, 0
        while not done:
            peak = max(peak, high_water(process.pid))
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        answer.seek(0)
        row = json.loads(answer.read())["images"][0]
    spikes = sum(layer["spikes"] for layer in row["layers"])
    return {
        "seconds": row["seconds"],
        "process_seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": peak or usage.ru_maxrss / 1024,
        "rate": spikes / sum(layer["spikes"] / layer["rate"] for layer in row["layers"] if layer["rate"]),
    }


def run(chosen: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    model = chosen.model or untrained(folder)
    pictures = {}
    for megapixels in chosen.megapixels:
        pictures[megapixels] = folder / f"{megapixels}.png"
        write_picture(pictures[megapixels], SIZES[megapixels])
    found: dict[float, list[dict[str, float]]] = {megapixels: [] for megapixels in pictures}
    for turn in range(chosen.rounds):
        for megapixels, picture in pictures.items():
            found[megapixels].append(measured(model, picture, chosen.threads))
            last = found[megapixels][-1]
            print(
                f"{turn + 1}/{chosen.rounds}  {megapixels:5.2f} MP  {last['seconds']:7.2f} s  {last['peak_mb']:6.0f} MB"
            )
    rows = []
    for megapixels, values in found.items():
        height, width = SIZES[megapixels]
        row: dict[str, Any] = {"height": height, "width": width, "megapixels": height * width / 1e6}
        # other work on the machine only adds time
        row |= {key: min(value[key] for value in values) for key in values[0]}
        row["peak_mb"] = max(value["peak_mb"] for value in values)
        row["median_seconds"] = statistics.median(value["seconds"] for value in values)
        rows.append(row | {"seconds_a_megapixel": row["seconds"] / row["megapixels"], "rounds": values})
    return rows


def straight(rows: list[dict[str, Any]], key: str) -> dict[str, float]:
    """The line ``start + slope * megapixels`` through the values, and the share of their variance that it explains."""
    x, y = ([row[name] for row in rows] for name in ("megapixels", key))
    if len(rows) < 2:
        return {"start": math.nan, "slope": math.nan, "r_squared": math.nan}
    slope, start = statistics.linear_regression(x, y)
    return {"start": start, "slope": slope, "r_squared": statistics.correlation(x, y) ** 2}


def drawn(rows: list[dict[str, Any]]) -> str:
    """Seconds and peak memory against megapixels."""
    wide, high, left, gap = 330, 230, 56, 70
    far = 1.1 * max(row["megapixels"] for row in rows)
    parts = []
    for place, (key, title, unit) in enumerate(
        (("cpu_seconds", "CPU time of the process", "s"), ("peak_mb", "peak memory", "MB"))
    ):
        x0, y0 = left + place * (wide + gap), 30 + high
        top = 1.15 * max(max(row[key] for row in rows), 1500.0 if key == "peak_mb" else 0.0)

        def at(row: dict[str, Any], x0: int = x0, y0: int = y0, top: float = top, key: str = key) -> str:
            return f"{x0 + wide * row['megapixels'] / far:.1f},{y0 - high * row[key] / top:.1f}"

        parts.append(f'<path d="M{x0},{y0 - high} V{y0} H{x0 + wide}" fill="none" stroke="#888"/>')
        parts.append(f'<text x="{x0}" y="18">{title} ({unit}) against megapixels</text>')
        for share in (0.25, 0.5, 0.75, 1.0):
            y = y0 - high * share / 1.15
            parts.append(f'<text x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end">{top * share / 1.15:.3g}</text>')
        for megapixels in (1, 2, 4, 8):
            x = x0 + wide * megapixels / far
            parts.append(f'<text x="{x:.1f}" y="{y0 + 16}" text-anchor="middle">{megapixels}</text>')
        if key == "peak_mb":
            y = y0 - high * 1536 / top if top > 1536 else y0 - high
            parts.append(f'<path d="M{x0},{y:.1f} H{x0 + wide}" stroke="#c33" stroke-dasharray="4 4"/>')
        parts.append(
            f'<polyline points="{" ".join(at(row) for row in rows)}" fill="none" stroke="#247" stroke-width="2"/>'
        )
        parts += [f'<circle cx="{(p := at(row).split(","))[0]}" cy="{p[1]}" r="3" fill="#247"/>' for row in rows]
    size = f'width="{2 * wide + left + gap + 20}" height="{high + 60}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def main() -> None:
    import neurodeploy
    from neurodeploy.simulate import kernel

    chosen = options()
    with tempfile.TemporaryDirectory() as name:
        rows = run(chosen, Path(name))
    answer = {
        "neurodeploy": neurodeploy.__version__,
        "python": platform.python_version(),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": chosen.threads,
        "kernel": kernel.describe(),
        "model": chosen.model or "the demo's student, untrained",
        "time_line": straight(rows, "seconds"),
        "cpu_time_line": straight(rows, "cpu_seconds"),
        "sizes": rows,
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "large.json").write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")
    (chosen.out / "large.svg").write_text(drawn(rows), encoding="utf-8")
    print("\n  megapixels  seconds  s/megapixel  CPU s  peak MB")
    for row in rows:
        print(
            f"  {row['megapixels']:10.2f}  {row['seconds']:7.2f}  {row['seconds_a_megapixel']:11.3f}"
            f"  {row['cpu_seconds']:5.1f}  {row['peak_mb']:7.0f}"
        )
    for name, key in (("seconds", "time_line"), ("CPU s", "cpu_time_line")):
        line = answer[key]
        print(f"{name} = {line['start']:.2f} + {line['slope']:.3f} * megapixels, R^2 = {line['r_squared']:.4f}")
    print(f"{chosen.out / 'large.json'}, {chosen.out / 'large.svg'}")


if __name__ == "__main__":
    main()
