"""adbench speed: what looking and judging cost on this machine, and what feeds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..scheduling.exit_codes import FAILED
from .options import (
    DataFolder,
    Profile,
    RegistryFiles,
    Settings,
    Traceback,
    error_messages,
    print_json,
    read_registry,
    rich_console,
)

if TYPE_CHECKING:
    from ...engine.runtime.context import TrainingContext
    from ..experiments.matrix import Experiment

REFERENCES = ("loop", "separate", "fewer")

Against = Annotated[
    list[str] | None,
    typer.Option(help="loop (plain, batch 1), separate (levels), fewer (steps); again for more."),
]


def speed(
    methods: Annotated[
        str, typer.Option("--methods", "-m", help="Names, with commas. All if empty.")
    ] = "",
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="One name.")] = "phantom",
    data: DataFolder = None,
    profile: Profile = None,
    registry: RegistryFiles = None,
    set_: Settings = None,
    levels: Annotated[
        str | None, typer.Option(help="Swept in one pass, as 100,250 or 50:500:50.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Test samples that are looked at.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Of which medians are taken.")] = 5,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Rows per network call; 64 on a GPU, 32 on a CPU.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16")] = "auto",
    compile_: Annotated[bool, typer.Option("--compile", help="With torch.compile.")] = False,
    against: Against = None,
    loading: Annotated[bool, typer.Option("--loading", help="Does reading keep up?")] = False,
    noise: Annotated[bool, typer.Option("--noise", help="Simplex fields, too.")] = False,
    metrics: Annotated[
        int | None,
        typer.Option(min=2, help="Judge so many maps of 256 x 256; no method if none is named."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="All that was measured, - for the terminal.")
    ] = None,
    out: Annotated[Path, typer.Option(help="speed/*.json and speed.md go here.")] = Path("results"),
    traceback: Traceback = False,
) -> None:
    """Measure evaluations, FLOPs, time, share of this machine's peak and memory per image.

    Nothing is trained: speed does not depend on what a network has learnt.
    """
    with error_messages(traceback):
        rivals = _parse_references(against or [])
        names = read_registry(registry)
        from dataclasses import replace

        from ..executors.launch import circumstances
        from ..experiments.matrix import (
            RunConfig,
            default_profile,
            expand_matrix,
            parse_integers,
            parse_overrides,
        )
        from ..scheduling.console import Watch
        from ..speed.report import print_tables, write_report

        run = circumstances(device, dtype)
        run = replace(run, compile=compile_, batch=batch or run.batch)
        overrides = parse_overrides(set_ or [])
        if data is not None and "root" in names.dataset(dataset).parameters():
            overrides.setdefault(dataset, {})["root"] = str(data)
        chosen = [part.strip() for part in methods.split(",") if part.strip()]
        wish = RunConfig(
            methods=chosen or list(names.methods),
            datasets=[dataset],
            profile=profile or default_profile(run.device),
            levels=tuple(parse_integers(levels, "--levels", 1, 1000)) if levels else None,
            overrides=overrides,
            baselines=False,
        )
        watch = Watch(rich_console(err=True))
        facts, failed = list[dict[str, Any]](), 0
        if chosen or metrics is None:
            facts, failed = _measure_methods(
                expand_matrix(wish, names), run, watch, images, rounds, rivals, loading, noise
            )
        if metrics is not None:
            facts.append(_measure_metrics(metrics, rounds, watch))
        paths = write_report(facts, out)
        if json is not None and str(json) != "-":
            from ..store.artifact_store import atomic_write

            atomic_write(json, _to_json(facts))
        if str(json) == "-":
            print_json(facts)
        else:
            print_tables(facts, rich_console())
            typer.echo(str(paths[-1]))
        if failed:
            raise typer.Exit(FAILED)


def _measure_methods(
    experiments: list[Experiment],
    context: TrainingContext,
    reporter: Any,
    images: int,
    rounds: int,
    references: list[str],
    loading: bool,
    noise: bool,
) -> tuple[list[dict[str, Any]], int]:
    """What could be measured, and how many methods failed."""
    from ..executors.launch import prepared, unfit
    from ..speed.data_loading import measure_loading, measure_noise
    from ..speed.inference import describe_machine, measure_inference

    data, facts, failed = prepared(experiments[0], reporter), [], 0
    reporter.line("peak of matrix products and convolutions")
    where = describe_machine(context)
    for cell in experiments:
        name = cell.method.name
        if reason := unfit(cell, data):
            reporter.line(f"{name}  skipped: {reason}")
            continue
        try:
            reporter.line(f"{name}  looking")
            facts.append(
                measure_inference(
                    cell,
                    data,
                    context,
                    images=images,
                    rounds=rounds,
                    references=references,
                    machine=where,
                )
            )
            if loading:
                reporter.line(f"{name}  loading")
                facts.append(measure_loading(cell, data, context, machine=where))
        except Exception as error:  # the others are measured all the same
            failed += 1
            reporter.failed(name, f"{type(error).__name__}: {error}".splitlines()[0])
    if noise:
        reporter.line("simplex noise")
        facts.append(measure_noise(context, rounds=rounds, machine=where))
    return facts, failed


def _measure_metrics(maps: int, rounds: int, reporter: Any) -> dict[str, Any]:
    from ..executors.launch import circumstances
    from ..speed.inference import describe_machine
    from ..speed.metrics import measure_metrics

    reporter.line(f"pixel metrics of {maps} maps")
    return measure_metrics(
        maps, rounds=rounds, machine=describe_machine(circumstances("cpu", "float32"))
    )


def _parse_references(named: list[str]) -> list[str]:
    rivals = [part for text in named for part in text.split(",") if part]
    for rival in rivals:
        if rival not in REFERENCES:
            raise ValueError(f"--against takes {', '.join(REFERENCES)}, not {rival!r}")
    return list(dict.fromkeys(rivals))


def _to_json(facts: list[dict[str, Any]]) -> str:
    import json

    return json.dumps(facts, indent=1) + "\n"
