"""What a run writes down while it goes on: a CSV file always, TensorBoard events where TensorBoard is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG_FIELDS = (
    *("step", "stage", "loss", "pixel", "hint", "rate", "sop", "gradient_norm", "lr", "psnr_db"),
    *("images_per_s", "seconds"),
)


class RunLog:
    """``log.csv`` (always) and TensorBoard events (if it is installed). Rows after a resumed step are dropped."""

    def __init__(self, path: Path, first: int) -> None:
        kept: list[dict[str, str]] = []
        if path.exists() and first > 0:
            with path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if row["step"].isdigit() and int(row["step"]) <= first]
        self.file = path.open("w", newline="")
        self.writer = csv.DictWriter(self.file, LOG_FIELDS, extrasaction="ignore")
        self.writer.writeheader()
        self.writer.writerows(kept)
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board: Any = SummaryWriter(str(path.parent / "tensorboard"))
        except ImportError:
            self.board = None

    def __enter__(self) -> RunLog:
        """The log itself; it is closed when the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()

    def row(self, values: Mapping[str, float | str]) -> None:
        """Writes one line and flushes it; floats are shortened."""
        texts = {key: value if isinstance(value, str) else f"{value:.6g}" for key, value in values.items()}
        self.writer.writerow(texts)
        self.file.flush()
        if self.board is not None:
            for key in ("loss", "pixel", "hint", "rate", "sop", "psnr_db"):
                if texts.get(key):
                    self.board.add_scalar(key, float(texts[key]), int(texts["step"]))
