"""Every function that the tape differentiates, against JAX: value, both modes, second derivative.

A case is an expression in `xp` (the array API namespace) or `np` (NumPy itself, and methods of arrays);
its one-letter names are arrays, listed below, and it is differentiated with respect to all of them at once.
"""

from __future__ import annotations

import functools
import re

import array_api_compat.numpy as xp
import numpy as np
import pytest

import nestfold as nf
from nestfold.backends import get_backend

jax = pytest.importorskip("jax")
strict = pytest.importorskip("array_api_strict")

import jax.numpy as jnp  # noqa: E402

enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64


def arrays():
    """The pool, by name: real and complex."""
    rng = np.random.default_rng(0)
    shapes = {
        "a": (3, 4), "b": (3, 4), "c": (4,), "d": (3,), "e": (4,), "f": (), "g": (3, 1), "h": (2, 3, 4),
        "k": (2, 4, 4), "m": (4, 4), "n": (4, 4), "o": (0, 4), "p": (3, 4), "q": (3, 4), "s": (4, 4),
        "u": (3, 4), "w": (5, 3),
    }  # fmt: skip
    pool = {}
    for name, shape in shapes.items():
        x, y = rng.standard_normal(shape), rng.standard_normal(shape)
        shift = 0.0
        if name in "pq":  # positive, above 1
            x, y = 1.2 + np.abs(x), 0.3 * y
        elif name == "u":  # inside (-1, 1)
            x, y = 0.9 * np.tanh(x), 0.2 * np.tanh(y)
        elif name in "km":  # regular
            shift = 3 * np.eye(4)
        z = x + 1j * y
        if name == "s":  # positive definite
            x, z, shift = x @ x.T, z @ z.conj().T, np.eye(4)
        pool[name] = (x + shift, z + shift)
    return pool


POOL = arrays()
#: holomorphic or real-valued: run with complex arrays too
BOTH = """
xp.abs(a)  abs(a)  xp.acos(u)  xp.acosh(p)  xp.asin(u)  xp.asinh(u)  xp.atan(u)  xp.atanh(u)  xp.conj(a)
xp.cos(a)  xp.cosh(a)  xp.exp(a)  xp.expm1(a)  xp.log(p)  xp.log10(p)  xp.log1p(p)  xp.log2(p)
xp.negative(a)  xp.positive(a)  xp.real(a)  xp.reciprocal(p)  xp.sign(a)*p  xp.sin(a)  xp.sinh(a)
xp.sqrt(p)  xp.square(a)  xp.tan(u)  xp.tanh(a)  xp.add(a,b)  xp.subtract(a,b)  xp.multiply(a,b)
xp.divide(a,p)  xp.pow(p,q)  xp.pow(p,2.5)  xp.pow(2.5,a)  xp.where(POS,a,b)  xp.where(POS,a,1.0)
xp.where(POS,1.0,a)  a+b*a-b/p  2*a+1  1-a  3/p  a/2  p**3  a**2  a**1  a**0  2.0**a  -a  +a  a*c  g*a
f*a  a+f  c/g  a*a*a  xp.sum(a)  xp.sum(a,axis=0)  xp.sum(h,axis=(0,-1))
xp.sum(a,axis=-1,keepdims=True)  xp.sum(f)  xp.sum(o,axis=0)  xp.mean(a)
xp.mean(h,axis=(0,2),keepdims=True)  xp.prod(a)  xp.prod(h,axis=1)  xp.prod(h,axis=(0,-1),keepdims=True)
xp.prod(a*MASK,axis=0)  xp.cumulative_sum(a,axis=0)  xp.cumulative_sum(c)
xp.cumulative_sum(a,axis=-1,include_initial=True)  xp.cumulative_prod(a,axis=1)
xp.cumulative_prod(c,include_initial=True)  xp.diff(a,axis=0)  xp.diff(c,n=2)  xp.reshape(a,(2,6))
xp.reshape(a,(-1,))  xp.permute_dims(h,(2,0,1))  xp.permute_dims(h,(-1,0,1))  xp.matrix_transpose(h)
a.mT@d  a.T@d  xp.squeeze(g,axis=1)  xp.expand_dims(a,axis=1)  xp.expand_dims(a,axis=-1)  xp.flip(a)
xp.flip(a,axis=0)  xp.roll(a,1)  xp.roll(h,(1,-2),axis=(0,2))  xp.moveaxis(h,0,-1)
xp.moveaxis(h,(0,1),(2,0))  xp.broadcast_to(c,(3,4))  xp.broadcast_to(g,(2,3,4))
xp.broadcast_arrays(c,g)[1]*a  xp.concat([a,b],axis=0)  xp.concat([a,g],axis=-1)
xp.concat([a,c],axis=None)  xp.concat([o,a])  xp.stack([a,b],axis=1)  xp.stack([a,2*a],axis=-1)
xp.unstack(a,axis=1)[2]  xp.tile(a,(2,1,3))  xp.repeat(a,2,axis=1)  xp.tril(m)  xp.triu(k,k=1)
xp.take(a,IDX,axis=1)  xp.take_along_axis(a,IDX2,axis=1)  xp.astype(a,a.dtype)  xp.asarray(a)
xp.asarray([f,2*f])  a[1,2]  a[1]  a[:,1:3]  a[::-1,::2]  a[...,-1]  a[None,:,None]  a[...,None]
a[:,None,:]  a[None,...,1]  a[1:1]  h[0,...,::2]  f[()]  f[None]  c[-1]*c[0]  a[IDX]  a[IDX,IDX]
a[:,IDX]  a[POS]  a[IDX[:,None],IDX[None,:]]  a@c  d@a  a@n  c@c  c@n  k@n  k@c  n@k  h@c  d@h  h@n  k@k
k@k[0]  xp.matmul(d,a@n)  xp.matmul(k[:,None],k)  xp.tensordot(h,k,axes=([2,0],[1,0]))
xp.tensordot(a,c,axes=1)  xp.tensordot(c,e,axes=0)  xp.vecdot(a,b)  xp.vecdot(h,a,axis=-2)
xp.linalg.vecdot(a,c)  xp.linalg.outer(c,d)  xp.linalg.trace(k,offset=1)
xp.linalg.diagonal(h,offset=-1)  xp.linalg.diagonal(h,offset=2)  xp.linalg.diagonal(a,offset=9)
xp.linalg.cross(w,w[::-1])  xp.linalg.matrix_power(m,3)  xp.linalg.matrix_power(k,-2)
xp.linalg.matrix_power(m,0)*n  xp.linalg.inv(m)  xp.linalg.inv(k)  xp.linalg.det(k)
xp.linalg.slogdet(k)[1]  xp.linalg.slogdet(k)[0]*f  xp.linalg.solve(m,n)  xp.linalg.solve(m,c)
xp.linalg.solve(k,n)  xp.linalg.solve(m,k)  xp.linalg.cholesky(HERM(m)+6*EYE)
xp.linalg.cholesky(HERM(s),upper=True)  xp.linalg.eigh(HERM(m))[0]  xp.linalg.eigvalsh(HERM(k))
FUN(xp.linalg.eigh(HERM(s)))  xp.linalg.qr(k)[1]  xp.linalg.qr(w)[0]
xp.linalg.qr(m)[0]@xp.linalg.qr(m)[1]  xp.linalg.vector_norm(a)
xp.linalg.vector_norm(h,axis=(0,2),keepdims=True)  xp.linalg.vector_norm(a,axis=1,ord=1)
xp.linalg.vector_norm(a,axis=0,ord=float("inf"))  xp.linalg.vector_norm(c,ord=3)
xp.linalg.vector_norm(c,ord=-float("inf"))  xp.linalg.matrix_norm(k)  xp.linalg.matrix_norm(k,ord=1)
xp.linalg.matrix_norm(a,ord=float("inf"),keepdims=True)  xp.linalg.matrix_norm(a,ord=-1)
"""
REAL = """
xp.atan2(a,b)  xp.copysign(a,b)*p  xp.hypot(a,b)  xp.logaddexp(a,b)  xp.maximum(a,b)  xp.maximum(a,0.0)
xp.minimum(a,b)  xp.minimum(0.1,a)  xp.remainder(p+9*q,3*q)  p%0.7  xp.max(a)  xp.max(h,axis=(0,2))
xp.min(a,axis=1,keepdims=True)  xp.clip(a,-0.4,0.5)  xp.clip(a,b-1,b+0.5)  xp.clip(a,None,0.2)
xp.clip(a,max=0.1)  xp.clip(a,c,c+0.5)  xp.var(a)  xp.var(h,axis=(0,1),correction=1.0)
xp.std(a,axis=1,keepdims=True)  xp.sort(a,axis=0)  xp.sort(a,descending=True)  xp.floor(a)*a  a//1.0*a
xp.round(a)*a  xp.astype(a>0,a.dtype)*a  (a>b)*a  xp.full_like(a,2.0)*a
xp.sum(a,axis=0)*xp.astype(xp.argmax(a,axis=0),a.dtype)  xp.maximum(a,a)  xp.where(a>b,a*b,b/p)
xp.trunc(a)+a  xp.nextafter(a,b)  xp.full((2,3),f)  xp.full_like(a,f)  xp.linspace(f,2*f,5)
xp.linspace(f,3.0,4,endpoint=False)  xp.arange(f,f+2.2,0.5)  xp.meshgrid(c,d)[1]*xp.meshgrid(c,d)[0]
xp.meshgrid(c,d,indexing="ij")[0]  xp.unique_values(a)  xp.unique_counts(a).values  xp.unique_all(a)[0]
"""
#: NumPy's own functions and methods
NUMPY = """
INT*a  a+INT  np.exp(a)  np.sum(a,0)  np.sum(a,(0,1))  np.sum(a,axis=1,keepdims=True)  np.mean(a,1)
np.prod(a,0)  a.sum()  a.sum(0)  a.sum(axis=-1)  a.mean(1)  a.prod()  a.T@d  a.reshape(2,6)
a.reshape(-1)  a.reshape((4,3))  np.reshape(a,(6,2))  a.ravel()  np.ravel(a)  a.flatten()  a.transpose()
a.transpose(1,0)  h.transpose((2,0,1))  np.transpose(h)  np.transpose(h,(1,2,0))  a.swapaxes(0,1)
np.swapaxes(h,0,-1)  a.conj()  np.conjugate(a)  a.copy()  a.real  np.real(a)  a.dot(c)  np.dot(a,n)
np.dot(c,e)  np.dot(f,a)  np.dot(h,n)  np.inner(a,b)  np.outer(c,d)  np.outer(a,d)  np.vdot(a,b)
np.trace(m)  np.trace(k,axis1=1,axis2=2)  m.trace()  np.diag(c)  np.diag(c,1)  np.diag(c,-2)  np.diag(m)
np.diag(a,1)  np.diagonal(h,0,0,2)  m.diagonal()  np.concatenate([a,b])  np.concatenate((a,b),axis=1)
np.hstack([c,d])  np.hstack([a,b])  np.vstack([c,a])  np.stack([c,e])  np.stack((c,e),1)
np.column_stack([d,a])  np.where(POS,a,b)  np.where(POS,a,0.0)  np.square(a)  np.power(p,3)
np.absolute(a)  np.true_divide(a,p)  np.matmul(a,n)  NPS*a  a*NPS  NPA2*c  NPA@a  a-NPA2  NPA2/p  NPA2+a
np.multiply(NPA2,a)  np.linalg.inv(m)  np.linalg.det(m)  np.linalg.slogdet(m)[1]
np.linalg.slogdet(m).logabsdet  np.linalg.solve(m,c)  np.linalg.norm(a)  np.linalg.norm(a,axis=1)
np.linalg.norm(c,3)  np.linalg.norm(m,1)  np.linalg.norm(h,axis=(0,2))
np.linalg.norm(h,ord=1,axis=(2,0))  np.linalg.norm(a,"fro",keepdims=True)  np.linalg.matrix_power(m,2)
np.linalg.cholesky(HERM(m)+6*EYE)  np.linalg.eigh(HERM(m))[0]  np.linalg.eigvalsh(HERM(m))
np.linalg.qr(m)[1]  np.linalg.multi_dot([a,n,c])  np.cumsum(a)  np.cumsum(a,axis=1)  a.cumsum(0)
np.cumprod(c)  a.cumprod(1)  np.squeeze(g)  g.squeeze()  np.expand_dims(a,1)  np.broadcast_to(c,(3,4))
np.flip(a,0)  np.flip(a)  np.roll(a,1)  np.roll(a,1,0)  np.roll(a,1,axis=1)  np.tile(a,2)
np.repeat(a,2)  np.repeat(a,2,0)  a.repeat(3,axis=1)  np.take(a,IDX)  np.take(a,IDX,axis=1)
a.take(IDX,axis=-1)  np.triu(m,1)  np.tril(m)  np.diff(a)  np.diff(a,2,0)  np.atleast_2d(c)
np.atleast_1d(f)  np.moveaxis(h,0,2)  np.tensordot(h,k,axes=([2,0],[1,0]))  np.tensordot(a,c,1)
np.tensordot(a,n,(1,0))  np.kron(c,d)  np.einsum("ij,jk->ik",a,n)  np.einsum("ij,j",a,c)
np.einsum("ii",m)  np.einsum("bij,bjk,k->bi",k,k,c)  np.einsum("ij->j",a)  np.einsum("ii->i",m)
np.einsum("i,i,ij->j",d,d,a)  np.einsum("ij,ij",a,b)  np.cross(w,w[::-1])  np.exp2(a)  np.average(a,0)
np.flipud(a)  np.fliplr(a)  np.add(a,b)  np.array_split(a,2,axis=1)[1]  np.split(a,2,axis=1)[1]
a.astype(a.dtype)  np.zeros_like(a)+a  np.full_like(a,3.0)*a  np.ones_like(a)*a  np.linalg.vecdot(a,b)
np.matrix_transpose(h)  a.size*a  a.ndim*a  np.size(a,0)*a  len(a)*a  sum(a)  [2*r for r in a][1]
np.trapezoid(c)
"""
NUMPY_REAL = """
np.maximum(a,b)  np.max(a,0)  a.max()  a.min(axis=1)  np.amax(a,axis=1,keepdims=True)
np.clip(a,-0.4,0.5)  a.clip(0)  a.clip(-0.3,0.3)  np.clip(a,a_min=0,a_max=None)  np.arctan2(a,b)
np.var(a)  np.std(a,0,ddof=1)  a.var(axis=1)  a.std()  np.sort(a)  np.sort(a,0)  np.mod(p,0.7)
np.hypot(a,b)  np.sign(a)*a  np.abs(a)  a.round()*a  np.rint(a)*a  a[a>0]  np.where(a>0,a,0)
np.argsort(c)*c  a.argmax()*a  np.heaviside(a,0.5)*a  np.add.reduce(a)  np.maximum.reduce(a,axis=1)
np.cbrt(p)  np.deg2rad(a)  np.logaddexp(a,b)  np.ptp(a,axis=0)
"""


def constants(asarray):
    """What the expressions may use besides the pool."""
    mask = POOL["b"][0] > 0.2
    numpy_array = np.arange(12.0).reshape(4, 3) + 1
    names = {
        "POS": mask, "MASK": mask.astype(float), "IDX": np.array([2, 0, 2]),
        "IDX2": np.array([[1, 0, 3]] * 3), "INT": np.array([1, -2, 3, 4]), "EYE": np.eye(4),
    }  # fmt: skip
    names = {name: asarray(value) for name, value in names.items()}

    def adjoint(x):
        xp = nf.namespace(x)
        return xp.conj(xp.matrix_transpose(x)) if "complex" in str(x.dtype) else xp.matrix_transpose(x)

    def function_of_eigen(pair):
        xp = nf.namespace(pair[0])
        return (pair[1] * xp.expand_dims(xp.exp(0.1 * pair[0]), axis=-2)) @ adjoint(pair[1])

    names |= {"NPS": np.float64(1.5), "NPA": numpy_array, "NPA2": numpy_array.T}
    return names | {"HERM": lambda x: 0.5 * (x + adjoint(x)), "FUN": function_of_eigen}


def codes(*texts):
    return [code for text in texts for code in re.split(r"\s\s+|\n", text.strip())]


def split(code, complex_numbers):
    """The compiled expression, the names of its arrays and their values."""
    compiled = compile(code, code, "eval")
    names = sorted(set(re.findall(r"\b[a-w]\b(?!\()", code)) & set(POOL))
    return compiled, names, [POOL[n][complex_numbers] for n in names]


def evaluate(compiled, names, xp, numpy, extra):
    def function(*xs):
        scope = {"xp": xp(xs[0]), "np": numpy, **extra, **dict(zip(names, xs, strict=True))}
        return eval(compiled, scope)

    return function


def weights(value, seed=5):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(value.shape)
    return w + 1j * rng.standard_normal(value.shape) if np.iscomplexobj(value) else w


def pairing(xp, w, value):
    return xp.sum(xp.real(xp.conj(w) * value)) if "complex" in str(value.dtype) else xp.sum(w * value)


@functools.cache
def by_differences(code, complex_numbers):
    """The value and Df[u] of plain NumPy, by central differences of order 8."""
    compiled, names, xs = split(code, complex_numbers)
    f = evaluate(compiled, names, lambda x: xp, np, constants(np.asarray))
    us = [weights(x, seed=i) for i, x in enumerate(xs)]
    return np.asarray(f(*xs)), us, difference(f, xs, us)


def difference(f, xs, us, step=2e-3):
    total = np.zeros(())
    for k, weight in enumerate((4 / 5, -1 / 5, 4 / 105, -1 / 280), start=1):
        ahead, behind = (f(*[x + sign * k * step * u for x, u in zip(xs, us, strict=True)]) for sign in (1, -1))
        total = total + weight / step * (np.asarray(ahead) - np.asarray(behind))
    return total


def close(found, wanted, what, tolerance=1e-9):
    found = np.asarray(found)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype, (what, found.shape, found.dtype)
    if wanted.size:
        error = abs(found - wanted).max() / (1 + abs(wanted).max())
        assert error < tolerance, f"{what}: wrong by {error:.1e}"


def answers(backend, code, complex_numbers):
    """Value, pushed tangent, pulled cotangents and second derivatives along the tangents, as NumPy arrays."""
    compiled, names, xs = split(code, complex_numbers)
    f = evaluate(compiled, names, nf.namespace, np, constants(backend.asarray))
    us = [weights(x, seed=i) for i, x in enumerate(xs)]
    xs, us = ([backend.asarray(v) for v in vs] for vs in (xs, us))
    value, pushed = backend.jvp(f, tuple(xs), tuple(us))
    w = weights(backend.to_numpy(value))

    def gradient(*xs):
        return nf.vjp(f, *xs)[1](backend.asarray(w))

    pulled, second = backend.jvp(gradient, tuple(xs), tuple(us))
    assert all(p.shape == x.shape and p.dtype == x.dtype for p, x in zip(pulled, xs, strict=True))
    return [[backend.to_numpy(a) for a in found] for found in ((value, pushed), pulled, second)], w, gradient


def check(backend, code, complex_numbers):
    value, us, moved = by_differences(code, complex_numbers)
    ((mine, pushed), pulled, second), w, gradient = answers(backend, code, complex_numbers)
    close(mine, value, "value", 1e-13)
    close(pushed, moved.astype(value.dtype), "tangent")
    there, back = pairing(np, w, pushed), sum(pairing(np, u, p) for u, p in zip(us, pulled, strict=True))
    assert abs(there - back) < 1e-10 * (1 + abs(back)), "the modes do not transpose each other"
    if backend.name != "numpy":  # the rules are the same
        return
    xs = split(code, complex_numbers)[2]
    for k, found in enumerate(second):
        close(
            found,
            difference(lambda *xs, k=k: gradient(*xs)[k], xs, us).astype(found.dtype),
            "second derivative",
        )


@pytest.mark.parametrize("code", codes(BOTH, REAL, NUMPY, NUMPY_REAL))
def test_real(code):
    check(get_backend("numpy"), code, False)


@pytest.mark.parametrize("code", codes(BOTH, NUMPY))
def test_complex(code):
    check(get_backend("numpy"), code, True)


#: what array_api_strict itself does not allow
NOT_STRICT = """
a[1]  a[None,:,None]  a[1:1]  f[None]  a[IDX]  a[:,IDX]  a[IDX[:,None],IDX[None,:]]  k@k[0]
xp.asarray([f,2*f])  xp.matmul(k[:,None],k)  xp.linalg.cross(w,w[::-1])  (a>b)*a
"""


@pytest.mark.parametrize("code", sorted(set(codes(BOTH, REAL)) - set(codes(NOT_STRICT))))
def test_strict(code):
    check(get_backend("array_api_strict"), code, False)


#: what JAX refuses (negative axes of a permutation, old names of bounds, shapes that depend on values) or gets
#: wrong (d sign z = 0, complex)
NOT_JAX = """
xp.permute_dims(h,(-1,0,1))  np.clip(a,a_min=0,a_max=None)  xp.sign(a)*p  xp.nextafter(a,b)
xp.arange(f,f+2.2,0.5)  xp.unique_values(a)  xp.unique_counts(a).values  xp.unique_all(a)[0]
"""


@pytest.mark.slow
@pytest.mark.parametrize("code", sorted(set(codes(BOTH, REAL, NUMPY, NUMPY_REAL)) - set(codes(NOT_JAX))))
def test_against_jax(code):
    with enable_x64(True):
        compare_with_jax(code, False)
        if code in codes(BOTH, NUMPY):
            compare_with_jax(code, True)


#: a few of each kind: all of them, which takes JAX minutes, are compared with `-m slow`
FEW = """
xp.tanh(a)  xp.divide(a,p)  xp.sum(h,axis=(0,-1))  xp.prod(h,axis=1)  a[IDX,IDX]  k@n  xp.linalg.inv(k)
xp.linalg.cholesky(HERM(m)+6*EYE)  xp.abs(a)  FUN(xp.linalg.eigh(HERM(s)))  xp.linalg.slogdet(k)[1]
"""


@pytest.mark.parametrize("code", codes(FEW))
def test_a_few_against_jax(code):
    with enable_x64(True):
        compare_with_jax(code, True)


def compare_with_jax(code, complex_numbers):
    found, w, _ = answers(get_backend("numpy"), code, complex_numbers)
    compiled, names, xs = split(code, complex_numbers)
    f = evaluate(compiled, names, lambda x: jnp, jnp, constants(jnp.asarray))
    us = [weights(x, seed=i) for i, x in enumerate(xs)]

    def gradient(*xs):
        return jax.vjp(lambda *xs: pairing(jnp, w, f(*xs)), *xs)[1](jnp.ones(()))

    pulled, second = jax.jvp(gradient, tuple(map(jnp.asarray, xs)), tuple(map(jnp.asarray, us)))
    wanted = [jax.jvp(f, xs, us), map(jnp.conj, pulled), map(jnp.conj, second)]
    for mine, other in zip(found, wanted, strict=True):
        for a, b in zip(mine, other, strict=True):
            close(a, np.asarray(b), code, 1e-10)
