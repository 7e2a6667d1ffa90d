"""Protocols of papers and benchmarks by name: how each turns maps into numbers.

Maps are predicted once; a record under another protocol takes no network. What a paper reports is
in `metrics`, all of which every record has; the protocol says how the maps are post-processed, and
where level and threshold come from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..registry.imports import did_you_mean
from .protocol import THRESHOLD_RULES, Protocol
from .protocol_values import ProtocolError, unknown_value


@dataclass(frozen=True)
class NamedProtocol:
    """What one paper or benchmark does with maps.

    name: by which it is asked for
    protocol: post-processing, threshold rule, level rule, image score
    metrics: those that the paper reports, by their names in a record
    pooling: what its pixel metrics are taken over, in words
    levels: where its noise level comes from, in words
    source: where this was read
    differs: what this protocol does otherwise than the paper; empty for nothing known

    >>> from adbench.benchmark.evaluation.named_protocols import NAMED_PROTOCOLS
    >>> named = NAMED_PROTOCOLS["pddpm"]
    >>> named.protocol.post, named.protocol.threshold, named.metrics[0]
    (('zero3', 'volume-median5', 'volume-components>=8'), 'val-bisect10', 'volume_dice')
    """

    name: str
    protocol: Protocol
    metrics: tuple[str, ...]
    pooling: str
    levels: str
    source: str
    differs: str = ""


ADBENCH = NamedProtocol(
    "adbench",
    Protocol(),
    metrics=("pixel_ap", "image_auroc", "pixel_dice"),
    pooling="all pixels of all samples within the region of interest",
    levels="chosen on validation where it has abnormal samples, else the paper's",
    source="the default of adbench",
)
PDDPM = NamedProtocol(
    "pddpm",
    Protocol(
        threshold="val-bisect10",
        level="published",
        reducer="mean",
        post=("zero3", "volume-median5", "volume-components>=8"),
        roi=False,
    ),
    metrics=("volume_dice", "volume_ap"),
    pooling="all voxels of a volume, background included; then the mean over volumes",
    levels="the paper's, 500 of 1000",
    source="Behrendt et al., MIDL 2023, and the code of its authors "
    "(https://github.com/FinnBehrendt/patched-Diffusion-Models-UAD)",
    differs="an image's score is the mean of its whole map, not of the brain alone",
)
UAD_IMAG = NamedProtocol(
    "uad-imag",
    Protocol(
        threshold="val-volume-dice",
        level="published",
        post=("zero0", "volume-median4"),
        roi=False,
    ),
    metrics=("volume_dice_oracle", "volume_dice", "pixel_ap", "healthy_fp"),
    pooling="Dice of a volume, then the mean over volumes; AP over all voxels of all volumes",
    levels="fixed before the test, on validation volumes",
    source="UAD-IMAG, arXiv 2512.01534, and the code of its authors "
    "(https://github.com/AlexanderFrotscher/UAD-IMAG: utils/evaluation.py, conf/ANDi_eval.py)",
    differs="false positives on healthy volumes are counted outside the brain too",
)
BMAD = NamedProtocol(
    "bmad",
    Protocol(reducer="max", roi=False),
    metrics=("image_auroc", "pixel_auroc", "pixel_aupro30"),
    pooling="all pixels of all images",
    levels="chosen on the labelled validation images, which BMAD provides",
    source="BMAD (Bao et al., arXiv 2306.11876), and the code of its authors "
    "(https://github.com/DorianXXX/BMAD)",
    differs="no metric of BMAD needs a threshold, and it is the default of adbench here",
)
MOOD = NamedProtocol(
    "mood",
    Protocol(level="published", reducer="method", roi=False),
    metrics=("image_ap", "pixel_ap"),
    pooling="all voxels of all volumes",
    levels="the paper's; the test labels of the challenge are hidden, and no validation ones exist",
    source="Medical Out-of-Distribution Analysis Challenge (http://medicalood.dkfz.de)",
    differs="no metric of MOOD needs a threshold, and it is the default of adbench here",
)
MVTEC = NamedProtocol(
    "mvtec",
    Protocol(level="published", reducer="max", roi=False),
    metrics=("image_auroc", "pixel_auroc", "pixel_aupro30"),
    pooling="all pixels of all images; in AUPRO every connected region counts alike",
    levels="the paper's; there are no abnormal validation images",
    source="Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 129, 2021",
    differs="the threshold is that of adbench, exceeded by 5 % of healthy calibration pixels",
)

NAMED_PROTOCOLS: Mapping[str, NamedProtocol] = {
    named.name: named for named in (ADBENCH, PDDPM, UAD_IMAG, BMAD, MOOD, MVTEC)
}


def parse_protocols(text: str) -> list[Protocol]:
    """Read protocols from a text: `pddpm,adbench`, or `pddpm,reducer=max,adbench`, or one without
    a name as `Protocol.parse` reads it.

    A name begins a protocol, and what follows it as `key=value` or as a threshold rule changes it.
    Raises ProtocolError on anything else.

    >>> from adbench.benchmark.evaluation.named_protocols import parse_protocols
    >>> [protocol.post for protocol in parse_protocols("uad-imag,adbench,post=median5")]
    [('zero0', 'volume-median4'), ('median5',)]
    >>> parse_protocols("val-dice")[0].threshold
    'val-dice'
    """
    parts: list[tuple[Protocol, list[str]]] = []
    for item in (part.strip() for part in text.split(",")):
        if item in NAMED_PROTOCOLS:
            parts.append((NAMED_PROTOCOLS[item].protocol, []))
            continue
        if item and "=" not in item:
            _check_rule(item)
        if parts:
            parts[-1][1].append(item)
        else:
            parts.append((Protocol(), [item]))
    protocols = [Protocol.parse(",".join(changes), base) for base, changes in parts]
    return list(dict.fromkeys(protocols)) or [Protocol()]


def _check_rule(item: str) -> None:
    """Raise ProtocolError on a bare word that is no threshold rule and was meant as a name."""
    try:
        Protocol(threshold=item)
    except ProtocolError:
        if did_you_mean(item, THRESHOLD_RULES) != "." or re.match("healthy@|fixed:", item):
            raise
        raise unknown_value("", item, [*NAMED_PROTOCOLS, *THRESHOLD_RULES]) from None


def parse_protocol(text: str) -> Protocol:
    """Read one protocol, as `parse_protocols` reads several. Raises ProtocolError on several.

    >>> from adbench.benchmark.evaluation.named_protocols import parse_protocol
    >>> parse_protocol("bmad").reducer
    'max'
    """
    protocols = parse_protocols(text)
    if len(protocols) > 1:
        raise ProtocolError(f"'{text}' names {len(protocols)} protocols, and one is wanted here")
    return protocols[0]


def protocol_name(protocol: Protocol) -> str | None:
    """The name of a protocol; None of one that no paper has.

    >>> from adbench.benchmark.evaluation.named_protocols import protocol_name
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> protocol_name(Protocol()), protocol_name(Protocol(reducer="mean"))
    ('adbench', None)
    """
    matching = (named.name for named in NAMED_PROTOCOLS.values() if named.protocol == protocol)
    return next(matching, None)
