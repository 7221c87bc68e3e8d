"""The site. Tables of recipe keys, targets and profiles are written from the program's own data at every build."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from neurodeploy import __version__

project = "neurodeploy"
author = "The neurodeploy authors"
copyright = "2026, the neurodeploy authors"
version = release = __version__
extensions = ["myst_parser", "sphinx_click"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_generated"]
smartquotes = False  # options are written with two hyphens
html_theme = "pydata_sphinx_theme"
html_title = f"neurodeploy {__version__}"
html_sidebars: dict[str, list[str]] = {"**": []}
html_show_sourcelink = False
html_theme_options = {"show_toc_level": 2, "navbar_align": "left"}

GENERATED = Path(__file__).parent / "_generated"


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, ["---"] * len(heads), *cells]) + "\n"


def _fields(model: type[BaseModel]) -> str:
    rows = [
        [f"`{name}`", f"`{_default(field)}`", f"`{_kind(field)}`", field.description or ""]
        for name, field in model.model_fields.items()
    ]
    return _markdown(["key", "default", "type", "meaning"], rows)


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None or isinstance(field.default, BaseModel):
        return "(its own defaults)"
    return "(required)" if field.default is PydanticUndefined else repr(field.default)


def _kind(field: FieldInfo) -> str:
    plain = isinstance(field.annotation, type) and not hasattr(field.annotation, "__args__")
    text = field.annotation.__name__ if plain else str(field.annotation)
    text = re.sub(r"(typing|pathlib|neurodeploy(\.\w+)*)\.", "", text).replace("NoneType", "None")
    return re.sub(r"Annotated\[(.*?), FieldInfo\(.*?\)\]", r"\1", text)


def _recipe_tables() -> str:
    from neurodeploy.distill import recipe
    from neurodeploy.graph.spec import StudentSpec
    from neurodeploy.images.degradations import KINDS

    parts = {
        "The recipe": recipe.Recipe,
        "`[data]`": recipe.DataRecipe,
        "`[teacher]`": recipe.TeacherRecipe,
        "`[[teacher.hints]]`": recipe.Hint,
        "`[student]`": StudentSpec,
        '`[student]` with `family = "ffdnet"` or `"dncnn"`': recipe.AnnSpec,
        "`[train]`": recipe.TrainRecipe,
    }
    tables = [f"## {title}\n\n{_fields(model)}" for title, model in parts.items()]
    for kind, degradation in KINDS.items():
        said = (degradation.__doc__ or "").strip().splitlines()[0]
        said = re.sub(r":func:`(?:\w+\.)?(\w+)`", r"`\1`", said).replace("``", "`")
        tables.append(f'## `[degradation]` with `kind = "{kind}"`\n\n{said}\n\n{_fields(degradation)}')
    return "\n".join(tables)


def _targets_table() -> str:
    from neurodeploy.report.tables import list_targets

    listed = list_targets()
    targets = listed["targets"]
    heads = ["operation", *(f"`{target['name']}`" for target in targets)]
    rows = [
        [name, *("yes" if target["operations"][name] is True else "no" for target in targets)]
        for name in targets[0]["operations"]
    ]
    why = [
        [f"`{target['name']}`", name, said.split(" | ")[0]]
        for target in targets
        for name, said in target["operations"].items()
        if said is not True
    ]
    refused = [[f"`{chip}`", reason] for chip, reason in listed["refused"].items()]
    tables = [_markdown(heads, rows), _markdown(["target", "does not hold", "because"], why)]
    return "\n".join([*tables, _markdown(["no target for", "because"], refused)])


def _profiles_table() -> str:
    from neurodeploy.report.tables import list_profiles

    rows = []
    for row in list_profiles()["profiles"]:
        priced, unpublished = ", ".join(row["prices"]) or "none", ", ".join(row["unpublished"])
        rows.append([f"`{row['name']}`", row["chip"], priced, unpublished, row["caveat"]])
    return _markdown(["profile", "chip", "priced", "unpublished", "caveat"], rows)


def _placement_table() -> str:
    """Cores and chips of every spiking student of the zoo, at three sizes on two chips."""
    from neurodeploy.errors import NeurodeployError
    from neurodeploy.hardware.placement import placement
    from neurodeploy.hardware.profile import load_profile
    from neurodeploy.report.deployable import deployable
    from neurodeploy.targets.check import integers
    from neurodeploy.zoo import resolve, zoo_entries

    def span(pair: Any) -> str:
        return "unknown" if pair is None else f"{pair[0]:,}" if pair[0] == pair[1] else f"{pair[0]:,} to {pair[1]:,}"

    rows = []
    for name in (entry.name for entry in zoo_entries() if entry.kind == "student"):
        try:
            net, _ = integers(deployable(resolve(name, untrained=True)))
        except NeurodeployError:
            continue
        if net is None:
            continue
        for profile in ("loihi2", "loihi1-davies2018"):
            for side in (64, 128, 512):
                found = placement(net, load_profile(profile), (side, side))
                cells = [f"{found.neurons:,}", span(found.cores), span(found.chips), found.tightest]
                rows.append([f"`{name}`", profile, f"{side}x{side}", *cells])
    return _markdown(["model", "chip", "pixels", "neurons", "cores", "chips", "tightest"], rows)


def _write_tables(*_: Any) -> None:
    GENERATED.mkdir(exist_ok=True)
    tables = {
        "recipe": _recipe_tables,
        "targets": _targets_table,
        "profiles": _profiles_table,
        "placement": _placement_table,
    }
    for name, table in tables.items():
        (GENERATED / f"{name}.md").write_text(table(), encoding="utf-8")


def setup(app: Any) -> None:
    """Writes the tables before the pages are read."""
    app.connect("builder-inited", _write_tables)
