"""The two kinds of error, and the findings that a check gathers before it raises once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One reason why something does not hold, fit or match.

    ``have`` and ``limit`` are what was found and what is allowed, in words or numbers; ``instead`` is the way out.
    """

    node: str
    rule: str
    have: str = ""
    limit: str = ""
    instead: str = ""
    severity: Severity = "error"

    def as_dict(self) -> dict[str, str]:
        """The finding with the keys of the JSON answers."""
        return asdict(self)

    def __str__(self) -> str:
        found = f" (have {self.have}" if self.have else ""
        if found:
            found += f", limit {self.limit})" if self.limit else ")"
        elif self.limit:
            found = f" (limit {self.limit})"
        way_out = f"; instead: {self.instead}" if self.instead else ""
        return f"{self.node}: {self.rule}{found}{way_out}"


class NeurodeployError(Exception):
    """Base of everything that the program raises on purpose."""

    exit_code = 3


class UserError(NeurodeployError):
    """What was given cannot be used: a file, a value, a network. Never a fault of the program.

    Args:
        message: One sentence that says what is wrong.
        node: The file, key or network node that it is wrong with.
        have: What was found.
        limit: What is allowed.
        instead: What to do about it.
        target: The target or profile that refuses it.
        exit_code: 2 for wrong usage or bad input (the default), 1 for a finding.
    """

    def __init__(
        self,
        message: str,
        *,
        node: str = "",
        have: str = "",
        limit: str = "",
        instead: str = "",
        target: str = "",
        exit_code: int = 2,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.node = node
        self.have = have
        self.limit = limit
        self.instead = instead
        self.target = target
        self.exit_code = exit_code

    def as_dict(self) -> dict[str, object]:
        """The fields with the keys of the JSON answers."""
        return {
            "message": self.message,
            "node": self.node,
            "have": self.have,
            "limit": self.limit,
            "instead": self.instead,
            "target": self.target,
        }

    def __str__(self) -> str:
        where = f"{self.node}: " if self.node else ""
        facts = [f"have {self.have}"] if self.have else []
        facts += [f"limit {self.limit}"] if self.limit else []
        found = f" ({', '.join(facts)})" if facts else ""
        way_out = f"; {self.instead}" if self.instead else ""
        line = f"{where}{self.message}{found}{way_out}"
        return " ".join(line.split())


class FindingsError(UserError):
    """Several findings at once, gathered by a check and raised in one go."""

    def __init__(self, message: str, findings: Sequence[Finding], *, target: str = "", exit_code: int = 1) -> None:
        super().__init__(message, target=target, exit_code=exit_code)
        self.findings = tuple(findings)

    def as_dict(self) -> dict[str, object]:
        """The message and every finding, with the keys of the JSON answers."""
        return {**super().as_dict(), "findings": [finding.as_dict() for finding in self.findings]}

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {finding}" for finding in self.findings)])


class InternalError(NeurodeployError):
    """The program broke one of its own rules: a fault of ours, exit code 3."""
