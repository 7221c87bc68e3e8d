"""``neurodeploy models``."""

from __future__ import annotations

import click

from neurodeploy.cli.output import answer, progress, say, say_if_slow, table
from neurodeploy.cli.settings import Settings, verb
from neurodeploy.errors import UserError


@verb("models")
@click.option("--score", is_flag=True, help="Score the trained students, on --sets or on --data.")
@click.option(
    "--sets",
    type=click.Path(),
    envvar="NEURODEPLOY_SETS",
    metavar="ROOT",
    help="Folder with Set12 and the others that the table is made on (also: the variable NEURODEPLOY_SETS).",
)
@click.option("--data", type=click.Path(), metavar="DIR", help="Clean pictures of your own instead.")
@click.option("--only", multiple=True, metavar="NAME", help="Score this student only (repeatable).")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Score the first N pictures of a set only.")
@click.option("--into", multiple=True, type=click.Path(), metavar="FILE", help="Write the table between its markers.")
@click.option("--cards", is_flag=True, help="Write each student's lines into its card, too.")
@click.option("--sheet", type=click.Path(), metavar="FILE", help="Write a sheet of restored pictures (.png or .jpg).")
def command(
    settings: Settings,
    score: bool,
    sets: str | None,
    data: str | None,
    only: tuple[str, ...],
    limit: int | None,
    into: tuple[str, ...],
    cards: bool,
    sheet: str | None,
) -> None:
    """List the models that come with the program.

    Every name stands for MODEL or, where it has a recipe, for RECIPE. With --score the trained students are scored in
    the chip's integers: PSNR by stage, operations, energy against the teacher, spread over pictures, the worst one.

    Examples:
      neurodeploy models
      neurodeploy --json models
      neurodeploy models --score --data photos --only denoise-gray-25
      neurodeploy models --score --sets SETS --into README.md --cards --sheet docs/images/zoo.jpg
    """
    if not score:
        context = click.get_current_context()
        typed = [name for name in _OF_SCORING if context.get_parameter_source(name) is _TYPED]
        if typed:
            raise UserError("is for scoring", node=", ".join(f"--{name}" for name in typed), instead="add --score")
        _list(settings)
        return
    if data is not None and click.get_current_context().get_parameter_source("sets") is not _TYPED:
        sets = None  # the variable is for calls that name no pictures
    from neurodeploy.report.score import COLUMNS, table_row
    from neurodeploy.report.zoo_table import write_tables, zoo_scores

    say_if_slow(settings)
    with progress(settings, "scoring") as update:
        result = zoo_scores(sets=sets, data=data, only=only, limit=limit, sheet=sheet, progress=update)
    for row in result["left_out"]:
        say(settings, f"left out: {row['model']} on {row['set']}: {row['reason']}")
    result["written"] = write_tables(result, into, cards=cards)
    columns = [(key, heading.upper()) for key, heading in COLUMNS]
    answer(settings, result, lambda: table([table_row(score) for score in result["scores"]], columns))


_TYPED = click.core.ParameterSource.COMMANDLINE
_OF_SCORING = ("sets", "data", "only", "limit", "into", "cards", "sheet")


def _list(settings: Settings) -> None:
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
