"""The command-line options that set the fields of RunConfig, in the groups of `--help`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from ..scheduling.exit_codes import USAGE
from .completion import complete_datasets, complete_methods, complete_profiles, complete_suites

WHAT, DATA, PROTOCOL = "What", "Data", "Protocol"
WHERE, CLUSTER = "Where and how it is computed", "Cluster"


def option(group: str, *names: str, **settings: Any) -> Any:
    """Return a typer option in a group of `--help`.

    names: such as "--dataset", "-d"; from the parameter's name if there are none
    settings: further arguments of typer.Option

    >>> option(DATA, "--limit", help="Samples of each split.").rich_help_panel
    'Data'
    """
    return typer.Option(*names, rich_help_panel=group, **settings)


OPTIONS: dict[str, Any] = {
    "methods": Annotated[
        str,
        option(WHAT, "--methods", "-m", help="Names, with commas; all if none is given.",
               autocompletion=complete_methods),
    ],
    "suite": Annotated[
        str,
        option(WHAT, help="Methods that go together: all, brains, … (adbench list suites).",
               autocompletion=complete_suites),
    ],
    "baselines": Annotated[bool, option(WHAT, help="Run the cheap baselines too.")],
    "settings": Annotated[
        list[str],
        option(WHAT, "--set", help="An argument: anoddpm.steps=200 (again for more)."),
    ],
    "profile": Annotated[
        str,
        option(WHAT, help="Sizes and budgets: paper (default on a GPU), tiny (on a CPU).",
               autocompletion=complete_profiles),
    ],
    "seeds": Annotated[str, option(WHAT, help="Training seeds, with commas.")],
    "registry": Annotated[list[Path], option(WHAT, help="One more registry file.")],
    "datasets": Annotated[
        str,
        option(DATA, "--dataset", "-d", help="Names, with commas.",
               autocompletion=complete_datasets),
    ],
    "data": Annotated[
        Path, option(DATA, help="The folder of the data. [env ADBENCH_DATA]")
    ],
    "limit": Annotated[
        int, option(DATA, min=1, help="Samples of each split; the result is marked as partial.")
    ],
    "fraction": Annotated[
        str, option(DATA, help="Percents of the training patients to train on: 10,30,100.")
    ],
    "contaminate": Annotated[
        str,
        option(DATA, help="Percents of abnormal samples among the training samples: 0,1,5."),
    ],
    "levels": Annotated[
        str,
        option(PROTOCOL, help="Noise levels to sweep: 100,250 or 50:500:50 (both ends included)."),
    ],
    "protocol": Annotated[
        str,
        option(PROTOCOL, help="How to evaluate maps: adbench, pddpm, uad-imag, bmad, mood, mvtec; "
               "several with commas share the maps."),
    ],
    "level_rule": Annotated[
        str, option(PROTOCOL, help="auto, val, pseudo, published, oracle: what chooses the level.")
    ],
    "threshold": Annotated[
        str, option(PROTOCOL, help="healthy@5%, val-dice, val-volume-dice, fixed:0.1, oracle.")
    ],
    "reducer": Annotated[
        str, option(PROTOCOL, help="From map to image score: top2%, mean, max, method.")
    ],
    "post": Annotated[
        str, option(PROTOCOL, help="Post-processing of maps: median5,fill,erode3,volume-median5, …")
    ],
    "budget": Annotated[
        int,
        option(PROTOCOL, min=1, help="Most pixels for exact metrics; above, a histogram."),
    ],
    "device": Annotated[str, option(WHERE, help="auto, cpu, cuda, cuda:1.")],
    "dtype": Annotated[str, option(WHERE, help="auto, float32, tf32, bfloat16.")],
    "skip_recorded": Annotated[
        bool,
        option(WHERE, "--skip-recorded",
               help="Leave alone what --out has a sound record of, though the store has lost it."),
    ],
    "out": Annotated[Path, option(WHERE, help="Where records, images and the leaderboard go.")],
    "store": Annotated[Path, option(WHERE, envvar="ADBENCH_STORE", help="Checkpoints and maps.")],
    "executor": Annotated[
        str,
        option(WHERE, envvar="ADBENCH_EXECUTOR",
               help="local: a supervised process per experiment; inline: none; ray, slurm."),
    ],
    "slots": Annotated[
        int,
        option(WHERE, min=1, help="Experiments at a time; one per GPU, or one on the CPU."),
    ],
    "timeout": Annotated[
        float, option(WHERE, min=0, help="Seconds, above 0, an experiment may take.")
    ],
    "workers": Annotated[
        int, option(WHERE, min=0, help="Processes that read training samples ahead.")
    ],
    "micro": Annotated[
        int, option(WHERE, min=1, help="Micro-batch size; empty: the whole batch.")
    ],
    "compile": Annotated[
        str,
        option(WHERE, help="torch.compile the networks: auto (on a GPU), on, off, reduce-overhead "
               "(CUDA graphs); on if nothing follows."),
    ],
    "checkpoint_interval": Annotated[
        float, option(WHERE, min=0, help="Seconds between two saves of a training.")
    ],
    "log": Annotated[
        str,
        option(WHERE, help="Trackers: tensorboard,mlflow,wandb; NAME=FOLDER for another folder."),
    ],
    "tensorboard": Annotated[Path, option(WHERE, help="Write training curves to this folder.")],
    "address": Annotated[
        str, option(CLUSTER, help="Of Ray: auto or host:port; this machine alone if empty.")
    ],
    "slurm": Annotated[
        list[str],
        option(CLUSTER, help="For sbatch: partition=gpu,gpus=1,ldm.mem=64G (METHOD. for its own)."),
    ],
    "detach": Annotated[
        bool, option(CLUSTER, "--detach", help="Submit all experiments to Slurm and leave.")
    ],
}  # fmt: skip
"""The options of `run`, by the field of RunConfig (or of its protocol) that each one sets."""


class CommandGroup(TyperGroup):
    """Commands whose mistakes in usage are told in one line, and of which `--compile` may stand
    alone, for `--compile on`."""

    def main(self, *args: Any, standalone_mode: bool = True, **options: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **options)
        try:
            code = super().main(*args, standalone_mode=False, **options)
        except Exception as error:
            if not hasattr(error, "format_message"):  # no mistake in usage
                raise
            if type(error).__name__ == "NoArgsIsHelpError":
                from typer.rich_utils import rich_format_error

                rich_format_error(cast(Any, error))  # the help itself
            else:
                typer.echo(f"error: {_usage_text(error)}", err=True)
            sys.exit(USAGE)
        sys.exit(code if isinstance(code, int) else 0)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = list(args)
        for i in reversed(range(len(words))):
            following = words[i + 1] if i + 1 < len(words) else "-"
            if words[i] == "--compile" and (following.startswith("-") or "." in following):
                words.insert(i + 1, "on")  # another option follows, or a study file
        return super().parse_args(ctx, words)


def _usage_text(error: Any) -> str:
    """A mistake in usage in one line, with the help to ask for."""
    message = re.sub(r"Invalid value for '?(.+?)'?: ", r"\1: ", error.format_message())
    message = " ".join(message.split()).rstrip(".")
    return f"{message} ({error.ctx.command_path} --help)" if error.ctx is not None else message


def with_options(names: Iterable[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command options of OPTIONS, each None where it is not used.

    They come before the command's own options.

    names: keys of OPTIONS

    >>> @with_options(["limit", "levels"])
    ... def command(json: bool = False, **options: object) -> None: ...
    >>> [*inspect.signature(command).parameters]
    ['limit', 'levels', 'json']
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        keyword = inspect.Parameter.KEYWORD_ONLY
        shared = [
            inspect.Parameter(name, keyword, default=None, annotation=OPTIONS[name])
            for name in names
        ]
        own = [
            parameter.replace(kind=keyword)
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        signature = inspect.Signature([*shared, *own])
        vars(command)["__signature__"] = signature
        command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return command

    return decorate
