"""The field's own figure, arithmetic alone: what most papers print, and what a model card is asked for.

E = e_MAC * MAC + e_AC * SOP at 45 nm (Horowitz 2014), with the first convolution's analog input as multiply-accumulates
at every time step. It leaves out memory, movement, neuron updates and static power, and is given for comparison with
papers, in their fp32 and with 8-bit integers on both sides.
"""

from __future__ import annotations

from typing import Any

from neurodeploy.energy.baselines import Teacher
from neurodeploy.energy.results import Counts
from neurodeploy.errors import InternalError
from neurodeploy.hardware.profile import load_profile
from neurodeploy.hardware.tables import Price

NOTE = (
    "arithmetic only: no memory, no movement, no neuron updates, no static power;"
    " analog input of the first layer is multiply-accumulates at every step"
)


def op_only(counts: Counts, teacher: Teacher | None) -> dict[str, Any]:
    """Energies in pJ an image, and how many times the student's the teacher's is.

    Returns:
        ``fp32`` and ``int8``, each with ``mac_pj``, ``ac_pj``, ``student_pj``, ``same_shape_ann_pj``, ``teacher_pj``,
        ``teacher_over_student`` and ``same_shape_ann_over_student``; the teacher's are None without a teacher.
    """
    return {"fp32": _at("cmos45-fp32", counts, teacher), "int8": _at("cmos45-int8", counts, teacher), "note": NOTE}


def op_only_of_ann(mac: float) -> tuple[float, float]:
    """What so many multiply-accumulates cost in pJ, in fp32 and in int8."""
    fp32, int8 = (_constants(name)[0].picojoules for name in ("cmos45-fp32", "cmos45-int8"))
    return fp32 * mac, int8 * mac


def _constants(name: str) -> tuple[Price, Price]:
    """Prices of a MAC and of an addition."""
    energy = load_profile(name).energy
    mac, sop = energy.mac_int8 or energy.mac, energy.sop
    if mac is None or sop is None:
        raise InternalError(f"profile {name} has no price of a MAC or of an addition")
    return mac, sop


def _at(name: str, counts: Counts, teacher: Teacher | None) -> dict[str, Any]:
    mac, sop = _constants(name)
    student = mac.picojoules * counts.mean("mac") + sop.picojoules * counts.mean("sop")
    same = mac.picojoules * counts.mean("dense_mac")
    theirs = None if teacher is None else mac.picojoules * teacher.mac
    return {
        "profile": name,
        "mac_pj": mac.picojoules,
        "ac_pj": sop.picojoules,
        "student_pj": student,
        "same_shape_ann_pj": same,
        "teacher_pj": theirs,
        "teacher_over_student": theirs / student if theirs is not None and student else None,
        "same_shape_ann_over_student": same / student if student else None,
    }
