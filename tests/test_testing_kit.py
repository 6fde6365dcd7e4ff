"""nestfold.testing: the fixtures and `assert_agree`, on what they must find and what they must let pass."""

import importlib.util

import numpy as np
import pytest

from nestfold.backends import BackendUnavailableError
from nestfold.testing import assert_agree, double_precision, usable_backend, usable_backends
from nestfold.testing._agree import ulp_distance

PAIR = ("numpy", "array_api_strict")


def test_fixtures_are_of_one_backend(backend, xp, like64, like32):
    assert xp is backend.xp
    assert backend.owns(like64) and backend.owns(like32)
    assert backend.to_numpy(like64).dtype == np.float64
    assert backend.to_numpy(like32).dtype == np.float32


def test_float64_stays_float64(backend, rng):
    values = rng.standard_normal(3)
    assert np.array_equal(backend.to_numpy(backend.asarray(values) * 1.0), values)


def test_rng_depends_on_the_name_only(rng):
    assert rng.standard_normal() == pytest.approx(-1.6668801218370641, rel=1e-12)


def test_agreement_passes():
    a = np.linspace(0.0, 1.0, 6).reshape(2, 3)
    assert_agree(lambda a, tree: {"sum": a + tree["b"], "product": (a * tree["b"], a[0, 1])}, a, {"b": a + 1})


def test_nonfinite_agrees_with_itself():
    assert_agree(lambda a: a * 2, np.array([np.nan, np.inf, -np.inf, 0.0]), backends=PAIR)


def test_rounding_at_a_zero_is_allowed():
    seen = iter([0.0, 1e-17])
    assert_agree(lambda a: a + next(seen), np.array([0.0, 1.0]), backends=PAIR)


def test_report_names_the_worst_pair_and_element():
    shift = {"numpy": 0.0, "array_api_strict": 0.0, "torch": 0.25}

    def f(a):
        (name,) = [name for name in shift if usable_backend(name).owns(a)]
        values = np.zeros((2, 3))
        values[1, 2] = shift[name]
        return {"x": a + usable_backend(name).asarray(values)}

    pytest.importorskip("torch", reason="needs three backends")
    with pytest.raises(AssertionError) as caught:
        assert_agree(f, np.ones((2, 3)), backends=shift, rtol=1e-9, atol=0.0)
    message = str(caught.value)
    assert message.startswith("f: numpy and torch disagree at result['x'][1, 2]")
    assert "numpy  1.0" in message and "torch  1.25" in message
    assert "difference 0.25" in message and f"{2**50} ulp" in message and "1 of 6 elements" in message


@pytest.mark.parametrize(
    ("results", "complaint"),
    [
        ([np.ones(2), np.ones(3)], "different shape or dtype"),
        ([np.ones(2), np.ones(2, dtype=np.float32)], "different shape or dtype"),
        ([{"a": np.ones(2)}, {"b": np.ones(2)}], "different structure"),
        ([np.array([1.0, np.nan]), np.array([1.0, 1.0])], r"disagree at result\[1\]"),
        ([np.array([1.0, np.inf]), np.array([1.0, 1.0])], r"disagree at result\[1\]"),
        ([np.array([1.0, np.inf]), np.array([1.0, -np.inf])], r"disagree at result\[1\]"),
        ([np.array([1, 2**60]), np.array([1, 2**60 + 1])], r"disagree at result\[1\]"),
        ([np.array(True), np.array(False)], "disagree at result"),
        ([np.array(1 + 1j), np.array(1 + 2j)], "disagree at result"),
    ],
)
def test_disagreements_are_found(results, complaint):
    given = iter(results)
    with pytest.raises(AssertionError, match=complaint):
        assert_agree(lambda: next(given), backends=PAIR)


def test_one_backend_is_no_comparison():
    with pytest.raises(ValueError, match="at least two"):
        assert_agree(lambda: 0, backends=["numpy"])


def test_ulp_distance():
    one = np.float64(1.0)
    assert ulp_distance(one, np.nextafter(one, 2)) == 1
    assert ulp_distance(np.float32(0.0), np.nextafter(np.float32(0), np.float32(-1))) == 1
    assert ulp_distance(np.float64(-0.0), np.float64(0.0)) == 0
    assert ulp_distance(np.complex128(1), 1 + 2j * np.finfo(np.float64).smallest_subnormal) == 2
    assert ulp_distance(one, np.float64(np.nan)) == "no"


def test_double_precision_is_undone():
    jax = pytest.importorskip("jax", reason="only JAX has the flag")
    before = jax.config.jax_enable_x64
    with double_precision("jax"):
        assert jax.numpy.zeros(()).dtype == np.float64
    assert jax.config.jax_enable_x64 == before


def test_unusable_backend_says_why():
    if "cupy" in usable_backends():
        assert usable_backend("cupy").name == "cupy"
        return
    reason = "needs cupy" if importlib.util.find_spec("cupy") is None else "needs a GPU"
    with pytest.raises(BackendUnavailableError, match=reason):
        usable_backend("cupy")


pytest_plugins = ["pytester"]


def test_option_chooses_and_skips_with_the_reason(pytester):
    pytester.makeconftest('pytest_plugins = ["nestfold.testing.plugin"]')
    pytester.makepyfile(
        """
        import pytest
        def test_each(backend): assert backend.name in ("numpy", "array_api_strict")
        @pytest.mark.parametrize("backend", ["numpy"], indirect=True)
        def test_own_choice(backend): assert backend.name == "numpy"
        def test_none(): pass
        """
    )
    result = pytester.runpytest("--backends=numpy,array_api_strict", "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*test_each?array_api_strict? PASSED*"])
    if "cupy" not in usable_backends():
        result = pytester.runpytest("--backends=cupy", "-rs", "-k", "each")
        result.assert_outcomes(skipped=1)
        result.stdout.fnmatch_lines(["SKIPPED*backend 'cupy' needs *"])
    assert pytester.runpytest("--backends=numpie").ret == pytest.ExitCode.USAGE_ERROR
