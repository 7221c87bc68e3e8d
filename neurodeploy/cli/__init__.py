"""The command line: commands read options, call one function a verb, and print. Nothing below this room prints."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and hands back its exit code.

    Args:
        argv: The words after the program's name; those of the process if None.

    Returns:
        0 done, 1 a finding, 2 wrong usage or bad input, 3 an internal fault, 130 interrupted.
    """
    from neurodeploy.cli.app import cli

    code: int = cli.main(args=None if argv is None else list(argv), prog_name="neurodeploy", standalone_mode=False)
    return code
