"""adbench run and plan: the options that say what to run, and how."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..executors.fork_server import early
from .options import (
    DataFolder,
    Json,
    Profile,
    RegistryFiles,
    ResultsFolder,
    Settings,
    StoreFolder,
    Traceback,
    error_messages,
    open_store,
    print_json,
    read_registry,
    rich_console,
)

if TYPE_CHECKING:
    from ..experiments.matrix import RunConfig
    from ..registry.registry import Registry

Methods = Annotated[str, typer.Option("--methods", "-m", help="Names, with commas. All if empty.")]
Suite = Annotated[
    str | None, typer.Option(help="Methods that go together: all, brains, … (adbench list suites)")
]
Datasets = Annotated[str, typer.Option("--dataset", "-d", help="Names, with commas.")]
Levels = Annotated[
    str | None, typer.Option(help="Noise levels to sweep, as 100,250 or 50:500:50 (both ends in).")
]
Seeds = Annotated[str, typer.Option(help="Training seeds, with commas.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16")]
Limit = Annotated[int | None, typer.Option(min=1, help="Samples per split; stamped as partial.")]
Threshold = Annotated[
    str, typer.Option(help="healthy@5%, val-dice, val-bisect10, fixed:0.1, oracle")
]
LevelRule = Annotated[
    str, typer.Option(help="How the level is chosen: auto, val, published, pseudo")
]
Reducer = Annotated[str, typer.Option(help="Map to image score: top2%, mean, max, method")]
Post = Annotated[str, typer.Option(help="Map post-processing: median5,erode3,components>=8")]
Budget = Annotated[
    int | None,
    typer.Option(min=1, help="Places that are sorted; of more, pixel metrics come from bins."),
]
KeepEvery = Annotated[float, typer.Option(help="Seconds between two keeps of a training.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes that read training samples ahead.")
]
MicroBatch = Annotated[
    int | None, typer.Option(min=1, help="Rows per forward and backward in training; all if empty.")
]
Compile = Annotated[bool, typer.Option("--compile", help="torch.compile the networks.")]
TensorBoardFolder = Annotated[
    Path | None, typer.Option("--tensorboard", help="Write training curves to this folder.")
]
Executor = Annotated[
    str,
    typer.Option(
        envvar="ADBENCH_EXECUTOR",
        help="local: a supervised process per cell; inline: none; ray, slurm: on a cluster.",
    ),
]
Address = Annotated[
    str | None, typer.Option(help="Ray's: auto or host:port; this machine alone if empty.")
]
Slurm = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm",
        help="For sbatch: partition=gpu,gpus=1,ldm.mem=64G (METHOD. for its cells alone).",
    ),
]
Detach = Annotated[bool, typer.Option("--detach", help="Hand all cells to Slurm and leave.")]
Slots = Annotated[
    int | None,
    typer.Option(min=1, help="Cells at a time: one per GPU, or one on the CPU, if empty."),
]
Timeout = Annotated[
    float | None, typer.Option(min=0, help="Seconds a cell may take; then it is ended and failed.")
]
Baselines = Annotated[bool, typer.Option(help="Run the cheap baselines too.")]
Measure = Annotated[
    bool, typer.Option("--measure", help="Try for a moment what nothing is known of.")
]


def run(
    methods: Methods = "",
    suite: Suite = None,
    dataset: Datasets = "synthbrain",
    data: DataFolder = None,
    profile: Profile = None,
    levels: Levels = None,
    seeds: Seeds = "0",
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: ResultsFolder = Path("results"),
    store: StoreFolder = None,
    registry: RegistryFiles = None,
    set_: Settings = None,
    limit: Limit = None,
    threshold: Threshold = "healthy@5%",
    level_rule: LevelRule = "auto",
    reducer: Reducer = "top2%",
    post: Post = "",
    budget: Budget = None,
    baselines: Baselines = True,
    keep_every: KeepEvery = 20.0,
    workers: Workers = None,
    micro: MicroBatch = None,
    compile_: Compile = False,
    tensorboard: TensorBoardFolder = None,
    executor: Executor = "local",
    slots: Slots = None,
    timeout: Timeout = None,
    address: Address = None,
    slurm: Slurm = None,
    detach: Detach = False,
    traceback: Traceback = False,
) -> None:
    """Train, sweep and judge every method on every dataset; what is there already is not redone."""
    with error_messages(traceback), early(executor) as nursery:
        names = read_registry(registry)
        from ..executors.launch import execute
        from ..executors.selection import Where
        from ..experiments.matrix import expand_matrix
        from ..scheduling.console import Watch

        place = Where(executor, address, slurm or (), detach)
        where = place.circumstances(device, dtype)
        wish = _run_config(
            names,
            _select_methods(names, methods, suite),
            dataset,
            data,
            profile,
            levels,
            seeds,
            limit,
            set_,
            baselines,
            _protocol(threshold, level_rule, reducer, post, budget),
            where.device,
        )
        watch = Watch(rich_console(err=True))
        if where.team.rank == 0:
            watch.line(f"profile {wish.profile} on {where.device}")
        where = replace(
            where, checkpoint_interval=keep_every, workers=workers, micro=micro, compile=compile_
        )
        planned = expand_matrix(wish, names)
        if detach:
            more = {"curves": tensorboard, "timeout": timeout}
            watch.line(place.hand_in(planned, where, open_store(store), out, **more))
            return
        code = execute(
            planned,
            where,
            open_store(store),
            out,
            watch,
            tensorboard,
            place.workplace(where, planned, slots, out, nursery),
            timeout=timeout,
        )
        if code == 0 and where.team.rank == 0:
            watch.line(f"done: adbench report --out {out}")
        raise typer.Exit(code)


def plan(
    methods: Methods = "",
    suite: Suite = None,
    dataset: Datasets = "synthbrain",
    data: DataFolder = None,
    profile: Profile = None,
    levels: Levels = None,
    seeds: Seeds = "0",
    device: Device = "auto",
    dtype: Dtype = "auto",
    store: StoreFolder = None,
    registry: RegistryFiles = None,
    set_: Settings = None,
    limit: Limit = None,
    threshold: Threshold = "healthy@5%",
    level_rule: LevelRule = "auto",
    reducer: Reducer = "top2%",
    post: Post = "",
    budget: Budget = None,
    baselines: Baselines = True,
    measure: Measure = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Say what run would do: what is cached, what is not and why; time, disk, memory. Prepares
    data, trains nothing."""
    with error_messages(traceback):
        names = read_registry(registry)
        from ..executors.launch import circumstances
        from ..experiments.matrix import expand_matrix
        from ..planning.preview import preview_run
        from ..planning.text import format_preview
        from ..scheduling.console import Watch

        where = circumstances(device, dtype)
        wish = _run_config(
            names,
            _select_methods(names, methods, suite),
            dataset,
            data,
            profile,
            levels,
            seeds,
            limit,
            set_,
            baselines,
            _protocol(threshold, level_rule, reducer, post, budget),
            where.device,
        )
        kept, watch = open_store(store), Watch(rich_console(err=True))
        rows = preview_run(expand_matrix(wish, names), where, kept, watch, measure=measure)
        if json:
            print_json(rows)
            return
        for line in format_preview(rows, kept.root, where.device):
            typer.echo(line)


def _protocol(threshold: str, level: str, reducer: str, post: str, budget: int | None) -> Any:
    from ..evaluation.protocol import DEFAULT_BUDGET, Protocol

    steps = tuple(step for step in post.split(",") if step)
    return Protocol(threshold, level, reducer=reducer, post=steps, budget=budget or DEFAULT_BUDGET)


def _run_config(
    registry: Registry,
    methods: list[str],
    datasets: str,
    data: Path | None,
    profile: str | None,
    levels: str | None,
    seeds: str,
    limit: int | None,
    sets: list[str] | None,
    baselines: bool,
    protocol: Any,
    device: str,
) -> RunConfig:
    from ..experiments.matrix import RunConfig, default_profile, parse_integers, parse_overrides

    overrides = parse_overrides(sets or [])
    for name in _split_names(datasets):
        entry = registry.dataset(name)
        if data is not None and "root" in entry.parameters():
            overrides.setdefault(name, {})["root"] = str(data)
    return RunConfig(
        methods=methods,
        datasets=_split_names(datasets),
        profile=profile or default_profile(device),
        protocol=protocol,
        seeds=parse_integers(seeds, "--seeds"),
        levels=tuple(parse_integers(levels, "--levels", 1, 1000)) if levels else None,
        limit=limit,
        overrides=overrides,
        baselines=baselines,
    )


def _select_methods(registry: Registry, methods: str, suite: str | None) -> list[str]:
    """The methods asked for by name and those of a suite; all if neither is said."""
    named = _split_names(methods)
    if suite or not named:
        named += registry.suite(suite or "all")
    return list(dict.fromkeys(named))


def _split_names(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
