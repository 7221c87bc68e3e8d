"""A chip as data: limits, number formats and prices, each number with unit, kind, bound and source.

One ``.toml`` a chip in ``hardware_profiles/``. A price that nobody published is *listed* as unpublished; it is never 0
and never filled in. Anchors are measured whole tasks: printed beside an estimate, never used to price.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from neurodeploy.errors import UserError
from neurodeploy.hardware.profile_errors import PROBLEMS, nearest, read_toml_model
from neurodeploy.hardware.tables import (
    ENERGY_TERMS,
    STRICT,
    Anchor,
    Arithmetic,
    Capacity,
    Count,
    EnergyTable,
    Positive,
    PriceModel,
    Quantity,
    Regression,
    SopPart,
    Source,
    StaticTable,
    Terms,
    TimeTable,
)
from neurodeploy.hardware.toml_lines import KeyPath
from neurodeploy.shipped import shipped

CHIP_TERMS = ("sop", "mac", "neuron_active", "neuron_idle", "spike", "hop")
"""What every chip profile must account for. ``spike`` is ``spike_local`` plus ``spike_out``."""
ALIASES: Mapping[str, str] = {
    "cmos45-lemaire": "cmos45-int32-lemaire",
    "truenorth": "truenorth-marginal",
    "loihi1": "loihi1-davies2018",
    "cpu": "cpu-i7-4960x",
    "gpu": "gpu-titan-black",
    "arm": "arm-cortex-a",
    "jetson": "jetson-nano",
    "orin": "orin-nano",
}
"""Shorter names that papers and other tools use."""
_INSIDE: Mapping[str, SopPart] = {
    "neuron_active": "neuron", "neuron_idle": "neuron", "spike": "spike", "hop": "hop"
}  # fmt: skip


class Profile(BaseModel):
    """One chip, or one technology. See the module's text; the checks are in :func:`_contradictions`."""

    model_config = STRICT

    schema_version: Literal[1] = Field(alias="schema")
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    name: str
    model: PriceModel = "chip"
    node_nm: Positive | None = None
    vdd_v: Positive | None = None
    scope: Literal["per_term", "all_in"] = "per_term"
    caveat: str
    arithmetic: Arithmetic
    capacity: Capacity = Capacity()
    unpublished: Terms = Terms()
    absent: Terms = Terms()
    anchor: list[Anchor] = []
    sources: dict[str, Source]
    energy: EnergyTable = EnergyTable()
    static: StaticTable = StaticTable()
    time: TimeTable = TimeTable()
    fit: Regression | None = None
    _path: Path | None = PrivateAttr(None)
    _sha256: str = PrivateAttr("")
    _assumed: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        problems = list(_contradictions(self))
        if problems:
            text = "; ".join(f"{'.'.join(map(str, path))}: {message}" for path, message in problems)
            raise PydanticCustomError(PROBLEMS, "{text}", {"text": text, "problems": problems})
        return self

    @property
    def path(self) -> Path | None:
        """The file it was read from."""
        return self._path

    @property
    def sha256(self) -> str:
        """Hash of that file's bytes, in hexadecimal."""
        return self._sha256

    @property
    def assumed(self) -> tuple[str, ...]:
        """Names of the capacity limits that :meth:`assuming` has set."""
        return self._assumed

    def assuming(self, limits: Mapping[str, float]) -> Profile:
        """The same chip with some limits set, known or not; they are marked as assumptions wherever they show.

        Raises:
            UserError: There is no such limit, or its value is not a positive whole number.
        """
        units = {"cores_per_chip": "core", "synaptic_memory_bits_per_core": "bit", "chips_per_board": "chip"}
        units |= {"synapses_per_chip": "synapse", "fan_in": "synapse"}
        units |= {"input_axons_per_core": "axon", "output_axons_per_core": "axon"}
        known = [key for key in Capacity.model_fields if key != "unknown"]
        for key, value in limits.items():
            if key not in known:
                near = nearest(key, known)
                hint = f"did you mean {near!r}? " if near else ""
                raise UserError("is not a limit of a chip", node=key, instead=f"{hint}known: {', '.join(known)}")
            if not (isfinite(value) and value >= 1 and value == int(value)):
                raise UserError("a limit is a positive whole number", node=key, have=f"{value:g}")
        today = datetime.now(UTC)
        source = Source(ref="set by whoever ran this", verified="unverified", seen=f"{today:%Y-%m}")
        made = {
            key: Count.model_validate(
                {
                    "value": float(value),
                    "unit": units.get(key, "neuron"),
                    "kind": "estimated",
                    "bound": "exact",
                    "source": "assumed",
                    "rationale": "set by whoever ran this",
                }
            )
            for key, value in limits.items()
        }
        unknown = [key for key in self.capacity.unknown if key not in limits]
        found = self.model_copy(
            update={
                "capacity": self.capacity.model_copy(update={**made, "unknown": unknown}),
                "sources": {**self.sources, "assumed": source},
            }
        )
        found._assumed = tuple(dict.fromkeys((*self._assumed, *limits)))
        return found

    @property
    def accepts_graded(self) -> bool:
        """Whether a spike can carry an integer, so that analog input is possible at all."""
        return "graded" in self.arithmetic.payload

    def inside_sop(self, part: SopPart) -> bool:
        """Whether the price per synaptic event is known to hold ``part`` already."""
        return self.scope == "all_in" or (
            self.energy.sop is not None and self.energy.sop.includes != "unknown" and part in self.energy.sop.includes
        )

    def numbers(self) -> Iterator[tuple[KeyPath, Quantity]]:
        """Every number with the path of its key."""
        for section in ("arithmetic", "capacity", "energy", "static", "time"):
            for key, value in getattr(self, section):
                if isinstance(value, Quantity):
                    yield (section, key), value
                elif isinstance(value, list):
                    for place, item in enumerate(value):
                        if isinstance(item, Quantity):
                            yield (section, key, place), item


def profile_names() -> tuple[str, ...]:
    """Names of the profiles that the program ships, in alphabetical order."""
    return tuple(sorted(path.stem for path in shipped("hardware_profiles").glob("*.toml")))


def load_profile(name: str | Path) -> Profile:
    """The profile of a shipped name (or of one of :data:`ALIASES`), or of a ``.toml`` file.

    Raises:
        UserError: No such name or file, not TOML, or against the schema; the message holds file, line and key.
    """
    names = profile_names()
    name = ALIASES.get(str(name), name)
    if str(name) in names:
        path = shipped("hardware_profiles") / f"{name}.toml"
    else:
        path = Path(name)
        if path.suffix != ".toml" and not path.is_file():
            close = nearest(str(name), names)
            meant = f"did you mean {close!r}? " if close else ""
            raise UserError(
                "is neither a shipped hardware profile nor a .toml file",
                node=str(name),
                instead=f"{meant}shipped: {', '.join(names)}",
            )
    profile, data = read_toml_model(path, Profile, what="hardware profile")
    profile._path = path
    profile._sha256 = hashlib.sha256(data).hexdigest()
    return profile


def _contradictions(profile: Profile) -> Iterator[tuple[KeyPath, str]]:
    """What no single field can see."""
    for path, number in profile.numbers():
        if number.source not in profile.sources:
            yield (*path, "source"), f"{number.source!r} is not in [sources]"
    for place, anchor in enumerate(profile.anchor):
        if anchor.source not in profile.sources:
            yield ("anchor", place, "source"), f"{anchor.source!r} is not in [sources]"
    known = ENERGY_TERMS | set(CHIP_TERMS)
    for table in ("unpublished", "absent"):
        for term in getattr(profile, table).terms:
            if term not in known:
                near = nearest(term, sorted(known)) or "none"
                yield (table, "terms"), f"{term!r} is not an energy term (nearest: {near})"
    yield from _unaccounted_capacity(profile)
    if profile.scope == "all_in":
        priced = [key for key, value in profile.energy if value and key != "sop"]
        for key in priced:
            yield ("energy", key), 'scope "all_in" already holds it: only energy.sop and static may be set'
    elif profile.model == "chip":
        yield from _unaccounted_energy(profile)


def _unaccounted_energy(profile: Profile) -> Iterator[tuple[KeyPath, str]]:
    for term in CHIP_TERMS:
        if term == "mac" and not profile.accepts_graded:
            continue  # the chip has no such operation: pricing refuses it by itself
        prices = [key for key in _priced_by(term) if getattr(profile.energy, key) is not None]
        places = ["a price"] if prices else []
        places += ["unpublished.terms"] if term in profile.unpublished.terms else []
        places += ["absent.terms"] if term in profile.absent.terms else []
        if term in _INSIDE and profile.inside_sop(_INSIDE[term]):
            places.append("energy.sop.includes")
        if not places:
            remedy = "give it a price, or list it in unpublished.terms or absent.terms"
            yield ("energy",), f"{term} is accounted for nowhere; {remedy}"
        elif len(places) > 1:
            yield ("energy", *prices[:1]), f"{term} is accounted for more than once: {' and '.join(places)}"


def _priced_by(term: str) -> tuple[str, ...]:
    if term == "spike":
        return ("spike_local", "spike_out")
    return ("mac", "mac_int8") if term == "mac" else (term,)


def _unaccounted_capacity(profile: Profile) -> Iterator[tuple[KeyPath, str]]:
    limits = [key for key in Capacity.model_fields if key != "unknown"]
    for key in profile.capacity.unknown:
        if key not in limits:
            near = nearest(key, limits) or "none"
            yield ("capacity", "unknown"), f"{key!r} is not a limit (nearest: {near})"
    if profile.model != "chip":
        return
    for key in limits:
        given, listed = getattr(profile.capacity, key) is not None, key in profile.capacity.unknown
        if given and listed:
            yield ("capacity", key), "is given and listed as unknown"
        if not given and not listed:
            yield ("capacity",), f"{key} is neither given nor listed in capacity.unknown"
