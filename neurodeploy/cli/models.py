"""``neurodeploy models``."""

from __future__ import annotations

from neurodeploy.cli.output import answer, table
from neurodeploy.cli.settings import Settings, verb


@verb("models")
def command(settings: Settings) -> None:
    """List the models that come with the program.

    Every name stands for MODEL or, where it has a recipe, for RECIPE.

    Examples:
      neurodeploy models
      neurodeploy --json models
    """
    from neurodeploy.zoo import list_models

    data = list_models()
    columns = [
        ("name", "NAME"),
        ("kind", "KIND"),
        ("task", "TASK"),
        ("parameters", "PARAMETERS"),
        ("trained", "TRAINED"),
        ("summary", "WHAT IT IS"),
    ]
    answer(settings, data, lambda: table(data["models"], columns))
