"""Further ways in which a plugin goes wrong: processes that hide, odd weights, types and settings.

They run as those of hostile_plugins.py do:

    python tests/support/more_hostile_plugins.py FOLDER [NAME ...]
"""

from __future__ import annotations

from hostile_plugins import Behaviour, main

MORE: dict[str, Behaviour] = {
    "escaped-child": Behaviour(
        "fit", "subprocess.Popen(['env', '-i', 'setsid', 'sleep', '98765'])"
    ),
    "daemon": Behaviour(
        "fit",
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        "    os.chdir('/'); os.closerange(0, 100)\n"
        "    os.execve('/bin/sleep', ['sleep', '98766'], {})",
    ),
    "default-device": Behaviour("fit", "torch.set_default_device('meta')", ".*"),
    "default-device-detect": Behaviour("detect", "torch.set_default_device('meta')", ".*"),
    "flush-denormal": Behaviour("fit", "torch.set_flush_denormal(True)"),
    "precision": Behaviour(
        "fit", "torch.set_float32_matmul_precision('medium'); torch.backends.mkldnn.enabled = False"
    ),
    "no-stdout": Behaviour("fit", "sys.stdout = sys.stderr = None"),
    "odd-stdout": Behaviour("fit", "sys.stdout = sys.stderr = object()"),
    "odd-stdout-raise": Behaviour(
        "fit", "sys.stdout = sys.stderr = object()\nraise ValueError('mine')", "mine"
    ),
    "logging-off": Behaviour("fit", "import logging\nlogging.disable(); logging.shutdown()"),
    "warnings-error": Behaviour("fit", "import warnings\nwarnings.simplefilter('error')"),
    "warnings-flood": Behaviour(
        "fit", "import warnings\nfor i in range(20000): warnings.warn(f'warning {i}')"
    ),
    "low-recursion-limit": Behaviour(
        "fit", "sys.setrecursionlimit(len(__import__('inspect').stack()) + 12)", "."
    ),
    "switch-interval": Behaviour("fit", "sys.setswitchinterval(1e-9)"),
    "sleeping-threads": Behaviour(
        "fit",
        "[threading.Thread(target=time.sleep, args=(600,), "
        "daemon=True).start() for _ in range(500)]",
    ),
    "endless-thread": Behaviour("fit", "threading.Thread(target=time.sleep, args=(6000,)).start()"),
    "atexit-hangs": Behaviour("fit", "atexit.register(time.sleep, 6000)"),
    "del-hangs": Behaviour(
        "fit", "class D:\n    def __del__(self): time.sleep(6000)\nbuiltins._d = D()"
    ),
    "kill-group": Behaviour("fit", "os.killpg(0, 9); time.sleep(9)", "SIGKILL"),
    "tied": Behaviour("fit", "self.other = self.scale", "Unexpected key"),
    "tied-init": Behaviour("init", "self.other = self.scale"),
    "views": Behaviour(
        "init",
        "t = torch.arange(10.); self.register_buffer('p', t[:6]); self.register_buffer('q', t[4:])",
    ),
    "expanded-buffer": Behaviour(
        "init", "self.register_buffer('p', torch.zeros(1).expand(7))", "dimensions"
    ),
    "surrogate-name": Behaviour("init", "self.register_buffer('a\\udcff', torch.zeros(1))", "."),
    "newline-name": Behaviour("init", "self.register_buffer('a\\nb\\x1b[2J', torch.zeros(1))"),
    "metadata-name": Behaviour("init", "self.register_buffer('__metadata__', torch.zeros(1))", "."),
    "long-name": Behaviour("init", "self.register_buffer('a' * 1_000_000, torch.zeros(1))", ".*"),
    "complex-weight": Behaviour(
        "init", "self.register_buffer('c', torch.zeros(2, dtype=torch.complex64))", ".*"
    ),
    "sparse-weight": Behaviour("init", "self.register_buffer('c', torch.eye(3).to_sparse())", "."),
    "meta-weight": Behaviour("fit", "self.scale = nn.Parameter(torch.ones(1, device='meta'))", "."),
    "extra-state": Behaviour(
        "init",
        "self.get_extra_state = lambda: {'a': object()}; self.set_extra_state = lambda s: None",
        ".*",
    ),
    "odd-state-dict": Behaviour("init", "self.state_dict = lambda *a, **k: {'a': 3}", "."),
    "state-dict-none": Behaviour("init", "self.state_dict = lambda *a, **k: None", "."),
    "inf-weight": Behaviour("fit", "self.scale.data.fill_(float('inf'))", "not finite"),
    "huge-weight": Behaviour(
        "init",
        "self.register_buffer('huge', torch.empty(10**13, dtype=torch.uint8))",
        "emory|allocate",
    ),
    "levels-cleared": Behaviour(
        "detect", "levels.clear() if hasattr(levels, 'clear') else None", ".*"
    ),
    "levels-longer": Behaviour(
        "detect", "levels.append(900) if hasattr(levels, 'append') else None", ".*"
    ),
    "rng-emptied": Behaviour("detect", "vars(rng).clear()", ".*"),
    "list-score": Behaviour("detect", "return Detection([[1.0]], None)", "."),
    "numpy-score": Behaviour("detect", "return Detection(m.mean((2, 3)).numpy(), m.numpy())", "."),
    "int-score": Behaviour(
        "detect",
        "return Detection(torch.ones(len(levels), len(x), dtype=torch.int64), m.clone())",
        ".*",
    ),
    "subclass": Behaviour(
        "detect",
        "class T(torch.Tensor): pass\nreturn Detection.from_map(m.clone().as_subclass(T))",
        ".*",
    ),
    "lying": Behaviour(
        "detect",
        "class L:\n"
        "    n = 0\n"
        "    map = reconstruction = None\n"
        "    @property\n"
        "    def score(self):\n"
        "        L.n += 1\n"
        "        return torch.zeros(L.n, len(x))\n"
        "return L()",
        ".",
    ),
    "named-dims": Behaviour(
        "detect", "return Detection(m.mean((2, 3)).rename('a', 'b'), m.clone())", ".*"
    ),
    "largest-map": Behaviour(
        "detect", "return Detection.from_map(torch.full_like(m, 3.4e38))", ".*"
    ),
    "denormal-map": Behaviour("detect", "return Detection.from_map(m * 1e-44)"),
    "double-overflow": Behaviour("detect", "return Detection.from_map(m.double() * 1e300)", "."),
    "zero-map": Behaviour("detect", "return Detection.from_map(torch.zeros_like(m))"),
    "event-ended": Behaviour("fit", "context.on_event('ended', {'end': 'ok', 'record': {}})", ".*"),
    "event-no-dict": Behaviour(
        "fit", "context.on_event('train', 5); context.on_event(5, None)", ".*"
    ),
    "closes-then-sleeps": Behaviour(
        "fit", "os.closerange(3, 200); time.sleep(6000)", "timed out|ended"
    ),
    "cpu-limit": Behaviour(
        "fit",
        "resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass",
        "SIGXCPU|SIGKILL",
    ),
    "sigprof": Behaviour(
        "fit", "signal.setitimer(signal.ITIMER_PROF, 0.01)\nwhile True: pass", "SIGPROF"
    ),
    "sigtrap": Behaviour("fit", "os.kill(os.getpid(), signal.SIGTRAP)", "SIGTRAP"),
    "real-time-signal": Behaviour("fit", "os.kill(os.getpid(), 40)", "signal"),
    "modules-cleared": Behaviour("fit", "sys.modules.clear()", ".*"),
    "path-cleared": Behaviour("fit", "sys.path.clear(); sys.meta_path.clear()", ".*"),
    "no-len": Behaviour("fit", "builtins.len = None", "."),
    "another-class": Behaviour("fit", "self.__class__ = nn.Linear", "."),
    "class-levels": Behaviour(
        "fit", "type(self).levels = (); type(self).ndims = None; type(self).published = None", ".*"
    ),
    "x-emptied": Behaviour("detect", "x.set_()", ".*"),
    "train-emptied": Behaviour("fit", "train[0].x.set_()", ".*"),
    "context-changed": Behaviour(
        "fit",
        "object.__setattr__(context, 'state_store', None); "
        "object.__setattr__(context, 'seed', None)",
        ".*",
    ),
    "interrupted": Behaviour(
        "fit", "from adbench.engine.runtime.context import Interrupted\nraise Interrupted", "."
    ),
    "interrupted-detect": Behaviour(
        "detect", "from adbench.engine.runtime.context import Interrupted\nraise Interrupted", "."
    ),
    "data-error": Behaviour(
        "fit",
        "from adbench.datasets.base import DataError\nraise DataError('no data', ['a'] * 1000)",
        "no data",
    ),
    "data-error-init": Behaviour(
        "init",
        "from adbench.datasets.base import DataError\nraise DataError('no data', ['a'] * 1000)",
        "no data",
    ),
    "store-error": Behaviour(
        "fit",
        "from adbench.benchmark.store.atomic_files import StoreError\nraise StoreError('mine')",
        "mine",
    ),
    "registry-error": Behaviour(
        "fit",
        "from adbench.benchmark.registry.registry import RegistryError\n"
        "raise RegistryError('mine')",
        "mine",
    ),
    "cuda-oom": Behaviour("detect", "raise torch.OutOfMemoryError('mine')", "."),
    "broken-pipe": Behaviour("fit", "raise BrokenPipeError", "BrokenPipe"),
    "eof": Behaviour("fit", "raise EOFError", "EOFError"),
    "cancelled": Behaviour(
        "fit", "import asyncio\nraise asyncio.CancelledError", "Cancelled|exit code"
    ),
    "odd-type-name": Behaviour(
        "fit", "raise type('A\\n\\x1b[2J\\udcff', (Exception,), {})('b')", "."
    ),
    "str-no-text": Behaviour(
        "fit", "class E(Exception):\n    def __str__(self): return 5\nraise E", "."
    ),
    "slow-str": Behaviour(
        "fit", "class E(Exception):\n    def __str__(self): time.sleep(6000)\nraise E", "timed out"
    ),
    "notes": Behaviour(
        "fit",
        "e = ValueError('mine'); e.add_note('x' * 10**6); e.add_note('\\udcff\\x1b[2J')\nraise e",
        "mine",
    ),
    "class-is-exception-args": Behaviour(
        "fit", "e = ValueError(); e.args = (object(),) * 10**5\nraise e", "ValueError"
    ),
}

if __name__ == "__main__":
    main(MORE)
