"""The protocol: what turns raw maps into scores and decisions, the same for a whole leaderboard.

A method gives maps; everything between a map and a metric is here, so that a gain from a median
filter is never mistaken for a gain from a method. Arrays are numpy.

Letters: N samples, P pixels, S one to three spatial axes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import blake2b
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from ..registry.setting_types import convert_fields
from .metrics.connected_components import Array
from .metrics.ranking import MetricValues
from .post_processing import VOLUME, erode_roi, filter_maps, parse_step, remove_small_components
from .protocol_values import ProtocolError, parse_number, unknown_value

THRESHOLD_RULES = (
    *("healthy@5%", "val-dice", "val-volume-dice", "val-bisect10", "fixed:0.5", "oracle"),
)
LevelRule = Literal["auto", "val", "pseudo", "published", "oracle"]
SelectionMetric = Literal["auto", "pixel_ap", "image_auroc"]
Scorer = Literal["none", "pvalue", "position-z", "levels-mean", "levels-max", "levels-mahalanobis"]
REDUCERS = ("top2%", "top1%", "mean", "max", "method")


DEFAULT_BUDGET = 2**30
"""Pixels that are sorted at most: 4 GiB of scores."""


NEWER_FIELDS = {
    "budget": DEFAULT_BUDGET, "scorer": "none", "repeats": 1, "covariance": "diagonal",
}  # fmt: skip
"""Fields of the protocol that the first records do not have, with their defaults."""


@dataclass(frozen=True)
class Protocol:
    """How maps are evaluated. Leaderboards with different ids are never compared.

    threshold: `healthy@5%`, exceeded by 5 % of the pixels of calibration samples; `val-dice`, the
        best pooled Dice on labelled validation; `val-volume-dice`, the best mean Dice of its
        volumes; `val-bisect10`, nearly the best pooled one (`bisect_dice_threshold`); `fixed:0.5`;
        `oracle`, the best on test, no result
    level: `val`, the best on validation; `pseudo`, the best on calibration samples with synthetic
        anomalies, so that no label is looked at; `published`, the paper's; `oracle`, the best on
        test, no result; `auto`, val where it has abnormal samples, else published
    select: what chooses the level; `auto` is pixel_ap where there are masks and a map, else
        image_auroc
    reducer: how a map becomes a sample's score: mean of its highest 2 % (`top2%`), `mean`, `max`,
        or `method`, the method's own
    post: steps `median5` (of the map, 5 wide), `fill` (holes of the map, at every threshold),
        `zero3` (the map is 0 outside the region of interest, eroded 3 times by a cross in the last
        two axes), `erode3` (of the region of interest, by 3 wide), `cross3` (of that, 3 times by
        the cross, as the authors of pDDPM do) and `components>=8` (connected components of at
        least 8 pixels, holes included); the last changes only what is positive at the threshold,
        the others every metric. Steps of maps are taken in their order. `volume-median5`,
        `volume-fill`, `volume-erode3` and `volume-components>=8` go through the stacked slices of
        a patient in three dimensions
    roi: evaluate within regions of interest only
    scorer: what maps become before anything else, by what they are of calibration samples: `none`,
        as they are; `pvalue`, `position-z`; `levels-mean`, `levels-max`, `levels-mahalanobis` of
        all levels together (`scorers`)
    repeats: how often a method predicts every sample; from 2 on a map is the Mahalanobis distance
        of the sample from so many reconstructions, and maps are predicted anew
    covariance: of these reconstructions, `diagonal` or `full`
    budget: pixels beyond which pixel metrics are read from bins and are off by 1e-3 at most,
        instead of sorted and exact

    Raises ProtocolError on a value of another type, out of its range, or that is none of these.

    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> protocol = Protocol.parse("val-dice,level=published,post=median5")
    >>> protocol.threshold, protocol.level, protocol.post
    ('val-dice', 'published', ('median5',))
    >>> protocol == Protocol.from_dict(protocol.as_dict())
    True
    >>> print(Protocol().describe())
    Level chosen on validation (the paper's where it has no abnormal samples) by pixel AP, or image
    AUROC without masks; threshold exceeded by 5 % of healthy calibration pixels; image score the
    mean of the map's highest 2 %; no post-processing; within the region of interest.
    """

    threshold: str = "healthy@5%"
    level: LevelRule = "auto"
    select: SelectionMetric = "auto"
    reducer: str = "top2%"
    post: Sequence[str] = ()
    roi: bool = True
    scorer: Scorer = "none"
    repeats: Annotated[int, Meta(ge=1, le=1000)] = 1
    covariance: Literal["diagonal", "full"] = "diagonal"
    budget: Annotated[int, Meta(ge=1, le=2**62)] = DEFAULT_BUDGET

    def __post_init__(self) -> None:
        try:
            convert_fields(self, "protocol: {}".format)
        except ValueError as error:
            raise ProtocolError(str(error)) from None
        if self.covariance != "diagonal" and self.repeats == 1:
            raise ProtocolError(
                f"covariance={self.covariance} is of several reconstructions; set repeats=5 or so"
            )
        threshold = self.threshold
        if match := re.fullmatch(r"healthy@([\d.]+)%", threshold):
            percent = parse_number("threshold", threshold, match[1], 0, 100)
            threshold = f"healthy@{percent:g}%"
        elif match := re.fullmatch(r"fixed:(.+)", threshold):
            threshold = f"fixed:{parse_number('threshold', threshold, match[1])!r}"
        elif threshold not in ("val-dice", "val-volume-dice", "val-bisect10", "oracle"):
            raise unknown_value("threshold", threshold, THRESHOLD_RULES)
        reducer = self.reducer
        if match := re.fullmatch(r"top([\d.]+)%", reducer):
            reducer = f"top{parse_number('reducer', reducer, match[1], 0, 100):g}%"
        elif reducer not in REDUCERS:
            raise unknown_value("reducer", reducer, REDUCERS)
        object.__setattr__(self, "threshold", threshold)
        object.__setattr__(self, "reducer", reducer)
        object.__setattr__(self, "post", tuple(self.post))
        for step in self.post:
            name, size = parse_step(step)
            if name in ("median", "erode", "volume-erode") and size % 2 == 0:
                raise ProtocolError(f"post step '{step}' wants an odd width, such as {name}5")
            if name in ("erode", "volume-erode", "cross") and not self.roi:
                raise ProtocolError(f"post step '{step}' erodes a region of interest; set roi=yes")

    @classmethod
    def parse(cls, text: str, base: Protocol | None = None) -> Protocol:
        """Read `healthy@5%` or `val-dice,level=published,post=median5+components>=8,roi=no`.

        A bare word is the threshold rule; `+` joins steps.

        base: the protocol that the text changes; None for the default

        Raises ProtocolError on anything else. Named protocols are read by `parse_protocols`.
        """
        names = [field.name for field in fields(cls)]
        values: dict[str, Any] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = (part.strip() for part in item.partition("="))
            if not equals:
                key, value = "threshold", item
            if key not in names:
                raise unknown_value("key", key, names)
            if key in values:
                raise ProtocolError(f"protocol names {key} twice: '{text}'")
            values[key] = value
        if "post" in values:
            steps = values["post"].split("+")
            values["post"] = tuple(
                step.strip() for step in steps if step.strip() not in ("", "none")
            )
        if "roi" in values:
            if values["roi"] not in ("yes", "no"):
                raise unknown_value("roi", values["roi"], ("yes", "no"))
            values["roi"] = values["roi"] == "yes"
        return cls(**values) if base is None else replace(base, **values)

    def require_unscored_maps(self, action: str) -> None:
        """Raise ProtocolError where maps are scored or repeated, which an action cannot do.

        action: what is done, for the message
        """
        if self.scorer != "none" or self.repeats > 1:
            setting = f"scorer={self.scorer}, repeats={self.repeats}"
            raise ProtocolError(
                f"{action} takes maps as a method gives them, and this protocol changes them first "
                f"({setting}); use scorer=none and repeats=1"
            )

    @property
    def id(self) -> str:
        """A short hash of the canonical form, 8 hex digits."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return blake2b(text.encode(), digest_size=4).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """The canonical form, as JSON values.

        Those of NEWER_FIELDS that nobody changed are left out: the first records lack them.
        """
        values = asdict(self) | {"post": list(self.post)}
        unchanged = [name for name, default in NEWER_FIELDS.items() if values[name] == default]
        return {key: value for key, value in values.items() if key not in unchanged}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Protocol:
        """The protocol of `as_dict`'s values; keys that are none of its fields are ignored."""
        names = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})

    def describe(self) -> str:
        """The protocol in one sentence, for the leaderboard."""
        return (
            f"{self._describe_repeats()}{_SCORER_TEXT[self.scorer]}{_LEVEL_TEXT[self.level]}"
            f"{_SELECTION_TEXT[self.select] if self.level != 'published' else ''}; "
            f"threshold {self._describe_threshold()}; image score {self._describe_reducer()}; "
            f"{' then '.join(self.post) or 'no post-processing'}; "
            f"{'within the region of interest' if self.roi else 'all pixels'}"
            f"{'' if self.budget == DEFAULT_BUDGET else f'; sorted up to {self.budget} pixels'}."
        )

    def _describe_repeats(self) -> str:
        if self.repeats == 1:
            return ""
        return (
            f"Mahalanobis distance of a sample from {self.repeats} reconstructions of it, "
            f"{self.covariance} covariance. "
        )

    def _describe_threshold(self) -> str:
        if self.healthy_percent is not None:
            return f"exceeded by {self.healthy_percent:g} % of healthy calibration pixels"
        if self.fixed_threshold is not None:
            return f"fixed at {self.fixed_threshold:g}"
        return "best by Dice on " + {
            "val-dice": "validation",
            "val-volume-dice": "validation, the mean over volumes",
            "val-bisect10": "validation, in ten bisections",
        }.get(self.threshold, "TEST")

    def _describe_reducer(self) -> str:
        if self.reducer.startswith("top"):
            return f"the mean of the map's highest {self.reducer[3:-1]} %"
        return "the method's own" if self.reducer == "method" else f"the map's {self.reducer}"

    @property
    def healthy_percent(self) -> float | None:
        """Percentage of healthy pixels that may exceed the threshold; None with another rule."""
        return float(self.threshold[8:-1]) if self.threshold.startswith("healthy@") else None

    @property
    def fixed_threshold(self) -> float | None:
        """The threshold itself; None with another rule."""
        return float(self.threshold[6:]) if self.threshold.startswith("fixed:") else None

    @property
    def stacks_slices(self) -> bool:
        """Whether any post-processing step is taken over the stacked slices of a patient."""
        return any(step.startswith(VOLUME) for step in self.post)

    @property
    def filters_maps(self) -> bool:
        """Whether any post-processing step changes maps."""
        names = {name.removeprefix(VOLUME) for name, _ in map(parse_step, self.post)}
        return not names.isdisjoint(("median", "fill", "zero"))

    def filter_maps(self, maps: Array, roi: Array | None = None) -> Array:
        """Apply the steps that change maps (N, *S), in their order; edges are mirrored by medians.

        roi: (N, *S) bool, the regions of interest as the dataset has them; None for all pixels

        Of `volume-` steps the N maps, if they have two axes, are the slices of one volume. Raises
        ProtocolError where such a step meets maps of one axis.
        """
        return filter_maps(self.post, maps, roi)

    def erode_roi(self, roi: Array) -> Array:
        """Erode regions of interest (N, *S) bool; the border of the image is no edge.

        Of `volume-` steps the N regions, if they have two axes, are the slices of one volume.
        """
        return erode_roi(self.post, roi) if self.roi else np.ones_like(roi)

    def remove_small_components(self, masks: Array) -> Array:
        """Remove the connected components of masks (N, *S) bool that are too small.

        Holes in a component count as its pixels, as in the filter of pDDPM's authors. Of `volume-`
        steps the N masks, if they have two axes, are the slices of one volume.
        """
        return remove_small_components(self.post, masks)

    @property
    def removes_small_components(self) -> bool:
        """Whether any post-processing step does."""
        names = {name.removeprefix(VOLUME) for name, _ in map(parse_step, self.post)}
        return "components>=" in names

    def sample_score(self, values: Array) -> float:
        """A sample's score from its map's values within the region of interest, (P,).

        Never for the reducer `method`, whose score is not read from a map. A sample with no pixel
        in its region is the most normal of all: minus infinity.
        """
        if not values.size:
            return -math.inf
        if self.reducer == "max":
            return float(values.max())
        if self.reducer == "mean":
            return float(values.mean(dtype=np.float64))
        count = max(1, math.ceil(values.size * float(self.reducer[3:-1]) / 100 - 1e-9))
        top = np.partition(values, values.size - count)[-count:]
        return float(np.sort(top).mean(dtype=np.float64))

    def selection_metric(self, on_val: Sequence[MetricValues]) -> str:
        """The metric that chooses the level: pixel_ap only where there are maps and masks."""
        able = any(figures["pixel_ap"] is not None for figures in on_val)
        return "pixel_ap" if able and self.select != "image_auroc" else "image_auroc"

    def choose_level(
        self,
        on_val: Sequence[MetricValues],
        on_test: Sequence[MetricValues],
        levels: Sequence[int],
        published: int,
        on_synthetic: Sequence[MetricValues] = (),
    ) -> tuple[str, int]:
        """Choose a level, and return (the rule: val, pseudo, published or oracle; its index).

        on_val, on_test, on_synthetic: metrics of each split at every level
        published: the paper's level

        Raises ProtocolError where the rule needs samples that there are none of.
        """
        metric = self.selection_metric(on_val)
        if self.level == "oracle":
            return "oracle", best_level(on_test, metric, levels)
        if self.level == "pseudo":
            by = self.selection_metric(on_synthetic)
            if not any(figures[by] is not None for figures in on_synthetic):
                raise ProtocolError(
                    "level 'pseudo' needs calibration samples to put synthetic anomalies into, and "
                    "there are none; use level=published"
                )
            return "pseudo", best_level(on_synthetic, by, levels)
        able = any(figures[metric] is not None for figures in on_val)
        if self.level == "published" or (self.level == "auto" and not able):
            return "published", list(levels).index(published)
        if not able:
            raise ProtocolError(
                "level 'val' needs normal and abnormal validation samples, and there are not both; "
                "use level=published"
            )
        return "val", best_level(on_val, metric, levels)


def best_level(sweep: Sequence[MetricValues], metric: str, levels: Sequence[int]) -> int:
    """The index of the level where a metric is highest, of equal ones the lowest level.

    image_auroc in its place where it is undefined at every level.

    sweep: metrics at every level

    >>> from adbench.benchmark.evaluation.protocol import best_level
    >>> best_level([{"image_auroc": 0.7}, {"image_auroc": 0.9}], "image_auroc", [100, 250])
    1
    """
    if all(figures[metric] is None for figures in sweep):
        metric = "image_auroc"
    values = [figures[metric] for figures in sweep]
    worth = [-math.inf if value is None else value for value in values]
    return max(range(len(levels)), key=lambda i: (worth[i], -levels[i]))


_LEVEL_TEXT = {
    "auto": "Level chosen on validation (the paper's where it has no abnormal samples)",
    "val": "Level chosen on validation",
    "pseudo": "Level chosen on synthetic anomalies in calibration samples",
    "published": "The paper's level",
    "oracle": "Level chosen on TEST",
}
_SCORER_TEXT = {
    "none": "",
    "pvalue": "Maps as -log10 of p-values among healthy calibration pixels. ",
    "position-z": "Maps in standard deviations of healthy calibration maps, by position. ",
    "levels-mean": "Mean over levels of maps in standard deviations of healthy pixels. ",
    "levels-max": "Maximum over levels of maps in standard deviations of healthy pixels. ",
    "levels-mahalanobis": "Mahalanobis distance of the values at all levels from healthy ones. ",
}
_SELECTION_TEXT = {
    "auto": " by pixel AP, or image AUROC without masks",
    "pixel_ap": " by pixel AP",
    "image_auroc": " by image AUROC",
}
