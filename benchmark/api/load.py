"""A detector, of the record of a run or of weights that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...datasets.base import Spec
from .detector import Detector, DetectorError, load_record
from .weights_detector import load_weights


def load(
    record: str | Path | Mapping[str, str | Path],
    *,
    method: str | None = None,
    dataset: str | None = None,
    spec: Spec | None = None,
    level: int | None = None,
    profile: str = "paper",
    settings: Mapping[str, Any] | Sequence[str] = (),
    key: str | None = None,
    store: str | Path | None = None,
    data: str | Path | None = None,
    registry: Sequence[str | Path] = (),
    device: str = "auto",
) -> Detector:
    """The detector of a record, from the checkpoint in the store that its key names; or, where a
    method is named, of weights that were trained elsewhere.

    Weights are imported into the store as by `import_weights`. Without a record no threshold is
    chosen, so that their predictions have no segmentations.

    record: the file, such as results/records/X.json; or a checkpoint file, a folder of diffusers,
        or several by part, as for `import_weights`
    method: whose weights the files hold; the following are of such files alone
    dataset: whose normal samples calibrate the method, such as "brats"
    spec: in place of a dataset, channels and shape of the images; of methods that calibrate nothing
    level: the noise level, the method's published one if None
    profile, settings, key: as for `import_weights`
    store: the folder of checkpoints; None for $ADBENCH_STORE, or the user's cache
    data: the folder of the dataset, whose splits can be predicted then; new files need none
    registry: further registry files of the run        device: auto, cpu, cuda, cuda:1
    Raises DetectorError on a record without a result or a checkpoint that is not stored;
    CheckpointError on weights that do not fit.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np, torch, adbench
    >>> from adbench.methods.dae import DAE
    >>> spec, settings = adbench.Spec(1, (8, 8)), {"widths": [4, 8], "size": None}
    >>> trained = DAE(spec, size=None, widths=(4, 8))
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "dae.pt")
    ...     torch.save(trained.denoiser.net.state_dict(), path)
    ...     detector = adbench.load(path, method="dae", spec=spec, settings=settings,
    ...         store=folder, device="cpu")
    ...     detector.score(np.zeros((2, 1, 8, 8), np.float32))
    array([0., 0.])
    """
    if method is not None:
        return load_weights(
            record, method, dataset=dataset, spec=spec, level=level, profile=profile,
            settings=settings, key=key, store=store, data=data, registry=registry, device=device,
        )  # fmt: skip
    if isinstance(record, Mapping) or dataset is not None or spec is not None:
        raise DetectorError("weights that were trained elsewhere need the method's name: method=")
    return load_record(record, store=store, data=data, registry=registry, device=device)
