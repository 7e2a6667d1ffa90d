"""adbench: train, sweep and compare diffusion models that detect anomalies.

>>> import adbench
>>> adbench.list_methods().loc["pddpm", "label"]
'pDDPM'
>>> adbench.evaluate(scores=[0.1, 0.4, 0.35, 0.8], labels=[0, 0, 1, 1])["image_auroc"]
0.75

Everything is loaded when it is first used, so that importing adbench loads neither torch nor
pandas. The command line is `adbench`, or `python -m adbench`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .benchmark.api.catalogue import (
        describe,
        list_datasets,
        list_methods,
        load_dataset,
        register,
    )
    from .benchmark.api.conformance import check_methods
    from .benchmark.api.detector import Detector, Prediction, load
    from .benchmark.api.evaluation import Evaluation, evaluate
    from .benchmark.api.external import evaluate_maps, export_maps
    from .benchmark.api.prediction import predict
    from .benchmark.api.results import Results, load_results, run_status
    from .benchmark.api.run import plan, run
    from .benchmark.api.schemas import json_schema
    from .benchmark.api.sharing import Publication, merge, publish
    from .benchmark.api.speed import measure_speed
    from .benchmark.api.storage import describe_machine, open_store
    from .benchmark.api.tuning import tune
    from .benchmark.api.weights import export_network, import_weights
    from .benchmark.audit.audit import audit
    from .benchmark.evaluation.protocol import Protocol
    from .benchmark.plugins.scaffold import create_plugin
    from .benchmark.prediction.predict import FilePredictions
    from .benchmark.sharing.study_file import read_study
    from .datasets.base import DataError, Dataset, Sample, Spec
    from .methods.base import Detection, Method

    __version__: str

_MODULES = {
    "benchmark.api.catalogue": (
        "describe",
        "list_datasets",
        "list_methods",
        "load_dataset",
        "register",
    ),
    "benchmark.api.conformance": ("check_methods",),
    "benchmark.api.detector": ("Detector", "Prediction", "load"),
    "benchmark.api.evaluation": ("Evaluation", "evaluate"),
    "benchmark.api.prediction": ("predict",),
    "benchmark.prediction.predict": ("FilePredictions",),
    "benchmark.api.external": ("evaluate_maps", "export_maps"),
    "benchmark.api.results": ("Results", "load_results", "run_status"),
    "benchmark.api.run": ("plan", "run"),
    "benchmark.api.schemas": ("json_schema",),
    "benchmark.api.sharing": ("Publication", "merge", "publish"),
    "benchmark.api.speed": ("measure_speed",),
    "benchmark.api.storage": ("describe_machine", "open_store"),
    "benchmark.api.tuning": ("tune",),
    "benchmark.api.weights": ("export_network", "import_weights"),
    "benchmark.audit.audit": ("audit",),
    "benchmark.evaluation.protocol": ("Protocol",),
    "datasets.base": ("DataError", "Dataset", "Sample", "Spec"),
    "benchmark.plugins.scaffold": ("create_plugin",),
    "benchmark.sharing.study_file": ("read_study",),
    "methods.base": ("Detection", "Method"),
}
"""Where each public name is defined."""

_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "DataError",
    "Dataset",
    "Detection",
    "Detector",
    "Evaluation",
    "FilePredictions",
    "Method",
    "Prediction",
    "Protocol",
    "Publication",
    "Results",
    "Sample",
    "Spec",
    "__version__",
    "audit",
    "check_methods",
    "create_plugin",
    "describe",
    "describe_machine",
    "evaluate",
    "evaluate_maps",
    "export_maps",
    "export_network",
    "import_weights",
    "json_schema",
    "list_datasets",
    "list_methods",
    "load",
    "load_dataset",
    "load_results",
    "measure_speed",
    "merge",
    "open_store",
    "plan",
    "predict",
    "publish",
    "read_study",
    "register",
    "run",
    "run_status",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("diffusion-adbench")
    elif name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
