"""The command line: what it prints and writes, what it refuses, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import distribution

import numpy as np
import pytest

import nestfold as nf
from nestfold import _cli_problem
from nestfold.cli import main
from nestfold.testing import BACKENDS, CPU_BACKENDS, usable_backends

SMALL = ("--d", "6", "--r", "2")
DIFFERENT = [name for name in CPU_BACKENDS if name != "numpy"]


def call(capsys, *argv):
    """Exit code, standard output and standard error of a command carried out in this process."""
    code = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def told(capsys, *argv):
    """What a command that must succeed prints as JSON."""
    code, out, _ = call(capsys, *argv, "--json", "-", "--quiet")
    assert code == 0
    return json.loads(out)


def test_module_and_entry_point_are_the_same_command():
    done = subprocess.run([sys.executable, "-m", "nestfold", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"nestfold {nf.__version__}\n")
    (entry,) = distribution("nestfold").entry_points.select(group="console_scripts", name="nestfold")
    assert entry.load() is main


@pytest.mark.parametrize("words", [("--help",), ("info", "--help"), ("run", "--help"), ("compare", "--help")])
def test_help(capsys, words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert "usage: nestfold" in capsys.readouterr().out


# -- info --------------------------------------------------------------------------------------------------


def test_info_tells_every_backend(capsys):
    code, out, err = call(capsys, "info")
    assert code == 0 and not err
    assert nf.__version__ in out and all(name in out for name in BACKENDS)
    code, out, err = call(capsys, "info", "--json")
    found = {one["name"]: one for one in json.loads(out)["backends"]}
    assert set(found) == set(BACKENDS)
    for name, one in found.items():
        assert one["usable"] == (name in usable_backends())
        assert bool(one["devices"]) == one["usable"] == (one["reason"] is None)
    assert found["numpy"]["version"] == np.__version__ and found["numpy"]["devices"] == ["cpu"]


def test_info_says_why_not(capsys, monkeypatch):
    without(monkeypatch, "torch")
    _, out, _ = call(capsys, "info", "--json")
    (torch,) = [one for one in json.loads(out)["backends"] if one["name"] == "torch"]
    assert not torch["usable"] and "pip install 'nestfold[torch]'" in torch["reason"]


def without(monkeypatch, framework):
    """As if the framework were not installed."""
    registry = sys.modules["nestfold.backends._registry"]
    find_spec = registry.importlib.util.find_spec
    monkeypatch.setattr(
        registry.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == framework else find_spec(name, *rest),
    )
    monkeypatch.setattr(registry, "_instances", {})


# -- run ---------------------------------------------------------------------------------------------------


def test_run_prints_settings_and_summary(capsys):
    code, out, err = call(capsys, "run", "synthetic", *SMALL, "--steps", 3, "--nu", 0.02, "--seed", 7)
    assert code == 0
    for words in ("numpy", "float64", "d = 6, r = 2, n = 12, nu = 0.02, seed = 7", "3 steps: all steps"):
        assert words in out
    for words in (
        "value reached",
        "exact objective",
        "lower-level steps",
        "products",
        "seconds",
        "at the end",
    ):
        assert words in out
    assert "3/3" in err  # the progress bar


def test_quiet_prints_the_summary_only(capsys):
    code, out, err = call(capsys, "run", "synthetic", *SMALL, "--steps", 1, "--quiet")
    assert code == 0 and not err
    assert out.startswith("1 step: ")


@pytest.mark.parametrize("estimator, limit", [("cg", 1e-12), ("neumann", 1e-12), ("dense", 1e-12), ("unrolled", 1e-4)])
def test_run_meets_the_closed_form(capsys, estimator, limit):
    found = told(capsys, "run", "synthetic", *SMALL, "--steps", 4, "--estimator", estimator)
    assert found["reason"] == "steps" and found["steps"] == 4 and not found["converged"]
    assert found["value"] == pytest.approx(found["objective"], rel=1e-9)
    assert found["hypergradient"]["start"]["relative_error"] < limit
    assert found["hypergradient"]["end"]["relative_error"] < limit
    assert [record["step"] for record in found["history"]] == list(range(5))
    assert found["lower_steps"] == sum(record["inner_steps"] for record in found["history"])
    assert found["history"][-1]["value"] == found["value"] < found["history"][0]["value"]


@pytest.mark.parametrize("name", DIFFERENT)
def test_run_on_every_backend_in_both_precisions(capsys, name):
    if name not in usable_backends():
        pytest.skip(f"{name} is not installed")
    common = ("run", "synthetic", *SMALL, "--steps", 2)
    wanted = told(capsys, *common)
    for dtype, limit in (("float64", 1e-12), ("float32", 1e-4)):
        found = told(capsys, *common, "--backend", name, "--dtype", dtype)
        assert found["settings"]["backend"] == name and found["settings"]["dtype"] == dtype
        assert found["value"] == pytest.approx(wanted["value"], rel=limit)
        assert found["hypergradient"]["end"]["relative_error"] < limit
        assert (found["compile_seconds"] is not None) == (name == "jax")


def test_run_on_a_named_device(capsys):
    for name, device in (("numpy", "cpu"), ("torch", "cpu"), ("jax", "cpu:0"), ("jax", "cpu")):
        if name in usable_backends():
            command = ("run", "synthetic", *SMALL, "--steps", 0, "--backend", name, "--device", device)
            assert told(capsys, *command)["settings"]["device"].startswith("cpu")


def test_the_seed_makes_the_data_and_the_start(capsys):
    first, same, other = (
        told(capsys, "run", "synthetic", *SMALL, "--steps", 0, "--seed", seed)["value"] for seed in (3, 3, 4)
    )
    assert first == same != other


def test_json_file_holds_what_standard_output_would(capsys, tmp_path):
    file = tmp_path / "run.json"
    file.write_text("old")
    code, out, _ = call(capsys, "run", "synthetic", *SMALL, "--steps", 1, "--json", file)
    assert code == 0 and "value reached" in out
    assert json.loads(file.read_text())["settings"]["n"] == 12
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("kind, begin", [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_plot(capsys, tmp_path, kind, begin):
    pytest.importorskip("matplotlib")
    file = tmp_path / f"run.{kind}"
    code, _, _ = call(capsys, "run", "synthetic", *SMALL, "--steps", 2, "--quiet", "--plot", file)
    assert code == 0
    assert file.read_bytes().startswith(begin)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


# -- compare -----------------------------------------------------------------------------------------------


def test_compare_finds_no_difference_between_backends(capsys, tmp_path):
    file, chosen = tmp_path / "all.json", "numpy,array_api_strict"
    command = ("compare", "synthetic", *SMALL, "--steps", 2, "--backends", chosen, "--json", file)
    code, out, err = call(capsys, *command)
    assert code == 0
    for words in (
        "after one hypergradient",
        "after at most 2 steps",
        "largest difference",
        "relative",
        "between",
    ):
        assert words in out
    assert "running on array_api_strict" in err
    found = json.loads(file.read_text())
    assert [one["settings"]["backend"] for one in found["runs"]] == chosen.split(",")
    assert len(found["differences"]) == 8
    assert all(gap["relative"] < 1e-12 for gap in found["differences"])


def test_compare_takes_all_that_can_compute(capsys):
    if len(usable_backends()) < 2:
        pytest.skip("only one backend is installed")
    found = told(capsys, "compare", "synthetic", *SMALL, "--steps", 1)
    assert tuple(one["settings"]["backend"] for one in found["runs"]) == usable_backends()
    assert all(gap["relative"] < 1e-12 for gap in found["differences"])
    assert {name for gap in found["differences"] for name in gap["between"]} <= set(usable_backends())


# -- what cannot be done -----------------------------------------------------------------------------------

REFUSED = {
    "no command": ((), "COMMAND"),
    "unknown command": (("walk",), "walk"),
    "unknown problem": (("run", "rosenbrock"), "choose from"),
    "unknown backend": (("run", "synthetic", "--backend", "tensorflow"), "choose from"),
    "unknown dtype": (("run", "synthetic", "--dtype", "float16"), "choose from"),
    "unknown estimator": (("run", "synthetic", "--estimator", "magic"), "choose from"),
    "unknown device": (("run", "synthetic", "--device", "cuda:7"), "there is cpu"),
    "unknown option": (("run", "synthetic", "--stepz", "3"), "--stepz"),
    "negative steps": (("run", "synthetic", "--steps", "-1"), "at least 0"),
    "no number": (("run", "synthetic", "--steps", "many"), "at least 0"),
    "no size": (("run", "synthetic", "--d", "0"), "at least 1"),
    "no shift": (("run", "synthetic", "--nu", "0"), "positive"),
    "not finite": (("run", "synthetic", "--nu", "inf"), "positive"),
    "r above d": (("run", "synthetic", "--d", "5", "--r", "6"), "n >= d >= r >= 1"),
    "n below d": (("run", "synthetic", *SMALL, "--n", "3"), "n >= d >= r >= 1"),
    "no folder": (("run", "synthetic", "--json", "nowhere/run.json"), "no folder nowhere"),
    "a folder": (("run", "synthetic", "--json", "."), "is a folder"),
    "no folder for the plot": (("run", "synthetic", "--plot", "nowhere/run.png"), "no folder nowhere"),
    "unknown picture": (("run", "synthetic", "--plot", "run.xyz"), ".png, .pdf or .svg"),
    "one file for two": (("run", "synthetic", "--plot", "a.png", "--json", "a.png"), "two files"),
    "one backend": (("compare", "synthetic", "--backends", "numpy"), "at least two"),
    "an unknown one": (("compare", "synthetic", "--backends", "numpy,nump"), "'nump'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_told_in_one_line(capsys, monkeypatch, tmp_path, case):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_cli_problem, "run", None)  # refused before any run starts
    words, reason = REFUSED[case]
    code, out, err = call(capsys, *words)
    assert code == 2 and not out
    assert err.startswith("nestfold: error: ") and err.count("\n") == 1
    assert reason in err
    assert not list(tmp_path.iterdir())


def test_missing_framework_names_the_extra(capsys, monkeypatch):
    without(monkeypatch, "torch")
    for command in (
        ("run", "synthetic", "--backend", "torch"),
        ("compare", "synthetic", "--backends", "numpy,torch"),
    ):
        code, _, err = call(capsys, *command)
        assert code == 2 and "pip install 'nestfold[torch]'" in err and err.count("\n") == 1


def test_missing_matplotlib_names_the_extra(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(_cli_problem, "run", None)
    code, _, err = call(capsys, "run", "synthetic", "--plot", tmp_path / "run.png")
    assert code == 2 and "pip install 'nestfold[cli]'" in err


def test_a_file_that_cannot_be_replaced_at_the_end(capsys, monkeypatch, tmp_path):
    def run(*arguments, **options):
        file.mkdir()
        return nf.run(*arguments, **options)

    file = tmp_path / "run.json"
    monkeypatch.setattr(_cli_problem, "run", run)
    code, out, err = call(capsys, "run", "synthetic", *SMALL, "--steps", 0, "--quiet", "--json", file)
    assert code == 2 and "value reached" in out and "cannot write" in err
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


# -- the end of a run --------------------------------------------------------------------------------------


def interrupted_at(step):
    """`nestfold.run` with a Ctrl-C after that many steps; -1: before the first hypergradient."""

    def run(*arguments, callback, **options):
        def stop(record, state):
            callback(record, state)
            if record.step == step:
                raise KeyboardInterrupt

        if step < 0:
            raise KeyboardInterrupt
        return nf.run(*arguments, callback=stop, **options)

    return run


def test_interrupted_run_tells_the_last_state(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(_cli_problem, "run", interrupted_at(3))
    file = tmp_path / "run.json"
    code, out, _ = call(capsys, "run", "synthetic", *SMALL, "--steps", 50, "--quiet", "--json", file)
    assert code == 130
    assert out.startswith("3 steps: interrupted") and "value reached" in out
    found = json.loads(file.read_text())
    assert found["reason"] == "interrupted" and len(found["history"]) == 4
    assert found["value"] == pytest.approx(found["objective"], rel=1e-12)


def test_interrupted_before_there_was_anything_to_tell(capsys, monkeypatch):
    monkeypatch.setattr(_cli_problem, "run", interrupted_at(-1))
    code, out, err = call(capsys, "run", "synthetic", *SMALL, "--quiet")
    assert code == 130 and not out and err.count("\n") == 1
    monkeypatch.setattr(_cli_problem, "run", interrupted_at(1))
    code, out, err = call(capsys, "compare", "synthetic", *SMALL, "--backends", "numpy,array_api_strict")
    assert code == 130 and not out


def test_control_c(tmp_path):
    command = [
        sys.executable,
        "-m",
        "nestfold",
        "run",
        "synthetic",
        "--d",
        "90",
        "--n",
        "180",
        "--steps",
        "100000",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    assert process.stderr is not None
    seen = b""
    while b"value" not in seen:  # a step is done
        more = os.read(process.stderr.fileno(), 4096)
        assert more, seen
        seen += more
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"interrupted; this is the last finite state" in out and b"Traceback" not in err


def test_a_value_that_is_not_finite_ends_with_1(capsys, monkeypatch):
    def broken(self, w, m):
        value = exact(self, w, m)
        calls.append(1)
        return value if len(calls) < 4 else value * float("nan")

    calls, exact = [], _cli_problem.Synthetic.upper
    monkeypatch.setattr(_cli_problem.Synthetic, "upper", broken)
    code, out, err = call(capsys, "run", "synthetic", *SMALL, "--steps", 5, "--quiet", "--json", "-")
    found = json.loads(out)
    assert code == 1 and found["reason"] == "not finite"
    assert "not finite" in err
