"""``neurodeploy convert``."""

from __future__ import annotations

from typing import Any

import click

from neurodeploy.cli.options import FiniteRange, force_option, out_option
from neurodeploy.cli.output import answer, table
from neurodeploy.cli.settings import Settings, verb


@verb("convert")
@click.argument("network", metavar="ANN.onnx", type=click.Path())
@out_option
@click.option(
    "--levels", type=click.IntRange(2, 15), default=15, show_default=True, metavar="D", help="Levels of an activation."
)
@click.option(
    "--degradation", default="gaussian:25", show_default=True, metavar="KIND", help="What the pictures suffer from."
)
@click.option("--data", metavar="DIR", help="Clean pictures to balance on (default: photographs of scikit-image).")
@click.option("--test", metavar="DIR", help="Clean pictures to score on (default: those that are held out of them).")
@click.option(
    "--sigma", type=FiniteRange(0, 255), metavar="S", help="Noise level to fold in for a network that is told one."
)
@click.option(
    "--input-scale",
    type=FiniteRange(1, 1023),
    default=63.75,
    show_default=True,
    help="Codes a unit of brightness.",
)
@click.option("--pictures", type=click.IntRange(1, 100), default=8, show_default=True, help="Pictures of each set.")
@click.option("--crop", type=click.IntRange(16, 1024), default=160, show_default=True, help="Side of their middle.")
@click.option("--channels", type=click.Choice(["1", "3"]), help="Of the images, where the graph leaves them open.")
@force_option
def command(
    settings: Settings,
    network: str,
    out: str,
    levels: int,
    degradation: str,
    data: str | None,
    test: str | None,
    sigma: float | None,
    input_scale: float,
    pictures: int,
    crop: int,
    channels: str | None,
    force: bool,
) -> None:
    """Turn an ONNX network without spikes into a spiking student.

    The network is a chain of convolutions and ReLUs (batch norm folds away), with pixel-unshuffle before, pixel-shuffle
    behind and a residual in whatever form; everything that does not convert is named at once. Thresholds are balanced
    on pictures, layer by layer, and the loss is printed. The folder is a student like that of a run, and a place to
    start training from: neurodeploy distill RECIPE --set train.init=DIR/student-float.safetensors

    Examples:
      neurodeploy convert dncnn.onnx --out runs/converted
      neurodeploy convert ffdnet.onnx --out runs/converted --sigma 25 --levels 8
      neurodeploy export runs/converted --target loihi2 --out bundle
    """
    from neurodeploy.images.degradations import parse_degradation
    from neurodeploy.networks.convert.run import ConvertPlan, convert

    plan = ConvertPlan(
        levels=levels,
        input_scale=input_scale,
        degradation=parse_degradation(degradation),
        sigma=None if sigma is None else sigma / 255,
        data=data,
        test=test,
        pictures=pictures,
        crop=crop,
    )
    report = convert(network, out, plan, channels=None if channels is None else int(channels), force=force)
    answer(settings, report, lambda: _text(report))


def _text(report: dict[str, Any]) -> str:
    spec, scores = report["spec"], report["psnr_db"]
    shape = f"{spec['depth']} spiking layers of {spec['width']} channels, {spec['levels']} levels, T = {spec['steps']}"
    names = {
        "input": "degraded pictures",
        "ann": "the network",
        "student_float": "student, float weights",
        "student_fixed": "student in the chip's integers",
    }
    rows = [{"what": said, "psnr": scores[key]} for key, said in names.items()]
    parts = [
        f"{report['student']}: {shape}, {report['parameters']:,} parameters",
        table(rows, [("what", ", ".join(report["images"])), ("psnr", "PSNR dB")]),
        f"lost in all: {report['loss_db']['total']:.2f} dB",
        *(f"note: {note}" for note in report["notes"]),
    ]
    return "\n\n".join(parts)
