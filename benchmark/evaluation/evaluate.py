"""From maps and scores to a record's figures: level and threshold chosen on validation, test looked
at once. What does look at test to choose is called `oracle`: a bound on choosing better, no result.

Letters: L levels, N samples, S one to three spatial axes, P places within the regions of interest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .metrics.ranking import Figures, Places, Ranking, image_metrics
from .operating_point import Verdict, bounds
from .predictions import Ground, Look, Seen
from .protocol import Protocol, ProtocolError, best, bisected, exceeded_by
from .sample_results import Rows

MOST = 24
"""Values of a tag beyond which it names samples, not strata."""

SWEEP = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_dice_oracle")


def judge(
    held_out: Seen,
    val: Seen,
    test: Seen,
    levels: Sequence[int],
    published: int,
    protocol: Protocol,
    pseudo: Seen | None = None,
) -> tuple[dict[str, Any], Rows]:
    """The judge's part of a record, JSON throughout, and the rows to compare it by.

    A figure that is undefined is None. levels: the L levels of scores and maps, in their order
    published: the paper's own of them      pseudo: normal samples with and without made-up lesions,
    where the protocol chooses by them
    """
    levels = list(levels)
    if published not in levels:
        raise ValueError(f"the published level {published} is none of the levels seen, {levels}")
    bench = Bench(Ground(held_out, protocol), Ground(val, protocol), Ground(test, protocol))
    on_val = _figures(bench.val, levels)
    on_test = _figures(bench.test, levels)
    on_pseudo = [] if pseudo is None else _figures(Ground(pseudo, protocol), levels)
    rule, chosen = protocol.choose(on_val, on_test, levels, published, on_pseudo)
    oracle = best(on_test, protocol.by(on_val), levels)
    paper = levels.index(published)
    verdicts = {i: bench.verdict(i) for i in sorted({chosen, paper, oracle})}
    verdict = verdicts[chosen]
    rows = verdict.rows()
    bound = bounds(rows)
    record = {
        "level": {
            "chosen": int(levels[chosen]),
            "rule": rule,
            "published": int(published),
            "oracle": int(levels[oracle]),
        },
        "threshold": {"rule": protocol.threshold, "value": verdict.threshold},
        "metrics": {
            name: {"value": value, "low": low, "high": high}
            for name, value in rows.values.items()
            for low, high in [bound.get(name, (None, None))]
        },
        "at_published": verdicts[paper].figures(),
        "at_oracle": verdicts[oracle].figures(),
        "sweep": {
            str(level): {
                "val": _brief(on_val[i]),
                "test": {name: on_test[i][name] for name in SWEEP},
            }
            | ({"pseudo": _brief(on_pseudo[i])} if on_pseudo else {})
            for i, level in enumerate(levels)
        },
        "strata": strata(verdict.look, test.tags),
        "lesions": verdict.lesions(),
        "pixel_error": verdict.look.pixel["error"],
        "reference": reference(bench.test),
        "counts": {
            "test": len(test.label),
            "test_abnormal": int(np.sum(test.label)),
            "test_groups": len(set(test.groups)),
            "val": len(val.label),
            "held_out": len(held_out.label),
        },
    }
    return record, rows


def _figures(ground: Ground, levels: Sequence[int]) -> list[Figures]:
    return [ground.look(i).figures() for i in range(len(levels))]


def _brief(figures: Figures) -> Figures:
    return {name: figures[name] for name in ("image_auroc", "pixel_ap")}


@dataclass(frozen=True)
class Bench:
    """The three splits that a verdict needs."""

    held_out: Ground
    val: Ground
    test: Ground

    def verdict(self, index: int) -> Verdict:
        look = self.test.look(index)
        if look.places is None:
            return Verdict(look, index, None, None)
        threshold = self.threshold(index, look)
        found = None if threshold is None else self.test.found(look.places, threshold)
        return Verdict(look, index, threshold, found)

    def threshold(self, index: int, test: Look) -> float | None:
        """By the protocol's rule, at one level; None only for an oracle without test masks."""
        protocol = self.test.protocol
        if protocol.fixed is not None:
            return protocol.fixed
        if protocol.threshold == "oracle":
            return test.pixel["threshold"]
        if protocol.percent is not None:
            healthy = self.held_out.look(index).places
            if healthy is None or not healthy.score.size:
                raise ProtocolError(
                    f"threshold '{protocol.threshold}' needs held-out normal samples, and there "
                    "are none; use val-dice or fixed:<number>"
                )
            return exceeded_by(protocol.percent, healthy.score)
        val = self.val.look(index)
        threshold = val.pixel["threshold"]
        if threshold is None or val.places is None:
            raise ProtocolError(
                f"threshold '{protocol.threshold}' needs validation samples with masks, and there "
                "are none; use healthy@5%"
            )
        if protocol.threshold == "val-bisect10":
            return bisected(val.places.score, val.places.truth)
        return threshold


def strata(look: Look, tags: Sequence[Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """n, image_auroc and pixel_ap of abnormal samples that share a tag, against all normal ones."""
    label = look.ground.label
    abnormal: dict[tuple[str, str], list[int]] = {}
    for i in np.flatnonzero(label).tolist():
        for name, value in tags[i].items():
            abnormal.setdefault((name, value), []).append(i)
    names = [name for name, _ in abnormal]
    table = {}
    for (name, value), rows in sorted(abnormal.items()):
        if names.count(name) > MOST:
            continue
        keep = ~label
        keep[rows] = True
        table[f"{name}={value}"] = {
            "n": len(rows),
            "image_auroc": image_metrics(look.score[keep], label[keep])["auroc"],
            "pixel_ap": _pixel_ap(look.places, keep),
        }
    return table


def _pixel_ap(places: Places | None, keep: Any) -> float | None:
    if places is None:
        return None
    rows = np.repeat(keep, places.counts)
    ranking = Ranking.of(places.score[rows], places.truth[rows])
    return None if ranking is None else ranking.ap()


def reference(test: Ground) -> dict[str, float | None]:
    """What a figure is read against: the shares of abnormal places and samples, and the Dice of
    calling every place abnormal."""
    place = None
    if test.seen.mask is not None and test.places is not None and test.places.truth.size:
        place = float(test.places.truth.mean())
    return {
        "prevalence": place,
        "dice_floor": None if place is None else 2 * place / (1 + place),
        "image_prevalence": float(test.label.mean()) if test.label.size else None,
    }
