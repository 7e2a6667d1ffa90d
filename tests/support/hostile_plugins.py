"""Some ninety ways in which a plugin goes wrong, and one run over all of them.

Each behaviour is a few lines of code that a method runs in its constructor, while it trains or
while it predicts. A run over them has to end, every method has to have its row with the true
reason, and a sound method beside them has to have the same numbers as alone, to the bit.

    python tests/support/hostile_plugins.py FOLDER [NAME ...]

runs all of them, or those that are named, and prints what went wrong.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Behaviour:
    """What a plugin does.

    place: init, fit or detect
    code: with self, and x, levels, rng in detect or train, context in fit; may return a Detection
    reason: a pattern of the reason in its row; empty where it harms nobody and has a result
    """

    place: str
    code: str
    reason: str = ""


def raising(expression: str, reason: str) -> dict[str, Behaviour]:
    code = f"raise {expression}"
    return {place: Behaviour(place, code, reason) for place in ("init", "fit", "detect")}


def named(name: str, behaviours: dict[str, Behaviour]) -> dict[str, Behaviour]:
    return {f"{name}-{place}": behaviour for place, behaviour in behaviours.items()}


BEHAVIOURS: dict[str, Behaviour] = {
    # exceptions
    **named("raise", raising('ValueError("no good")', "ValueError: no good")),
    **named("surrogate", raising('ValueError("no file a\\udcff.png")', r"a\\udcff\.png")),
    "bare": Behaviour("fit", "raise ValueError", "^ValueError$"),
    "empty-line": Behaviour("fit", 'raise ValueError("\\n\\n the cause")', "ValueError: the cause"),
    "huge-message": Behaviour("detect", 'raise ValueError("x" * 10_000_000)', r"x… \(log: "),
    "many-lines": Behaviour("detect", 'raise ValueError("a line\\n" * 100_000)', "a line"),
    "escapes": Behaviour(
        "fit", 'raise ValueError("\\x1b]0;a\\x07\\x1b[2J\\x9b31m")', r"\\x1b\]0;a"
    ),
    "markup": Behaviour("fit", 'raise ValueError("<script>alert(1)</script> [red]=cmd()")', "<scr"),
    "bidi": Behaviour("fit", 'raise ValueError("\\u202eabc\\u2028d")', "ValueError"),
    "nul": Behaviour("fit", 'raise ValueError("a\\0b")', "ValueError: a"),
    "no-text": Behaviour(
        "fit",
        "class Empty(Exception):\n    def __str__(self):\n        raise RuntimeError('no text')\n"
        "raise Empty",
        "no text|Empty",
    ),
    "group": Behaviour("fit", 'raise ExceptionGroup("two", [ValueError(1), KeyError(2)])', "two"),
    "chain": Behaviour(
        "fit",
        "error = ValueError('link')\nfor _ in range(900):\n    new = ValueError('link')\n"
        "    new.__cause__, error = error, new\nraise error",
        "ValueError: link",
    ),
    "circular-cause": Behaviour(
        "fit",
        "a, b = ValueError('a'), ValueError('b')\na.__cause__, b.__cause__ = b, a\nraise a",
        "a",
    ),
    "keyboard-interrupt": Behaviour("fit", "raise KeyboardInterrupt", "SIGINT"),
    "generator-exit": Behaviour("fit", "raise GeneratorExit", "GeneratorExit|exit code"),
    "base-exception": Behaviour(
        "fit", "class Odd(BaseException): ...\nraise Odd('odd')", "Odd|exit code"
    ),
    "memory-error": Behaviour("fit", "raise MemoryError", "MemoryError|memory"),
    "says-disk-full": Behaviour("fit", "raise OSError(5, 'I/O error')", "I/O error"),
    "recursion": Behaviour("detect", "def f(): return f()\nf()", "RecursionError"),
    "deep-recursion": Behaviour(
        "detect",
        "sys.setrecursionlimit(10**8)\ndef f(n): return [f(n + 1)]\nf(0)",
        "RecursionError|SIGSEGV|memory|timed out",
    ),
    "stop-iteration": Behaviour("detect", "raise StopIteration", "StopIteration"),
    "warning": Behaviour("detect", 'import warnings\nwarnings.warn("\\x1b[31m odd \\udcff")'),
    # ends of the process
    "exit": Behaviour("fit", "sys.exit(3)", "SystemExit: 3"),
    "exit-0": Behaviour("detect", "sys.exit(0)", "SystemExit"),
    "exit-text": Behaviour("fit", "sys.exit('bye')", "SystemExit: bye"),
    "hard-exit-0": Behaviour("fit", "os._exit(0)", "exit code 0 before"),
    "hard-exit-7": Behaviour("detect", "os._exit(7)", "exit code 7 before"),
    "hard-exit-init": Behaviour("init", "os._exit(7)", "exit code 7 before"),
    **{
        f"{name.lower()}": Behaviour("detect", f"os.kill(os.getpid(), signal.{name})", name)
        for name in ("SIGSEGV", "SIGKILL", "SIGABRT", "SIGBUS", "SIGFPE", "SIGHUP", "SIGALRM")
    },
    "sigterm-itself": Behaviour("fit", "os.kill(os.getpid(), signal.SIGTERM)", "."),
    "sigint-itself": Behaviour("fit", "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.1)", "."),
    "abort": Behaviour("detect", "os.abort()", "SIGABRT"),
    "null-pointer": Behaviour("detect", "ctypes.string_at(0)", "SIGSEGV"),
    # shapes and values of what is returned
    **{
        name: Behaviour("detect", f"return {code}", reason)
        for name, code, reason in (
            ("none", "self.nothing", "NoneType|not a Detection|none"),
            ("a-number", "3", "int|Detection"),
            ("a-tuple", "(m.flatten(2).mean(2), m)", "tuple|Detection"),
            (
                "numpy",
                "Detection(m.flatten(2).mean(2).numpy(), m.numpy())",
                "ndarray, not a tensor",
            ),
            ("one-level-more", "Detection.from_map(torch.cat([m, m[:1]]))", "score has shape"),
            ("one-level-less", "Detection.from_map(m[:-1])", "score has shape"),
            ("one-sample-less", "Detection.from_map(m[:, 1:])", "score has shape"),
            ("no-axes", "Detection(m.flatten(2).mean(2), m.flatten(2))", "map has shape"),
            ("larger-map", "Detection.from_map(m.repeat(1, 1, 2, 2))", "map has shape"),
            ("scalar-score", "Detection(m.mean(), m)", "score has shape"),
            ("channels", "Detection(m.flatten(2).mean(2), m[:, :, None])", "map has shape"),
            ("nan-map", "Detection.from_map(m * float('nan'))", "not finite"),
            ("inf-map", "Detection.from_map(m + float('inf'))", "not finite"),
            ("nan-score", "Detection(m.flatten(2).mean(2) * float('nan'), m)", "not finite"),
            ("inf-score", "Detection(m.flatten(2).mean(2) - float('inf'), m)", "not finite"),
            ("one-nan", "Detection.from_map(one_nan(m))", "not finite"),
            ("complex-map", "Detection(m.flatten(2).mean(2), m * 1j)", "map is complex"),
            ("complex-score", "Detection(m.flatten(2).mean(2) * 1j, m)", "score is complex"),
            ("negative-map", "Detection.from_map(m - 9)", "map is at least 0"),
            ("bool-map", "Detection(m.flatten(2).mean(2), m > 0.5)", ""),
            ("half-map", "Detection.from_map(m.half())", ""),
            ("double-map", "Detection.from_map(m.double())", ""),
            ("huge-map", "Detection.from_map(m.double() + 1e200)", "not finite|float32|large"),
            ("int-map", "Detection(m.flatten(2).mean(2), (m * 100).long())", ""),
            ("sparse-map", "Detection(m.flatten(2).mean(2), m.to_sparse())", "sparse|layout"),
            ("meta-map", "Detection(m.flatten(2).mean(2), m.to('meta'))", "meta|data"),
            ("with-gradient", "Detection.from_map(m.clone().requires_grad_())", ""),
            ("odd-reconstruction", "Detection.from_map(m, x)", "reconstruction has shape"),
            ("nan-reconstruction", "Detection.from_map(m, m[:, :, None] * float('nan'))", "finite"),
            ("far-reconstruction", "Detection.from_map(m, m[:, :, None] * 1e6)", ""),
            ("expanded", "Detection.from_map(m[:1, :1].expand_as(m))", ""),
            ("constant", "Detection.from_map(torch.zeros_like(m))", ""),
        )
    },
    "strings": Behaviour("detect", "return Detection(['high'], m)", "list, not a tensor"),
    # what it prints
    "garbage": Behaviour(
        "detect", 'os.write(1, bytes(range(256)) * 1000); os.write(2, b"\\xff" * 9)'
    ),
    "much": Behaviour("detect", 'for _ in range(2000): os.write(1, b"x" * 9999 + b"\\n")'),
    "one-long-line": Behaviour("fit", 'for _ in range(2000): os.write(1, b"x" * 9999)'),
    "fake-events": Behaviour("detect", "write_to_pipes(GARBAGE)"),
    "fake-end": Behaviour(
        "detect", """write_to_pipes(b'{"kind": "ended", "outcome": {"end": "ok"}}\\n')"""
    ),
    "fake-record": Behaviour(
        "fit",
        """write_to_pipes(b'{"kind": "ended", "outcome": {"end": "ok", "record": {}}}\\n')\n"""
        "os._exit(0)",
        "record does not fit",
    ),
    # what it leaves running
    "thread": Behaviour(
        "fit", "threading.Thread(target=time.sleep, args=(600,), daemon=False).start()"
    ),
    "raising-thread": Behaviour("fit", "threading.Thread(target=lambda: 1 / 0).start()"),
    "child": Behaviour("fit", "subprocess.Popen(['sleep', '600'])"),
    "child-session": Behaviour("fit", "subprocess.Popen(['sleep', '600'], start_new_session=True)"),
    "fork": Behaviour("fit", "os.fork() or (time.sleep(600), os._exit(0))"),
    "fork-goes-on": Behaviour("fit", "os.fork()", "."),
    "exec": Behaviour("fit", "os.execvp('true', ['true'])", "exit code 0 before"),
    "atexit": Behaviour("fit", "atexit.register(os._exit, 9)"),
    "pool": Behaviour("fit", "multiprocessing.get_context('spawn')"),
    # the process around it
    "close-stdin": Behaviour("fit", "os.close(0)"),
    "close-stdout": Behaviour("detect", "os.close(1); os.close(2)", "."),
    "close-all": Behaviour("detect", "os.closerange(3, 100)", "."),
    "chdir": Behaviour("fit", "os.chdir('/')"),
    "removed-cwd": Behaviour("fit", "d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)", "."),
    "environment": Behaviour("fit", "os.environ.clear()"),
    "umask": Behaviour("fit", "os.umask(0o777)"),
    "global-rng": Behaviour("detect", "torch.manual_seed(7); random.seed(7); numpy.random.seed(7)"),
    "default-dtype": Behaviour("init", "torch.set_default_dtype(torch.float64)"),
    "default-dtype-detect": Behaviour("detect", "torch.set_default_dtype(torch.float64)"),
    "threads-of-torch": Behaviour("fit", "torch.set_num_threads(1)"),
    "deterministic": Behaviour("fit", "torch.use_deterministic_algorithms(True)"),
    "no-grad": Behaviour("init", "torch.set_grad_enabled(False)"),
    "handlers": Behaviour(
        "fit",
        "for s in (2, 15, 14, 10): signal.signal(s, signal.SIG_IGN)\ntime.sleep(600)",
        "timed out",
    ),
    "alarm": Behaviour(
        "fit", "signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(1)", "SIGALRM"
    ),
    "sleep": Behaviour("detect", "time.sleep(600)", "timed out"),
    "spin": Behaviour("fit", "while True: pass", "timed out"),
    "few-files": Behaviour(
        "fit", "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))", "Too many open files|."
    ),
    "no-more-files": Behaviour("fit", "resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))", "."),
    "little-memory": Behaviour(
        "fit", "resource.setrlimit(resource.RLIMIT_AS, (2**20, 2**20)); bytearray(2**30)", "Memory"
    ),
    "stop-itself": Behaviour("detect", "os.kill(os.getpid(), signal.SIGSTOP)", "timed out"),
    # code that is not its own
    "monkeypatch-numpy": Behaviour("fit", "numpy.mean = numpy.sum = None", "."),
    "monkeypatch-open": Behaviour("detect", "builtins.open = None", "."),
    "monkeypatch-json": Behaviour("detect", "json.dumps = None", "."),
    "monkeypatch-torch": Behaviour(
        "init", "torch.Tensor.abs = torch.Tensor.neg", "map is at least 0"
    ),
    "trace": Behaviour("detect", "sys.settrace(lambda *a: None)"),
    "collector": Behaviour("detect", "gc.disable(); gc.set_threshold(1)"),
    "excepthook": Behaviour("fit", "sys.excepthook = None\nraise ValueError('mine')", "mine"),
    "write-into-x": Behaviour("detect", "x.fill_(0.5)"),
    "write-into-train": Behaviour("fit", "train[0].x.fill_(0.5)"),
    "callers-frame": Behaviour("detect", "peek(sys._getframe())"),
    "garbage-collector-peek": Behaviour(
        "detect", "assert not [o for o in gc.get_objects() if type(o).__name__ == 'Batch']"
    ),
    "writes-into-store": Behaviour("fit", "scribble(self.store)"),
    "removes-the-store": Behaviour(
        "fit", "shutil.rmtree(self.store, ignore_errors=True)", "was removed"
    ),
    "kills-the-parent": Behaviour(
        "fit", "os.kill(os.getppid(), 9); time.sleep(60)", "lost its parent process"
    ),
    # growth
    "memory": Behaviour("detect", "self.memory = getattr(self, 'memory', []) + [x] * 10"),
    "new-buffer": Behaviour("detect", "self.register_buffer('late', torch.zeros(3))"),
    "nan-weights": Behaviour("fit", "self.scale.data.fill_(float('nan'))", "scale is not finite"),
    "weights-of-another-shape": Behaviour(
        "fit", "self.scale = nn.Parameter(torch.ones(5))", "size"
    ),
    "no-weights": Behaviour("fit", "del self.scale", "scale"),
    "lambda-attribute": Behaviour("fit", "self.f = lambda: 0"),
    "hooks": Behaviour("fit", "self.register_forward_hook(lambda *a: 1 / 0)"),
    "odd-event": Behaviour(
        "fit",
        "context.on_event('train\\udcff', {'step': 'many', 'of': float('nan'), 'a': '\\ud800'})",
    ),
    "huge-event": Behaviour("fit", "context.on_event('train', {'text': 'x' * 10_000_000})"),
    "deep-event": Behaviour(
        "fit", "a = []\nfor _ in range(100_000): a = [a]\ncontext.on_event('train', {'a': a})", ".*"
    ),
}

PLUGIN = '''"""Made by hostile_plugins.py."""
import atexit, builtins, ctypes, fcntl, gc, json, multiprocessing, os, random, resource, shutil
import signal, stat, subprocess, sys, tempfile, threading, time
from pathlib import Path

import numpy, torch
from torch import nn

from adbench.methods.base import Detection, Method

GARBAGE = b"3\\n[]\\n{}\\nnull\\n[\\"told\\",5]\\n\\xff\\xfe\\n" + b"[" * 100_000 + b"\\n"


def write_to_pipes(data):
    own = os.environ.get("PIPES_OF_THE_TESTS", "").split(",")
    for name in os.listdir("/proc/self/fd"):
        try:
            file = int(name)
            status = os.fstat(file)
            if file > 2 and stat.S_ISFIFO(status.st_mode) and str(status.st_ino) not in own:
                if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_WRONLY:
                    os.write(file, data)
        except OSError:
            pass


def one_nan(m):
    m = m.clone()
    m[0, 0, 0, 0] = float("nan")
    return m


def peek(frame):
    """Search masks and labels in the frames of the callers."""
    while frame is not None:
        for value in list(frame.f_locals.values()):
            if getattr(value, "mask", None) is not None and hasattr(value, "x"):
                raise AssertionError(f"masks are in {frame.f_code.co_qualname}: {type(value)}")
        frame = frame.f_back


def scribble(store):
    for folder in [path for path in Path(store).rglob("*") if path.is_dir()][:50]:
        if folder.is_dir():
            (folder / "scribble.txt").write_text("x")
    (Path(store) / "maps").mkdir(exist_ok=True)
    (Path(store) / "maps" / "junk").write_bytes(b"junk")


class Hostile(Method):
    ndims = frozenset({2})
    levels, published = (100, 200), 100
    nothing = None

    def __init__(self, spec, *, how: str = "", store: str = "") -> None:
        super().__init__(spec)
        self.how, self.store = how, store
        self.scale = nn.Parameter(torch.ones(1))
        self._run("init")

    def fit(self, train, calibration, context):
        self._run("fit", train=train, context=context)

    def detect(self, x, levels, rng):
        m = x.mean(1).abs().expand(len(levels), len(x), *x.shape[2:])
        result = self._run("detect", x=x, levels=levels, rng=rng, m=m)
        return Detection.from_map(m.clone()) if result is KEEP else result

    def _run(self, place, **names):
        function = FUNCTIONS.get((self.how, place))
        return KEEP if function is None else function(self, **names)


KEEP = object()
FUNCTIONS = {}
'''
ARGUMENTS = {"init": "self", "fit": "self, train, context", "detect": "self, x, levels, rng, m"}
IMPORTS = {
    "import-raise": ("raise ValueError('no good')", "ValueError: no good"),
    "import-surrogate": ("raise ValueError('a\\udcff')", "ValueError: a"),
    "import-syntax": ("def", "SyntaxError"),
    "import-nul": ("x = 1\0", "SyntaxError|null bytes"),
    "import-missing": ("import no_such_module", "No module named 'no_such_module'"),
    "import-exit": ("import sys\nsys.exit(5)", "SystemExit: 5"),
    "import-no-class": ("class Other: ...", "names no class"),
    "import-recursion": ("def f(): f()\nf()", "RecursionError"),
    "import-empty": ("raise ValueError", ": ValueError$"),
}
"""What a file of a plugin does while it is imported, and a pattern of the refusal."""


def write_plugins(
    folder: Path, names: Iterable[str], store: Path, behaviours: Mapping[str, Behaviour]
) -> Path:
    """Write a plugin with a method of each name, and return its registry file."""
    text, rows = [PLUGIN], ["methods:"]
    for name in names:
        behaviour = behaviours[name]
        function = f"_{re.sub(r'[^a-z0-9]', '_', name)}"
        body = textwrap.indent(behaviour.code, "    ")
        text.append(
            f"\ndef {function}({ARGUMENTS[behaviour.place]}):\n{body}\n    return KEEP\n\n"
            f"FUNCTIONS[{name!r}, {behaviour.place!r}] = {function}\n"
        )
        rows.append(
            f'  bad-{name}: {{class: "hostile_methods.py:Hostile", about: "{behaviour.place}", '
            f'args: {{how: "{name}", store: "{store}"}}}}'
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hostile_methods.py").write_text("".join(text))
    path = folder / "hostile.yaml"
    path.write_text("\n".join([*rows, ""]))
    return path


def run_all(
    folder: Path,
    names: Iterable[str],
    executor: Any,
    timeout: float = 60.0,
    behaviours: Mapping[str, Behaviour] = BEHAVIOURS,
) -> tuple[int, str, list[str]]:
    """Run all named behaviours beside two sound methods in one run, and those two alone.

    Returns the exit code, what a user read, and one line for everything that is not as it should.
    """
    import sweeps
    from adbench.benchmark.experiments.matrix import expand_matrix
    from adbench.benchmark.experiments.run_config import RunConfig
    from adbench.benchmark.registry.registry import Registry

    names = [*names]
    registry = Registry.read(
        *(sweeps.PLUGIN / name for name in ("registry.yaml", "trouble.yaml")),
        write_plugins(folder / "plugin", names, folder / "run/store", behaviours),
    )
    sound = ["walker", "brightness"]
    settings = {"walker": {"steps": 3}, "bumps": {"train": 4, "size": 6}}

    def experiments(methods: list[str]) -> Any:
        config = RunConfig(methods, ["bumps"], "tiny", settings=settings, baselines=False)
        return expand_matrix(config, registry)

    bad = [f"bad-{name}" for name in names]
    half = len(bad) // 2
    order = [sound[0], *bad[:half], sound[1], *bad[half:]]
    code, printed = sweeps.run_planned(
        experiments(order), folder / "run", executor, timeout=timeout, grace=1.0
    )
    sweeps.run_planned(experiments(sound), folder / "alone")
    wrong = [] if code == 3 or not any(behaviours[n].reason for n in names) else [f"exit {code}"]
    rows = {key.rpartition(" ")[0]: row for key, row in sweeps.records(folder / "run").items()}
    for name in names:
        row, expected = rows.get(f"bad-{name}"), behaviours[name].reason
        if row is None:
            wrong.append(f"{name}: no row")
        elif row["status"] == "ok" and expected not in ("", ".", ".*"):
            wrong.append(f"{name}: ok, expected a failure of {expected!r}")
        elif row["status"] != "ok" and not (expected and re.search(expected, row["reason"])):
            wrong.append(f"{name}: {row['status']}, {row['reason'][:200]!r}, not {expected!r}")
    together, alone = sweeps.results(folder / "run"), sweeps.results(folder / "alone")
    different = [key for key in alone if together.get(key) != alone[key]]
    if {*names} & {"writes-into-store", "removes-the-store"}:  # then maps may be gone
        different = [key for key in different if key in together or "/maps/" not in key]
    wrong += [f"another result than alone: {key}" for key in different]
    if "\x1b" in printed or re.search("[\x80-\x9f]", printed):
        wrong.append("an escape sequence reached the terminal")
    return code, printed, wrong


def main(behaviours: Mapping[str, Behaviour] = BEHAVIOURS) -> None:
    import sweeps

    folder, *names = sys.argv[1:]
    names = names or [*behaviours]
    code, printed, wrong = run_all(Path(folder), names, sweeps.local(2), behaviours=behaviours)
    print(printed[-100_000:])
    print("\n".join(wrong))
    print(f"{len(names)} tried, {len(wrong)} wrong, exit {code}")


if __name__ == "__main__":
    main()
