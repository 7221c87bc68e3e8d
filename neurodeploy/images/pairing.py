"""Which degraded picture belongs to which clean one, by their names.

Three rules are tried, and the first under which every file of both folders has a partner is used for all of them:

1. the same name: ``barbara.png`` and ``barbara.jpg``;
2. the clean name is the degraded one up to an underscore, the longest such: ``1400_3.png`` and ``1400_8.png`` belong to
   ``1400.png``;
3. the same numbers in the name, one degraded picture to one clean one: ``rain-001.png`` and ``norain-001.png``.

Names are compared without their suffix. Where no rule fits all, nothing is guessed: the files without a partner under
the rule that fits best are named. Pairing by the sorted order of the names has to be asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from neurodeploy.errors import Finding, FindingsError

Pair = tuple[Path, Path]


def pairs_by_name(degraded: Sequence[Path], clean: Sequence[Path]) -> list[Pair]:
    """Pairs (degraded, clean) in the order of ``degraded``.

    Raises:
        FindingsError: No rule fits all files; every file without a partner is named. Exit code 2.
    """
    attempts = [rule(degraded, clean) for rule in _RULES]
    for attempt in attempts:
        if len(attempt) == len(degraded) and len(set(attempt.values())) == len(clean):
            return [(path, attempt[path]) for path in degraded]
    best = max(attempts, key=len)
    findings = [_alone(path, "clean") for path in degraded if path not in best]
    findings += [_alone(path, "degraded") for path in clean if path not in set(best.values())]
    raise FindingsError("pictures without a partner, so the folders cannot be paired by name", findings, exit_code=2)


def pairs_by_order(degraded: Sequence[Path], clean: Sequence[Path]) -> list[Pair]:
    """The first with the first, the second with the second, both sorted by name.

    Raises:
        FindingsError: The numbers of files differ; the files that are left over are named. Exit code 2.
    """
    if len(degraded) == len(clean):
        return list(zip(degraded, clean, strict=True))
    count = min(len(degraded), len(clean))
    findings = [_alone(path, "clean") for path in degraded[count:]]
    findings += [_alone(path, "degraded") for path in clean[count:]]
    raise FindingsError(
        f"{len(degraded)} degraded and {len(clean)} clean pictures cannot be paired in order", findings, exit_code=2
    )


def _alone(path: Path, other: str) -> Finding:
    return Finding(str(path), f"has no {other} partner", instead=f"add the {other} picture, or take this one away")


def _unique(paths: Sequence[Path], key: Callable[[Path], object]) -> dict[object, Path]:
    """The paths by their keys, without the keys that several paths share."""
    count = Counter(key(path) for path in paths)
    return {key(path): path for path in paths if count[key(path)] == 1}


def _stem(path: Path) -> str:
    return path.stem


def _numbers(path: Path) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"[0-9]+", path.stem))


def _same_name(degraded: Sequence[Path], clean: Sequence[Path]) -> dict[Path, Path]:
    by_name = _unique(clean, _stem)
    return {path: by_name[path.stem] for path in degraded if path.stem in by_name}


def _up_to_underscore(degraded: Sequence[Path], clean: Sequence[Path]) -> dict[Path, Path]:
    by_name = _unique(clean, _stem)
    found = {}
    for path in degraded:
        stem = path.stem
        while stem not in by_name and "_" in stem:
            stem = stem.rpartition("_")[0]
        if stem in by_name:
            found[path] = by_name[stem]
    return found


def _same_numbers(degraded: Sequence[Path], clean: Sequence[Path]) -> dict[Path, Path]:
    by_numbers, alone = _unique(clean, _numbers), _unique(degraded, _numbers)
    return {path: by_numbers[key] for key, path in alone.items() if key in by_numbers and key != ()}


_RULES = (_same_name, _up_to_underscore, _same_numbers)
