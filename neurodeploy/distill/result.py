"""What a run says of itself while it goes on, and when it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """What a progress display shows after a step."""

    step: int
    total: int
    stage: str
    loss: float
    psnr_db: float | None
    rate: float | None
    images_per_s: float
    seconds_left: float


@dataclass
class RunResult:
    """What a finished run hands back; also ``result.json`` of the run folder."""

    name: str
    out: str
    student: str
    steps: int
    seconds: float
    psnr_db: float | None
    input_psnr_db: float | None
    psnr_float_db: float | None
    parameters: int
    finished: bool = True
    rates: dict[str, float] = field(default_factory=dict)
    schema_version: int = 1
