"""Pictures of low-dimensional manifolds: the sphere, the hyperbolic plane, 2 × 2 positive definite matrices.

`points`, `geodesics` and `vectors` draw onto matplotlib's axes and return them; without `axes` they make a figure of
their own, which `axes.figure.savefig(...)` writes. Arrays of every framework are taken. The pictures are

    Sphere(3)             the unit sphere, on 3D axes; what is behind it at the axes' angle of view is drawn faintly
    PoincareBall(2)       the disk of radius 1/√c with its boundary
    Lorentz(2)            the same disk: x ↦ (x₁, x₂)/(1 + √c x₀)
    SPD(2) and every other manifold of 2 × 2 positive definite matrices
                          the ellipse {a : aᵀ x⁻¹ a = 1}, with semi-axes √λ; `at` says where its center is

matplotlib is imported when something is drawn: `pip install 'nestfold[cli]'` has it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backends import BackendUnavailableError, ShapeError, backend_of
from .backends._trees import tree_map
from .manifolds import Logarithmic, Lorentz, Manifold, PoincareBall, Sphere

Array = Any
Axes = Any

_BLUE, _ORANGE, _GRAY, _PALE = "#0072b2", "#d55e00", "#555555", "#c8c8c8"


def points(manifold: Manifold, x: Array, *, axes: Axes = None, at: Array | None = None, **style: Any) -> Axes:
    """Draw points `x` of any batch shape: as dots, or as ellipses, in rows along the last batch axis.

    `at : (..., 2)` are the centers of ellipses, if they are to be elsewhere. `style` goes to `scatter`, or to them.
    """
    manifold, x = _plain(manifold), _plain(x)
    picture, axes = _prepare(manifold, axes)
    _check(manifold, x)
    picture.points(axes, x, at, **style)
    return axes


def geodesics(
    manifold: Logarithmic,
    x: Array,
    y: Array,
    *,
    axes: Axes = None,
    steps: int | None = None,
    at: Array | None = None,
    **style: Any,
) -> Axes:
    """Draw the shortest geodesic from each `x` to its `y`: as curves, or as rows of ellipses, one row for each.

    `steps` is how many points are drawn on it: by default 100, or 9 ellipses, whose centers are `at : (..., steps, 2)`.
    `style` goes to `plot`, or to the ellipses.
    """
    if not isinstance(manifold, Logarithmic):
        raise TypeError(f"geodesics between points are not known on {manifold!r}: it is not Logarithmic")
    manifold, x, y = _plain(manifold), _plain(x), _plain(y)
    picture, axes = _prepare(manifold, axes)
    _check(manifold, x, y)
    own = len(manifold.shape)
    x, y = np.broadcast_arrays(x, y)
    x, y = (np.reshape(a, (-1, *a.shape[a.ndim - own :])) for a in (x, y))
    times = np.linspace(0.0, 1.0, picture.steps if steps is None else steps)
    picture.curves(axes, manifold.geodesic(x[:, None, ...], y[:, None, ...], times), at, **style)
    return axes


def vectors(manifold: Manifold, x: Array, u: Array, *, axes: Axes = None, **style: Any) -> Axes:
    """Draw tangent vectors `u` at points `x` as arrows, in ambient coordinates. `style` goes to `quiver`.

    Raises `TypeError` for positive definite matrices, whose tangent vectors have no picture here.
    """
    manifold, x, u = _plain(manifold), _plain(x), _plain(u)
    picture, axes = _prepare(manifold, axes)
    _check(manifold, x, u)
    x, u = np.broadcast_arrays(x, u)
    picture.vectors(axes, x, u, **style)
    return axes


def frame(manifold: Manifold, axes: Axes = None) -> Axes:
    """The background alone: the sphere's grid, the disk's boundary; onto `axes`, or onto those of a new figure."""
    manifold = _plain(manifold)
    return _prepare(manifold, axes, always=True)[1]


# -- what there are pictures of -------------------------------------------------------------------------
@dataclass(frozen=True)
class _Ball:
    """The unit sphere."""

    projection, size = "3d", (4.8, 4.8)
    steps = 100

    def frame(self, axes: Axes) -> None:
        around, up = np.linspace(0, 2 * np.pi, 73), np.linspace(-np.pi / 2, np.pi / 2, 37)
        grid = [np.outer(np.cos(up), np.cos(around)), np.outer(np.cos(up), np.sin(around))]
        grid.append(np.outer(np.sin(up), np.ones_like(around)))
        axes.computed_zorder = False  # or the sphere covers what lies on it
        axes.plot_surface(*grid, color="#eef4f9", alpha=0.6, linewidth=0, antialiased=False, shade=False, zorder=0)
        axes.plot_wireframe(*grid, rstride=6, cstride=6, color=_PALE, linewidth=0.5, zorder=0)
        axes.set_box_aspect((1, 1, 1), zoom=1.45)
        axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
        axes.set_proj_type("ortho")
        axes.view_init(elev=22, azim=35)
        axes.set_axis_off()

    def points(self, axes: Axes, x: Array, at: Any, **style: Any) -> None:
        _no_place(at)
        x = np.reshape(x, (-1, 3))
        options = {"color": _BLUE, "s": 28, "depthshade": False, "zorder": 3, "linewidth": 0}
        axes.scatter(*x.T, **options | {"alpha": np.where(_in_front(axes, x), 1.0, 0.3)} | style)

    def curves(self, axes: Axes, x: Array, at: Any, **style: Any) -> None:
        _no_place(at)
        for curve in x:
            options = {"color": _BLUE, "linewidth": 1.6, "zorder": 2, "alpha": 1.0} | style
            (line,) = axes.plot(*curve.T, **options)
            hidden = ~_in_front(axes, curve)
            if hidden.any():
                seen, behind = (np.where(part[:, None], curve, np.nan) for part in (~hidden, hidden))
                line.set_data_3d(*seen.T)
                faded = options | {"alpha": 0.3 * options["alpha"], "label": "_behind", "color": line.get_color()}
                axes.plot(*behind.T, **faded)

    def vectors(self, axes: Axes, x: Array, u: Array, **style: Any) -> None:
        where, what = np.reshape(x, (-1, 3)).T, np.reshape(u, (-1, 3)).T
        options = {"color": _ORANGE, "linewidth": 1.6, "arrow_length_ratio": 0.18, "zorder": 4}
        axes.quiver(*where, *what, **options | style)


def _in_front(axes: Axes, x: Array) -> Array:
    """Whether points of the sphere face the viewer."""
    up, around = np.radians(axes.elev), np.radians(axes.azim)
    return x @ np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)]) >= 0


@dataclass(frozen=True)
class _Disk:
    """The hyperbolic plane in the disk of that radius; of points on the hyperboloid where `lorentz`."""

    radius: float
    lorentz: bool = False

    projection, size = None, (4.8, 4.8)
    steps = 100

    def frame(self, axes: Axes) -> None:
        patches, r = importlib.import_module("matplotlib.patches"), self.radius
        axes.add_patch(patches.Circle((0, 0), r, facecolor="#f5f8fb", edgecolor=_GRAY, linewidth=1.2, zorder=0))
        axes.set(xlim=(-1.04 * r, 1.04 * r), ylim=(-1.04 * r, 1.04 * r), aspect="equal")
        axes.set_axis_off()

    def points(self, axes: Axes, x: Array, at: Any, **style: Any) -> None:
        _no_place(at)
        axes.scatter(*self._place(np.reshape(x, (-1, x.shape[-1]))).T, **{"color": _BLUE, "s": 24, "zorder": 3} | style)

    def curves(self, axes: Axes, x: Array, at: Any, **style: Any) -> None:
        _no_place(at)
        for curve in self._place(x):
            axes.plot(*curve.T, **{"color": _BLUE, "linewidth": 1.6, "zorder": 2} | style)

    def vectors(self, axes: Axes, x: Array, u: Array, **style: Any) -> None:
        x, u = np.reshape(x, (-1, x.shape[-1])), np.reshape(u, (-1, u.shape[-1]))
        if self.lorentz:  # the derivative of `_place`
            b = 1 + x[:, :1] / self.radius
            u = u[:, 1:] / b - x[:, 1:] * (u[:, :1] / self.radius) / b**2
        options = {"angles": "xy", "scale_units": "xy", "scale": 1, "color": _ORANGE, "width": 0.0055, "zorder": 4}
        axes.quiver(*self._place(x).T, *u.T, **options | style)

    def _place(self, x: Array) -> Array:
        return x[..., 1:] / (1 + x[..., :1] / self.radius) if self.lorentz else x


@dataclass(frozen=True)
class _Ellipses:
    """Positive definite 2 × 2 matrices."""

    projection, size = None, (6.4, 2.4)
    steps = 9

    def frame(self, axes: Axes) -> None:
        axes.set(aspect="equal")
        axes.set_axis_off()

    def points(self, axes: Axes, x: Array, at: Any, **style: Any) -> None:
        rows = np.reshape(x, (-1, *x.shape[-3:])) if x.ndim > 2 else x[None, None, ...]
        self._draw(axes, rows, at, {"facecolor": _BLUE, "edgecolor": _BLUE} | style)

    def curves(self, axes: Axes, x: Array, at: Any, **style: Any) -> None:
        colors = importlib.import_module("matplotlib").colormaps["viridis"](np.linspace(0.0, 0.9, x.shape[1]))
        own = {"color", "facecolor", "edgecolor"} & set(style)
        self._draw(axes, x, at, style, None if own else colors)

    def vectors(self, axes: Axes, x: Array, u: Array, **style: Any) -> None:
        raise TypeError("tangent vectors of positive definite matrices have no picture: draw `geodesics` along them")

    def _draw(self, axes: Axes, rows: Array, at: Any, style: dict[str, Any], colors: Array | None = None) -> None:
        ellipse = importlib.import_module("matplotlib.patches").Ellipse
        to_rgba = importlib.import_module("matplotlib.colors").to_rgba
        values, directions = np.linalg.eigh(rows)
        lengths, angles = 2 * np.sqrt(values), np.degrees(np.arctan2(directions[..., 1, 1], directions[..., 0, 1]))
        places = _places(rows, at)
        for index in np.ndindex(rows.shape[:2]):
            options = {"linewidth": 1.4, "zorder": 2} | style
            if colors is not None:
                options["color"] = colors[index[1]]
            if "color" in options:
                options |= dict.fromkeys(("facecolor", "edgecolor"), options.pop("color"))
            options["facecolor"] = to_rgba(options["facecolor"], 0.25)
            short, long = lengths[index]
            axes.add_patch(ellipse(tuple(places[index]), long, short, angle=float(angles[index]), **options))
        axes.autoscale_view()


def _places(rows: Array, at: Any) -> Array:
    """The centers of rows of ellipses: given, or side by side and row below row."""
    if at is not None:
        at = np.asarray(_plain(at))
        if at.shape[-1:] != (2,) or at.size != 2 * rows.shape[0] * rows.shape[1]:
            raise ShapeError(f"`at` has shape {at.shape}; there is to be a center (..., 2) for each ellipse")
        return np.reshape(at, (*rows.shape[:2], 2))
    half = np.sqrt(np.diagonal(rows, axis1=-2, axis2=-1))  # of the upright box around each
    across, down = _row(half[..., 0].max(axis=0)), -_row(half[..., 1].max(axis=1))
    return np.stack(np.broadcast_arrays(across, down[:, None]), axis=-1)


def _row(half: Array) -> Array:
    """Centers of things of these half widths, side by side with a small gap."""
    ends = np.cumsum(2 * half + 0.3 * half.mean())
    return ends - half - ends[0] + half[0]


def _picture(manifold: Manifold) -> Any:
    if isinstance(manifold, Sphere) and manifold.shape == (3,):
        return _Ball()
    if isinstance(manifold, PoincareBall | Lorentz) and manifold.dim == 2:
        if np.ndim(manifold.c):
            raise ShapeError(f"one picture shows one curvature, not a batch of shape {np.shape(manifold.c)}")
        return _Disk(float(manifold.c) ** -0.5, isinstance(manifold, Lorentz))
    if manifold.shape == (2, 2) and type(manifold).__name__.startswith(("SPD", "HPD")):
        return _Ellipses()
    raise TypeError(
        f"there is no picture of {manifold!r}: there are those of Sphere(3), PoincareBall(2), Lorentz(2), SPD(2)"
    )


def _prepare(manifold: Manifold, axes: Axes, *, always: bool = False) -> tuple[Any, Axes]:
    """The picture, and axes on which its frame is drawn, unless something is there already."""
    picture = _picture(manifold)
    if axes is None:
        axes = _figure(picture.size).add_subplot(projection=picture.projection)
        always = True
    if (axes.name == "3d") != (picture.projection == "3d"):
        raise TypeError(f"{manifold!r} needs axes with projection={picture.projection!r}, not {axes.name!r}")
    if always or not axes.has_data():
        picture.frame(axes)
    return picture, axes


def _figure(size: tuple[float, float]) -> Any:
    """An empty figure: matplotlib's own class, none of pyplot's global state."""
    try:
        figure = importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise BackendUnavailableError("plots need matplotlib: pip install 'nestfold[cli]'") from error
    return figure(figsize=size, layout="constrained")


def _plain(tree: Any) -> Any:
    """NumPy arrays in the place of any others."""
    if tree is None or isinstance(tree, np.ndarray):
        return tree
    return tree_map(lambda a: backend_of(a).to_numpy(a) if hasattr(a, "dtype") else a, tree)


def _check(manifold: Manifold, *arrays: Array) -> None:
    for a in arrays:
        if tuple(np.shape(a))[-len(manifold.shape) :] != tuple(manifold.shape):
            raise ShapeError(
                f"points and vectors of {manifold!r} have shape (..., {manifold.shape}), not {np.shape(a)}"
            )


def _no_place(at: Any) -> None:
    if at is not None:
        raise TypeError("`at` places ellipses; other pictures have their points where they are")
