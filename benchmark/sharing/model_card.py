"""The card of a published site: what was trained on what, how it did, and how to run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ..leaderboard.records import Record, metric_value
from ..report.export import escape_markdown

CARD_METRICS = ("image_auroc", "pixel_ap", "pixel_dice")


def model_card(
    records: Sequence[Record],
    weights: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Mapping[str, Any]],
    repository: str,
) -> str:
    """The README.md of a repository, with the metadata that the hub reads.

    records: published        weights: entries of the index
    facts: what `adbench info` says of each method and dataset, by name
    repository: ORG/REPO

    >>> print(model_card([], [], {}, "lab/brains").splitlines()[1])
    library_name: adbench
    """
    datasets = sorted({record["dataset"]["name"] for record in records})
    methods = sorted({record["method"]["name"] for record in records})
    metadata = {
        "library_name": "adbench",
        "tags": ["anomaly-detection", "diffusion", "adbench", *datasets],
    }
    lines = ["---", yaml.safe_dump(metadata, sort_keys=False).strip(), "---", ""]
    lines += [f"# {repository.rpartition('/')[2]}", ""]
    lines += ["Anomaly detectors compared by adbench, one row per record; the interval is of 95 %."]
    lines += ["", *_result_table(records), "", *_protocols(records), ""]
    if weights:
        lines += ["## Run the weights", "", "    pip install 'diffusion-adbench[hub]'"]
        for entry in weights:
            name = str(entry["file"]).rpartition("/")[2].removesuffix(".safetensors")
            lines.append(f"    adbench run -m hub:{repository}#{name} -d DATASET")
        lines += [
            "",
            "The weights are safetensors; their SHA-256 stands in `adbench.json`. Thresholds are",
            "measured anew, on the normal samples of the data that they are run on.",
            "",
        ]
    for title, names in (("Methods", methods), ("Data", datasets)):
        lines += [f"## {title}", ""]
        for name in names:
            about = facts.get(name, {})
            texts = [f"**{name}**", *(str(about[k]) for k in ("about", "paper") if about.get(k))]
            licence = about.get("licence")
            texts += [f"licence of the data: {licence}"] if licence else []
            lines.append(f"- {escape_markdown(': '.join(texts))}")
        lines.append("")
    return "\n".join(lines)


def _result_table(records: Sequence[Record]) -> list[str]:
    titles = ["method", "dataset", "profile", "seed", *CARD_METRICS]
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for record in records:
        cells = [record["method"]["label"], record["dataset"]["name"], record["profile"]]
        cells.append(str(record["seed"]))
        if record["status"] == "ok":
            cells += [_metric_text(record, metric) for metric in CARD_METRICS]
        else:
            cells += [record["status"], "", ""]
        lines.append(f"| {' | '.join(map(escape_markdown, cells))} |")
    return lines


def _metric_text(record: Record, metric: str) -> str:
    value, low, high = (metric_value(record, metric, part) for part in ("value", "low", "high"))
    if value is None:
        return "-"
    return f"{value:.3f}" + ("" if low is None or high is None else f" [{low:.3f}, {high:.3f}]")


def _protocols(records: Sequence[Record]) -> list[str]:
    texts = {record["protocol"]["id"]: record["protocol"]["text"] for record in records}
    return [f"Protocol {key}: {escape_markdown(text)}" for key, text in sorted(texts.items())]
