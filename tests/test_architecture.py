"""The house itself: where modules come from, what they may import, and what travels to a hospital.

The storeys and borders are import-linter contracts in ``pyproject.toml``; here is what those cannot say.
"""

import ast
import importlib
import io
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

STOREYS = ("lemof_model", "protocol", "readers", "client", "server", "simulation")
BUNDLED = ("lemof_model", "protocol", "readers", "client", "server")


def sources(repository: Path, *packages: str) -> set[str]:
    """Every Python file of the packages, relative to the repository."""
    files = (path for package in packages for path in (repository / package).rglob("*.py"))
    return {path.relative_to(repository).as_posix() for path in files}


def imported_packages(source: Path) -> set[str]:
    """Top-level names of what a file imports."""
    names: set[str] = set()
    for found in ast.walk(ast.parse(source.read_text())):
        if isinstance(found, ast.Import):
            names |= {alias.name for alias in found.names}
        elif isinstance(found, ast.ImportFrom):
            names.add("lemof_model" if found.level else str(found.module))
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("name", STOREYS)
def test_the_generic_import_names_are_ours(name: str, repository: Path) -> None:
    module_file = importlib.import_module(name).__file__
    assert module_file is not None
    assert Path(module_file) == repository / name / "__init__.py"


def test_lemof_model_imports_torch_numpy_and_the_standard_library_only(repository: Path) -> None:
    allowed = {"torch", "numpy", "lemof_model"} | sys.stdlib_module_names
    strangers = {
        file: names
        for file in sources(repository, "lemof_model")
        if (names := imported_packages(repository / file) - allowed)
    }
    assert strangers == {}


def test_lemof_model_neither_prints_nor_opens_files(repository: Path) -> None:
    calls = [
        f"{file}:{found.lineno} {found.func.id}"
        for file in sources(repository, "lemof_model")
        for found in ast.walk(ast.parse((repository / file).read_text()))
        if isinstance(found, ast.Call) and isinstance(found.func, ast.Name) and found.func.id in ("print", "open")
    ]
    assert calls == []


def test_no_file_is_named_for_nothing(repository: Path) -> None:
    nameless = ("utils", "helpers", "common", "manager", "misc")
    named = [f for f in sources(repository, *STOREYS) if Path(f).stem in nameless or Path(f).stem.startswith("base_")]
    assert named == []


def test_every_departure_that_the_code_marks_is_in_the_method(repository: Path) -> None:
    marked = {f for f in sources(repository, *STOREYS) if "NOTE[DIFF]" in (repository / f).read_text()}
    section = (repository / "docs/method.md").read_text().split("## 4. Departures")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\S+\.py)` \|", section, re.MULTILINE)) == marked


def test_the_bundle_is_the_packages_and_nothing_else(repository: Path) -> None:
    """It takes Python and no HTML: whatever the packages need to run, templates too, is Python."""
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(repository))) as bundle:
        names = bundle.namelist()
        manifest = bundle.read(".info/CONTENT").decode()
    assert len(names) == len(set(names))
    assert set(names) == sources(repository, *BUNDLED) | {"pyproject.toml", ".info/CONTENT"}
    files = (path for package in BUNDLED for path in (repository / package).rglob("*") if path.is_file())
    assert {path.suffix for path in files if "__pycache__" not in path.parts} == {".py"}
    assert {line.split(",")[0] for line in manifest.splitlines()} == set(names) - {".info/CONTENT"}


def test_the_run_config_has_the_keys_a_coordinator_may_set(repository: Path) -> None:
    app = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert app["config"] == {"plan": "", "out": "", "resume": False}
    assert app["components"] == {"serverapp": "server.app:app", "clientapp": "client.join.app:app"}


def test_the_lock_pins_what_pyproject_asks_for(repository: Path) -> None:
    requirements = importlib.import_module("packaging.requirements").Requirement
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lines = (line for line in (repository / "requirements.lock").read_text().splitlines() if line[0] != "#")
    pinned = {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}
    for asked in map(requirements, project["dependencies"] + project["optional-dependencies"]["dev"]):
        assert asked.specifier.contains(pinned[asked.name.lower()]), asked


@pytest.mark.parametrize("command", ["client.cli", "server.cli", "simulation.cli"])
def test_help_waits_for_no_large_library(command: str, repository: Path) -> None:
    """``--help`` and ``-V`` import the command line alone."""
    large = ("torch", "flwr", "pandas", "sklearn", "scipy", "lightgbm", "opacus", "jinja2", "polars", "wfdb")
    look = f"import sys, {command}; print([name for name in {large!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=repository)
    assert found.stdout.strip() == "[]"
