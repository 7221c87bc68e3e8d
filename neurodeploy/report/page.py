"""The pages that a person reads: one self-contained HTML file, drawn from JSON and nothing else.

A page asks for no other file and shows what a browser's reader, printer or screen reader can use. Its one script, a few
lines of its own, shows one profile at a time and the values under the pointer; without it everything is there. The
models here are the JSON of ``deploy``; the energy report is the JSON of :mod:`neurodeploy.report.energy`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field

from neurodeploy.report import charts, numbers, svg
from neurodeploy.report.energy import energy_words, range_words

SCHEMA_VERSION = 1
_STRICT = ConfigDict(extra="forbid")
_PNG = r"^data:image/png;base64,[A-Za-z0-9+/]+=*$"


class Picture(BaseModel):
    """One stage of one image. ``stage`` is ``degraded``, ``teacher``, ``student_float``, ``student_quantised``,
    ``student_fixed``, ``clean``, ``difference`` or a name of one's own.
    """  # noqa: D205

    model_config = _STRICT

    stage: str
    label: str
    png: str = Field(pattern=_PNG, description="data URI, see neurodeploy.report.png")
    psnr_db: float | None = None
    ssim: float | None = None
    note: str = ""


class PictureSet(BaseModel):
    """All stages of one image. The first is shown beside whichever other the reader chooses."""

    model_config = _STRICT

    name: str
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    pictures: list[Picture] = Field(min_length=1, max_length=8)


class Stage(BaseModel):
    """Scores of one stage, means over a set of images; ``None`` where a stage was not run."""

    model_config = _STRICT

    stage: str
    label: str
    psnr_db: float | None
    ssim: float | None = None
    psnr_y_db: float | None = None
    note: str = ""


class Scores(BaseModel):
    """PSNR and SSIM at every stage: input, teacher, float student, quantised float, chip integers, bundle."""

    model_config = _STRICT

    data: str
    images: int = Field(ge=1)
    protocol: str = Field(description="data range, channel, border, seed")
    stages: list[Stage] = Field(min_length=1)


class Tensor(BaseModel):
    """One tensor of the model."""

    model_config = _STRICT

    name: str
    shape: list[int]
    count: int
    zeros: int = 0
    bits: int | None = None


class Parameters(BaseModel):
    """Parameters, tensor by tensor; ``repeated`` with the copies that threshold populations need."""

    model_config = _STRICT

    total: int
    repeated: int
    tensors: list[Tensor]
    bits: int | None = None
    teacher: int | None = None


class Reader(BaseModel):
    """What one reader of the bundle found; ``equal`` is None where it was skipped."""

    model_config = _STRICT

    name: str
    version: str = ""
    equal: bool | None
    steps: int | None = None
    neurons: int | None = None
    first_difference: str | None = None
    skipped_reason: str | None = None


class BundleFile(BaseModel):
    """One file of the bundle."""

    model_config = _STRICT

    path: str
    size: int
    sha256: str


class BundleFacts(BaseModel):
    """The exported bundle."""

    model_config = _STRICT

    target: str
    folder: str
    files: list[BundleFile]
    notes: list[str] = []


class Reproduce(BaseModel):
    """Whatever it takes to run this again."""

    model_config = _STRICT

    command: str
    versions: dict[str, str]
    seed: int | None = None
    data: str = ""
    hashes: dict[str, str] = {}
    notes: list[str] = []


class DeployReport(BaseModel):
    """The answer of ``deploy``: everything that its page shows."""

    model_config = _STRICT

    schema_version: Literal[1] = 1
    report: Literal["deploy"] = "deploy"
    title: str
    model: str
    target: str
    task: str = ""
    degradation: str = ""
    recipe: str = Field("", description="the resolved recipe, as text")
    images: list[PictureSet] = []
    scores: list[Scores] = []
    parameters: Parameters
    energy: dict[str, Any] = Field(description="the answer of energy-report")
    verified: bool
    readers: list[Reader] = []
    bundle: BundleFacts
    findings: list[str] = Field([], description="warnings and notes that came up on the way")
    not_claimed: list[str] = []
    reproduce: Reproduce

    def score(self, stage: str) -> Stage | None:
        """The stage of the first set of scores, if it was run."""
        stages = self.scores[0].stages if self.scores else []
        return next((row for row in stages if row.stage == stage), None)


def deploy_html(report: DeployReport) -> str:
    """The page of ``deploy``: one HTML file without outside requests."""
    return environment().get_template("deploy.html.j2").render(report=report, energy=report.energy)


def energy_html(report: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page of ``energy-report``: one HTML file without outside requests.

    Args:
        report: The answer of ``energy-report``.
        pictures: ``name, label, png`` (a data URI), ``height, width, psnr_db`` of one picture at every stage.
    """
    return environment().get_template("energy.html.j2").render(energy=report, pictures=pictures)


def break_even_charts(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A chart for every profile that prices both the network and an ANN."""
    labels = {key: base["label"] for key, base in report["baselines"].items()}
    found = []
    for name in report["prices"]:
        lines = [
            line for line in report["verdict"]["against"] if line["profile"] == name and line["baseline"] != "ann_int8"
        ]
        images = [
            (image["rate"], cost)
            for image, cost in zip(report["counts"]["per_image"], report["prices"][name]["per_image_pj"], strict=True)
        ]
        chart = svg.break_even(lines, labels, report["verdict"]["spike_rate"], images)
        if chart:
            found.append({"profile": name, "chart": chart, "words": [line["words"] for line in lines]})
    return found


def by_group(terms: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Shares of the energy by group of terms, the largest first."""
    sums: dict[str, float] = {}
    for term in terms:
        sums[term["group"]] = sums.get(term["group"], 0.0) + term["energy_pj"]
    whole = sum(sums.values())
    ranked = sorted(sums.items(), key=lambda item: -item[1])
    return [{"name": name, "share": part / whole if whole else 0.0} for name, part in ranked]


def grouped_reasons(lines: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Operations that have no price, those with one reason together."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in lines:
        found.setdefault((line["why"], line["instead"]), []).append(line)
    return [{"why": why, "instead": instead, "lines": same} for (why, instead), same in found.items()]


def unpublished_terms(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """What nobody has published, by the name of the chip or technology."""
    return {price["name"]: price["unpublished"] for price in report["prices"].values() if price["unpublished"]}


@lru_cache(maxsize=1)
def environment() -> Environment:
    """What all pages are drawn with."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "energy": numbers.energy,
        "count": numbers.count,
        "short": numbers.short,
        "percent": numbers.percent,
        "decimals": numbers.decimals,
        "times": numbers.ratio,
        "size": numbers.size,
    }
    script = (Path(__file__).parent / "templates" / "page.js").read_text(encoding="utf-8").strip()
    made.globals |= {
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "colours": svg.COLOURS,
        "heat_map": charts.heat_map,
        "highest": charts.highest,
        "histogram": charts.histogram,
        "swing": charts.swing,
        "chip_maps": charts.chip_maps,
        "chips_shown": charts.CHIPS_SHOWN,
        "layer_order": charts.layer_order,
        "traffic_words": charts.traffic_words,
        "unpublished_terms": unpublished_terms,
        "bar": svg.bar,
        "stack": svg.stack,
        "break_even_charts": break_even_charts,
        "by_group": by_group,
        "grouped_reasons": grouped_reasons,
        "energy_words": energy_words,
        "range_words": range_words,
    }
    return made
