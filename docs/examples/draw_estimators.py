"""Draws docs/images/hierarchy.png and docs/images/four_estimators.png: errors of hypergradients, counted in steps.

hierarchy : Grazzi et al. 2020. The lower level is given k steps of gradient descent, the linear system k products;
unrolling goes back through the k steps. Mean and spread over twenty random x.
four estimators : Han et al. 2024, figure 1, on their synthetic problem, with their settings (step 0.5, 50 products,
γ = 1) and with the step that suits the spectrum. Errors are true ones, against the closed form.
"""

import warnings
from pathlib import Path

import numpy as np

import nestfold as nf
from nestfold.hypergrad.problems import logistic, ridge, synthetic

IMAGES = Path(__file__).parents[1] / "images"
LIKE = np.zeros(())


def error(problem, x, y, solver, estimator):
    """The relative error of the Riemannian hypergradient at x, the lower solver started from y."""
    made = problem.problem()
    exact = made.manifold.sharp(x, made.manifold.project(x, problem.euclidean_gradient(x)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nf.ConvergenceWarning)  # stopping early is the point
        found = nf.hypergradient(made, x, y, solver=solver, estimator=estimator, certify=False)
    return np.linalg.norm(found.gradient - exact) / np.linalg.norm(exact)


def best_step(problem, x):
    """2/(h_min + h_max) of the lower Hessian at the answer."""
    matrix = problem.matrix(x, problem.solution(x)) if hasattr(problem, "labels") else problem.matrix(x)
    values = np.linalg.eigvalsh(matrix)
    return float(2 / (values[0] + values[-1]))


def hierarchy(axes):
    """Logistic regression from w = 0, and ridge regression from the exact answer: there the linear solve is all."""
    counts = np.unique(np.geomspace(2, 120, 14).astype(int))
    problems = {
        "logistic regression from w = 0": (logistic(like=LIKE, n=100, p=20), lambda p, x: 0 * x),
        "ridge regression from the exact answer": (ridge(like=LIKE, n=60, p=20), lambda p, x: p.solution(x)),
    }
    for ax, (title, (problem, start)) in zip(axes, problems.items(), strict=True):
        rng, errors = np.random.default_rng(0), {"ITD": [], "AID, fixed point": [], "AID, CG": []}
        for _ in range(20):
            x = rng.standard_normal(20) - 3
            step, y = best_step(problem, x), start(problem, x)
            rows = {name: [] for name in errors}
            for k in map(int, counts):
                descent = nf.GradientDescent(step=step, max_steps=k, tol=0)
                series = nf.Implicit(nf.Neumann(terms=k, step=step, tol=0))
                rows["ITD"].append(error(problem, x, y, descent, nf.Unrolled(steps=k)))
                rows["AID, fixed point"].append(error(problem, x, y, descent, series))
                rows["AID, CG"].append(error(problem, x, y, descent, nf.Implicit(nf.CG(max_steps=k, tol=0))))
            for name, row in rows.items():
                errors[name].append(row)
        for (name, values), style in zip(errors.items(), ("-", ":", "--"), strict=True):
            logs = np.log10(np.maximum(values, 1e-16))
            mean, spread = logs.mean(axis=0), logs.std(axis=0)
            (line,) = ax.loglog(counts, 10**mean, style, label=name, linewidth=2)
            ax.fill_between(counts, 10 ** (mean - spread), 10 ** (mean + spread), alpha=0.2, color=line.get_color())
        ax.set(title=title, xlabel="steps t = products k", ylabel="relative error of the hypergradient")
        ax.legend(loc="lower left")


def four_estimators(axes):
    """One axes for the settings of the paper, one for measured steps: error against the number of lower steps."""
    problem, counts = synthetic(like=LIKE), [5, 10, 20, 35, 50, 75, 100]
    x, y = problem.start(np.random.default_rng(42))
    low, high = spectrum(problem, x)
    settings = {"the paper's steps": (0.5, 1.0), "measured steps": (2 / (low + high), 2 / (low + high))}
    for ax, (title, (step, gamma)) in zip(axes, settings.items(), strict=True):
        errors = {"HINV": [], "CG": [], "NS": [], "AD": []}
        for k in counts:
            descent = nf.GradientDescent(step=step, max_steps=k, tol=0)
            for name, estimator in {
                "HINV": nf.Implicit(nf.CG()),
                "CG": nf.Implicit(nf.CG(max_steps=50, tol=0)),
                "NS": nf.Implicit(nf.Neumann(terms=50, step=gamma, tol=0)),
                "AD": nf.Unrolled(steps=k),
            }.items():
                errors[name].append(error(problem, x, y, descent, estimator))
        for (name, values), style in zip(errors.items(), ("-", "--", "-.", ":"), strict=True):
            ax.semilogy(counts, values, style, label=name, linewidth=2)
        ax.set(title=title, xlabel="lower steps S", ylabel="relative error of the hypergradient")
        ax.legend()


def spectrum(problem, x):
    """The ends of the lower Hessian's spectrum at M*: those of 2 Lᵀ A L, M* = L Lᵀ."""
    factor = np.linalg.cholesky(problem.solution(x))
    values = np.linalg.eigvalsh(2 * factor.T @ problem.a @ factor)
    return float(values[0]), float(values[-1])


if __name__ == "__main__":
    from matplotlib.figure import Figure

    for name, draw in (("hierarchy", hierarchy), ("four_estimators", four_estimators)):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        draw(figure.subplots(1, 2, sharey=True))
        figure.savefig(IMAGES / f"{name}.png", dpi=80)
