"""A notebook, in a kernel with an event loop of its own: from `import adbench` to a heat map."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

CELLS = [
    "import adbench\nadbench.__version__",
    "adbench.list_methods().loc[['anoddpm', 'pca']]",
    "adbench.list_datasets().loc['phantom']",
    "small = {'phantom': {'shape': [16, 16], 'train': 8, 'held_out': 4, 'val': 4, 'test': 8}}\n"
    "options = dict(datasets='phantom', profile='check', settings=small, baselines=False)\n"
    "adbench.plan('anoddpm', **options)[['stage', 'state']]",
    "results = adbench.run(['anoddpm', 'pca'], levels=[100, 250], **options)\nresults",
    "board = results.leaderboard()\nboard",
    "board.to_frame()[['method', 'image_auroc']]",
    "results.plot_levels()",
    "detector = adbench.load(next(iter(results.paths())))\n"
    "images = adbench.load_dataset('phantom', settings=small).test()\n"
    "detector.score(images)",
    "from matplotlib import pyplot\npyplot.imshow(detector.localize(images)[0], cmap='inferno')",
]


OWN_METHOD = [
    "import adbench\nimport torch",
    "class Brightest(adbench.Method):\n"
    "    def fit(self, train, calibration, context): pass\n"
    "    def detect(self, x, levels, rng):\n"
    "        return adbench.Detection.from_map(x.mean(1).expand(len(levels), -1, -1, -1))",
    "adbench.register('brightest', Brightest)",
    "small = {'phantom': {'shape': [16, 16], 'train': 8, 'held_out': 4, 'val': 4, 'test': 8}}\n"
    "options = dict(settings=small, baselines=False, executor='local')\n"
    "adbench.run('brightest', 'phantom', **options).records[0]['status']",
]


def execute(cells: list[str], folder: Path) -> list[dict[str, Any]]:
    """What each cell shows, by the MIME type."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    client.execute(env=os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    return [
        {kind: text for output in cell.outputs for kind, text in output.get("data", {}).items()}
        for cell in notebook.cells
    ]


def test_a_method_that_is_typed_into_a_notebook_can_be_run(tmp_path: Path) -> None:
    """In a process of its own, as by default."""
    assert execute(OWN_METHOD, tmp_path)[-1]["text/plain"] == "'ok'"


def test_a_notebook_runs_from_import_to_a_plot_and_a_heat_map(tmp_path: Path) -> None:
    outputs = execute(CELLS, tmp_path)
    assert all("text/html" in outputs[k] for k in (1, 3, 5, 6)), "tables are shown as such"
    assert "2 records" in outputs[4]["text/plain"]
    assert all("image/png" in outputs[k] for k in (7, 9))
    assert len(list((tmp_path / "results/records").glob("*.json"))) == 2
    assert "adbench run" not in str(outputs)
