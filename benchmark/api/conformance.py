"""Checking that methods keep the contract of the Method class, on a few synthetic samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..experiments.matrix import resolve_overrides
from ..experiments.run_config import RunConfig, parse_integers
from ..registry.registry import Registry

if TYPE_CHECKING:
    import pandas


def check_methods(
    methods: str | Sequence[str] = (),
    *,
    axes: str | Sequence[int] = (1, 2, 3),
    settings: Any = None,
    registry: Sequence[str | Path] = (),
    device: str = "cpu",
    dtype: str = "float32",
) -> pandas.DataFrame:
    """Whether methods keep the contract: one row per method, check and number of axes.

    Columns: method, check, axes, violation (how the method breaks the contract; empty if it does
    not), tolerance (how far results that should be equal may lie apart, relative to the largest
    value: 0 unless an operation has no deterministic algorithm on the device).

    methods: registry names; all if none is named        axes: numbers of spatial axes, of 1 to 3
    settings: constructor arguments, as for `run`        registry: further registry files
    device: where methods are fitted and predict         dtype: what their networks compute in

    >>> import adbench
    >>> frame = adbench.check_methods("healthy-mean", axes=[1])
    >>> set(frame["violation"]), len(frame) > 5
    ({''}, True)
    """
    import pandas

    config = RunConfig.from_options(
        methods=methods, settings=settings or {}, registry=tuple(registry), device=device,
        dtype=dtype,
    )  # fmt: skip
    return pandas.DataFrame(list(check_config(config, axes)))


def check_config(config: RunConfig, axes: str | Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the rows of `check_methods`, each as soon as its check is done.

    >>> from adbench.benchmark.api.conformance import check_config
    >>> from adbench.benchmark.experiments.run_config import RunConfig
    >>> row = next(check_config(RunConfig(methods=("healthy-mean",)), axes=[1]))
    >>> row["method"], row["axes"], row["violation"]
    ('healthy-mean', 1, '')
    """
    from ..executors.launch import device_context
    from ..plugins.conformance import check_method

    device = "cpu" if config.device == "auto" else config.device
    context = device_context(device, "float32" if config.dtype == "auto" else config.dtype)
    names = Registry.read(*config.registry)
    entries = [names.method(name) for name in config.methods or names.methods]
    arguments = resolve_overrides(config.settings, [entry.name for entry in entries], [], names)
    sizes = parse_integers(axes, "--axes", 1, 3)
    for entry in entries:
        for answer in check_method(entry, arguments[entry.name], sizes, context):
            yield {"method": entry.name, **vars(answer)}
