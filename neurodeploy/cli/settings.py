"""The options that every verb takes, before or after its name."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any

import click


@dataclass
class Settings:
    """What the global options say.

    Attributes:
        json: Print the answer as JSON on stdout.
        quiet: Nothing but the answer and errors.
        verbosity: How often ``-v`` was given; from 1 on, a fault of the program shows its traceback.
        seed: Seed over the default or the recipe's.
        device: A torch device, for the verbs that use torch.
        kept: What remains if the run is interrupted, for the last line.
        words: The command line behind the program's name.
    """

    json: bool = False
    quiet: bool = False
    verbosity: int = 0
    seed: int | None = None
    device: str | None = None
    kept: str = "nothing was written"
    words: Sequence[str] = ()

    @property
    def command_line(self) -> str:
        """What was typed, for whoever wants to run it again."""
        return shlex.join(["neurodeploy", *self.words])


def settings_of(context: click.Context) -> Settings:
    """The settings of this run, shared by the group and the verb."""
    return context.find_root().ensure_object(Settings)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keeps what was given; what was left out at one place must not undo what was given at the other."""
    name = str(parameter.name)
    if value or (name == "seed" and value is not None):
        setattr(settings_of(context), name, value)


class _Seed(click.IntRange):
    """An integer that numpy's and torch's generators both take; its bounds stay out of the help."""

    def __init__(self) -> None:
        super().__init__(0, 2**31 - 1)

    def _describe_range(self) -> str:
        return ""


def common_options() -> list[click.Option]:
    """Fresh copies of the options that the group and every verb take."""
    return [
        _common(["--json"], is_flag=True, help="Answer in JSON on stdout."),
        _common(["-q", "--quiet"], is_flag=True, help="Only the answer and errors."),
        _common(["-v", "--verbose", "verbosity"], count=True, help="Say more; show the traceback of a fault."),
        _common(["--seed"], type=_Seed(), metavar="N", help="Seed of noise, sampling and training (default 0)."),
        _common(["--device"], metavar="DEVICE", help="Where torch computes: cpu (default), cuda, cuda:1, mps."),
    ]


def _common(names: list[str], **more: Any) -> click.Option:
    return click.Option(names, expose_value=False, callback=_remember, **more)


def keep_lines(text: str) -> str:
    """A help text in which paragraphs that start with "Examples:" keep their lines, as click marks it."""
    return inspect.cleandoc(text).replace("\n\nExamples:\n", "\n\n\b\nExamples:\n")


class Verb(click.Command):
    """A command with the options that every verb takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["help"] = keep_lines(str(kwargs.get("help") or ""))
        super().__init__(*args, **kwargs)
        self.params.extend(common_options())


def verb(name: str) -> Callable[[Callable[..., Any]], Verb]:
    """Makes a function the command ``name``; the function receives the :class:`Settings` first."""

    def decorate(function: Callable[..., Any]) -> Verb:
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(settings_of(click.get_current_context()), *args, **kwargs)

        return click.command(name, cls=Verb)(update_wrapper(call, function))

    return decorate
