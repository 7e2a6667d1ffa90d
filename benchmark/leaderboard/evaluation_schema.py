"""The types of what a record holds of an evaluation: metrics, their parts, single samples."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0, le=2**53)]
Level = Annotated[int, Meta(ge=0, le=1000)]
Amount = Annotated[float, Meta(ge=0, le=1e18)]
Share = Annotated[float, Meta(ge=0, le=1)]


class LevelRecord(Struct):
    """Noise levels, on the scale 1..1000; 0 for a method without.

    >>> import msgspec
    >>> from adbench.benchmark.leaderboard.evaluation_schema import LevelRecord
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
    >>> from adbench.benchmark.leaderboard.evaluation_schema import ThresholdRecord
    >>> msgspec.to_builtins(ThresholdRecord("healthy@5%", 0.25))
    {'rule': 'healthy@5%', 'value': 0.25}
    """

    rule: str  # of the protocol
    value: float | None  # in the unit of the maps; None without maps


class MetricRecord(Struct):
    """A metric; its direction and range are those of its name.

    >>> from adbench.benchmark.leaderboard.evaluation_schema import MetricRecord
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

    >>> from adbench.benchmark.leaderboard.evaluation_schema import ReferenceRecord
    >>> prevalence = 0.05  # of calling every pixel abnormal the recall is 1, the precision this
    >>> round(ReferenceRecord(prevalence, 2 * prevalence / (1 + prevalence)).dice_floor, 3)
    0.095
    """

    prevalence: Share | None  # of abnormal pixels: pixel AP by chance; None without masks
    dice_floor: Share | None  # Dice of calling every pixel abnormal
    image_prevalence: Share | None = None  # of abnormal samples: image AP by chance


class CountRecord(Struct):
    """Numbers of samples.

    >>> from adbench.benchmark.leaderboard.evaluation_schema import CountRecord
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
    >>> from adbench.benchmark.leaderboard.evaluation_schema import SweepRecord
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
    >>> from adbench.benchmark.leaderboard.evaluation_schema import StratumRecord
    >>> strata = msgspec.convert(example_record(detected=10)["strata"], dict[str, StratumRecord])
    >>> {name: (stratum.n, stratum.image_auroc) for name, stratum in strata.items()}
    {'size=large': (10, 1.0), 'size=small': (10, 0.0)}
    """

    n: Count  # abnormal samples
    image_auroc: float | None = None
    pixel_ap: float | None = None


class SubgroupRecord(Struct):
    """Metrics of the test samples that share a value of metadata, normal and abnormal ones.

    >>> from adbench.benchmark.leaderboard.evaluation_schema import SubgroupRecord
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

    >>> from adbench.benchmark.leaderboard.evaluation_schema import GapRecord
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

    >>> from adbench.benchmark.leaderboard.evaluation_schema import FieldRecord, SubgroupRecord
    >>> subgroup = SubgroupRecord(n=20, n_abnormal=10, n_groups=20, metrics={})
    >>> FieldRecord({"F": subgroup, "M": subgroup}).gaps
    {}
    """

    subgroups: dict[str, SubgroupRecord]  # by value, or by range of a number
    gaps: dict[str, GapRecord] = {}  # by metric


class LesionBin(Struct):
    """Lesions of one range of sizes.

    >>> from adbench.benchmark.leaderboard.evaluation_schema import LesionBin
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
    >>> from adbench.benchmark.leaderboard.evaluation_schema import FrocPoint
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
    >>> from adbench.benchmark.leaderboard.evaluation_schema import LesionRecord
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

    >>> from adbench.benchmark.leaderboard.evaluation_schema import SampleRecord
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

    >>> from adbench.benchmark.leaderboard.evaluation_schema import CalibrationRecord
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
