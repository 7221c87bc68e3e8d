"""What of the distillation matters: the same student with one thing changed at a time, over seeds.

    python benchmarks/ablation.py [--steps 3000] [--seeds 0 1 2] [--group hints] [--out FOLDER] [--into FILE]
                                  [--data FOLDER] [--test FOLDER] [--table-only]

The runs stand in ablation.toml. Every run has a folder of its own below --out; a call goes on where the last one was
stopped, and repeats nothing. Same seed means same data in the same order and the same initial weights. A variant is
compared with "no hints" of the same seed and steps: the difference of the final PSNR in the chip's integers on held-out
pictures, and the share of the steps at which its curve first reaches the PSNR that "no hints" ends with.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tomllib

from benchmarks.charts import curves
from neurodeploy.report.score import write_between

HERE = Path(__file__).resolve().parent
BASE = "no hints"
MARKER = "ablation"
CLAIMS = ("hints", "chain")
"""Groups of which a sentence says whether the claim about hints holds."""
GROUPS = {
    "hints": "where the teacher guides",
    "chain": "hints in a deep chain of binary spikes",
    "gamma": "how the weight of the hints falls",
    "end": "when training goes over to integers",
    "time": "binary spikes over T steps",
    "rate": "a limit on synaptic operations",
    "told": "noise of any strength, told or not",
}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="optimiser steps of every run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--group", choices=sorted(GROUPS), action="append", help="run this group only (repeatable)")
    parser.add_argument("--variant", action="append", help="run this variant only, and what it is compared with")
    parser.add_argument("--runs", type=Path, default=HERE / "ablation.toml", help="the base recipe and its variants")
    parser.add_argument("--data", help="folder of clean pictures to train on (default: built-in photographs)")
    parser.add_argument("--test", help="folder of clean pictures to score on (default: built-in photographs)")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a value of every recipe, a.b=c")
    parser.add_argument("--nice", type=int, default=15, help="added to the niceness of this process")
    parser.add_argument("--table-only", action="store_true", help="train nothing; the table of what is there")
    parser.add_argument("--into", type=Path, help=f"write the table between the markers <!-- {MARKER} --> of this file")
    parser.add_argument("--out", type=Path, default=HERE.parent / "runs" / "ablation")
    return parser.parse_args(arguments)


def variants(chosen: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The base recipe, and the variants that are asked for."""
    values = tomllib.loads(chosen.runs.read_text(encoding="utf-8"))
    names = [variant["name"] for variant in values["variant"]]
    unknown = sorted(set(chosen.variant or ()) - set(names))
    if unknown:
        raise SystemExit(f"no such variant: {', '.join(unknown)}; there are {', '.join(names)}")
    asked = [
        variant
        for variant in values["variant"]
        if (not chosen.group or set(chosen.group) & set(variant["groups"]))
        and (not chosen.variant or variant["name"] in chosen.variant)
    ]
    needed = {variant["name"] for variant in asked} | {against(variant) for variant in asked}
    return values["base"], [variant for variant in values["variant"] if variant["name"] in needed]


def against(variant: Mapping[str, Any]) -> str:
    """The variant that this one is compared with."""
    return str(variant.get("against", BASE))


def slug(name: str) -> str:
    return "".join(sign if sign.isalnum() or sign == "." else "-" for sign in name).strip("-")


def recipe_of(base: Mapping[str, Any], variant: Mapping[str, Any], seed: int, chosen: argparse.Namespace) -> Any:
    """The whole recipe of one run."""
    from neurodeploy.distill.recipe import load_recipe

    values = json.loads(json.dumps(dict(base)))
    for table in ("student", "train", "teacher", "data", "degradation"):
        values[table] = {**values.get(table, {}), **variant.get(table, {})}
    values["data"] |= {key: value for key, value in (("train", chosen.data), ("test", chosen.test)) if value}
    values |= {"name": slug(variant["name"]), "seed": seed}
    values["train"] |= {"steps": chosen.steps, "eval_every": max(1, chosen.steps // 20)}
    recipe = load_recipe(values, chosen.overrides)
    if "hints" in variant:
        values["teacher"]["hints"] = hints_at(recipe, variant["hints"], variant.get("guide"))
        recipe = load_recipe(values, chosen.overrides)
    return recipe


def hints_at(recipe: Any, shares: Sequence[float], guide: str | None) -> list[dict[str, str]]:
    """Hint pairs at these shares of the depths of both networks, or of one picture with layers of the student."""
    from neurodeploy.networks.teachers import load_teacher
    from neurodeploy.zoo import teacher_spec

    points = load_teacher(teacher_spec(recipe.teacher.model), channels=recipe.student.channels).hint_points
    depth = recipe.student.depth
    return [
        {
            "teacher": guide or points[max(1, round(share * len(points))) - 1],
            "student": f"lif{max(1, round(share * depth)) - 1}",
        }
        for share in shares
    ]


def run(base: Mapping[str, Any], variant: Mapping[str, Any], seed: int, chosen: argparse.Namespace) -> None:
    """One run, or the rest of it."""
    from neurodeploy.distill.run import distill

    folder = folder_of(variant, seed, chosen)
    if (folder / "result.json").exists():
        return
    print(f"{variant['name']}, seed {seed}", file=sys.stderr, flush=True)
    result = distill(recipe_of(base, variant, seed, chosen), out=folder, resume=True)
    print(f"  {result.psnr_db:.2f} dB after {result.steps} steps, {result.seconds:.0f} s", file=sys.stderr, flush=True)


def folder_of(variant: Mapping[str, Any], seed: int, chosen: argparse.Namespace) -> Path:
    path: Path = chosen.out / f"{chosen.steps}" / f"{slug(variant['name'])}-s{seed}"
    return path


def found(variant: Mapping[str, Any], seed: int, chosen: argparse.Namespace) -> dict[str, Any] | None:
    """What a finished run says; None for one that is not there."""
    folder = folder_of(variant, seed, chosen)
    if not (folder / "result.json").exists():
        return None
    result = json.loads((folder / "result.json").read_text())
    with (folder / "log.csv").open(newline="") as file:
        curve = [(int(row["step"]), float(row["psnr_db"])) for row in csv.DictReader(file) if row["psnr_db"]]
    rates = list(result["rates"].values())
    return {
        "seed": seed,
        "psnr_db": result["psnr_db"],
        "psnr_float_db": result["psnr_float_db"],
        "rate": statistics.mean(rates) if rates else None,
        "seconds": result["seconds"],
        "curve": curve,
    }


def reaches(curve: Sequence[tuple[int, float]], target: float, steps: int) -> float | None:
    """The share of the steps at which a curve first reaches a PSNR; None if it never does."""
    return next((step / steps for step, score in curve if score >= target), None)


def _seeds(count: int) -> str:
    return f"{count} seed{'s'[: count != 1]}"


def summary(chosen: argparse.Namespace) -> dict[str, Any]:
    """Every variant over its seeds, and against the one without hints of the same seed."""
    _, wanted = variants(chosen)
    runs = {v["name"]: [r for seed in chosen.seeds if (r := found(v, seed, chosen))] for v in wanted}
    rows = []
    for variant in wanted:
        ones = runs[variant["name"]]
        if not ones:
            continue
        without = {one["seed"]: one for one in runs.get(against(variant), [])}
        pairs = [(one, without[one["seed"]]) for one in ones if one["seed"] in without]
        gains = [one["psnr_db"] - base["psnr_db"] for one, base in pairs]
        shares = [reaches(one["curve"], base["psnr_db"], chosen.steps) for one, base in pairs]
        rows.append(
            {
                "name": variant["name"],
                "groups": variant["groups"],
                "hinted": bool(variant.get("hints")),
                "taught": variant.get("guide") != "clean",
                "against": against(variant),
                "base": against(variant) == variant["name"],
                "runs": ones,
                "psnr_db": statistics.mean(one["psnr_db"] for one in ones),
                "psnr_std_db": statistics.stdev(one["psnr_db"] for one in ones) if len(ones) > 1 else 0.0,
                "gains_db": gains,
                "reached_at": shares,
                "rate": statistics.mean(one["rate"] for one in ones),
                "ms_a_step": 1e3 * statistics.mean(one["seconds"] for one in ones) / chosen.steps,
            }
        )
    sentences = {group: sentence(group, rows) for group in CLAIMS if any(group in row["groups"] for row in rows)}
    return {"steps": chosen.steps, "rows": rows, "sentences": sentences}


def sentence(group: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """What the runs of a group support about the teacher's hints, and no more."""
    taught = [row for row in rows if group in row["groups"] and row["hinted"] and row["taught"]]
    guided = [row for row in taught if row["gains_db"]]
    if not guided:
        return "No run with hints has ended beside one without."
    best = max(guided, key=lambda row: statistics.mean(row["gains_db"]))
    gain, count = statistics.mean(best["gains_db"]), len(best["gains_db"])
    least, most = min(best["gains_db"]), max(best["gains_db"])
    early = [share for share in best["reached_at"] if share is not None]
    reached = (
        f"it reaches that student's final PSNR after {100 * statistics.mean(early):.0f} % of the steps on average"
        if len(early) == count
        else f"it reaches that student's final PSNR with {len(early)} of {_seeds(count)}"
    )
    held = len(early) == count and max(early) <= 0.5
    claim = "holds" if held or least >= 0.3 else "does not hold"
    return (
        f'Best of those with hints: "{best["name"]}", {gain:+.2f} dB ({least:+.2f} to {most:+.2f}, {_seeds(count)})'
        f" against the student without hints at equal steps; {reached}."
        f" The claim, half of the steps or 0.3 dB with every seed, {claim} here."
    )


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def table(answer: Mapping[str, Any]) -> str:
    """The Markdown table, a part for each group."""
    lines = []
    for group, title in GROUPS.items():
        rows = [row for row in answer["rows"] if group in row["groups"]]
        if all(row["base"] for row in rows):
            continue  # no variant of this group has been run
        lines += [f"**{capitalised(title)}**", ""]
        base = BASE if rows[0]["against"].endswith(BASE) else rows[0]["against"]
        lines += [f"| variant | integers dB | against {base} dB | its PSNR reached at | mean spike rate | ms a step |"]
        lines += ["|---|---|---|---|---|---|"]
        for row in rows:
            gain = f"{statistics.mean(row['gains_db']):+.2f}" if row["gains_db"] and not row["base"] else "-"
            shares = ["never" if share is None else f"{100 * share:.0f} %" for share in row["reached_at"]]
            reached = ", ".join(shares) if shares and not row["base"] else "-"
            name, score = (
                f"{row['name']} ({_seeds(len(row['runs']))})",
                f"{row['psnr_db']:.2f} ± {row['psnr_std_db']:.2f}",
            )
            lines.append(f"| {name} | {score} | {gain} | {reached} | {row['rate']:.3f} | {row['ms_a_step']:.0f} |")
        lines.append("")
        if group in answer["sentences"]:
            lines += [answer["sentences"][group], ""]
    return "\n".join([*lines, f"{answer['steps']:,} steps a run.", ""])


def plot(answer: Mapping[str, Any], group: str) -> str:
    """PSNR over steps, mean over the seeds, of one group."""
    lines = {}
    for row in answer["rows"]:
        if group in row["groups"]:
            by_step: dict[int, list[float]] = {}
            for one in row["runs"]:
                for step, score in one["curve"]:
                    by_step.setdefault(step, []).append(score)
            whole = {step: scores for step, scores in by_step.items() if len(scores) == len(row["runs"])}
            lines[row["name"]] = [(step, statistics.mean(scores)) for step, scores in sorted(whole.items())]
    return curves(capitalised(GROUPS[group]), "steps", "dB, held out", lines)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = options(arguments)
    base, wanted = variants(chosen)
    if not chosen.table_only:
        os.nice(chosen.nice)
        for seed in chosen.seeds:
            for variant in wanted:
                run(base, variant, seed, chosen)
    answer = summary(chosen)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "ablation.json").write_text(json.dumps(answer, indent=1) + "\n")
    (chosen.out / "ablation.md").write_text(table(answer))
    for group in GROUPS:
        if any(group in row["groups"] for row in answer["rows"]):
            (chosen.out / f"ablation-{group}.svg").write_text(plot(answer, group))
    if chosen.into is not None:
        write_between(chosen.into, MARKER, table(answer))
    print(table(answer))
    return answer


if __name__ == "__main__":
    main()
