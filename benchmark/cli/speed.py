"""adbench speed: what looking and judging cost on this machine, and what feeds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..scheduling.exit_codes import FAILED
from .options import (
    Data,
    Files,
    Profile,
    Sets,
    Trace,
    console,
    errors,
    print_json,
    read_registry,
)

if TYPE_CHECKING:
    from ...engine.runtime.run import Run
    from ..experiments.matrix import Cell

RIVALS = ("loop", "separate", "fewer")

Against = Annotated[
    list[str] | None,
    typer.Option(help="loop (plain, batch 1), separate (levels), fewer (steps); again for more."),
]


def speed(
    methods: Annotated[
        str, typer.Option("--methods", "-m", help="Names, with commas. All if empty.")
    ] = "",
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="One name.")] = "phantom",
    data: Data = None,
    profile: Profile = None,
    registry: Files = None,
    set_: Sets = None,
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
    traceback: Trace = False,
) -> None:
    """Measure evaluations, FLOPs, time, share of this machine's peak and memory per image.

    Nothing is trained: speed does not depend on what a network has learnt.
    """
    with errors(traceback):
        rivals = _rivals(against or [])
        names = read_registry(registry)
        from dataclasses import replace

        from ..executors.launch import circumstances
        from ..experiments.matrix import Wish, cells, numbers, settings, usual_profile
        from ..scheduling.console import Watch
        from ..speed.report import terminal, write

        run = circumstances(device, dtype)
        run = replace(run, compile=compile_, batch=batch or run.batch)
        overrides = settings(set_ or [])
        if data is not None and "root" in names.dataset(dataset).parameters():
            overrides.setdefault(dataset, {})["root"] = str(data)
        chosen = [part.strip() for part in methods.split(",") if part.strip()]
        wish = Wish(
            methods=chosen or list(names.methods),
            datasets=[dataset],
            profile=profile or usual_profile(run.device),
            levels=tuple(numbers(levels, "--levels", 1, 1000)) if levels else None,
            overrides=overrides,
            baselines=False,
        )
        watch = Watch(console(err=True))
        facts, failed = list[dict[str, Any]](), 0
        if chosen or metrics is None:
            facts, failed = _measured(
                cells(wish, names), run, watch, images, rounds, rivals, loading, noise
            )
        if metrics is not None:
            facts.append(_judged(metrics, rounds, watch))
        paths = write(facts, out)
        if json is not None and str(json) != "-":
            from ..store.artifact_store import atomic_write

            atomic_write(json, _text(facts))
        if str(json) == "-":
            print_json(facts)
        else:
            terminal(facts, console())
            typer.echo(str(paths[-1]))
        if failed:
            raise typer.Exit(FAILED)


def _measured(
    planned: list[Cell],
    run: Run,
    watch: Any,
    images: int,
    rounds: int,
    rivals: list[str],
    loading: bool,
    noise: bool,
) -> tuple[list[dict[str, Any]], int]:
    """What could be measured, and how many methods failed."""
    from ..executors.launch import prepared, unfit
    from ..speed.data_loading import drawing, feeding
    from ..speed.inference import machine, measure

    data, facts, failed = prepared(planned[0], watch), [], 0
    watch.line("peak of matrix products and convolutions")
    where = machine(run)
    for cell in planned:
        name = cell.method.name
        if reason := unfit(cell, data):
            watch.line(f"{name}  skipped: {reason}")
            continue
        try:
            watch.line(f"{name}  looking")
            facts.append(
                measure(cell, data, run, images=images, rounds=rounds, against=rivals, where=where)
            )
            if loading:
                watch.line(f"{name}  loading")
                facts.append(feeding(cell, data, run, where=where))
        except Exception as error:  # the others are measured all the same
            failed += 1
            watch.failed(name, f"{type(error).__name__}: {error}".splitlines()[0])
    if noise:
        watch.line("simplex noise")
        facts.append(drawing(run, rounds=rounds, where=where))
    return facts, failed


def _judged(maps: int, rounds: int, watch: Any) -> dict[str, Any]:
    from ..executors.launch import circumstances
    from ..speed.inference import machine
    from ..speed.metrics import judging

    watch.line(f"pixel metrics of {maps} maps")
    return judging(maps, rounds=rounds, where=machine(circumstances("cpu", "float32")))


def _rivals(named: list[str]) -> list[str]:
    rivals = [part for text in named for part in text.split(",") if part]
    for rival in rivals:
        if rival not in RIVALS:
            raise ValueError(f"--against takes {', '.join(RIVALS)}, not {rival!r}")
    return list(dict.fromkeys(rivals))


def _text(facts: list[dict[str, Any]]) -> str:
    import json

    return json.dumps(facts, indent=1) + "\n"
