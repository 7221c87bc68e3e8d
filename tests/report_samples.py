"""Reports with everything in them, for the tests of the pages."""

from __future__ import annotations

from typing import Any

import numpy as np

from neurodeploy.energy.baselines import Teacher
from neurodeploy.energy.count import OperationCounter
from neurodeploy.hardware.profile import load_profile
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.report.activity import ActivityProbe
from neurodeploy.report.compare import row_of
from neurodeploy.report.energy import energy_report
from neurodeploy.report.page import (
    BundleFacts,
    BundleFile,
    DeployReport,
    Parameters,
    Picture,
    PictureSet,
    Reader,
    Reproduce,
    Scores,
    Stage,
)
from neurodeploy.report.png import difference_uri, png_uri
from neurodeploy.simulate.reference import run
from tests.energy_nets import student

PROFILES = ("loihi2", "cmos45-int8", "cmos45-fp32", "cmos45-int32-lemaire", "loihi1-davies2018", "spinnaker2")


def sample_energy(
    images: int = 2, profiles: tuple[str, ...] = PROFILES, *, levels: int = 3, **options: Any
) -> dict[str, Any]:
    """An energy report of a small network."""
    counter = OperationCounter(student(np.random.default_rng(0), levels=levels))
    for place in range(images):
        counter.begin(f"image-{place}.png")
        run(counter.net, np.random.default_rng(place).integers(0, 80, (1, 12, 10)), observer=counter)
    return energy_report(
        counter.counts(),
        [load_profile(name) for name in profiles],
        activity=sample_activity(counter.net),
        **{
            "model": "toy",
            "teacher": Teacher("big", 5e6, 99_000),
            "data": "noise, made here",
            "quality": {"psnr_db": 29.5, "ssim": 0.8, "input_psnr_db": 20.2, "images": images, "protocol": "all"},
            **options,
        },
    )


def sample_comparison() -> dict[str, Any]:
    """A comparison of three networks, one of them without spikes."""
    reports = {
        "toy": sample_energy(),
        "other": sample_energy(model="other", data="more noise", teacher=None, levels=1),
    }
    rows = [row_of(report) for report in reports.values()]
    ann = {
        "model": "big", "kind": "ann", "data": "noise, made here", "psnr_db": 31.0, "parameters": 99_000, "steps": None,
        "mac": 5e6, "sop": 0.0, "sop_per_mac": None, "op_only_fp32_pj": 2.3e7, "op_only_int8_pj": 1.15e6, "energy": {},
        "wins": [], "sentence": "big is a network without spikes: 5.00 M MACs an image.",
    }  # fmt: skip
    check = {"model": "toy", "check": "psnr_db>20", "value": 29.5, "ok": True, "why": ""}
    return {
        "schema_version": 1,
        "report": "energy-comparison",
        "ok": False,
        "data": "toy: noise, made here; other: more noise",
        "rows": [*rows, ann],
        "reports": reports,
        "checks": [check],
    }


def sample_activity(net: IntegerNetwork) -> dict[str, Any]:
    """What the neurons of a network do on noise."""
    probe = ActivityProbe(net)
    run(net, np.random.default_rng(5).integers(0, 80, (1, 12, 10)), observer=probe)
    return {"image": "image-0.png", "size": [12, 10], "layers": probe.as_dict()}


def sample_pictures() -> list[dict[str, Any]]:
    """One picture at two stages."""
    images = np.random.default_rng(3).random((2, 1, 40, 60))
    return [
        {"name": "one.png", "label": label, "png": png_uri(image), "height": 40, "width": 60, "psnr_db": score}
        for label, image, score in (("degraded", images[0], 20.0), ("clean", images[1], None))
    ]


def sample_deploy(**changes: Any) -> DeployReport:
    """A deploy report with a part of every kind."""
    rng = np.random.default_rng(1)
    clean, degraded = rng.random((1, 8, 10)), rng.random((1, 8, 10))
    stages = (("degraded", degraded), ("teacher", clean), ("student_fixed", clean), ("clean", clean))
    pictures = [
        Picture(stage=stage, label=stage.replace("_", " "), png=png_uri(image), psnr_db=20.0 + place, ssim=0.5)
        for place, (stage, image) in enumerate(stages)
    ]
    pictures.append(Picture(stage="difference", label="difference", png=difference_uri(degraded, clean)))
    energy = sample_energy()
    values: dict[str, Any] = {
        "title": "A student on a chip",
        "model": "toy",
        "target": "loihi2",
        "degradation": "Gaussian noise, sigma 25",
        "recipe": "[student]\nwidth = 4\n",
        "images": [PictureSet(name="one.png", height=8, width=10, pictures=pictures)],
        "scores": [
            Scores(
                data="made here",
                images=3,
                protocol="All pixels.",
                stages=[
                    Stage(stage="degraded", label="input", psnr_db=20.17, ssim=0.41),
                    Stage(stage="student_fixed", label="chip integers", psnr_db=29.04, ssim=0.83),
                    Stage(stage="bundle", label="read back", psnr_db=None),
                ],
            )
        ],
        "parameters": Parameters(**energy["parameters"]),
        "energy": energy,
        "verified": True,
        "readers": [
            Reader(name="lava", version="0.10.0", equal=True, steps=11, neurons=640),
            Reader(name="norse", equal=False, first_difference="lif1, step 0, neuron 7"),
            Reader(name="snntorch", equal=None, skipped_reason="not installed"),
        ],
        "bundle": BundleFacts(
            target="loihi2", folder="out/bundle", files=[BundleFile(path="manifest.json", size=8231, sha256="ab" * 32)]
        ),
        "findings": ["a note"],
        "not_claimed": ["that a chip did this"],
        "reproduce": Reproduce(
            command="neurodeploy deploy toy --target loihi2 --out out", versions={"neurodeploy": "0"}, seed=0
        ),
    }
    return DeployReport(**{**values, **changes})
