"""README.md keeps its word: its commands, its examples and what they print."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import nestfold as nf
from nestfold.cli import _parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = {"torch": "torch", "jax": "jax", "numpy": None}  # example -> the framework it needs
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?")


def blocks(language):
    """The comment line above (None without one) and the content of each fenced block in that language."""
    pattern = rf"^(?:<!-- ([^\n]*) -->\n)?```{language}\n(.*?)^```$"
    return re.findall(pattern, README, flags=re.MULTILINE | re.DOTALL)


def block(language, comment):
    """The one block under that comment."""
    (found,) = [content for above, content in blocks(language) if above == comment]
    return found


def printed(*command):
    """The standard output of a command that must succeed."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def first_match(pattern, text):
    """The group of the first match, which must be there."""
    found = re.search(pattern, text, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, pattern
    return found.group(1)


def numbers(text):
    return [float(number) for number in NUMBER.findall(text)]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_the_files(name):
    file = f"docs/examples/quickstart_{name}.py"
    content = block("python", f"file: {file}")
    assert content == (ROOT / file).read_text(encoding="utf-8")
    assert len(content.splitlines()) < 25


@pytest.mark.parametrize("name, framework", EXAMPLES.items())
def test_examples_print_what_is_shown(name, framework):
    if framework is not None and framework not in nf.available_backends():
        pytest.skip(f"{framework} is not installed")
    begin = README.index(f"<!-- file: docs/examples/quickstart_{name}.py -->")
    shown = first_match(r"^```text\n(.*?)^```$", README[begin:])
    told = printed(f"docs/examples/quickstart_{name}.py")
    assert NUMBER.sub("#", told) == NUMBER.sub("#", shown)
    assert numbers(told) == pytest.approx(numbers(shown), abs=1.5e-10)


def test_first_run_prints_what_is_shown():
    """The words are the same, and the value to what any machine should reproduce."""
    shown, told = (
        block("text", "output: nestfold run synthetic"),
        printed("-m", "nestfold", "run", "synthetic"),
    )
    for text in shown, told:
        assert "the hypergradient is within the tolerance" in text
    words = [re.sub(r"[\d.e+-]+", "", text).split() for text in (shown, told)]
    assert words[0] == words[1]
    values = [first_match(r"value reached +(\S+)", text) for text in (shown, told)]
    assert float(values[0]) == pytest.approx(float(values[1]), rel=1e-12)


@pytest.mark.parametrize("comment", ["run-command", "test-command"])
def test_commands_are_where_ci_looks(comment):
    lines = README.splitlines()
    assert lines[lines.index(f"<!-- {comment} -->") + 1] == "```bash"
    command = block("bash", comment)
    assert len(command.splitlines()) == 1
    subprocess.run(["bash", "-n", "-c", command], check=True, timeout=60)
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_commands_name_what_exists():
    lines = [line for _, content in blocks("bash") for line in content.splitlines()]
    called = [shlex.split(part) for line in lines for part in line.split("&&")]
    found = [words[1:] for words in called if words[0].rpartition("/")[2] == "nestfold"]
    assert len(found) >= 4
    for words in found:
        _parser().parse_args(words)
    (test,) = [words for words in called if words[0] == ".venv/bin/pip" and "-c" in words]
    assert test[test.index("-c") + 1] == "constraints.txt" and (ROOT / "constraints.txt").exists()


def test_what_is_in_it_is_in_it():
    table = README[README.index("## What is in it") : README.index("## Command line")]
    rows = {line.split("|")[1].strip(): line.split("|")[2] for line in table.splitlines() if line.startswith("|")}
    for room in ("manifolds", "levels", "solvers", "linear solvers", "estimators", "methods", "functions"):
        names = re.findall(r"`([A-Za-z_]+)", rows[room])
        assert names and all(hasattr(nf, name) for name in names), rows[room]
    bases = {"manifolds": nf.Manifold, "levels": nf.Level, "solvers": nf.Solver, "methods": nf.Method}
    bases |= {"linear solvers": nf.LinearSolver, "estimators": nf.Estimator}
    kinds = {nf.Exponential, nf.Logarithmic, nf.Geodesic, nf.InverseRetraction, nf.Curvature, nf.Quotient}
    abstract = {*bases.values(), *kinds}
    public = [value for name, value in vars(nf).items() if not name.startswith("_") and isinstance(value, type)]
    for room, base in bases.items():
        for value in public:
            if issubclass(value, base) and value not in abstract:
                assert f"`{value.__name__}" in rows[room], f"README does not tell of {value.__name__}"


def test_links_lead_somewhere():
    for text in README, (ROOT / "docs/index.md").read_text(encoding="utf-8"):
        folder = ROOT if text is README else ROOT / "docs"
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (folder / target).exists(), target
