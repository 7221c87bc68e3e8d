"""The tables of a hardware profile: numbers with unit, kind, bound and source, and what they are gathered in."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["measured", "derived", "simulated", "vendor", "estimated", "stated"]
"""How a number came to be. ``stated``: a limit or a format, read in a document or in source code."""
Bound = Literal["exact", "lower", "upper"]
Payload = Literal["binary", "ternary", "graded"]
SopPart = Literal["weight_fetch", "state_rw", "neuron", "spike", "hop", "addressing"]
"""What a price per synaptic event may already hold, so that nothing is charged twice."""
PriceModel = Literal["chip", "arithmetic", "lemaire", "yan", "host"]
"""``host``: a processor that runs ANNs; only baselines are priced on it."""

PICOJOULES: Mapping[str, float] = {"fJ": 1e-3, "pJ": 1.0, "nJ": 1e3, "uJ": 1e6, "mJ": 1e9, "J": 1e12}
WATTS: Mapping[str, float] = {"nW": 1e-9, "uW": 1e-6, "mW": 1e-3, "W": 1.0}
SECONDS: Mapping[str, float] = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}

Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
STRICT = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Quantity(BaseModel):
    """A number with its unit, what kind of number it is, and where it stands.

    Attributes:
        low, high: range over which it is quoted, where there is one.
        bound: ``lower`` = the true value is at least this; ``upper`` = at most.
        source: key of the profile's ``[sources]``.
        rationale: why an ``estimated`` number is believed; required for that kind.
    """

    model_config = STRICT

    value: Finite
    unit: str
    kind: Kind
    bound: Bound
    source: str
    low: Finite | None = None
    high: Finite | None = None
    note: str = ""
    rationale: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> Quantity:
        if self.low is not None and self.low > self.value:
            raise ValueError(f"low {self.low:g} is above the value {self.value:g}")
        if self.low is not None and self.low < 0 < self.value:
            raise ValueError(f"low {self.low:g} is below 0")
        if self.high is not None and self.high < self.value:
            raise ValueError(f"high {self.high:g} is below the value {self.value:g}")
        if self.kind == "estimated" and not self.rationale:
            raise ValueError("an estimated number needs a rationale")
        return self

    @property
    def interval(self) -> tuple[float, float | None]:
        """(low, high) in the number's own unit; ``None`` where a lower bound leaves the top open."""
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if self.bound == "lower":
            return low, self.high
        if self.bound == "upper":
            return (0.0 if self.low is None else self.low), high
        return low, high


class Limit(Quantity):
    """A limit or a number format: how many, how wide."""

    unit: Literal["bit", "neuron", "synapse", "core", "chip", "axon", "layer", "value", "step", "pixel"]


class Count(Limit):
    """A limit that counts something: a positive whole number."""

    value: Annotated[float, Field(strict=True, gt=0, multiple_of=1, allow_inf_nan=False)]


class Price(Quantity):
    """Energy of one operation. Zero is no price."""

    value: Positive
    unit: Literal["fJ", "pJ", "nJ", "uJ", "mJ", "J"]
    kind: Literal["measured", "derived", "simulated", "vendor", "estimated"]

    @property
    def picojoules(self) -> float:
        """The value in pJ."""
        return self.value * PICOJOULES[self.unit]

    @property
    def interval_picojoules(self) -> tuple[float, float | None]:
        """(low, high) in pJ; ``None`` where the top is open."""
        low, high = self.interval
        scale = PICOJOULES[self.unit]
        return low * scale, None if high is None else high * scale


class SopPrice(Price):
    """Energy of one spike arriving at one synapse.

    ``includes`` lists what the figure already holds; ``"unknown"`` where its source does not say.
    """

    includes: Literal["unknown"] | list[SopPart] = "unknown"


class MemoryPrice(Price):
    """Energy of one access to a memory of ``capacity_bytes``, ``access_bits`` wide."""

    capacity_bytes: Annotated[int, Field(strict=True, gt=0)]
    access_bits: Annotated[int, Field(strict=True, gt=0)]


class Power(Quantity):
    """A power, drawn whether or not anything happens."""

    value: Positive
    unit: Literal["nW", "uW", "mW", "W"]
    chips: Annotated[int, Field(strict=True, ge=1)] = 1
    """How many chips the figure is for."""

    @property
    def watts(self) -> float:
        """The value in W, for ``chips`` chips."""
        return self.value * WATTS[self.unit]


class PowerPerClock(Quantity):
    """The part of the power that grows with the clock."""

    value: Positive
    unit: Literal["uW/MHz"]


class Duration(Quantity):
    """A time."""

    value: Positive
    unit: Literal["ns", "us", "ms", "s"]

    @property
    def seconds(self) -> float:
        """The value in s."""
        return self.value * SECONDS[self.unit]


class Clock(Quantity):
    """A clock frequency."""

    value: Positive
    unit: Literal["MHz"]


class EnergyTable(BaseModel):
    """Prices per operation. What is missing must be accounted for, see :class:`Profile`."""

    model_config = STRICT

    sop: SopPrice | None = Field(None, description="one spike arriving at one in-bounds synapse")
    mac: Price | None = Field(None, description="one multiply-accumulate with an analog or graded value")
    mac_int8: Price | None = Field(None, description="one multiply-accumulate of 8-bit integers")
    add: Price | None = Field(None, description="one addition, charged for neuron updates and biases")
    mul: Price | None = Field(None, description="one multiplication, charged for the leak")
    compare: Price | None = Field(None, description="one comparison with the threshold")
    neuron_active: Price | None = Field(None, description="one neuron in one step in which it received input")
    neuron_idle: Price | None = Field(None, description="one neuron in one step in which it received none")
    spike_local: Price | None = Field(None, description="one spike, within its tile")
    spike_out: Price | None = Field(None, description="one spike, leaving its core")
    hop: Price | None = Field(None, description="one spike over one hop of the network on chip")
    hop_bit: Price | None = Field(None, description="one bit of a spike packet over one hop")
    dense_hop_bit: Price | None = Field(None, description="one bit of a dense transfer over one hop")
    weight_bit_read: Price | None = None
    state_bit_read: Price | None = None
    state_bit_write: Price | None = None
    address_add: Price | None = None
    address_mul: Price | None = None
    dram_bit: Price | None = None
    io_bit: Price | None = None
    sram: list[MemoryPrice] = Field([], description="memories by size, for models that charge accesses")

    @model_validator(mode="after")
    def _one_table(self) -> EnergyTable:
        sizes = [memory.capacity_bytes for memory in self.sram]
        if len({memory.access_bits for memory in self.sram}) > 1:
            raise ValueError("the memories of one table have one width of access: access_bits differ")
        if len(set(sizes)) < len(sizes):
            raise ValueError("two memories of one table have the same capacity_bytes")
        ranked = sorted(self.sram, key=lambda memory: memory.capacity_bytes)
        if any(small.picojoules > large.picojoules for small, large in pairwise(ranked)):
            raise ValueError("a larger memory of the table costs less than a smaller one")
        return self


ENERGY_TERMS = frozenset(EnergyTable.model_fields)


class StaticTable(BaseModel):
    """Power drawn at rest, printed apart from what the operations cost."""

    model_config = STRICT

    chip: Power | None = None
    core: Power | None = None
    board: Power | None = None
    idle: Power | None = Field(None, description="the whole part, awake and without input")
    clock: PowerPerClock | None = None


class TimeTable(BaseModel):
    """Durations, needed to turn static power into energy."""

    model_config = STRICT

    step: Duration | None = None
    sop: Duration | None = None
    update: Duration | None = None
    clock: Clock | None = None


class Arithmetic(BaseModel):
    """The chip's number format.

    ``payload`` says what a spike can carry; without ``graded``, analog input is refused.
    """

    model_config = STRICT

    payload: list[Payload] = Field(min_length=1)
    reset: list[Literal["hard", "subtract"]] = []
    weight_bits: Count | None = None
    weight_min: Limit | None = None
    weight_max: Limit | None = None
    weight_step: Limit | None = Field(None, description="weights are multiples of this")
    weight_exponent_max: Limit | None = Field(
        None, description="a layer's weights may be such numbers times 2 to the power of at most this"
    )
    state_bits: Count | None = Field(None, description="width of the current u and of the membrane v, each")
    state_shift: Limit | None = Field(None, description="input, threshold and bias are shifted left by this")
    vth_bits: Count | None = None
    decay_bits: Count | None = None
    bias_bits: Count | None = None
    bias_exponent_bits: Limit | None = None
    payload_bits: Count | None = None
    delay_max: Limit | None = None
    groups_max: Limit | None = None


class Capacity(BaseModel):
    """What fits on a chip. Every limit is given or stands in ``unknown``: none is silently absent."""

    model_config = STRICT

    unknown: list[str] = []
    cores_per_chip: Count | None = None
    neurons_per_core: Count | None = None
    neurons_per_chip: Count | None = None
    synapses_per_chip: Count | None = None
    synaptic_memory_bits_per_core: Count | None = None
    fan_in: Count | None = Field(None, description="synapses into one neuron")
    input_axons_per_core: Count | None = None
    output_axons_per_core: Count | None = None
    chips_per_board: Count | None = None


class Anchor(BaseModel):
    """A measured whole task. Printed, never used to price."""

    model_config = STRICT

    task: str
    source: str
    boundary: str = Field(description="what the figure holds: total, dynamic, active, idle, ratio ...")
    energy: Positive | None = Field(None, description="per inference")
    unit: Literal["pJ", "nJ", "uJ", "mJ", "J"] | None = None
    power: Positive | None = None
    power_unit: Literal["uW", "mW", "W"] | None = None
    latency: Positive | None = None
    latency_unit: Literal["ns", "us", "ms", "s"] | None = None
    result: str = Field("", description="where the figure is a ratio or a range")
    beside: str = Field("", description="what it was measured against")

    @model_validator(mode="after")
    def _has_figure(self) -> Anchor:
        if self.energy is None and self.power is None and not self.result:
            raise ValueError("an anchor needs an energy, a power or a result")
        pairs = (("energy", "unit"), ("power", "power_unit"), ("latency", "latency_unit"))
        for number, unit in pairs:
            if (getattr(self, number) is None) != (getattr(self, unit) is None):
                raise ValueError(f"{number} and {unit} go together")
        return self


class Source(BaseModel):
    """Where a number stands, who has looked there, and when.

    ``verified``: ``primary`` = the source itself was opened; ``secondary`` = read where another quotes it.
    """

    model_config = STRICT

    ref: str
    verified: Literal["primary", "secondary", "unverified"]
    seen: str = Field(pattern=r"^\d{4}-\d{2}$", description="year and month")
    via: str = Field("", description="who quotes it, where it was not opened itself")


class Terms(BaseModel):
    """A list of energy terms, with a reason."""

    model_config = STRICT

    terms: list[str] = []
    reason: str = ""


class Regression(BaseModel):
    """How a derived price was fitted."""

    model_config = STRICT

    regression: str
    points: Annotated[int, Field(strict=True, ge=2)]
    residual: str
