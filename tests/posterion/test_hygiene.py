"""The house rules that a machine can check: who imports whom, what is public, what is banned."""

from __future__ import annotations

import ast
import importlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import mlflow
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "posterion": ROOT / "platform" / "posterion",
    "posterion_registry": ROOT / "mlflow" / "posterion_registry",
    "posterion_jobs": ROOT / "jobs" / "posterion_jobs",
    "posterion_serve": ROOT / "serve" / "posterion_serve",
}
# Which of the other packages each may import.
DIRECTION = {
    "posterion": set(),
    "posterion_registry": {"posterion"},
    "posterion_jobs": {"posterion", "posterion_registry"},
    "posterion_serve": {"posterion", "posterion_registry"},
}
# The table of rooms in docs/architecture.md: what each needs, and with it what that needs.
NEEDS = {
    "config": set(),
    "metrics": set(),
    "text": set(),
    "data": {"config", "text"},
    "vectors": {"config", "metrics", "text"},
    "models": {"config"},
    "objectives": {"data", "models"},
    "trust": {"models", "metrics"},
    "reading": {"data", "metrics", "text", "trust"},
    "tasks": {"data", "models", "objectives", "metrics", "trust"},
    "training": {"tasks", "data", "objectives"},
    "ensembles": {"tasks", "trust", "metrics"},
    "inference": {"tasks", "trust"},
}
ANY = {"cli", "testing"}
HEAVY = ("torch", "ray", "mlflow", "transformers", "deepspeed", "matplotlib")
FILES = [path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))]


def allowed_rooms(room: str) -> set[str]:
    """The rooms that ``room`` may import, itself among them."""
    return {room}.union(*(allowed_rooms(needed) for needed in NEEDS[room]))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it, by its absolute name."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms() -> list[Path]:
    """Every package below the four top ones."""
    return [path.parent for path in FILES if path.name == "__init__.py"]


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 40
    assert set(PACKAGES.values()) <= set(rooms())


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_one_way(package: str) -> None:
    barred = set(PACKAGES) - DIRECTION[package] - {package}
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in PACKAGES[package].rglob("*.py")
        for module in imports_of(path)
        if module.partition(".")[0] in barred
    ]
    assert wrong == []


def test_rooms_import_one_way() -> None:
    library = PACKAGES["posterion"]
    known = {folder.name for folder in library.iterdir() if (folder / "__init__.py").exists()}
    assert known - ANY <= set(NEEDS), "give every room its line in NEEDS and docs/architecture.md"
    wrong = []
    for room in known - ANY:
        for path in (library / room).rglob("*.py"):
            for module in imports_of(path):
                top, _, rest = module.partition(".")
                other = rest.partition(".")[0]
                if top == "posterion" and other in known - allowed_rooms(room):
                    wrong.append(f"{name_of(path)} imports {module}")
    assert wrong == []


def test_nobody_imports_testing_or_another_rooms_private_modules() -> None:
    wrong = []
    for path in FILES:
        package = ".".join(path.relative_to(ROOT).parts[1:-1])
        for module in imports_of(path):
            parts = module.split(".")
            if parts[0] not in PACKAGES or module.startswith("posterion._exceptions"):
                continue
            owner = next((i for i, part in enumerate(parts) if part.startswith("_")), None)
            private = owner is not None and not f"{package}.".startswith(
                ".".join(parts[:owner]) + "."
            )
            testing = module.startswith("posterion.testing") and "testing" not in path.parts
            dunder = owner is not None and parts[owner].startswith("__")
            if testing or (private and not dunder):
                wrong.append(f"{name_of(path)} imports {module}")
    assert wrong == []


def test_source_roots_hide_nothing() -> None:
    for module in (platform, mlflow):
        assert module.__file__ is not None
        path = Path(module.__file__).resolve()
        inside = [part for part in ("platform", "mlflow") if (ROOT / part) in path.parents]
        assert inside == [], f"{module.__name__} is hidden by {path}"


@pytest.mark.parametrize("root", sorted({folder.parent.name for folder in PACKAGES.values()}))
def test_source_roots_hold_one_package_and_data(root: str) -> None:
    packages = {folder.name for folder in PACKAGES.values() if folder.parent.name == root}
    assert [path.name for path in (ROOT / root).glob("*.py")] == []
    stray = {path.parent.name for path in (ROOT / root).glob("*/__init__.py")} - packages
    assert stray == set()


def kind_and_name(name: str) -> tuple[bool, bool, str]:
    """Constants, then classes, then the rest, as ruff's RUF022 sorts."""
    return not name.isupper(), not name[0].isupper(), name


@pytest.mark.parametrize("folder", rooms(), ids=name_of)
def test_every_package_says_what_is_public(folder: Path) -> None:
    root = next(parent for parent in folder.parents if parent.parent == ROOT)
    name = ".".join(folder.relative_to(root).parts)
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    public = getattr(module, "__all__", None)
    assert public is not None, f"{name} has no __all__"
    assert list(public) == sorted(set(public), key=kind_and_name), f"{name}.__all__ is unsorted"
    assert [entry for entry in public if not hasattr(module, entry)] == []


BANNED = {
    "ray._private": "not an interface; Ray changes it at will",
    "pickle": "unpickling runs code; use safetensors, JSON, Parquet or Arrow",
    "cloudpickle": "unpickling runs code",
    "joblib": "its files are pickles",
    "dill": "unpickling runs code",
    "shelve": "its files are pickles",
}


def test_banned_imports() -> None:
    wrong = [
        f"{name_of(path)} imports {module}: {reason}"
        for path in FILES
        for module in imports_of(path)
        for banned, reason in BANNED.items()
        if f"{module}.".startswith(f"{banned}.")
    ]
    assert wrong == []


def calls(path: Path) -> Iterator[tuple[int, str, ast.Call]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


@cache
def is_program(path: Path) -> bool:
    """Whether the module is run with ``python -m``; such a one may tell of a wrong call."""
    conditions = (node.test for node in tree_of(path).body if isinstance(node, ast.If))
    return any(ast.unparse(condition) == "__name__ == '__main__'" for condition in conditions)


def test_banned_calls() -> None:
    wrong = []
    for path in FILES:
        for line, function, node in calls(path):
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            told = is_program(path) and options.get("file") == "sys.stderr"
            if function == "print" and not told:
                wrong.append(f"{name_of(path)}:{line}: print()")
            if function in ("pprint", "eval", "exec", "os.system"):
                wrong.append(f"{name_of(path)}:{line}: {function}()")
            if function == "torch.load" and options.get("weights_only") != "True":
                wrong.append(f"{name_of(path)}:{line}: torch.load without weights_only=True")
            if options.get("shell") == "True":
                wrong.append(f"{name_of(path)}:{line}: {function}(shell=True)")
    assert wrong == []


def test_banned_words() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")
    wrong = [
        f"{name_of(path)}:{number}: {mark}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for mark in marks
        if mark in line
    ]
    assert wrong == []


def test_sizes() -> None:
    """Files stay near 400 lines; some slack, so that nobody splits a file at line 401."""
    lengths = {name_of(p): len(p.read_text(encoding="utf-8").splitlines()) for p in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > 450} == {}


def fresh(code: str) -> str:
    """What a fresh interpreter prints."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    return result.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_is_light(package: str) -> None:
    code = f"import json, sys, {package}; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(fresh(code).splitlines()[-1])
    assert [name for name in HEAVY if name in loaded] == []


def test_command_modules_and_configuration_are_light() -> None:
    """Importing every command and the recipe's schema must not cost seconds."""
    code = """
import json, sys
from importlib.metadata import entry_points
import posterion.config
for entry in entry_points(group="posterion.commands"):
    entry.load()
print(json.dumps(sorted(sys.modules)))
"""
    loaded = json.loads(fresh(code).splitlines()[-1])
    assert [name for name in (*HEAVY, "pandas", "pyarrow") if name in loaded] == []


def test_recipe_schema_is_light() -> None:
    """Checking a recipe needs the tasks' options, not what trains them."""
    code = (
        "import json, sys; from posterion.tasks import recipe_models; recipe_models();"
        "print(json.dumps(sorted(sys.modules)))"
    )
    loaded = json.loads(fresh(code).splitlines()[-1])
    assert [name for name in HEAVY if name in loaded] == []


def import_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: everything outside of function bodies."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Lambda):
            continue
        if isinstance(child, ast.If) and "__name__" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in (*child.decorator_list, child.args):
                yield from import_time_nodes(part)
            continue
        yield child
        yield from import_time_nodes(child)


# The environment, the disk, other processes, the network, and settings of the whole process.
WORK = {
    "entry_points",
    "exists",
    "httpx.get",
    "logging.basicConfig",
    "matplotlib.use",
    "mkdir",
    "mlflow.set_tracking_uri",
    "open",
    "os.environ",
    "os.getenv",
    "os.makedirs",
    "os.mkdir",
    "ray.init",
    "read_bytes",
    "read_text",
    "socket.create_connection",
    "socket.socket",
    "subprocess.Popen",
    "subprocess.run",
    "sys.path.append",
    "sys.path.insert",
    "threading.Thread",
    "torch.device",
    "torch.manual_seed",
    "torch.set_num_threads",
    "warnings.filterwarnings",
    "warnings.simplefilter",
    "write_text",
}


def test_no_work_at_import() -> None:
    wrong = []
    for path in FILES:
        for node in import_time_nodes(tree_of(path)):
            if isinstance(node, ast.Call):
                used = ast.unparse(node.func)
                if used in WORK or used.rpartition(".")[2] in WORK:
                    wrong.append(f"{name_of(path)}:{node.lineno}: {used}()")
            elif isinstance(node, ast.Attribute) and ast.unparse(node) == "os.environ":
                wrong.append(f"{name_of(path)}:{node.lineno}: os.environ")
    assert wrong == []
