"""The types of an experiment's record (schema 2), and the ranges of its metrics."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

METRICS = (
    *("image_auroc", "image_ap", "image_f1max", "image_fpr95", "group_auroc"),
    *("pixel_auroc", "pixel_ap", "pixel_aupro30", "pixel_aupro05", "pixel_dice"),
    *("pixel_dice_oracle", "pixel_iou", "healthy_fp", "lesion_sensitivity", "lesion_contrast"),
    *("sample_pixel_auroc", "sample_pixel_ap", "sample_pixel_dice_otsu"),
    *("volume_ap", "volume_dice", "volume_dice_oracle", "volume_sensitivity", "volume_precision"),
    *("healthy_volume_fp", "pixel_aupimo", "pixel_iou_oracle", "image_ppv95"),
    *("range_auc_roc", "range_auc_pr", "vus_roc", "vus_pr", "pa_f1_oracle", "pa_f1_random"),
    *("pointing_game", "box_recall_025", "box_recall_1"),
    *("healthy_psnr", "healthy_ssim"),
)
BUDGET = ("train_steps", "train_samples", "parameters", "evaluations_per_image", "gflops_per_image")
"""What a method spends, the same on any machine."""

COST = ("train_seconds", "seconds_per_image", "peak_memory_mb")
"""What it takes on the machine that it ran on, different from run to run."""

FALSE_POSITIVE_RATES = ("image_fpr", "pixel_fpr")
"""How often normal test data have a p-value of at most the nominal rate, in `calibration`."""

METRIC_RANGES = dict.fromkeys(METRICS, (0.0, 1.0)) | {
    "lesion_contrast": (-1.0, 1.0),
    "healthy_ssim": (-1.0, 1.0),
    "healthy_psnr": (-1000.0, 1000.0),
}
"""Lowest and highest value of each metric; PSNR in dB. Of another metric any number is taken."""

ROUNDING = 1e-6
"""How far a metric may be outside its range: sums of floating-point numbers are not exact."""

Count = Annotated[int, Meta(ge=0, le=2**53)]
Level = Annotated[int, Meta(ge=0, le=1000)]
Amount = Annotated[float, Meta(ge=0, le=1e18)]
Share = Annotated[float, Meta(ge=0, le=1)]


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


class LevelRecord(Struct):
    """Noise levels, on the scale 1..1000; 0 for a method without.

    >>> import msgspec
    >>> from adbench.benchmark.leaderboard.record_schema import LevelRecord
    >>> levels = {"chosen": 2000, "rule": "val", "published": 250, "oracle": 100}
    >>> msgspec.convert(levels, LevelRecord)
    Traceback (most recent call last):
    msgspec.ValidationError: Expected `int` <= 1000 - at `$.chosen`
    """

    chosen: Level  # at which the metrics are
    rule: str  # how it was chosen: val, pseudo, published, oracle; or "all levels" of a scorer
    published: Level  # the paper's own
    oracle: Level  # best on test: a bound, no result


class ThresholdRecord(Struct):
    """The threshold on anomaly maps, above which a pixel is positive.

    >>> import msgspec
    >>> from adbench.benchmark.leaderboard.record_schema import ThresholdRecord
    >>> msgspec.to_builtins(ThresholdRecord("healthy@5%", 0.25))
    {'rule': 'healthy@5%', 'value': 0.25}
    """

    rule: str  # of the protocol
    value: float | None  # in the unit of the maps; None without maps


class MetricRecord(Struct):
    """A metric; its direction and range are those of its name.

    >>> from adbench.benchmark.leaderboard.record_schema import MetricRecord
    >>> MetricRecord(0.5, low=0.6, high=0.4)
    Traceback (most recent call last):
    ValueError: the interval [0.6, 0.4] is upside down
    """

    value: float | None  # None where it is undefined
    low: float | None = None  # lower end of the 95 % interval; None with too few groups
    high: float | None = None  # upper end

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has two ends")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"the interval [{self.low:g}, {self.high:g}] is upside down")


class ReferenceRecord(Struct):
    """The results of a method that knows nothing about a sample.

    >>> from adbench.benchmark.leaderboard.record_schema import ReferenceRecord
    >>> prevalence = 0.05  # of calling every pixel abnormal the recall is 1, the precision this
    >>> round(ReferenceRecord(prevalence, 2 * prevalence / (1 + prevalence)).dice_floor, 3)
    0.095
    """

    prevalence: Share | None  # of abnormal pixels: pixel AP by chance; None without masks
    dice_floor: Share | None  # Dice of calling every pixel abnormal
    image_prevalence: Share | None = None  # of abnormal samples: image AP by chance


class CountRecord(Struct):
    """Numbers of samples.

    >>> from adbench.benchmark.leaderboard.record_schema import CountRecord
    >>> CountRecord(test=10, test_abnormal=12, test_groups=10, val=4, calibration=4)
    Traceback (most recent call last):
    ValueError: a part of the test samples is more than all
    """

    test: Count  # test samples
    test_abnormal: Count  # the abnormal among them
    test_groups: Count  # groups (patients) of the test samples
    val: Count  # validation samples
    calibration: Count  # normal samples for thresholds

    def __post_init__(self) -> None:
        if max(self.test_abnormal, self.test_groups) > self.test:
            raise ValueError("a part of the test samples is more than all")


class SweepRecord(Struct):
    """Metrics at one noise level, by name.

    >>> import msgspec
    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.record_schema import SweepRecord
    >>> sweep = msgspec.convert(example_record()["sweep"], dict[str, SweepRecord])
    >>> {level: round(metrics.test["image_auroc"], 2) for level, metrics in sweep.items()}
    {'100': 0.72, '250': 0.9, '500': 0.81}
    """

    test: dict[str, float | None]  # on test
    val: dict[str, float | None] = {}  # on validation
    pseudo: dict[str, float | None] = {}  # on synthetic anomalies


class StratumRecord(Struct):
    """Metrics of the abnormal samples that share a tag, against all normal ones.

    >>> import msgspec
    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.record_schema import StratumRecord
    >>> strata = msgspec.convert(example_record(detected=10)["strata"], dict[str, StratumRecord])
    >>> {name: (stratum.n, stratum.image_auroc) for name, stratum in strata.items()}
    {'size=large': (10, 1.0), 'size=small': (10, 0.0)}
    """

    n: Count  # abnormal samples
    image_auroc: float | None = None
    pixel_ap: float | None = None


class SubgroupRecord(Struct):
    """Metrics of the test samples that share a value of metadata, normal and abnormal ones.

    >>> from adbench.benchmark.leaderboard.record_schema import SubgroupRecord
    >>> SubgroupRecord(n=4, n_abnormal=5, n_groups=4, metrics={})
    Traceback (most recent call last):
    ValueError: a part of a subgroup's samples is more than all
    """

    n: Count  # samples
    n_abnormal: Count  # the abnormal among them
    n_groups: Count  # groups (patients)
    metrics: dict[str, MetricRecord]  # by name, at the threshold that all subgroups share

    def __post_init__(self) -> None:
        if max(self.n_abnormal, self.n_groups) > self.n:
            raise ValueError("a part of a subgroup's samples is more than all")


class GapRecord(Struct):
    """The two subgroups that differ most in a metric.

    >>> from adbench.benchmark.leaderboard.record_schema import GapRecord
    >>> GapRecord("F", "M", 0.07, pairs=1, low=0.01, high=0.12).value
    0.07
    """

    higher: str  # the subgroup with the higher value
    lower: str  # the subgroup with the lower value
    value: Share  # their difference
    pairs: Count  # pairs of subgroups, of which it is the largest difference
    low: float | None = None  # lower end of the 95 % interval of one of so many pairs
    high: float | None = None  # upper end


class FieldRecord(Struct):
    """Metrics by one field of metadata, such as age, sex, scanner or site.

    >>> from adbench.benchmark.leaderboard.record_schema import FieldRecord, SubgroupRecord
    >>> subgroup = SubgroupRecord(n=20, n_abnormal=10, n_groups=20, metrics={})
    >>> FieldRecord({"F": subgroup, "M": subgroup}).gaps
    {}
    """

    subgroups: dict[str, SubgroupRecord]  # by value, or by range of a number
    gaps: dict[str, GapRecord] = {}  # by metric


class LesionBin(Struct):
    """Lesions of one range of sizes.

    >>> from adbench.benchmark.leaderboard.record_schema import LesionBin
    >>> LesionBin(low=0, high=10, n=4, found=5, sensitivity=1.0)
    Traceback (most recent call last):
    ValueError: 5 of 4 lesions are detected
    """

    low: Amount  # smallest size
    high: Amount | None  # size that is too large; None without end
    n: Count  # lesions
    found: Count  # of them detected
    sensitivity: Share | None  # the share detected; None without lesions

    def __post_init__(self) -> None:
        if self.found > self.n:
            raise ValueError(f"{self.found} of {self.n} lesions are detected")


class FrocPoint(Struct):
    """A point of the FROC curve.

    >>> import msgspec
    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.record_schema import FrocPoint
    >>> points = msgspec.convert(example_record()["lesions"]["froc"], list[FrocPoint])
    >>> [(point.false_per_sample, point.sensitivity) for point in points]
    [(0.1, 0.45), (1.0, 0.9)]
    """

    threshold: float  # on anomaly maps
    false_per_sample: Amount  # false detections in each normal sample
    sensitivity: Share  # share of lesions detected


class LesionRecord(Struct):
    """Lesion-wise results.

    >>> import msgspec
    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.record_schema import LesionRecord
    >>> lesions = msgspec.convert(example_record(detected=18)["lesions"], LesionRecord)
    >>> lesions.n, lesions.unit, [bin.sensitivity for bin in lesions.bins]
    (20, 'mm²', [0.8, 1.0])
    """

    n: Count  # lesions
    unit: str  # of sizes: steps, pixels, voxels, mm, mm² or mm³
    bins: list[LesionBin]  # by size
    froc: list[FrocPoint]  # the strictest threshold first
    false_size: Amount | None = None  # mean size of what is positive in a normal sample


class SampleRecord(Struct):
    """Results of the test samples at the chosen level, in their order: lists of one length.

    >>> from adbench.benchmark.leaderboard.record_schema import SampleRecord
    >>> SampleRecord(key=["a", "b"], group=["a", "b"], label=[0, 1], score=[0.5])
    Traceback (most recent call last):
    ValueError: the lists of samples are not of one length
    """

    key: list[str]  # names of the samples
    group: list[str]  # the patients they are of
    label: list[Literal[0, 1]]  # 1 where abnormal
    score: list[float]  # higher is more anomalous
    pixels: list[Count] | None = None  # pixels in the region of interest; None without maps
    abnormal_pixels: list[Count] | None = None  # those in the mask
    positive_pixels: list[Count] | None = None  # those above the threshold
    true_positive_pixels: list[Count] | None = None  # those in both

    def __post_init__(self) -> None:
        counts = [self.pixels, self.abnormal_pixels]
        counts += [self.positive_pixels, self.true_positive_pixels]
        present = [count for count in counts if count is not None]
        if len(present) not in (0, len(counts)):
            raise ValueError("of the four counts of pixels some are missing")
        if {len(self.key)} != {
            len(each) for each in (self.group, self.label, self.score, *present)
        }:
            raise ValueError("the lists of samples are not of one length")


class CalibrationRecord(Struct):
    """Normal samples that p-values are computed against, and how often those of test are rejected.
    The lists of samples are of one length, as are those of pixels.

    >>> from adbench.benchmark.leaderboard.record_schema import CalibrationRecord
    >>> CalibrationRecord(rate=0.05, groups=2, key=["a", "b"], group=["a", "b"], score=[0.5])
    Traceback (most recent call last):
    ValueError: the lists of calibration samples are not of one length
    """

    rate: Share  # nominal rate of false positives
    groups: Count  # groups (patients) of the calibration samples
    key: list[str]  # names of the calibration samples
    group: list[str]  # the patients they are of
    score: list[float]  # at the chosen level; higher is more anomalous
    pixel_knots: list[float] | None = None  # values of normal pixels, rising; None without maps
    pixel_exceeded: list[Amount] | None = None  # sum over groups of the share above the knot before
    image_fpr: Share | None = None  # share of normal test samples with p <= rate, by group
    pixel_fpr: Share | None = None  # share of their pixels; both None with too few groups

    def __post_init__(self) -> None:
        if not len(self.key) == len(self.group) == len(self.score):
            raise ValueError("the lists of calibration samples are not of one length")
        if len(self.pixel_knots or ()) != len(self.pixel_exceeded or ()):
            raise ValueError("the lists of calibration pixels are not of one length")


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
