"""Notes beneath a leaderboard: its protocol, its data, and what its marks mean."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation.metrics.streaming_histogram import TOLERANCE
from .binning import binning_error
from .entry import Entry
from .metric_names import METRIC_NAMES
from .seed_variation import SeedSummary, sentences
from .text import number_text
from .tuning_text import tuning_notes


def leaderboard_notes(
    entries: Sequence[Entry], metric: str, seed_summaries: Sequence[SeedSummary]
) -> list[str]:
    """Sentences on protocol, data and marks; of an experiment that failed, on its protocol alone.

    entries: of one leaderboard, best first      metric: what it is sorted by

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.leaderboard.notes import leaderboard_notes
    >>> protocol, data, *_ = leaderboard_notes(example_leaderboard().entries, "pixel_ap", [])
    >>> print(protocol)
    Protocol abcd1234: Level chosen on validation.
    """
    record = entries[0].record
    protocol = record["protocol"]
    name = f" ({protocol['name']})" if protocol.get("name") else ""
    notes = [f"Protocol {protocol['id']}{name}: {protocol['text']}"]
    if record["status"] != "ok":
        return notes
    counts, reference = record["counts"], record["reference"]
    notes.append(
        f"Data {record['dataset']['fingerprint']}: {counts['test']} test samples, "
        f"{counts['test_abnormal']} of them abnormal, of {counts['test_groups']} groups; "
        f"{counts['val']} for validation, {counts['calibration']} normal ones for calibration."
    )
    if reference["prevalence"] is not None:
        notes.append(
            f"Abnormal: {number_text(reference['prevalence'])} of all pixels, which is "
            "also what pixel "
            f"AP is by chance; calling every pixel abnormal has Dice "
            f"{number_text(reference['dice_floor'])}."
        )
    notes.append(
        f"Sorted by {METRIC_NAMES[metric]}; in brackets 95 % intervals from resampling groups "
        f"(patients, recordings). ⌈Dice⌉ uses a threshold tuned on the test set: an upper bound, "
        f"not a fair score."
    )
    if any(
        entry.record["status"] == "ok" and not entry.record["method"]["baseline"]
        for entry in entries
    ):
        notes += sentences(seed_summaries, METRIC_NAMES[metric])
    if any(binning_error(entry.record, "pixel_ap") for entry in entries):
        notes.append(
            "±: read from bins, for there are more pixels than the protocol sorts (--budget); the "
            "figure is off by no more than this at the chosen level, and by no more than "
            f"{TOLERANCE:g} at any other."
        )
    external = [entry.name for entry in entries if entry.record.get("external")]
    if external:
        notes.append(
            f"(external): scores and maps that another program computed, evaluated here like all "
            f"others (adbench evaluate); what they cost is unknown: {', '.join(external)}."
        )
    profiles = {
        str(entry.record["profile"])
        for entry in entries
        if entry.record["status"] == "ok" and not entry.record.get("external")
    }
    if len(profiles) > 1:
        notes.append(f"Profiles {', '.join(sorted(profiles))} spend different budgets.")
    notes += tuning_notes(entries)
    for baseline in dict.fromkeys(
        entry.worse_than_baseline for entry in entries if entry.worse_than_baseline
    ):
        below = "; ".join(
            f"{r.name}, {r.profile_and_seed}" for r in entries if r.worse_than_baseline == baseline
        )
        notes.append(
            f"▼ worse than the baseline {baseline} in {METRIC_NAMES[metric]}, by the paired 95 % "
            f"interval: {below}."
        )
    return notes
