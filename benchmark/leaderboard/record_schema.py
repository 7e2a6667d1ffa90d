"""The types of an experiment's record (schema 2)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from .evaluation_schema import (
    Amount,
    CalibrationRecord,
    Count,
    CountRecord,
    FieldRecord,
    LesionRecord,
    LevelRecord,
    MetricRecord,
    ReferenceRecord,
    SampleRecord,
    Share,
    StratumRecord,
    SweepRecord,
    ThresholdRecord,
)


class MethodRecord(Struct):
    """The method, and how it was configured.

    >>> from adbench.benchmark.leaderboard.record_schema import MethodRecord
    >>> method = MethodRecord("ddad", "DDAD", baseline=False, args={"width": 32})
    >>> method.args["width"], method.supervision
    (32, None)
    """

    name: str  # in the registry
    label: str  # in tables
    baseline: bool  # whether it is a simple baseline
    args: dict[str, Any]  # constructor arguments, profile and overrides applied
    supervision: str | None = None  # "normal" or "image-labels"; None where it could not be loaded
    paper: str | None = None  # where it was published, a URL


class DatasetRecord(Struct):
    """The dataset, and which data it held.

    >>> import msgspec
    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.record_schema import DatasetRecord
    >>> dataset = msgspec.convert(example_record(dataset="brats")["dataset"], DatasetRecord)
    >>> dataset.name, dataset.synthetic
    ('brats', False)
    """

    name: str  # in the registry
    args: dict[str, Any]  # constructor arguments that change the samples
    fingerprint: str  # digest of the predicted samples; empty where they were never read
    synthetic: bool  # whether the samples are generated


class TrainingRecord(Struct):
    """The share of a dataset's training samples that a method was trained on.

    >>> from adbench.benchmark.leaderboard.record_schema import TrainingRecord
    >>> TrainingRecord(fraction=30.0).contamination
    0.0
    """

    fraction: Annotated[float, Meta(gt=0, le=100)] = 100.0  # percent of the normal groups
    contamination: Annotated[float, Meta(ge=0, lt=100)] = 0.0  # percent of abnormal samples


class ProtocolRecord(Struct):
    """The evaluation protocol; its other fields are those of `Protocol`.

    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> from adbench.benchmark.leaderboard.record_schema import ProtocolRecord
    >>> protocol = Protocol(level="published", reducer="max")
    >>> ProtocolRecord(protocol.id, protocol.describe()).text[:18]
    "The paper's level;"
    """

    id: str  # digest of the fields; results are compared under one protocol only
    text: str  # in one sentence
    name: str | None = None  # of the paper that evaluates so; None for no paper


class CostRecord(Struct):
    """What training and prediction took. An image is a sample, at one noise level.

    >>> import msgspec
    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.record_schema import CostRecord
    >>> cost = msgspec.convert(example_record(evaluations=4.0)["cost"], CostRecord)
    >>> cost.train_steps, cost.evaluations_per_image
    (700, 4.0)
    """

    train_steps: Count | None = None  # optimizer steps
    train_samples: Count | None = None  # samples shown in training, repeats counted
    train_gflops: Amount | None = None  # 10^9 floating-point operations
    parameters: Count | None = None  # of all networks
    evaluations_per_image: Amount | None = None  # network evaluations
    gflops_per_image: Amount | None = None  # 10^9 floating-point operations
    train_seconds: Amount | None = None  # seconds, wall time
    seconds_per_image: Amount | None = None  # seconds, wall time
    peak_memory_mb: Amount | None = None  # MB, the larger of training and prediction


class NondeterminismRecord(Struct):
    """Operations that had no deterministic algorithm on the device, and what follows.

    >>> from adbench.benchmark.leaderboard.record_schema import NondeterminismRecord
    >>> NondeterminismRecord(["index_add_cuda_"], 0.001).tolerance
    0.001
    """

    operations: list[str]  # by torch's names
    tolerance: Amount  # of the same few steps repeated, relative to the largest value of a tensor


class ExternalRecord(Struct):
    """Results that another program computed, evaluated by the protocol.

    >>> from adbench.benchmark.leaderboard.record_schema import ExternalRecord
    >>> external = ExternalRecord("my-maps", "0123abcd", maps=True, scores=False, splits=["test"])
    >>> msgspec.to_builtins(external)["splits"]  # without validation samples there is no threshold
    ['test']
    """

    source: str  # name of the folder or file
    digest: str  # of the content of its files
    maps: bool  # whether there are anomaly maps
    scores: bool  # whether there are scores of samples
    splits: list[str]  # with results: test, and perhaps val and calibration


class TuningRecord(Struct):
    """How arguments of the method were chosen, on validation or synthetic anomalies alone.

    >>> from adbench.benchmark.leaderboard.record_schema import TuningRecord
    >>> tuning = TuningRecord(20, "val", "pixel_ap", seed=0, space={"components": "4 to 128 (log)"},
    ...                       chosen={}, value=0.5, default=0.5)
    >>> tuning.value == tuning.default, tuning.chosen  # nothing beat the method as it is
    (True, {})
    """

    trials: Count  # trainings that were tried, the method as it is among them; 0 if not tuned
    objective: Literal["val", "pseudo"]  # the split that trials were evaluated on
    metric: str  # what was to be high: pixel_ap or image_auroc; empty without trials
    seed: int  # of the trials' trainings
    space: dict[str, str]  # what was searched, in words, by argument
    chosen: dict[str, Any]  # the values of the best trial; empty where the defaults were best
    value: float | None  # of the metric at the best trial
    default: float | None  # of the metric with the arguments as they were
    failed: Count = 0  # trials that gave no value
    train_steps: Count = 0  # optimizer steps of all trials
    train_seconds: Amount = 0.0  # seconds of all trials' trainings


class FailedRecord(Struct, tag_field="status", tag="failed"):
    """An experiment that failed.

    >>> from adbench.benchmark.leaderboard.record_schema import FailedRecord
    >>> method = MethodRecord("ddad", "DDAD", baseline=False, args={})
    >>> dataset = DatasetRecord("brats", {}, fingerprint="", synthetic=False)
    >>> record = FailedRecord(2, "CUDA out of memory", method, dataset,
    ...                       ProtocolRecord("abcd1234", ""), "tiny", seed=0, partial=None)
    >>> msgspec.to_builtins(record)["status"], record.reason
    ('failed', 'CUDA out of memory')
    """

    schema: int  # of the record: 2
    reason: str | None  # why there is no result, one line; None where there is one
    method: MethodRecord  # what was trained
    dataset: DatasetRecord  # on what
    protocol: ProtocolRecord  # how it was evaluated
    profile: str  # of the registry: tiny, paper and so on
    seed: int  # of training and prediction
    partial: (
        Annotated[int, Meta(ge=1, le=2**53)] | None
    )  # samples of each split at most; None for a whole run
    tuning: TuningRecord | None = None  # how its arguments were chosen; None if they are as set
    failure: dict[str, Any] | None = None  # phase, exception, attempts and the end of the log
    training: TrainingRecord | None = None  # which samples; None for all, in older records
    attempts: list[dict[str, Any]] = []  # earlier attempts that ended otherwise
    seal: str | None = None  # `record_seal` of the other fields; None in older records


class SkippedRecord(FailedRecord, tag_field="status", tag="skipped"):
    """An experiment that cannot be run, such as a method on data that it does not take.

    >>> import msgspec
    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.record_schema import SkippedRecord
    >>> record = example_record() | {"status": "skipped", "reason": "it takes images, not volumes"}
    >>> msgspec.convert(record, ResultRecord | FailedRecord | SkippedRecord).reason
    'it takes images, not volumes'
    """


class ResultRecord(FailedRecord, tag_field="status", tag="ok", kw_only=True):
    """An experiment with a result.

    >>> import msgspec
    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.record_schema import ResultRecord
    >>> record = msgspec.convert(example_record("AnoDDPM", detected=18), ResultRecord)
    >>> record.method.label, record.metrics["image_auroc"].value, record.counts.test
    ('AnoDDPM', 0.9, 40)
    """

    level: LevelRecord  # noise level
    threshold: ThresholdRecord  # on anomaly maps
    metrics: dict[str, MetricRecord]  # by name, at the chosen level
    reference: ReferenceRecord  # what metrics are compared with
    counts: CountRecord  # of samples
    cost: CostRecord  # of training and prediction
    at_published: dict[str, float | None] | None = None  # metrics at the published level
    at_oracle: dict[str, float | None] | None = None  # metrics at the level that is best on test
    sweep: dict[str, SweepRecord] | None = None  # by level
    strata: dict[str, StratumRecord] | None = None  # by "tag=value"
    metadata: dict[str, FieldRecord] | None = None  # by field; None in older records
    lesions: LesionRecord | None = None  # None without masks
    pixel_error: Share | None = None  # how far pixel metrics may be off for binning, 0 if exact
    samples: SampleRecord | None = None  # single test samples
    calibration: CalibrationRecord | None = None  # for p-values; None in older records
    keys: dict[str, str] = {}  # of the artifacts in the store, by kind and split
    files: dict[str, str] = {}  # SHA-256 of the files beside the record, by path in the results
    versions: dict[str, Any] = {}  # of the libraries that trained it
    device: str | None = None  # that trained it
    threads: Count | None = None  # of the CPU, in training
    nondeterminism: NondeterminismRecord | None = None  # None where a repetition gives the same
    external: ExternalRecord | None = None  # None where adbench computed the results

    def __post_init__(self) -> None:
        if not self.dataset.fingerprint:
            raise ValueError("a result has a fingerprint of its data")


def json_schema() -> dict[str, Any]:
    """The JSON schema of a record of schema 2, as record.schema.json holds it.

    >>> from adbench.benchmark.leaderboard.record_schema import json_schema
    >>> sorted(json_schema()["discriminator"]["mapping"])
    ['failed', 'ok', 'skipped']
    """
    schema = msgspec.json.schema(ResultRecord | FailedRecord | SkippedRecord)
    for definition in schema["$defs"].values():  # without the examples of the docstrings
        definition["description"] = definition["description"].partition("\n\n")[0]
    return schema
