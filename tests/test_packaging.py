"""What is installed: the wheel holds exactly the folders, and works on its own."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nestfold

ROOT = Path(__file__).parents[1]
#: folder of the repository -> folder of the wheel
FOLDERS = {
    "src/nestfold": "nestfold",
    "manifolds": "nestfold/manifolds",
    "hypergrad": "nestfold/hypergrad",
    "backends": "nestfold/backends",
}
LINKS = ("manifolds", "hypergrad", "backends")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def run(*command, cwd, **environment):
    """The standard output of a command that must succeed; it sees no PYTHONPATH but the one given."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The source distribution of a copy of this tree, and the wheel that pip makes from it, offline."""
    for tool in ("pip", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"building a wheel needs {tool}, which is not installed in this environment")
    folder = tmp_path_factory.mktemp("distributions")
    ignore = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT, folder / "tree", symlinks=True, ignore=ignore)
    build = "import setuptools.build_meta as b; b.build_sdist('..')"
    run(sys.executable, "-c", build, cwd=folder / "tree")
    (source,) = folder.glob("*.tar.gz")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "."]
    run(sys.executable, "-m", "pip", "wheel", *options, str(source), cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return source, wheel


def files_of_the_repository():
    """Wheel path -> real file, for everything in the four folders, links not followed."""
    found = {}
    for folder, target in FOLDERS.items():
        for parent, folders, names in os.walk(ROOT / folder):
            folders[:] = [name for name in folders if name != "__pycache__"]
            place = Path(parent).relative_to(ROOT / folder)
            found |= {(target / place / name).as_posix(): Path(parent, name) for name in names}
    return found


def test_wheel_holds_the_folders(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
        expected = files_of_the_repository()
        assert inside == set(expected)
        different = [name for name, path in expected.items() if wheel.read(name) != path.read_bytes()]
    assert not different


def test_source_distribution_holds_tests_and_docs(distributions):
    with tarfile.open(distributions[0]) as source:
        inside = {name.partition("/")[2] for name in source.getnames()}
    wanted = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"}
    wanted |= {
        path.relative_to(ROOT).as_posix() for folder in ("tests", "docs") for path in (ROOT / folder).glob("*.*")
    }
    assert wanted <= inside
    assert not {name for name in inside if "__pycache__" in name or name.endswith(".pyc")}


def test_wheel_works_alone(distributions, tmp_path):
    target = tmp_path / "installed"
    options = ["--quiet", "--no-deps", "--no-index", "--target", str(target)]
    run(sys.executable, "-m", "pip", "install", *options, str(distributions[1]), cwd=tmp_path)
    for name in (
        "nestfold",
        "nestfold.manifolds",
        "nestfold.hypergrad",
        "nestfold.backends",
        "nestfold.testing",
    ):
        code = f"import {name} as module; print(module.__file__)"
        place = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(target)).strip()
        assert Path(place).is_relative_to(target)
    told = run(sys.executable, "-m", "nestfold", "info", cwd=tmp_path, PYTHONPATH=str(target))
    assert nestfold.__version__ in told


def test_version_is_the_same_everywhere(distributions):
    version = nestfold.__version__
    assert importlib.metadata.version("nestfold") == version
    assert distributions[1].name == f"nestfold-{version}-py3-none-any.whl"
    assert re.search(rf"\b{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))


def test_links_are_relative_links():
    for name in LINKS:
        assert os.readlink(ROOT / "src/nestfold" / name) == f"../../{name}"
    if (ROOT / ".git").exists():  # a checkout: links in git too (a copied or unpacked tree has only files)
        paths = [f"src/nestfold/{name}" for name in LINKS]
        staged = run("git", "ls-files", "--stage", *paths, cwd=ROOT).splitlines()
        assert [line.split()[0] for line in staged] == ["120000"] * len(LINKS)


def test_types_are_checked_behind_the_links():
    checked = PYPROJECT["tool"]["pyright"]["include"]  # pyright enters a link only when it is named
    assert {f"src/nestfold/{name}" for name in LINKS} <= set(checked)


def requirements_of(*extras):
    """The requirements of nestfold with these extras, `nestfold[...]` among them resolved."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    for extra in extras:
        for line in PROJECT["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if requirement.name == PROJECT["name"]:
                found += requirements_of(*requirement.extras)
            else:
                found.append(requirement)
    return found


def test_constraints_pin_what_the_tests_need():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {canonicalize_name(pin.name): pin.specifier for pin in pins}
    assert all(re.fullmatch(r"==[^*+,]+", str(specifier)) for specifier in pinned.values())
    for requirement in requirements_of("test", "lint", "cli"):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"constraints.txt does not pin {name}"
        (pin,) = pinned[name]
        assert requirement.specifier.contains(pin.version), f"the pin of {name} is outside {requirement}"
