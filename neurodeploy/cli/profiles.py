"""``neurodeploy profiles``."""

from __future__ import annotations

from neurodeploy.cli.output import answer, table
from neurodeploy.cli.settings import Settings, verb


@verb("profiles")
def command(settings: Settings) -> None:
    """List the hardware profiles.

    PRICED are the operations that have a published energy. What is unpublished is never guessed: a report withholds its
    total and prints the measured tasks that the profile holds instead. Your own chip is a .toml file of the same form.

    Examples:
      neurodeploy profiles
      neurodeploy --json profiles
    """
    from neurodeploy.report.tables import list_profiles

    data = list_profiles()
    columns = [
        ("name", "PROFILE"),
        ("chip", "CHIP"),
        ("node_nm", "NM"),
        ("anchors", "MEASURED TASKS"),
        ("prices", "PRICED"),
    ]
    answer(settings, data, lambda: table(data["profiles"], columns))
