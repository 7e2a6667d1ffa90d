"""The record of an experiment: its types (schema 2), and a reader of a results folder.

Records of schema 1 are read as schema 2. A file that cannot be read, or holds no sound record,
becomes a record of status `broken` that says why, so that one bad file never hides the others.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

Record = Mapping[str, Any]
"""A record as JSON values, as `read_records` returns it: of the fields of ResultRecord where its
status is ok, else of those of FailedRecord, and the name of its `file`."""

SCHEMA = 2
MAX_DEPTH = 32
"""Containers within one another, beyond which a file holds no record."""

MAX_REASON = 250
"""Letters of the reason of a broken record, beyond which it is cut."""

METRICS = (
    *("image_auroc", "image_ap", "image_f1max", "image_fpr95", "group_auroc"),
    *("pixel_auroc", "pixel_ap", "pixel_aupro30", "pixel_aupro05", "pixel_dice"),
    *("pixel_dice_oracle", "pixel_iou", "healthy_fp", "lesion_sensitivity", "lesion_contrast"),
    *("sample_pixel_auroc", "sample_pixel_ap", "sample_pixel_dice_otsu"),
    *("healthy_psnr", "healthy_ssim"),
)
BUDGET = ("train_steps", "train_samples", "parameters", "evaluations_per_image", "gflops_per_image")
"""What a method spends, the same on any machine."""

COST = ("train_seconds", "seconds_per_image", "peak_memory_mb")
"""What it takes on the machine that it ran on, different from run to run."""

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


class ReportError(ValueError):
    """There is nothing to report: one line, and the command that mends it."""


class DamagedFile(ValueError):
    """A file is not the one that a record names: one line, and the command that mends it."""


class MethodRecord(Struct):
    """The method, and how it was configured."""

    name: str  # in the registry
    label: str  # in tables
    baseline: bool  # whether it is a simple baseline
    args: dict[str, Any]  # constructor arguments, profile and overrides applied
    supervision: str | None = None  # "normal" or "image-labels"; None where it could not be loaded
    paper: str | None = None  # where it was published, a URL


class DatasetRecord(Struct):
    """The dataset, and which data it held."""

    name: str  # in the registry
    args: dict[str, Any]  # constructor arguments that change the samples
    fingerprint: str  # digest of the predicted samples; empty where they were never read
    synthetic: bool  # whether the samples are generated


class ProtocolRecord(Struct):
    """The evaluation protocol; its other fields are those of `Protocol`."""

    id: str  # digest of the fields; results are compared under one protocol only
    text: str  # in one sentence


class LevelRecord(Struct):
    """Noise levels, on the scale 1..1000; 0 for a method without."""

    chosen: Level  # at which the metrics are
    rule: str  # how it was chosen: val, pseudo, published, oracle
    published: Level  # the paper's own
    oracle: Level  # best on test: a bound, no result


class ThresholdRecord(Struct):
    """The threshold on anomaly maps, above which a pixel is positive."""

    rule: str  # of the protocol
    value: float | None  # in the unit of the maps; None without maps


class MetricRecord(Struct):
    """A metric; its direction and range are those of its name."""

    value: float | None  # None where it is undefined
    low: float | None = None  # lower end of the 95 % interval; None with too few groups
    high: float | None = None  # upper end

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has two ends")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"the interval [{self.low:g}, {self.high:g}] is upside down")


class ReferenceRecord(Struct):
    """Results of a method that knows nothing."""

    prevalence: Share | None  # of abnormal pixels: pixel AP by chance; None without masks
    dice_floor: Share | None  # Dice of calling every pixel abnormal
    image_prevalence: Share | None = None  # of abnormal samples: image AP by chance


class CountRecord(Struct):
    """Numbers of samples."""

    test: Count  # test samples
    test_abnormal: Count  # the abnormal among them
    test_groups: Count  # groups (patients) of the test samples
    val: Count  # validation samples
    calibration: Count  # normal samples for thresholds

    def __post_init__(self) -> None:
        if max(self.test_abnormal, self.test_groups) > self.test:
            raise ValueError("a part of the test samples is more than all")


class SweepRecord(Struct):
    """Metrics at one noise level, by name."""

    test: dict[str, float | None]  # on test
    val: dict[str, float | None] = {}  # on validation
    pseudo: dict[str, float | None] = {}  # on synthetic anomalies


class StratumRecord(Struct):
    """Metrics of the abnormal samples that share a tag, against all normal ones."""

    n: Count  # abnormal samples
    image_auroc: float | None = None
    pixel_ap: float | None = None


class LesionBin(Struct):
    """Lesions of one range of sizes."""

    low: Amount  # smallest size
    high: Amount | None  # size that is too large; None without end
    n: Count  # lesions
    found: Count  # of them detected
    sensitivity: Share | None  # the share detected; None without lesions

    def __post_init__(self) -> None:
        if self.found > self.n:
            raise ValueError(f"{self.found} of {self.n} lesions are detected")


class FrocPoint(Struct):
    """A point of the FROC curve."""

    threshold: float  # on anomaly maps
    false_per_sample: Amount  # false detections in each normal sample
    sensitivity: Share  # share of lesions detected


class LesionRecord(Struct):
    """Lesion-wise results."""

    n: Count  # lesions
    unit: str  # of sizes: steps, pixels, voxels, mm, mm² or mm³
    bins: list[LesionBin]  # by size
    froc: list[FrocPoint]  # the strictest threshold first
    false_size: Amount | None = None  # mean size of what is positive in a normal sample


class SampleRecord(Struct):
    """Results of the test samples at the chosen level, in their order: lists of one length."""

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


class CostRecord(Struct):
    """What training and prediction took. An image is a sample, at one noise level."""

    train_steps: Count | None = None  # optimizer steps
    train_samples: Count | None = None  # samples shown in training, repeats counted
    train_gflops: Amount | None = None  # 10^9 floating-point operations
    parameters: Count | None = None  # of all networks
    evaluations_per_image: Amount | None = None  # network evaluations
    gflops_per_image: Amount | None = None  # 10^9 floating-point operations
    train_seconds: Amount | None = None  # seconds, wall time
    seconds_per_image: Amount | None = None  # seconds, wall time
    peak_memory_mb: Amount | None = None  # MB, the larger of training and prediction


class FailedRecord(Struct, tag_field="status", tag="failed"):
    """An experiment that failed."""

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
    failure: dict[str, Any] | None = None  # phase, exception, attempts and the end of the log
    attempts: list[dict[str, Any]] = []  # earlier attempts that ended otherwise
    seal: str | None = None  # `record_seal` of the other fields; None in older records


class SkippedRecord(FailedRecord, tag_field="status", tag="skipped"):
    """An experiment that cannot be run, such as a method on data that it does not take."""


class ResultRecord(FailedRecord, tag_field="status", tag="ok", kw_only=True):
    """An experiment with a result."""

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
    lesions: LesionRecord | None = None  # None without masks
    pixel_error: Share | None = None  # how far pixel metrics may be off for binning, 0 if exact
    samples: SampleRecord | None = None  # single test samples
    keys: dict[str, str] = {}  # of the artifacts in the store, by kind and split
    files: dict[str, str] = {}  # SHA-256 of the files beside the record, by path in the results
    versions: dict[str, Any] = {}  # of the libraries that trained it
    device: str | None = None  # that trained it
    threads: Count | None = None  # of the CPU, in training

    def __post_init__(self) -> None:
        if not self.dataset.fingerprint:
            raise ValueError("a result has a fingerprint of its data")


SCHEMA_1_NAMES: dict[str, dict[str, str]] = {
    "counts": {"held_out": "calibration"},
    "keys": {"maps/held_out": "maps/calibration"},
    "samples": {
        "places": "pixels",
        "true": "abnormal_pixels",
        "found": "positive_pixels",
        "both": "true_positive_pixels",
    },
}
"""Keys of schema 1 and those of schema 2, in the parts of a record where they differ."""


def json_schema() -> dict[str, Any]:
    """The JSON schema of a record of schema 2, as record.schema.json holds it."""
    return msgspec.json.schema(ResultRecord | FailedRecord | SkippedRecord)


def upgrade(record: Record) -> dict[str, Any]:
    """A record of schema 1 as one of schema 2: other keys, the same values.

    >>> from adbench.benchmark.leaderboard.records import upgrade
    >>> upgrade({"schema": 1, "counts": {"val": 4, "held_out": 2}})
    {'schema': 2, 'counts': {'val': 4, 'calibration': 2}}
    """
    upgraded = {**record, "schema": SCHEMA}
    for part, names in SCHEMA_1_NAMES.items():
        if isinstance(values := record.get(part), Mapping):
            upgraded[part] = {names.get(key, key): value for key, value in values.items()}
    return upgraded


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All records of a folder as schema 2, each with the name of its `file`.

    One that cannot be read becomes a record of status `broken`. Raises ReportError where there is
    none.
    """
    paths = sorted(Path(folder).glob("[!.]*.json"))
    if not paths:
        raise ReportError(f"no records in {folder}: make some with `adbench run` first")
    return [_read_record(path) for path in paths]


def _read_record(path: Path) -> dict[str, Any]:
    """A record, or one of status `broken` that says why there is none."""
    name = path.name.encode("utf-8", "backslashreplace").decode()
    try:
        if name != path.name:
            raise ValueError("its name is no UTF-8")
        return read_record(path) | {"file": name}
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
    if len(reason) > MAX_REASON:
        reason = f"{reason[:MAX_REASON]} …"
    label = name.removesuffix(".json")
    return {
        "schema": SCHEMA,
        "status": "broken",
        "reason": f"{name} is no record: {reason}; the same `adbench run` writes it again",
        "method": {"name": label, "label": label, "baseline": False, "args": {}},
        "dataset": {"name": "", "args": {}, "fingerprint": "", "synthetic": False},
        "protocol": {"id": "", "text": ""},
        "profile": "-",
        "seed": "-",
        "partial": None,
        "file": name,
    }


def read_record(path: Path) -> dict[str, Any]:
    """The record in a file, as schema 2.

    Raises OSError where the file cannot be read, ValueError where it holds no sound record.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.leaderboard.records import read_record
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "x.json"
    ...     _ = path.write_text("[]")
    ...     read_record(path)
    Traceback (most recent call last):
    ValueError: it holds no object
    """
    if path.exists() and not path.is_file():  # a pipe would never end
        raise OSError("it is no file")
    return parse_record(path.read_text(encoding="utf-8"))


def parse_record(text: str) -> dict[str, Any]:
    """The record that a JSON text holds, as schema 2. Raises ValueError where it is not sound.

    >>> from adbench.benchmark.leaderboard.records import parse_record
    >>> parse_record('{"schema": 3}')
    Traceback (most recent call last):
    ValueError: it has schema 3, and this adbench reads 1 and 2
    """
    try:
        record = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError("it holds no object")
    schema = record.get("schema")
    if type(schema) is not int or schema not in (1, SCHEMA):
        shown = repr(schema) if len(str(schema)) < 20 else "of another kind"
        raise ValueError(f"it has schema {shown}, and this adbench reads 1 and {SCHEMA}")
    _check_values(record)
    if not is_intact(record):
        raise ValueError("it was damaged or edited after it was written")
    record = upgrade(record) if schema == 1 else record
    _check_figures(record)
    try:
        msgspec.convert(record, ResultRecord | FailedRecord | SkippedRecord)
    except msgspec.ValidationError as error:
        raise ValueError(str(error).replace(" - at `$.", ": ").rstrip("`")) from None
    return record


def record_seal(record: Record) -> str:
    """The SHA-256 of a record without its seal, as canonical JSON.

    >>> from adbench.benchmark.leaderboard.records import record_seal
    >>> record_seal({"seed": 0})[:8], record_seal({"seed": 0, "seal": "any"})[:8]
    ('de7d7744', 'de7d7744')
    """
    content = {key: value for key, value in record.items() if key != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_intact(record: Record) -> bool:
    """Whether a record fits its seal; also one of an older adbench, which has none.

    >>> from adbench.benchmark.leaderboard.records import is_intact, record_seal
    >>> sealed = {"seed": 0, "seal": record_seal({"seed": 0})}
    >>> is_intact(sealed), is_intact(sealed | {"seed": 1}), is_intact({"seed": 0})
    (True, False, True)
    """
    if "seal" in record:
        return record["seal"] == record_seal(record)
    return "files" not in record


def read_intact_record(path: Path) -> dict[str, Any]:
    """The record in a file as it stands; empty where it cannot be read or does not fit its seal.

    >>> from pathlib import Path
    >>> from adbench.benchmark.leaderboard.records import read_intact_record
    >>> read_intact_record(Path("no/such/record.json"))
    {}
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record if isinstance(record, dict) and is_intact(record) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def read_sealed(record: Record, path: Path) -> bytes:
    """The content of a file beside a record, such as `samples/X.h5`.

    Raises DamagedFile where the record has its SHA-256 and it differs, OSError where it cannot be
    read.
    """
    content = path.read_bytes()
    digest = (record.get("files") or {}).get(f"{path.parent.name}/{path.name}")
    if digest not in (None, hashlib.sha256(content).hexdigest()):
        raise DamagedFile(
            f"{path} was damaged or edited after it was written: the same `adbench run` writes it "
            "again"
        )
    return content


def _check_values(value: Any, name: str = "", depth: int = 0) -> None:
    """Raises ValueError on what JSON texts may hold and no report can show."""
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        for key, part in value.items():
            _check_values(key, name, depth + 1)
            _check_values(part, f"{name}.{key}" if name else key, depth + 1)
    elif isinstance(value, list):
        for part in value:
            _check_values(part, name, depth + 1)
    elif isinstance(value, str):
        value.encode()  # half a surrogate pair can be written nowhere
    elif isinstance(value, int) and abs(value) >= 2**64:
        raise ValueError(f"{name} is too large a number")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, no number")


def _check_figures(record: Record) -> None:
    """Raises ValueError, with its full name, on a figure that is neither a number in its range nor
    missing."""
    parts = ("cost", "reference", "at_published", "at_oracle", "metrics", "strata", "sweep")
    for part in ("pixel_error", *parts):
        for place, figure in _leaves(record.get(part), (part,)):
            name = ".".join(place)
            if figure is None:
                continue
            if type(figure) not in (int, float):
                raise ValueError(f"{name} is {figure!r}, no number")
            metric = next((word for word in place if word in METRIC_RANGES), "")
            low, high = METRIC_RANGES.get(metric, (-math.inf, math.inf))
            if not low - ROUNDING <= figure <= high + ROUNDING:
                raise ValueError(f"{name} is {figure:g}, and lies in {low:g} to {high:g}")
    for level in record["sweep"] if isinstance(record.get("sweep"), dict) else {}:
        if not (level.isascii() and level.isdigit() and len(level) <= 4 and int(level) <= 1000):
            raise ValueError(f"sweep.{level}: {level!r} is no noise level")


def _leaves(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value within dictionaries, with its place."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, (*place, name))
    else:
        yield place, value


def metric_value(record: Record, metric: str, part: str = "value") -> float | None:
    """A metric of a record, or an end of its interval; None where there is none.

    part: value, low or high

    >>> from adbench.benchmark.leaderboard.records import metric_value
    >>> metric_value({"metrics": {"pixel_ap": {"value": 0.5}}}, "pixel_ap")
    0.5
    """
    value = ((record.get("metrics") or {}).get(metric) or {}).get(part)
    return value if isinstance(value, int | float) else None


def plain_text(text: object) -> str:
    r"""Text on one line that no terminal takes for a command.

    White space of any kind becomes spaces; control and format characters, such as escape sequences
    and changes of direction, and halves of surrogate pairs are shown by their codes.

    >>> from adbench.benchmark.leaderboard.records import plain_text
    >>> print(plain_text("a\x1b[31m\nb\u202e"))
    a\x1b[31m b\u202e
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable()
        else " "
        if char.isspace()
        else char.encode("unicode_escape").decode()
        for char in text
    )


def plain_lines(text: object) -> str:
    r"""Text that no terminal takes for a command, `plain_text` of each of its lines.

    >>> from adbench.benchmark.leaderboard.records import plain_lines
    >>> plain_lines("a\x07\nb")
    'a\\x07\nb'
    """
    return "\n".join(map(plain_text, str(text).split("\n")))


def number_text(value: float | None, unit: float = 1) -> str:
    """A number with three decimals, in a unit; "-" for None.

    >>> from adbench.benchmark.leaderboard.records import number_text
    >>> number_text(690_000, 1e6), number_text(None)
    ('0.690', '-')
    """
    return "-" if value is None else f"{value / unit:.3f}"
