"""Everything that keeps a model from a target or a chip, all at once: what an export goes through before it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from neurodeploy.errors import Finding, FindingsError, InternalError, UserError
from neurodeploy.graph.law import check_graph
from neurodeploy.graph.portable import Network
from neurodeploy.hardware.advice import advice
from neurodeploy.hardware.fit import fit_findings
from neurodeploy.hardware.placement import Placement, placement
from neurodeploy.hardware.profile import Profile, load_profile
from neurodeploy.hardware.shapes import layer_shapes
from neurodeploy.quantize.bounds import accumulator_findings, range_findings
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.lower import lower
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.targets import get_target
from neurodeploy.targets.base import Deployable, Job, Options, Target, checked_options, findings_of, tick_findings
from neurodeploy.targets.bundle import halo_of
from neurodeploy.targets.canonical import canonical

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class CheckResult:
    """What a check found, and, where nothing is against it, what an export would write.

    Attributes:
        findings: Errors, warnings and notes, in the order: law, quantisation, target, chip.
        job: None where the model could not be quantised or the image does not go through it.
        placement: The estimate for the chip; None without a profile.
        advice: What fits and what would have to change, where it was asked for.
    """

    target: str
    profile: str | None
    findings: tuple[Finding, ...]
    job: Job | None
    placement: Placement | None
    advice: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """No finding is an error."""
        return self.job is not None and all(finding.severity != "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The answer of ``neurodeploy check``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "target": self.target,
            "profile": self.profile,
            "ok": self.ok,
            "findings": [finding.as_dict() for finding in self.findings],
            "placement": None if self.placement is None else self.placement.as_dict(),
            "advice": self.advice,
        }

    def usable_job(self) -> Job:
        """The job of a check without errors.

        Raises:
            FindingsError: There are errors; they are all in it.
        """
        if not self.ok:
            errors = [finding for finding in self.findings if finding.severity == "error"]
            what = "1 reason" if len(errors) == 1 else f"{len(errors)} reasons"
            raise FindingsError(f"{what} against target {self.target}", errors, target=self.target)
        if self.job is None:
            raise InternalError("a check without errors left no job")
        return self.job


def check(
    model: Deployable,
    target: str,
    profile: Profile | str | None = None,
    *,
    options: Options | None = None,
) -> CheckResult:
    """Every reason why a model cannot be exported to a target, or does not fit its chip; writes nothing.

    Args:
        model: The model and the image size.
        target: Name of the target.
        profile: The chip. None takes the one that the target is for, if it is for one.
        options: Options of the target.

    Raises:
        UserError: There is no such target or profile.
    """
    chosen = get_target(target)
    chip = _profile(profile if profile is not None else chosen.profile)
    findings = checked_options(chosen, options or {})
    network, against = integers(model)
    findings += against
    job = None if network is None else _job(network, model, options or {}, findings)
    if job is None:
        return CheckResult(target, None if chip is None else chip.id, tuple(findings), None, None)
    findings += _target_findings(chosen, job)
    placed = None
    if chip is not None:
        findings += fit_findings(job.network, chip, model.size)
        placed = placement(job.network, chip, model.size)
    return CheckResult(target, None if chip is None else chip.id, _distinct(findings), job, placed)


def check_fit(
    model: Deployable,
    target: str,
    profile: Profile | str | None = None,
    *,
    options: Options | None = None,
    assume: Mapping[str, float] | None = None,
    target_size: tuple[int, int] | None = None,
    chips: int | None = None,
) -> CheckResult:
    """As :func:`check`, with the advice of :func:`neurodeploy.hardware.advice.advice`.

    Args:
        model: The model and the image size.
        target: Name of the target.
        profile: The chip. None takes the one that the target is for, if it is for one.
        options: Options of the target.
        assume: Limits of the chip to set, known or not.
        target_size: (H, W) of the picture to restore; by default the image of one run.
        chips: Chips that there are.

    Raises:
        UserError: There is no such target, profile or limit; limits are set and there is no chip.
    """
    chip = _profile(profile if profile is not None else get_target(target).profile)
    if assume:
        if chip is None:
            raise UserError("there is no chip whose limits could be set", node="--assume", instead="name a --profile")
        chip = chip.assuming(assume)
    result = check(model, target, chip, options=options)
    if chip is None or result.job is None:
        return result
    net = result.job.network
    said = advice(net, chip, model.size, halo=halo_of(net), target_size=target_size, chips=chips)
    return replace(result, advice=said)


def _profile(profile: Profile | str | None) -> Profile | None:
    return load_profile(profile) if isinstance(profile, str) else profile


def _target_findings(target: Target, job: Job) -> list[Finding]:
    try:
        return ([] if getattr(target, "takes_ticks", False) else tick_findings(job.network)) or target.check(job)
    except UserError as error:
        return findings_of(error, target.name)


def _distinct(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Each finding once: a target and a chip may refuse the same thing in the same words."""
    return tuple(dict.fromkeys(findings))


def integers(model: Deployable) -> tuple[IntegerNetwork | None, list[Finding]]:
    """The model's integer network in its compact form, and the law's and the quantiser's findings.

    None where the graph breaks the law or cannot be quantised.
    """
    if not isinstance(model.network, Network):
        network = canonical(model.network)
        return network, [*model.noticed, *accumulator_findings(network)]
    findings = check_graph(model.network.graph, "readable")
    if any(finding.severity == "error" for finding in findings):
        return None, findings
    try:
        lowered = lower(model.network, calibration=model.calibration)
    except UserError as error:
        return None, [*findings, *findings_of(error, model.name)]
    # The chip's own profile judges its ranges, in its own words.
    judged = set(range_findings(lowered.net))
    return canonical(lowered.net), [*findings, *(found for found in lowered.findings if found not in judged)]


def _job(network: IntegerNetwork, model: Deployable, options: Options, findings: list[Finding]) -> Job | None:
    try:
        expanded = expand_levels(network)
        shapes = layer_shapes(expanded, model.size)
    except UserError as error:
        findings += findings_of(error, model.name)
        return None
    return Job(network, expanded, model.size, shapes, options)
