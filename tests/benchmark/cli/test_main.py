"""adbench itself: its version, help, completion, and what it does not load."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app
from adbench.benchmark.cli.run_options import CLUSTER, DATA, OPTIONS, PROTOCOL, WHAT, WHERE
from adbench.benchmark.executors.launch import device_context
from adbench.benchmark.experiments.run_config import PROTOCOL_OPTIONS, OptionError, RunConfig

WIDE = {"COLUMNS": "200", "TERMINAL_WIDTH": "200"}
COMMANDS = ["run", "plan", "report", "list", "info", "doctor", "compare", "reproduce", "status",
            "merge", "publish", "schema", "tune", "speed", "check", "new",
            "data", "cache"]  # fmt: skip


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == version("diffusion-adbench")


def test_python_m_is_the_command_line_and_help_loads_nothing_heavy() -> None:
    script = (
        "import sys, runpy; sys.argv = ['adbench', '--help']\n"
        "try: runpy.run_module('adbench', run_name='__main__')\n"
        "finally: assert not {'torch', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "Usage: adbench" in process.stdout


NESTED = [["data", "verify"], ["cache", "gc"], ["new", "method"]]


@pytest.mark.parametrize("command", [[], *([c] for c in COMMANDS), *NESTED])
def test_h_is_help_everywhere(command: list[str]) -> None:
    short, long = (CliRunner().invoke(app, [*command, flag]) for flag in ("-h", "--help"))
    assert short.exit_code == 0 and short.stdout == long.stdout and "Usage: " in short.stdout


def test_the_options_of_run_stand_in_groups_and_examples_beneath() -> None:
    text = CliRunner().invoke(app, ["run", "-h"], env=WIDE).stdout
    order = [text.index(f"─ {group} ─") for group in (WHAT, DATA, PROTOCOL, WHERE, CLUSTER)]
    assert order == sorted(order)
    assert text[text.index("Examples:") :].count("adbench run") == 6


def test_every_field_of_a_config_is_an_option_and_none_else() -> None:
    fields = set(RunConfig.__dataclass_fields__)
    parts = PROTOCOL_OPTIONS.keys() - {"roi", "select", "scorer", "repeats", "covariance"}
    assert set(OPTIONS) == fields | parts


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("adbench run -m anod", "anoddpm"),
        ("adbench run -m anoddpm,pdd", "anoddpm,pddpm"),
        ("adbench run -d phant", "phantom"),
        ("adbench plan --profile pap", "paper"),
        ("adbench data prepare phan", "phantom"),
        ("adbench info pdd", "pddpm"),
    ],
)
def test_the_shell_completes_names(words: str, expected: str) -> None:
    env = os.environ | {
        "_ADBENCH_COMPLETE": "complete_bash", "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }  # fmt: skip
    process = subprocess.run(
        [sys.executable, "-m", "adbench"], env=env, capture_output=True, text=True
    )
    assert expected in process.stdout.split()
    script = CliRunner().invoke(app, ["--show-completion", "bash"], env={"SHELL": "bash"})
    assert script.exit_code == 0 or json.dumps(script.output)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run", "--limit", "0"], r"--limit: .* 1 \(adbench run --help\)"),
        (["run", "--slots", "x"], r"--slots: .* \(adbench run --help\)"),
        (["lisst"], r"No such command 'lisst'. Did you mean 'list'\? \(adbench --help\)"),
        (["report", "--metric", "dice"], r"No such option: --metric.* \(adbench report --help\)"),
        (["data", "verifyy"], r"No such command 'verifyy'.* \(adbench data --help\)"),
        (["info"], r"Missing argument 'name' \(adbench info --help\)"),
    ],
)
def test_a_mistake_in_usage_is_one_line(words: list[str], line: str) -> None:
    result = CliRunner().invoke(app, words, prog_name="adbench")
    assert result.exit_code == 2 and result.stdout == ""
    assert re.fullmatch(rf"error: {line}\n", result.stderr), result.stderr


def test_a_command_without_arguments_shows_its_help() -> None:
    result = CliRunner().invoke(app, ["data"])
    assert result.exit_code == 2 and "Usage: " in result.output


@pytest.mark.parametrize("name", ["methods", "datasets", "out", "device", "tensorboard", "profile"])
def test_an_empty_text_is_no_value(name: str) -> None:
    for text in ("", " ", ","):
        with pytest.raises(OptionError, match=" is empty: give it a value, or leave it"):
            RunConfig.from_options(**{name: text})


def test_tf32_is_a_dtype_of_gpus() -> None:
    assert device_context("cuda", "tf32", remote=True).numerics == "tf32"
    assert RunConfig.from_options(dtype="tf32").dtype == "tf32"
    with pytest.raises(ValueError, match="--dtype tf32 is a precision of GPUs: take float32"):
        device_context("cpu", "tf32")
