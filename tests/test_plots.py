"""Pictures: which artists are drawn, with which data; how they look was judged by eye."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Circle, Ellipse

import nestfold as nf
from nestfold import plots
from nestfold.backends._trees import tree_map


@pytest.fixture(autouse=True)
def drawable(monkeypatch):
    """Whatever a test draws can be rendered, and leaves no figure of pyplot behind."""
    drawn = []
    prepare = plots._prepare

    def recorded(*args, **options):
        picture, axes = prepare(*args, **options)
        drawn.append(axes)
        return picture, axes

    monkeypatch.setattr(plots, "_prepare", recorded)
    before = plt.get_fignums()
    yield
    for axes in {id(axes): axes for axes in drawn}.values():
        axes.figure.canvas.draw()
    assert plt.get_fignums() == before


def taken(backend, *values):
    return [backend.asarray(np.asarray(value, dtype=float)) for value in values]


def ellipses(axes):
    return [patch for patch in axes.patches if isinstance(patch, Ellipse) and not isinstance(patch, Circle)]


def matrix(ellipse):
    """The x with {a : aᵀ x⁻¹ a = 1}, from the patch."""
    t = np.radians(ellipse.angle)
    q = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    return q @ np.diag([ellipse.width**2 / 4, ellipse.height**2 / 4]) @ q.T


def test_sphere(backend, rng):
    sphere = nf.Sphere(3)
    x, y = (sphere.random_point(rng, (2, 2), like=np.zeros(())) for _ in range(2))
    axes = plots.points(sphere, *taken(backend, x), color="k")
    assert axes.name == "3d" and axes.get_box_aspect()[0] == axes.get_box_aspect()[2]
    cloud = axes.collections[-1]
    assert np.allclose(np.stack(cloud._offsets3d, axis=-1), x.reshape(4, 3))
    count = len(axes.lines)
    assert plots.geodesics(sphere, *taken(backend, x, y), axes=axes, steps=30) is axes
    lines = [np.stack(line.get_data_3d(), axis=-1) for line in axes.lines[count:]]
    seen = [line for line in axes.lines[count:] if not line.get_label().startswith("_behind")]
    assert len(seen) == 4
    drawn = np.concatenate([line[~np.isnan(line[:, 0])] for line in lines])
    assert len(drawn) == 4 * 30 and np.allclose(np.linalg.norm(drawn, axis=-1), 1)
    for a, b in zip(x.reshape(4, 3), y.reshape(4, 3), strict=True):
        for end in (a, b, sphere.geodesic(a, b, 10 / 29)):
            assert np.min(np.linalg.norm(drawn - end, axis=-1)) < 1e-12
    u = sphere.log(x, y)
    before = len(axes.collections)
    plots.vectors(sphere, *taken(backend, x, u), axes=axes)
    (arrows,) = axes.collections[before:]
    shafts = np.array(arrows._segments3d[:4])  # from the head to the foot, one for each; then the heads' lines
    assert np.allclose(shafts[:, 1], x.reshape(4, 3)) and np.allclose(shafts[:, 0], (x + u).reshape(4, 3))


def test_what_is_behind_the_sphere_is_faint():
    axes = plots.frame(nf.Sphere(3))
    axes.view_init(elev=0, azim=0)
    plots.points(nf.Sphere(3), np.array([[1.0, 0, 0], [-1.0, 0, 0]]), axes=axes)
    assert axes.collections[-1].get_alpha().tolist() == [1.0, 0.3]
    plots.geodesics(nf.Sphere(3), np.array([0.8, 0.6, 0]), np.array([-0.8, 0.6, 0]), axes=axes)
    front, back = (np.stack(line.get_data_3d(), axis=-1) for line in axes.lines[-2:])
    assert np.nanmin(front[:, 0]) >= 0 > np.nanmax(back[:, 0])
    assert [line.get_alpha() for line in axes.lines[-2:]] == [1.0, 0.3]


@pytest.mark.parametrize("c", [1.0, 0.25])
def test_disk(backend, rng, c):
    ball = nf.PoincareBall(2, backend.asarray(np.asarray(c)))
    plain = nf.PoincareBall(2, c)
    x, y = (plain.random_point(rng, (3,), like=np.zeros(())) for _ in range(2))
    axes = plots.geodesics(ball, *taken(backend, x, y))
    (circle,) = axes.patches
    assert isinstance(circle, Circle) and circle.radius == c**-0.5 and axes.get_aspect() == 1.0
    assert axes.get_xlim()[1] >= c**-0.5 and axes.get_ylim()[0] <= -(c**-0.5)
    assert len(axes.lines) == 3 and len(axes.lines[0].get_xydata()) == 100
    for line, a, b in zip(axes.lines, x, y, strict=True):
        data = line.get_xydata()
        assert np.allclose(data[0], a) and np.allclose(data[-1], b)
        # a geodesic lies on a circle that is perpendicular to the boundary: |p|² - 2 m·p + 1/c = 0
        m = np.linalg.lstsq(2 * data, np.sum(data**2, axis=-1) + 1 / c, rcond=None)[0]
        assert np.allclose(np.sum(data**2, axis=-1) - 2 * data @ m + 1 / c, 0, atol=1e-10)
    plots.points(ball, *taken(backend, x), axes=axes)
    assert np.allclose(axes.collections[-1].get_offsets(), x)
    plots.vectors(ball, *taken(backend, x, plain.log(x, y)), axes=axes)
    arrows = axes.collections[-1]
    assert np.allclose(arrows.get_offsets(), x)
    assert np.allclose(np.stack([arrows.U, arrows.V], axis=-1), plain.log(x, y))
    assert len(axes.patches) == 1  # the frame was drawn once


def test_hyperboloid_is_seen_in_the_disk(rng):
    """x ↦ (x₁, x₂)/(1 + √c x₀) is the isometry onto the ball of the same curvature, tangent vectors included."""
    c = 0.6
    lorentz, ball = nf.Lorentz(2, c), nf.PoincareBall(2, c)
    x, y = (lorentz.random_point(rng, (4,), like=np.zeros(())) for _ in range(2))
    axes = plots.points(lorentz, np.stack([x, y]))
    assert axes.patches[0].radius == c**-0.5
    p, q = np.array(axes.collections[-1].get_offsets()).reshape(2, 4, 2)
    assert np.allclose(ball.dist(p, q), lorentz.dist(x, y))
    plots.vectors(lorentz, x, lorentz.log(x, y), axes=axes)
    arrows = axes.collections[-1]
    assert np.allclose(np.stack([arrows.U, arrows.V], axis=-1), ball.log(p, q))
    plots.geodesics(lorentz, x[0], y[0], axes=axes, steps=5)
    assert np.allclose(axes.lines[-1].get_xydata(), ball.geodesic(p[0], q[0], np.linspace(0, 1, 5)))


def test_matrices_are_ellipses(backend, rng):
    spd = nf.SPD(2)
    x = spd.random_point(rng, (2, 3), like=np.zeros(()))
    axes = plots.points(spd, *taken(backend, x))
    drawn = ellipses(axes)
    assert len(drawn) == 6 and axes.get_aspect() == 1.0
    for patch, wanted in zip(drawn, x.reshape(6, 2, 2), strict=True):
        assert np.allclose(matrix(patch), wanted)
    # side by side without overlap: upright boxes of neighbors in a row are apart
    for a, b in ((0, 1), (1, 2), (3, 4)):
        half = np.sqrt(x.reshape(6, 2, 2)[[a, b], 0, 0]).sum()
        assert drawn[b].center[0] - drawn[a].center[0] > half
    assert drawn[0].center[1] - drawn[3].center[1] > np.sqrt(x[:, :, 1, 1]).sum(axis=0)[0]
    axes.figure.canvas.draw()
    low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
    for patch in drawn:
        assert (low < patch.center).all() and (patch.center < high).all()
    at = rng.standard_normal((2, 3, 2))
    placed = ellipses(plots.points(spd, *taken(backend, x), at=taken(backend, at)[0], color="red"))
    assert np.allclose([patch.center for patch in placed], at.reshape(6, 2))
    assert all(np.allclose(patch.get_edgecolor(), (1, 0, 0, 1)) for patch in placed)


@pytest.mark.parametrize("make", [nf.SPD, nf.SPDLogEuclidean, nf.SPDBuresWasserstein])
def test_geodesics_of_matrices(make, rng):
    manifold = make(2)
    x, y = (nf.SPD(2).random_point(rng, (2,), like=np.zeros(())) for _ in range(2))
    drawn = ellipses(plots.geodesics(manifold, x, y, steps=5))
    wanted = manifold.geodesic(x[:, None], y[:, None], np.linspace(0, 1, 5))
    assert np.allclose([matrix(patch) for patch in drawn], wanted.reshape(10, 2, 2))
    assert len({tuple(patch.get_edgecolor()) for patch in drawn}) == 5


def test_own_axes_and_broadcasting():
    figure = plt.figure()
    axes = figure.add_subplot()
    center, ends = np.zeros(2), np.array([[0.5, 0.0], [0.0, 0.5]])
    assert plots.geodesics(nf.PoincareBall(2), center, ends, axes=axes) is axes
    assert len(axes.lines) == 2 and len(axes.patches) == 1
    plots.vectors(nf.PoincareBall(2), center, ends, axes=axes)
    assert np.allclose(axes.collections[-1].get_offsets(), 0)
    plt.close(figure)


def test_what_is_refused():
    flat = plots.frame(nf.PoincareBall(2))
    with pytest.raises(TypeError, match=r"no picture of Sphere\(n=4\)"):
        plots.points(nf.Sphere(4), np.eye(4))
    with pytest.raises(TypeError, match="projection='3d'"):
        plots.points(nf.Sphere(3), np.eye(3), axes=flat)
    with pytest.raises(nf.ShapeError, match=r"not \(2,\)"):
        plots.points(nf.Sphere(3), np.zeros(2))
    with pytest.raises(TypeError, match="geodesics"):
        plots.vectors(nf.SPD(2), np.eye(2), np.eye(2))
    with pytest.raises(TypeError, match="ellipses"):
        plots.points(nf.Sphere(3), np.eye(3), at=np.zeros((3, 2)))
    with pytest.raises(nf.ShapeError, match="center"):
        plots.points(nf.SPD(2), np.eye(2), at=np.zeros((3, 2)))
    with pytest.raises(nf.ShapeError, match="one curvature"):
        plots.points(nf.PoincareBall(2, np.ones(3)), np.zeros((3, 2)))


def test_matplotlib_is_imported_when_something_is_drawn():
    code = "import sys, nestfold, nestfold.plots; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(nf.BackendUnavailableError, match=r"nestfold\[cli\]"):
        plots.points(nf.Sphere(3), np.eye(3))


def test_arrays_of_a_tree_of_parameters_are_plain(backend):
    """A manifold whose parameter is any framework's array is drawn with NumPy's."""
    manifold = plots._plain(nf.PoincareBall(2, backend.asarray(np.asarray(0.5))))
    assert isinstance(manifold, nf.PoincareBall)
    tree_map(lambda a: np.testing.assert_equal(type(a) in (np.ndarray, np.float64), True), manifold)
