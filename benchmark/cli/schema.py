"""adbench schema: the JSON schemas of the files that people write and programs read."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import RegistryFiles, Traceback, error_messages, print_json

SCHEMA_EXAMPLE = """Example: adbench schema study > study.schema.json

A study file names it in its first line: # yaml-language-server: $schema=study.schema.json
"""


def schema(
    kind: Annotated[str, typer.Argument(metavar="study|record", help="Which file.")],
    registry: RegistryFiles = None,
    traceback: Traceback = False,
) -> None:
    """Print the JSON schema of a study file, with all names and arguments, or of a record."""
    with error_messages(traceback):
        from ..api.schemas import json_schema

        print_json(json_schema(kind, registry=registry or ()))
