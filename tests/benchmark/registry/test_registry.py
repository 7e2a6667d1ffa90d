"""Names, what they stand for, and errors that say what would do instead."""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adbench.benchmark.registry import registry as registry_module
from adbench.benchmark.registry.registry import Entry, Registry, RegistryError

PLUGIN = """
class Base:
    def __init__(self, spec, *, width=64, lr=1e-4, mults=(1, 2)): ...

class Mine(Base):
    def __init__(self, spec, *, steps: int = 10, **rest): ...

class Narrow(Base):
    def __init__(self, spec, *, steps=10): ...

class Folder:
    def __init__(self, *, root=None, category="all", size=32): ...

class Needy:
    def __init__(self, *, root): ...
"""

REGISTRY = """
methods:
  mine: {class: "mine.py:Mine", about: of mine, args: {width: 32}}
  narrow: {class: "mine.py:Narrow"}
datasets:
  photos: {class: "mine.py:Folder", licence: free, tree: "<root>/*.png"}
  needy: {class: "mine.py:Needy"}
profiles:
  quick:
    about: in no time
    methods: {mine: {steps: 2}, "*": {lr: 1.0e-3, nobody: 1}}
    datasets: {photos: {size: 8}, photos/nut: {size: 16}}
    levels: {"*": [100, 200], mine: [300]}
"""

Read = Callable[..., Registry]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a registry file, or several, beside the plugin, and read them."""
    (tmp_path / "mine.py").write_text(PLUGIN)

    def write(*texts: str) -> Registry:
        paths = [tmp_path / f"registry-{i}.yaml" for i in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        return Registry.read(*paths)

    return write


def refused(read: Read, *texts: str) -> str:
    with pytest.raises(RegistryError) as caught:
        read(*texts)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("suites:\n  new: [pca,\n    anodpm]", "suite 'new' names the method 'anodpm', which", 2),
        ("suites:\n  new: [mvtec]", "'mvtec', which is a dataset, not a method", 2),
        ("profiles:\n  new:\n    methods:\n      anodpm: {steps: 3}", "the method 'anodpm'", 4),
        ("profiles:\n  new:\n    datasets:\n      mvtek: {size: 3}", "the dataset 'mvtek'", 4),
        ("profiles:\n  new:\n    levels:\n      anodpm: [100]", "the method 'anodpm'", 4),
    ],
)
def test_a_name_that_is_not_registered_is_refused_with_file_and_line(
    read: Read, text: str, words: str, line: int
) -> None:
    message = refused(read, text)
    assert words in message and "registry-0.yaml: " in message
    assert message.endswith(f" (line {line})")


def test_what_is_built_in() -> None:
    registry = Registry.read()
    assert {"anoddpm", "pddpm", "autoddpm", "healthy-mean"} <= set(registry.methods)
    assert {"brats", "synthbrain", "phantom"} <= set(registry.datasets)
    assert {"tiny", "paper"} <= set(registry.profiles)
    baselines = {name for name, entry in registry.methods.items() if entry.baseline}
    assert {"healthy-mean", "template-z", "pca", "intensity"} <= baselines
    assert "anoddpm" not in baselines
    entry = registry.method("anoddpm")
    assert (entry.class_path, entry.label, entry.origin) == (
        "anoddpm:AnoDDPM",
        "AnoDDPM",
        "registry.yaml",
    )
    for entry in [*registry.methods.values(), *registry.datasets.values()]:
        assert entry.about and entry.label


def test_an_unknown_name_gets_the_nearest() -> None:
    registry = Registry.read()
    with pytest.raises(RegistryError) as caught:
        registry.method("anodppm")
    assert str(caught.value) == (
        "unknown method 'anodppm'. Did you mean 'anoddpm'? (adbench list methods)"
    )
    with pytest.raises(RegistryError, match=r"^unknown dataset 'BraTs'. Did you mean 'brats'\?"):
        registry.dataset("BraTs")
    with pytest.raises(RegistryError, match=r"unknown profile 'tinny'. Did you mean 'tiny'\?"):
        registry.profile("tinny")
    with pytest.raises(RegistryError, match=r"^unknown method 'qqqq'. \(adbench list methods\)$"):
        registry.method("qqqq")


def test_a_plugin_file_is_found_beside_its_registry_and_may_import_its_neighbours(
    read: Read, tmp_path: Path
) -> None:
    (tmp_path / "helper.py").write_text("WIDTH = 7\n")
    (tmp_path / "near.py").write_text(
        "from .helper import WIDTH\nclass Near:\n    def __init__(self, *, width=WIDTH): ...\n"
    )
    registry = read(REGISTRY, 'datasets: {near: {class: "near.py:Near"}}')
    near = registry.dataset("near")
    assert near.arguments() == {"width": 7}
    assert near.class_path == "near.py:Near"  # in identities: no path of this machine
    assert near.load() is near.load()
    assert sys.modules[near.load().__module__].__file__ == str(tmp_path / "near.py")


def test_same_named_files_of_two_folders_do_not_meet(read: Read, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.py").write_text("class Mine:\n    def __init__(self, spec, *, other=1): ...\n")
    (other / "registry.yaml").write_text('methods: {theirs: {class: "mine.py:Mine"}}')
    (tmp_path / "registry.yaml").write_text(REGISTRY)
    registry = Registry.read(tmp_path / "registry.yaml", other / "registry.yaml")
    assert registry.method("theirs").arguments() == {"other": 1}
    assert "width" in registry.method("mine").arguments()


def test_arguments_come_in_layers(read: Read) -> None:
    mine = read(REGISTRY).method("mine")
    assert mine.arguments() == {"steps": 10, "width": 32, "lr": 1e-4, "mults": [1, 2]}
    quick = mine.arguments("quick", {"mults": (3,)})
    assert quick == {"steps": 2, "width": 32, "lr": 1e-3, "mults": [3]}
    assert mine.arguments("quick", {"steps": 5})["steps"] == 5
    assert json.loads(json.dumps(quick)) == quick


def test_a_number_is_a_number_however_it_is_written(read: Read) -> None:
    mine = read(REGISTRY).method("mine")
    for written in (1, 1.0, "1", "1e0"):
        lr = mine.arguments(None, {"lr": written})["lr"]
        assert isinstance(lr, float) and lr == 1.0
    with pytest.raises(RegistryError, match=r"lr is a number such as 0.0001, not 'fast'"):
        mine.arguments(None, {"lr": "fast"})
    with pytest.raises(RegistryError, match="lr must be finite"):
        mine.arguments(None, {"lr": "nan"})
    with pytest.raises(RegistryError, match="cannot be written as JSON"):
        mine.arguments(None, {"width": object()})


def test_an_unknown_argument_gets_the_nearest_and_the_list(read: Read) -> None:
    mine = read(REGISTRY).method("mine")
    with pytest.raises(RegistryError) as caught:
        mine.arguments(None, {"widht": 3})
    assert str(caught.value) == (
        "method 'mine' takes no 'widht' (asked for). Did you mean 'width'? "
        "It takes lr, mults, steps, width"
    )
    with pytest.raises(RegistryError, match="takes no 'spec'"):
        mine.arguments(None, {"spec": 3})


def test_a_base_takes_arguments_only_through_its_heir(read: Read) -> None:
    registry = read(REGISTRY)
    assert registry.method("mine").parameters().keys() == {"steps", "width", "lr", "mults"}
    assert registry.method("narrow").parameters().keys() == {"steps"}


def test_a_missing_argument_is_asked_for(read: Read) -> None:
    needy = read(REGISTRY).dataset("needy")
    with pytest.raises(RegistryError, match="dataset 'needy' needs a value for root"):
        needy.arguments()
    assert needy.arguments(None, {"root": Path("somewhere")}) == {"root": "somewhere"}


def test_a_dataset_has_categories(read: Read) -> None:
    registry = read(REGISTRY)
    nut = registry.dataset("photos/nut")
    assert nut.name == "photos/nut"
    assert nut.arguments("quick") == {"root": None, "category": "nut", "size": 16}
    assert registry.dataset("photos/bolt").arguments("quick")["size"] == 8
    assert registry.dataset("photos").arguments() == {"root": None, "category": "all", "size": 32}
    with pytest.raises(RegistryError, match="takes no 'category'"):
        registry.dataset("needy/nut").arguments()


def test_what_people_read_is_kept(read: Read) -> None:
    photos = read(REGISTRY).dataset("photos")
    assert photos.extra == {"licence": "free", "tree": "<root>/*.png"}
    assert photos.label == "photos"


def test_profiles_grow_but_do_not_change(read: Read) -> None:
    registry = read(REGISTRY, "profiles: {quick: {datasets: {needy: {root: here}}}}")
    quick = registry.profile("quick")
    assert quick.about == "in no time"
    assert registry.dataset("needy").arguments("quick") == {"root": "here"}
    assert (quick.levels("mine"), quick.levels("pddpm")) == ((300,), (100, 200))
    assert registry.profile("paper").levels("mine") is None
    again = "profiles: {quick: {methods: {mine: {steps: 3}}}}"
    assert "registry-1.yaml: profile quick: methods 'mine'" in refused(read, REGISTRY, again)


def test_a_name_stands_for_one_thing(read: Read, tmp_path: Path) -> None:
    twice = 'methods: {anoddpm: {class: "mine.py:Mine"}}'
    message = refused(read, twice)
    assert "method 'anoddpm' is registered twice" in message
    assert "registry.yaml" in message and str(tmp_path / "registry-0.yaml") in message
    meant = read('methods: {anoddpm: {class: "mine.py:Mine", replace: true}}')
    assert meant.method("anoddpm").class_path == "mine.py:Mine"


def test_installed_packages_bring_names(monkeypatch: pytest.MonkeyPatch) -> None:
    points = importlib.metadata.EntryPoints(
        importlib.metadata.EntryPoint(name, "collections:Counter", group)
        for group, name in (("adbench.methods", "theirs"), ("adbench.datasets", "counted"))
    )
    monkeypatch.setattr(registry_module, "entry_points", lambda: points)
    registry = Registry.read()
    assert registry.method("theirs").class_path == "collections:Counter"
    assert registry.dataset("counted").load().__name__ == "Counter"
    assert "the package" in registry.method("theirs").origin


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a list", "registry-0.yaml: the file: should be `name: …` lines, not list"),
        ("method: {}", "unknown key 'method'. Did you mean 'methods'?"),
        ("methods: [mine]", "methods: should be `name: …` lines, not list"),
        ("methods: {mine: mine.py}", "method 'mine': should be `name: …` lines, not str"),
        ('methods: {mine: {clas: "a:B"}}', "unknown key 'clas'. Did you mean 'class'?"),
        ("methods: {mine: {}}", "class must read module:Class"),
        ("methods: {mine: {class: mine.py}}", "class must read module:Class"),
        ('methods: {mine: {class: "../m:Mine"}}', "class must read module:Class"),
        ('methods: {yes: {class: "a:B"}}', "True is read as bool; put it in quotes"),
        ('methods: {"a,b": {class: "a:B"}}', "a name is made of letters"),
        ('methods: {a: {class: "a:B", args: 3}}', "args: should be `name: …` lines"),
        ('methods: {a: {class: "a:B", baseline: 3}}', "baseline must be bool, not 3"),
        ('methods: {a: {class: "a:B", batch_dependent: 3}}', "batch_dependent must be bool, not 3"),
        ('methods: {a: {class: "a:B", base: ddad}}', "leave out class or base"),
        ("methods: {a: {base: [ddad]}}", "base must be str, not ['ddad']"),
        ('datasets: {a: {class: "a:B", baseline: true}}', "unknown key 'baseline'"),
        ("profiles: {p: {methods: {anodppm: {}}}}", "Did you mean 'anoddpm'?"),
        ("profiles: {p: {levels: {anodppm: [1]}}}", "Did you mean 'anoddpm'?"),
        ("profiles: {p: {levels: [0.5]}}", "levels of '*' are integers in 0..1000"),
        ("methods: {a: {", "not YAML"),
        ("methods: !!python/object/apply:os.getcwd []", "not YAML"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_the_file(read: Read, text: str, expected: str) -> None:
    message = refused(read, text)
    assert expected in message
    assert "registry-0.yaml" in message or "profile 'p' names" in message


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(RegistryError, match=r"nowhere\.yaml cannot be read"):
        Registry.read(Path("nowhere.yaml"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of"),
        ("def f(:", "SyntaxError"),
        ("raise RuntimeError('first\\nsecond')", "RuntimeError: first second"),
        ("class Bad: ...", "'bad.py:Bed' names no class. Did you mean 'Bad'?"),
        ("Bed = 3", "'bad.py:Bed' names no class."),
        (None, "there is no file"),
    ],
)
def test_a_plugin_that_fails_says_why(
    read: Read, tmp_path: Path, source: str | None, expected: str
) -> None:
    if source is not None:
        (tmp_path / "bad.py").write_text(source)
    entry = read('methods: {bad: {class: "bad.py:Bed"}}').method("bad")
    with pytest.raises(RegistryError) as caught:
        entry.load()
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("method 'bad' (")


def test_an_entry_travels_to_another_process(read: Read) -> None:
    mine = read(REGISTRY).method("mine")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(Entry.arguments, (mine, "quick")) == mine.arguments("quick")


def test_reading_imports_no_plugin(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("raise SystemExit('imported')")
    (tmp_path / "r.yaml").write_text('methods: {loud: {class: "loud.py:Loud"}}')
    script = (
        "import sys; from pathlib import Path;"
        "from adbench.benchmark.registry.registry import Registry;"
        "Registry.read(Path(sys.argv[1])); print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "r.yaml")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout.strip() == "False"


@given(st.text(max_size=12))
def test_any_unknown_name_is_one_line_that_says_so(name: str) -> None:
    registry = Registry({"anoddpm": Entry("anoddpm", "methods", "a:B", "x", "a:B")}, {}, {}, {})
    if name != "anoddpm":
        with pytest.raises(RegistryError) as caught:
            registry.method(name)
        assert str(caught.value).startswith(f"unknown method {name!r}")
        assert "\n" not in str(caught.value)


def test_suites_are_lists_of_methods_and_all_is_every_one_but_baselines_and_presets(
    tmp_path: Path,
) -> None:
    plain = Registry.read()
    assert set(plain.suite("all")) == {
        name for name, entry in plain.methods.items() if not (entry.baseline or entry.base)
    }
    assert set(plain.suite("authors")) == {n for n, e in plain.methods.items() if e.base}
    assert all(set(members) <= plain.methods.keys() for members in plain.suites.values())
    path = tmp_path / "r.yaml"
    path.write_text("suites: {mine: [anoddpm, pca]}")
    assert Registry.read(path).suite("mine") == ["anoddpm", "pca"]
    path.write_text("suites: {mine: [anodppm]}")
    with pytest.raises(RegistryError, match=r"suite 'mine'.*Did you mean 'anoddpm'"):
        Registry.read(path)
    path.write_text("suites: {mine: anoddpm}")
    with pytest.raises(RegistryError, match="is a list of methods"):
        Registry.read(path)
    with pytest.raises(RegistryError, match=r"unknown suite 'brans'\. Did you mean 'brains'"):
        plain.suite("brans")


PRESET = """
methods:
  old: {base: mine, args: {steps: 7, width: 5}, about: as published, batch_dependent: true}
profiles:
  quick: {methods: {old: {width: 6}}}
"""


def test_a_preset_inherits_class_arguments_profiles_and_levels(read: Read) -> None:
    registry = read(PRESET, REGISTRY)  # the base may stand in a later file
    mine, old = registry.method("mine"), registry.method("old")
    assert (old.load(), old.class_path) == (mine.load(), mine.class_path)
    assert old.arguments() == {**mine.arguments(), "steps": 7, "width": 5}
    assert mine.arguments("quick")["steps"] == 2
    assert old.arguments("quick") == {**mine.arguments("quick"), "steps": 7, "width": 6}
    assert old.arguments("quick", {"steps": 1})["steps"] == 1
    assert registry.profile("quick").levels("old") == (300,)
    assert registry.profile("paper").levels("old") is None
    assert old.batch_dependent and not mine.batch_dependent
    assert old.label == "old" and "old" not in registry.suite("all")


def test_a_preset_has_levels_of_its_own(read: Read) -> None:
    more = "profiles: {quick: {levels: {old: [5]}}}"
    assert read(REGISTRY, PRESET, more).profile("quick").levels("old") == (5,)


def test_the_base_of_a_preset_is_a_method(read: Read) -> None:
    assert "unknown base of method 'a': 'mime'" in refused(
        read, REGISTRY, "methods: {a: {base: mime}}"
    )
    twice = "methods: {a: {base: b}, b: {base: mine}}"
    assert "its base 'b' is a preset itself" in refused(read, REGISTRY, twice)


@pytest.mark.parametrize("name", Registry.read().suite("authors"))
def test_a_preset_differs_from_its_base_in_its_arguments_alone(name: str) -> None:
    registry = Registry.read()
    preset = registry.method(name)
    base = registry.method(preset.base)
    for profile in registry.profiles:
        mine, theirs = preset.arguments(profile), base.arguments(profile)
        changed = {key for key in mine if mine[key] != theirs[key]}
        rows = registry.profile(profile).args["methods"].get(name, {})
        assert changed <= {*preset.args, *rows} and changed & preset.args.keys()
