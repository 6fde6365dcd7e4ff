"""nestfold leaves the program that imports it as it was, and keeps its own house in order."""

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nestfold

ROOT = Path(__file__).parents[1]
ROOMS = ("backends", "manifolds", "hypergrad")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
LIBRARY = [*SOURCES, *(path for path in sorted((ROOT / "src/nestfold").glob("*.py")))]
LIBRARY += sorted((ROOT / "src/nestfold/testing").rglob("*.py"))
FRAMEWORKS = {"torch", "jax", "cupy", "array_api_strict"}
EVERYTHING = "import nestfold, nestfold.backends, nestfold.manifolds, nestfold.hypergrad"

#: Functions that make an array out of nothing, of the framework's default dtype unless told.
CREATION = {"arange", "empty", "eye", "full", "identity", "linspace", "ones", "zeros"}
#: what array namespaces are called in the sources; NumPy is left out, whose defaults nobody can change
NAMESPACES = {"xp", "jnp", "torch", "cupy"}
#: file -> the creation functions that may stand there without `dtype=`, each with its reason
CREATION_ALLOWED = {
    "backends/tape/namespace.py": {"arange"},  # positions: the index dtype of each library is wanted
    "backends/_torch_hoist.py": {"zeros"},  # only its place in the recorded graph matters
}


def in_fresh_process(code, **environment):
    """What `code` prints as JSON, in a Python of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def relative(path):
    return path.relative_to(ROOT).as_posix()


def calls(path):
    """Every call in a file as `line, dotted name of the callee, names of the keywords`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node.lineno, dotted(node.func), {keyword.arg for keyword in node.keywords}


def dotted(node):
    """`a.b.c` for the expression a.b.c; a part that is no name, as in `f(x).c`, becomes empty."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imports(path):
    """Every import in a file as `line, absolute module name`; the relative ones resolved within nestfold."""
    package = ("nestfold", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def test_import_loads_no_framework():
    loaded = in_fresh_process(
        f"{EVERYTHING}; import json, sys; print(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    )
    assert not {*FRAMEWORKS, "scipy", "matplotlib", "rich", "pytest", "hypothesis"} & set(loaded)


def test_import_is_quick(tmp_path):
    """In seconds of this process: those on the clock depend on what else the machine does. Once compiled, as pip does
    when it installs: kept in a folder of its own, for an editable install may not be allowed to write beside its files.
    """
    code = f"""
import json, time
import numpy
start = time.process_time()
{EVERYTHING}
print(json.dumps(time.process_time() - start))
"""
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    in_fresh_process(code, **compiled)  # compiles
    best = min(in_fresh_process(code, **compiled) for _ in range(5))
    assert best < 0.3, f"import nestfold takes {best:.2f} s more than import numpy"


def test_use_changes_no_global_state():
    changed = in_fresh_process("""
import json, os, warnings
import numpy as np
try:
    import torch
except ImportError:
    torch = None
else:
    x = torch.ones(3, requires_grad=True)
    torch.autograd.grad(x * x, x, torch.ones(3))  # PyTorch's first derivative imports more, with side effects
try:
    import jax
except ImportError:
    jax = None

def state():
    found = {
        "environment": dict(os.environ),
        "NumPy's random numbers": [np.asarray(part).tolist() for part in np.random.get_state()],
        "NumPy's errors": np.geterr(),
        "NumPy's printing": repr(np.get_printoptions()),
        "warning filters": repr(warnings.filters),
        "working folder": os.getcwd(),
    }
    if torch is not None:
        found["torch's dtype"] = str(torch.get_default_dtype())
        found["torch's device"] = str(torch.get_default_device())
        found["torch's random numbers"] = torch.get_rng_state().tolist()
        found["torch's gradients"] = torch.is_grad_enabled()
        found["torch's determinism"] = torch.are_deterministic_algorithms_enabled()
        found["torch's threads"] = torch.get_num_threads()
    if jax is not None:
        found["jax's configuration"] = repr(jax.config.values)
    return found

before = state()
import nestfold
from nestfold.backends import available_backends, backend_of, get_backend
for name in set(available_backends()) - {"cupy"}:
    backend = get_backend(name)
    like = backend.asarray(np.zeros(3, dtype=np.float32))
    x = backend.noise(np.random.default_rng(0), (3,), like=like)
    backend_of(x).vjp(lambda x: x * x, x)[1](x)
after = state()
print(json.dumps([key for key in before if before[key] != after[key]]))
""")
    assert changed == []


#: The one exception, undone at the end of a test or of a command: see its docstring for the reason.
SWITCHES_JAX_TO_64_BITS = "src/nestfold/testing/_usable.py"


@pytest.mark.parametrize("path", LIBRARY, ids=relative)
def test_no_source_touches_global_state(path):
    switches = {"set_default_dtype", "set_default_device", "set_default_tensor_type", "set_num_threads"}
    switches |= {"manual_seed", "set_printoptions", "seterr", "simplefilter", "putenv", "chdir"}
    found = []
    for line, name, _ in calls(path):
        parts = name.split(".")
        legacy = parts[:2] in (["np", "random"], ["numpy", "random"]) and parts[2:] not in (
            ["default_rng"],
            ["Generator"],
        )
        configures = parts[-2:] == ["config", "update"] and relative(path) != SWITCHES_JAX_TO_64_BITS
        if legacy or parts[-1] in switches or configures or parts[0] == "random":
            found.append(f"{relative(path)}:{line} {name}")
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_arrays_are_made_like_others(path):
    """`xp.zeros(...)` and the like say dtype, and outside backends/ device too."""
    needed = {"dtype"} if path.is_relative_to(ROOT / "backends") else {"dtype", "device"}
    watched = CREATION - CREATION_ALLOWED.get(relative(path), set())
    found = []
    for line, name, keywords in calls(path):
        owner, _, function = name.rpartition(".")
        told = None in keywords or needed <= keywords  # None: **keywords
        if owner.rpartition(".")[2] in NAMESPACES and function in watched and not told:
            found.append(f"{relative(path)}:{line} {name} without {' and '.join(sorted(needed - keywords))}")
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_point_one_way(path):
    """hypergrad -> manifolds -> backends, and only backends knows a framework by name."""
    room = path.relative_to(ROOT).parts[0]
    allowed = ROOMS[: ROOMS.index(room) + 1]
    for line, name in imports(path):
        top, _, rest = name.partition(".")
        inside = rest.partition(".")[0]
        assert top != "nestfold" or inside in allowed, f"{relative(path)}:{line} imports {name}"
        assert room == "backends" or top not in FRAMEWORKS, f"{relative(path)}:{line} imports {name}"


def public_names():
    """What `import nestfold` offers, modules left aside."""
    names = getattr(nestfold, "__all__", None) or [name for name in dir(nestfold) if not name.startswith("_")]
    return sorted(name for name in names if not inspect.ismodule(getattr(nestfold, name)))


def undocumented(value):
    """What lacks a docstring, own or inherited: a function, a class, its public methods and properties."""
    if inspect.isclass(value):
        if not value.__doc__:
            yield value.__name__
        for name, member in vars(value).items():
            described = isinstance(member, property | classmethod | staticmethod) or inspect.isfunction(member)
            if described and not name.startswith("_") and not inspect.getdoc(getattr(value, name)):
                yield f"{value.__name__}.{name}"
    elif callable(value) and not inspect.getdoc(value):
        yield value.__name__


@pytest.mark.parametrize("name", public_names())
def test_public_names_have_docstrings(name):
    assert list(undocumented(getattr(nestfold, name))) == []
