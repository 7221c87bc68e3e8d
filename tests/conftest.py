"""What all tests share: the repository's root on the path, so that ``tests.shared`` can be imported from anywhere."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)
