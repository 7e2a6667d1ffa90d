"""All options of a run as one object, from Python values or from the texts of a command line."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from ...engine.runtime.setting_types import (
    CompileMode,
    Count,
    Level,
    Natural,
    NonNegative,
    Positive,
)
from ..evaluation.named_protocols import parse_protocol
from ..evaluation.protocol import Protocol
from ..registry.setting_types import convert_fields

if TYPE_CHECKING:
    from ..registry.registry import Registry

PROTOCOL_OPTIONS = {
    "threshold": "threshold", "level_rule": "level", "reducer": "reducer", "post": "post",
    "budget": "budget", "roi": "roi", "select": "select",
    "scorer": "scorer", "repeats": "repeats", "covariance": "covariance",
}  # fmt: skip
"""Options that are fields of the protocol, by the name of the field."""


DtypeName = Literal["auto", "float32", "tf32", "bfloat16"]
ExecutorName = Literal["local", "inline", "ray", "slurm"]
Fraction = Annotated[float, Meta(gt=0, le=100)]
Contamination = Annotated[float, Meta(ge=0, lt=100)]
Seed = Annotated[int, Meta(ge=0, le=2**31)]


MAX_NUMBERS = 100_000
"""Numbers of one option, such as seeds."""

MAX_NESTING = 8
"""Lists and mappings within each other in the value of a setting."""


class OptionError(ValueError):
    """An option holds a value that cannot be run: one line, the value and what would be valid.

    >>> RunConfig.from_options(seeds="one")
    Traceback (most recent call last):
    adbench...OptionError: --seeds takes numbers such as 1,2 or 50:500:50, not 'one'
    """

    exit_code = 2


@dataclass(frozen=True)
class RunConfig:
    """What to run, on which data, how it is evaluated, and where it is computed.

    methods, datasets: registry names, as a sequence or one text with commas; no method means all
        of `suite`, and no suite all methods
    suite: methods that go together, by the registry's name for them
    baselines: run the cheap baselines beside them
    settings: constructor arguments of methods and datasets by name, {"anoddpm": {"steps": 200}};
        {"": {"steps": 200}} or {"steps": 200} where one method or dataset of the run takes the
        argument; or texts such as "anoddpm.steps=200"
    profile: sizes and budgets; None for `paper` on a GPU and `tiny` on a CPU
    registry: further registry files
    data: the folder of the data; None for $ADBENCH_DATA
    limit: samples of each split at most; a result of that is stamped as partial
    fraction: percents of the training patients to train on, an experiment each
    contaminate: percents of abnormal samples among the training samples, an experiment each
    levels: noise levels to sweep, 1..1000; None for each method's own
    seeds: training seeds
    protocol: how maps become scores and decisions
    device, dtype: `auto`, `cpu`, `cuda`, `cuda:1`; `auto`, `float32`, `tf32`,
        `bfloat16`
    compile: when torch.compile makes the networks faster: `auto`, on a GPU, in the mode that fits
        the input's size; `on`, on any device, in torch's default mode; `off`; `reduce-overhead`, on
        a GPU by CUDA graphs. True and False stand for `on` and `off`
    workers: processes that read training samples ahead; None for what fits the device
    micro: rows of one forward and backward pass in training; None for a step's whole batch
    checkpoint_interval: seconds between two saves of an unfinished training
    skip_recorded: leave an experiment alone whose record in `out` is intact and was made from the
        same inputs, though the store has its checkpoint and maps no longer
    out, store: folders of records and pictures, and of checkpoints and maps (None: $ADBENCH_STORE)
    log: trackers, as a sequence or one text with commas: tensorboard, mlflow, wandb, or NAME=FOLDER
    tensorboard: a folder for training curves; the same as log="tensorboard=FOLDER"
    executor: `local`, a supervised process per experiment; `inline`, this process; `ray`; `slurm`
    slots: experiments at a time; None for one per GPU, or one on the CPU
    timeout: seconds that an experiment may take
    address: of a Ray cluster        slurm: texts such as "partition=gpu,gpus=1"
    detach: submit all experiments to Slurm and return

    Raises OptionError on a field of another type or out of its range.

    >>> config = RunConfig.from_options(methods="pca,pddpm", levels="50:150:50", post="median5")
    >>> config.methods, config.levels, config.protocol.post
    (('pca', 'pddpm'), (50, 100, 150), ('median5',))
    >>> RunConfig.from_options(settings=["anoddpm.steps=200", "size=64"]).settings
    {'anoddpm': {'steps': 200}, '': {'size': 64}}
    """

    methods: Sequence[str] = ()
    datasets: Sequence[str] = ("synthbrain",)
    profile: str | None = None
    protocol: Protocol = field(default_factory=Protocol)
    seeds: Annotated[Sequence[Seed], Meta(min_length=1)] = (0,)
    levels: Annotated[Sequence[Level], Meta(min_length=1)] | None = None
    limit: Count | None = None
    fraction: Annotated[Sequence[Fraction], Meta(min_length=1)] = (100.0,)
    contaminate: Annotated[Sequence[Contamination], Meta(min_length=1)] = (0.0,)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    baselines: bool = True
    suite: str | None = None
    registry: Sequence[Path] = ()
    data: Path | None = None
    device: str = "auto"
    dtype: DtypeName = "auto"
    compile: CompileMode = "auto"
    workers: Natural | None = None
    micro: Count | None = None
    checkpoint_interval: NonNegative = 20.0
    skip_recorded: bool = False
    out: Path = Path("results")
    store: Path | None = None
    log: Sequence[str] = ()
    tensorboard: Path | None = None
    executor: ExecutorName = field(default_factory=lambda: _default_executor())
    slots: Count | None = None
    timeout: Positive | None = None
    address: str | None = None
    slurm: Sequence[str] = ()
    detach: bool = False

    def __post_init__(self) -> None:
        try:
            convert_fields(self, option_name)
        except ValueError as error:
            raise OptionError(str(error)) from None

    @classmethod
    def from_options(cls, **options: Any) -> RunConfig:
        """A config from loosely typed options: texts with commas, None for what is left out.

        options: the fields, and in place of `protocol` its parts `threshold`, `level_rule`,
            `reducer`, `post` and `budget`, or its name or text
            (parse_protocol)
        Raises OptionError on a value, ProtocolError on a part of the protocol, and TypeError on an
        option that there is not.
        """
        options = {key: value for key, value in options.items() if value is not None}
        protocol = _protocol(options)
        names = {part.name for part in fields(cls)}
        if unknown := options.keys() - names:
            raise OptionError(
                f"unknown option {min(unknown)!r}; there are "
                f"{', '.join(sorted(names | PROTOCOL_OPTIONS.keys()))}"
            )
        for name, value in options.items():
            if isinstance(value, str) and not value.strip(" ,"):
                raise OptionError(f"{option_name(name)} is empty: give it a value, or leave it out")
        for name in ("methods", "datasets", "log"):
            if name in options:
                options[name] = tuple(parse_names(options[name]))
        for name, kind in (("registry", Path), ("slurm", str)):
            if name in options:
                value = options[name]
                several = (value,) if isinstance(value, (str, Path)) else value
                options[name] = tuple(map(kind, several))
        if isinstance(options.get("compile"), bool):
            options["compile"] = "on" if options["compile"] else "off"
        if "levels" in options:
            options["levels"] = tuple(parse_integers(options["levels"], "--levels", 1, 1000))
        for name in ("fraction", "contaminate"):
            if name in options:
                options[name] = tuple(parse_percents(options[name], option_name(name)))
        if "seeds" in options:
            options["seeds"] = tuple(parse_integers(options["seeds"], "--seeds"))
        if "settings" in options:
            options["settings"] = parse_settings(options["settings"])
        for name in ("data", "out", "store", "tensorboard"):
            if name in options:
                options[name] = Path(options[name])
        return cls(protocol=protocol, **options)

    @property
    def loggers(self) -> list[str]:
        """The trackers, NAME or NAME=FOLDER with an absolute folder.

        >>> RunConfig(log=("mlflow",), tensorboard=Path("/curves")).loggers
        ['mlflow', 'tensorboard=/curves']
        """
        texts = [*self.log, *([f"tensorboard={self.tensorboard}"] if self.tensorboard else [])]
        parts = [text.partition("=") for text in texts]
        return [
            f"{name}={Path(folder).absolute()}" if folder else name for name, _, folder in parts
        ]

    def resolve(self, registry: Registry, device: str) -> RunConfig:
        """The config with every method named, the profile chosen, and the data folder among the
        settings. device: what `auto` has become. Raises RegistryError on an unknown name."""
        methods = [*self.methods]
        if self.suite or not methods:
            methods += registry.suite(self.suite or "all")
        settings = {name: dict(values) for name, values in self.settings.items()}
        for name in self.datasets:
            if self.data is not None and "root" in registry.dataset(name).parameters():
                settings.setdefault(name, {})["root"] = str(self.data)
        return replace(
            self,
            methods=tuple(dict.fromkeys(methods)),
            settings=settings,
            profile=self.profile or default_profile(device),
        )


def option_name(field_name: str) -> str:
    """Return what the command line calls a field of RunConfig.

    >>> option_name("checkpoint_interval"), option_name("settings")
    ('--checkpoint-interval', '--set')
    """
    name = {"settings": "set", "datasets": "dataset"}.get(field_name, field_name)
    return f"--{name.replace('_', '-')}"


def _default_executor() -> Any:
    return os.environ.get("ADBENCH_EXECUTOR", "local")


def default_profile(device: str) -> str:
    """The profile of a run that names none: `paper` on a GPU, since the papers' sizes take one.

    >>> default_profile("cuda:1"), default_profile("cpu")
    ('paper', 'tiny')
    """
    return "paper" if device.startswith("cuda") else "tiny"


def parse_names(value: str | Sequence[str]) -> list[str]:
    """A sequence of names from itself, or from a text with commas.

    >>> parse_names("anoddpm, pddpm")
    ['anoddpm', 'pddpm']
    """
    texts = [value] if isinstance(value, str) else value
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def parse_integers(
    value: str | int | Sequence[int], option: str, low: int = 0, high: int = 2**31
) -> list[int]:
    """Integers from "1,2,5" or "50:500:50" (both ends included), or from integers; each once.

    option: what errors call it     low, high: the range of each number
    Raises OptionError on anything else.

    >>> parse_integers("1,50:150:50", "--levels")
    [1, 50, 100, 150]
    """
    result: list[int] = []
    texts = value.split(",") if isinstance(value, str) else [value]
    if not isinstance(value, (str, int)):
        texts = [str(part) for part in value]
    try:
        for part in filter(None, map(str, texts)):
            if ":" in part:
                first, last, step = (int(number) for number in part.split(":"))
                if first > last or step < 1:
                    raise OptionError(
                        f"{option} {part}: FIRST:LAST:STEP counts up, and nothing lies between. "
                        f"Did you mean {min(first, last)}:{max(first, last)}:{abs(step) or 1}?"
                    )
                if first < low or last > high:
                    raise OptionError(
                        f"{option} takes numbers in {low}..{high}, not {reprlib.repr(part)}"
                    )
                if (count := len(result) + (last - first) // step) >= MAX_NUMBERS:
                    raise OptionError(
                        f"{option} takes at most {MAX_NUMBERS} numbers; {part} makes {count + 1}"
                    )
                result += range(first, last + 1, step)
            else:
                result.append(int(part))
    except OptionError:
        raise
    except ValueError:
        raise OptionError(
            f"{option} takes numbers such as 1,2 or 50:500:50, not {reprlib.repr(value)}"
        ) from None
    if not result or min(result) < low or max(result) > high:
        raise OptionError(f"{option} takes numbers in {low}..{high}, not {reprlib.repr(value)}")
    return list(dict.fromkeys(result))


def parse_percents(value: str | float | Sequence[float], option: str) -> list[float]:
    """Percents from "0,1,5%", or from numbers; each once.

    option: what errors call it
    Raises OptionError on anything else.

    >>> parse_percents("0,1,5%", "--contaminate"), parse_percents(30, "--fraction")
    ([0.0, 1.0, 5.0], [30.0])
    """
    if isinstance(value, str | int | float):
        texts = str(value).split(",")
    else:
        texts = [str(part) for part in value]
    try:
        # + 0.0 makes 0 of -0
        numbers = [float(text.strip().removesuffix("%")) + 0.0 for text in texts if text.strip()]
    except ValueError:
        raise OptionError(
            f"{option} takes percents such as 10,30,100, not {reprlib.repr(value)}"
        ) from None
    return list(dict.fromkeys(numbers))


def parse_settings(value: Mapping[str, Any] | Sequence[str]) -> dict[str, dict[str, Any]]:
    """Constructor arguments by the name of a method or dataset, "" for the one that takes them.

    value: {"anoddpm": {"steps": 200}, "size": 64}, {"anoddpm.steps": 200}, or texts such as
        "anoddpm.steps=200" and "size=64", whose values are read as YAML
    Raises OptionError on a text that is not of this form, and on an argument with two values.

    >>> parse_settings({"anoddpm.steps": 200, "size": 64})
    {'anoddpm': {'steps': 200}, '': {'size': 64}}
    """
    result: dict[str, dict[str, Any]] = {}
    for target, argument in _assignments(value):
        if _nested_deeper(argument, MAX_NESTING):
            raise OptionError(f"--set {target}: lists are nested too deeply, or within themselves")
        name, _, key = target.rpartition(".")
        several = isinstance(argument, Mapping)
        arguments = result.setdefault(target if several else name, {})
        for inner_key, inner in argument.items() if several else [(key, argument)]:
            if inner_key in arguments and arguments[inner_key] != inner:
                first, second = reprlib.repr(arguments[inner_key]), reprlib.repr(inner)
                raise OptionError(f"--set {target} has two values, {first} and {second}: give one")
            arguments[inner_key] = inner
    return result


def _nested_deeper(value: Any, depth: int) -> bool:
    """Return whether lists and mappings lie in each other in more than `depth` levels."""
    if not isinstance(value, (Mapping, list, tuple)):
        return False
    parts = value.values() if isinstance(value, Mapping) else value
    return depth == 0 or any(_nested_deeper(part, depth - 1) for part in parts)


def _assignments(value: Mapping[str, Any] | Sequence[str]) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    import yaml

    from ..registry.yaml_lines import DuplicateKey, load_lined

    pairs: list[tuple[str, Any]] = []
    for text in [value] if isinstance(value, str) else value:
        target, equals, argument = text.partition("=")
        name, dot, key = target.rpartition(".")
        if not (equals and key and bool(name) == bool(dot)):
            raise OptionError(
                f"--set takes NAME.ARGUMENT=VALUE or ARGUMENT=VALUE, not {reprlib.repr(text)}"
            )
        if not argument.strip():
            raise OptionError(f"--set {text}: there is no value; write null for none")
        try:
            pairs.append((target, load_lined(argument)))
        except DuplicateKey as error:
            raise OptionError(f"--set {reprlib.repr(text)}: {error}") from None
        except (yaml.YAMLError, ValueError, RecursionError):  # such as a date that is none
            raise OptionError(f"--set {reprlib.repr(text)}: the value is not YAML") from None
    return pairs


def _protocol(options: dict[str, Any]) -> Protocol:
    """The protocol of options, which are taken out of them."""
    protocol = options.pop("protocol", Protocol())
    protocol = parse_protocol(protocol) if isinstance(protocol, str) else protocol
    parts = {
        PROTOCOL_OPTIONS[name]: options.pop(name) for name in PROTOCOL_OPTIONS.keys() & options
    }
    if isinstance(parts.get("post"), str):
        parts["post"] = tuple(step for step in parts["post"].split(",") if step)
    return replace(protocol, **parts) if parts else protocol
