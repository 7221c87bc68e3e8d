"""The group of verbs. A verb's module is imported when it is called, so that ``--help`` loads nothing heavy."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from neurodeploy import __version__
from neurodeploy.cli.guard import guarded
from neurodeploy.cli.settings import Settings, common_options, keep_lines

THE_ROAD = {
    "distill": "Train a spiking student from a recipe.",
    "convert": "Turn an ONNX network without spikes into a spiking student.",
    "evaluate": "Restore a folder of pictures and score it.",
    "check": "Say every reason why a model would not export, map or fit.",
    "export": "Write a target's files and read them back.",
    "simulate": "Restore pictures in the chip's integers.",
    "verify": "Run a bundle in every reader that is installed, and compare.",
    "energy-report": "Count the operations of real runs and price them.",
    "deploy": "The whole road in one go, one page at its end.",
}
THE_TABLES = {
    "models": "List the models that come with the program.",
    "targets": "List what can be exported to, and what each target supports.",
    "profiles": "List the hardware profiles.",
    "inspect": "Say what is in a file, a bundle or a model of the zoo.",
    "doctor": "Say what this machine can do, and what to install.",
}
VERBS = {**THE_ROAD, **THE_TABLES}
"""Verb -> its line in the list. A test holds these equal to the commands' own first lines."""


class LazyGroup(click.Group):
    """Imports ``neurodeploy.cli.<verb>`` on demand; lists the verbs from :data:`VERBS`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["help"] = keep_lines(str(kwargs.get("help") or ""))
        super().__init__(*args, **kwargs)
        self.params.extend(common_options())

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of the road."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb, its module imported now; None for another word."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"neurodeploy.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Names the nearest verb where a word is none."""
        word = args[0]
        if word not in VERBS and not word.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(word, VERBS, n=1)
            hint = f"did you mean {near[0]!r}" if near else f"the verbs are {', '.join(VERBS)}"
            raise click.UsageError(f"no such verb {word!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the two lists of verbs without importing one of them."""
        for title, verbs in (("The road", THE_ROAD), ("The tables", THE_TABLES)):
            with formatter.section(title):
                formatter.write_dl(list(verbs.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs a command line; every fault becomes one line and an exit code."""
        words = list(sys.argv[1:] if args is None else args)
        settings = Settings(words=words)
        extra["obj"] = settings

        def run() -> Any:
            return super(LazyGroup, self).main(words, prog_name, complete_var, standalone_mode=False, **extra)

        code = guarded(run, settings, words)
        if standalone_mode:
            sys.exit(code)
        return code


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="MODEL is a zoo name, a run folder, a .safetensors student, a .nir graph, a Lava .net, a bundle, or "
    "ARCH:WEIGHTS for a teacher. Exit codes: 0 done, 1 a finding, 2 wrong usage or bad input, 3 an internal fault.",
)
@click.version_option(__version__, prog_name="neurodeploy", message="%(prog)s %(version)s")
def cli() -> None:
    """Put image-restoration networks on neuromorphic chips.

    Distil a spiking student from a network that you trust, lower it to a chip's integers, write the files that the
    chip's tools read, run those very integers here, and price the run.

    Examples:
      neurodeploy deploy demo --target loihi2 --out runs/demo
      neurodeploy models
    """
