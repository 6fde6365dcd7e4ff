"""What the array API standard leaves out: differentiate, attach a rule, loop, compile, noise, devices.

Everything here takes and gives *trees* of arrays unless it says otherwise. A cotangent pairs with a tangent by
the real inner product Re⟨conj(a), b⟩, so that a gradient points along steepest ascent on every backend,
complex arrays included.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ._trees import Skeleton, matching, split, tree_map

Tree = Any
Array = Any
#: A linear operator with parameters: `make(parameters)` does everything nonlinear once and returns
#: `apply, transpose`, two linear functions of one vector (a tree).
MakeOperator = Callable[[Tree], tuple[Callable[[Tree], Tree], Callable[[Tree], Tree]]]

#: `mapped(size, over, *trees)`: see `Backend.custom_derivative`
Mapped = Callable[..., Tree]
#: `mapped(size, over)`: see `Backend.linear_solve`
MappedSystem = Callable[[int, Callable[[Callable[..., Tree]], Callable[..., Tree]]], tuple]


class Backend(ABC):
    """One framework. Stateless; there is one instance of each."""

    #: "numpy", "torch", "jax", "cupy" or "array_api_strict"
    name: str
    #: the array namespace of plain (not traced) arrays
    xp: Any
    #: whether loops and solves are traced and compiled, so that unused work in them costs nothing
    compiles: bool = False

    # -- arrays -------------------------------------------------------------------------------------
    @abstractmethod
    def owns(self, leaf: Any) -> bool:
        """Whether `leaf` is an array of this framework."""

    def is_node(self, leaf: Any) -> bool:
        """Whether `leaf` is a tree to this framework, though none to nestfold."""
        return False

    def is_array(self, leaf: Any) -> bool:
        """Whether `leaf` is an array, traced or not, as opposed to a number or another object."""
        return self.owns(leaf)

    @abstractmethod
    def is_inexact(self, leaf: Any) -> bool:
        """Whether `leaf` is an array of real or complex floating point: whether it can move."""

    def split(self, tree: Tree) -> tuple[list[Array], Skeleton]:
        """The arrays in `tree`, and the rest of it."""
        return split(tree, self.is_array)

    def matching(self, tree: Tree, like: Tree, what: str) -> list[Any]:
        """What stands in `tree`, called `what` in errors, where the leaves of `like` stand; None may stand there."""
        return matching(tree, like, what)

    @abstractmethod
    def is_eager(self, *trees: Tree) -> bool:
        """Whether the values of these arrays can be looked at now (False under `jax.jit`)."""

    @abstractmethod
    def is_constant(self, *arrays: Array) -> bool:
        """Whether no derivative can flow through these arrays, and their values are at hand.

        Then a function may take a shorter way that gives the same values and no derivatives.
        """

    @abstractmethod
    def asarray(self, value: Any, *, like: Array | None = None, dtype: Any = None, device: Any = None) -> Array:
        """An array of this framework from numbers or a NumPy array, with the dtype and device of `like`."""

    @abstractmethod
    def to_numpy(self, array: Array) -> Any:
        """A NumPy copy of `array`, whatever its device, cut off from any differentiation."""

    @abstractmethod
    def device(self, array: Array) -> Any:
        """The device of `array`; None where it cannot be told (a traced array of JAX)."""

    @abstractmethod
    def to_device(self, array: Array, device: Any) -> Array:
        """`array` on `device`."""

    @abstractmethod
    def synchronize(self, tree: Tree) -> Tree:
        """Wait until `tree` has been computed, and return it. For timing."""

    def is_complex(self, array: Array) -> bool:
        """Whether the dtype is complex."""
        return bool(self.xp.isdtype(array.dtype, "complex floating"))

    def one(self, like: Array) -> Array:
        """1, as an array of no axes like this one: the cotangent of a value."""
        return self.xp.ones_like(like)

    def ratio(self, a: Array, b: Array) -> Array:
        """A / b, entry by entry, and 0 where b = 0."""
        xp, zero = self.xp, b == 0
        return xp.where(zero, xp.zeros_like(a), a / xp.where(zero, xp.ones_like(b), b))

    def has_floats(self, arrays: list[Array]) -> bool:
        """Whether numbers got from these arrays are best had as Python's floats: constants, on a CPU, that wait for
        nobody. Then there are `float_dot`, `float_axpy` and `float_largest`.
        """
        return False

    def float_dot(self, a: Array, b: Array) -> float:
        """Re Σ conj(a) b."""
        raise NotImplementedError

    def float_axpy(self, number: float, u: Array, v: Array) -> Array:
        """`number · u + v`, arrays of one shape and dtype."""
        raise NotImplementedError

    def float_largest(self, a: Array) -> float:
        """max |a|, NaN if an entry is; not of an empty array."""
        raise NotImplementedError

    def dots(self, a: Array, b: Array | None, ndim: int, keepdims: bool) -> Array | None:
        """Σ a b (Σ a where b is None) over the last `ndim` axes of real arrays; None where `sum` is as fast."""
        return None

    def largest(self, a: Array) -> float | None:
        """The largest entry (NaN if there is one), where it costs less than what it may save to know; else None."""
        return None

    def lower_inverse(self, l: Array) -> Array | None:
        """The inverse of lower triangular matrices, faster than by `linalg.inv`; None where there is no such way."""
        return None

    def with_diagonal(self, a: Array, d: Array) -> Array | None:
        """Matrices `a` with the diagonal `d`, in one pass over memory; None where there is no such way."""
        return None

    def solve_or_nan(self, matrix: Array, b: Array) -> Array:
        """`linalg.solve` of plain arrays, NaN where the library would raise because a matrix is singular."""
        return self.xp.linalg.solve(matrix, b)

    def noise(self, rng: Any, shape: tuple[int, ...], *, like: Array) -> Array:
        """Standard normal numbers from a `numpy.random.Generator`, with the dtype and device of `like`.

        Drawn in float64 by NumPy, so that one seed gives the same numbers on every backend. For a complex
        `like`, real and imaginary parts are independent standard normals.
        """
        values = rng.standard_normal(shape)
        if self.xp.isdtype(like.dtype, "complex floating"):
            values = values + 1j * rng.standard_normal(shape)
        return self.asarray(values, like=like)

    # -- differentiation ----------------------------------------------------------------------------
    @abstractmethod
    def vjp(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[[Tree], tuple[Tree, ...]]]:
        """`y, pull` with `pull(ȳ) = (x̄₁, …)`, one for each primal; `f` runs once, `pull` any number of times.

        Differentiable itself, to any order. A primal that `f` does not use has the cotangent zero.
        """

    def vjp_each(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, tuple[Callable[[Tree], Tree], ...]]:
        """`y, pulls`, one function for each primal: `pulls[i](ȳ) = x̄ᵢ`, without the work for the others."""
        y, pull = self.vjp(f, *primals)

        def only(i: int) -> Callable[[Tree], Tree]:
            return lambda cotangent: pull(cotangent)[i]

        return y, tuple(only(i) for i in range(len(primals)))

    @abstractmethod
    def jvp(self, f: Callable[..., Tree], primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> tuple[Tree, Tree]:
        """`y, ẏ`: the value and the directional derivative."""

    @abstractmethod
    def linearize(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[..., Tree]]:
        """`y, push` at a fixed point: pay for `f` once, apply `ẏ = push(ẋ₁, …)` often."""

    @abstractmethod
    def stop_gradient(self, tree: Tree) -> Tree:
        """`tree` as a constant of every derivative."""

    @abstractmethod
    def forbid_gradient(self, tree: Tree, why: str) -> Tree:
        """`tree` as a constant that must not be differentiated: a derivative that would flow through it raises
        `NoDerivativeError(why)`, here or where it is asked for; never a silent zero. PyTorch's own `backward` of a
        user's tensor finds a result without a graph instead.
        """

    def forbid_captured(self, f: Callable[[], Tree], why: str) -> None:
        """Raise `NoDerivativeError(why)` if `f` closes over arrays that are being differentiated.

        `f` may be called once.
        """
        self.forbid_gradient(f(), why)

    def constants(self) -> AbstractContextManager[Any]:
        """A context in which nothing is differentiated from outside: no graph is kept of what runs in it.

        `vjp` and its kin work as ever; their results are constants.
        """
        return nullcontext()

    @abstractmethod
    def custom_derivative(
        self,
        function: Callable[..., Tree],
        pushforward: Callable[[tuple[Tree, ...], Tree, tuple[Tree | None, ...]], Tree],
        pullback: Callable[[tuple[Tree, ...], Tree, Tree, tuple[bool, ...]], tuple[Tree | None, ...]],
        *,
        transposable: bool = False,
        mapped: Mapped | None = None,
    ) -> Callable[..., Tree]:
        """`function(*trees)` with its derivative given by hand, both ways.

        `pushforward(primals, out, tangents)`: the tangent of `out`; a tangent that is zero may be None.
        `pullback(primals, out, cotangent, needs)`: the cotangent of each primal whose `needs` is true, None for
        the others. Both are made of differentiable operations on their arguments and may call the returned
        function itself: then derivatives of every order follow. `function` itself is never differentiated
        and sees no traced arrays where the framework can avoid it. `function` must not close over arrays that are
        being differentiated: pass them as arguments (see `hoist`). With `transposable`, `pushforward` promises to be
        made of operations that the framework itself can transpose (no other such function called on
        tangents): JAX then needs no `pullback` and traces less.

        `mapped(size, over, *trees)` is the same for `size` entries along a first axis of all arrays, those of its
        value included; `over(f)` is a function `f` of one entry made such a function. Without it `torch.vmap`
        calls `function` for one entry after the other. JAX maps by itself.
        """

    def opaque(self, function: Callable[..., Tree], *constants: Tree, mapped: Mapped | None = None) -> Tree:
        """`function(*constants)`, whose loops end as their values say: under `torch.vmap` it sees no mapped arrays,
        but those of one entry, or all of them through `mapped` (see `custom_derivative`). Constants of any derivative.
        """
        return function(*constants)

    @abstractmethod
    def checkpoint(self, f: Callable[..., Tree], *args: Tree) -> Tree:
        """`f(*args)`, of which a derivative keeps the inputs alone and runs `f` again; see `nestfold.checkpoint`."""

    @abstractmethod
    def hoist(self, f: Callable[..., Tree], *args: Tree) -> tuple[Callable[..., Tree], tuple[Array, ...]]:
        """`g, captured` with `g(captured, *args) == f(*args)`, where `captured` are the arrays that `f`
        closes over and that are being differentiated right now (often none: then `g` ignores its first
        argument). `f` is called once, on `args`, to find them. Raises `NoDerivativeError`, naming what to do,
        where such an array is found but cannot be made an argument: never a silent zero.
        """

    def in_hoisted(self) -> bool:
        """Whether a hoisted function is running, so that others stand in for what it captured until it returns.

        For a function that is hoisted then, `g` keeps those stand-ins, and must be used also where nothing else was
        captured, if it is called later: by the rule of a solve, say.
        """
        return False

    def linear_solve(
        self,
        make: MakeOperator,
        parameters: Tree,
        b: Tree,
        solve: Callable[[Callable[[Tree], Tree], Tree], Tree],
        transpose_solve: Callable[[Callable[[Tree], Tree], Tree], Tree],
        *,
        at: Callable[[Tree], tuple[Callable[..., Tree], Callable[..., Tree]]] | None = None,
        mapped: MappedSystem | None = None,
    ) -> Tree:
        """The v with `make(parameters)[0](v) = b`, differentiable in `parameters` and `b` to any order.

        `solve(apply, b)` and `transpose_solve(transpose, b)` are opaque: they are never differentiated. Derivative:
        v̇ = A⁻¹(ḃ - Ȧ v);  b̄ = A⁻ᵀ v̄, parameters̄ = -∂⟨b̄, A(parameters) v⟩: each another such solve.
        `solve` must not close over `parameters` or what is made of them, unless `at(parameters)` = `solve,
        transpose_solve` is given too; `mapped(size, over)` = `make, at, mapped` for `size` entries (see
        `custom_derivative`). Both are for `torch.vmap`.
        """

        def forward(parameters: Tree, b: Tree) -> Tree:
            return (solve if at is None else at(parameters)[0])(make(parameters)[0], b)

        def pushforward(primals: tuple, v: Tree, tangents: tuple) -> Tree:
            (parameters, _), (d_parameters, d_b) = primals, tangents
            right = d_b
            if d_parameters is not None:
                _, moved = self.jvp(lambda p: make(p)[0](v), (parameters,), (d_parameters,))
                right = tree_map(negative, moved) if d_b is None else tree_map(subtract, d_b, moved)
            return self.linear_solve(make, parameters, right, solve, transpose_solve, at=at, mapped=mapped)

        def pullback(primals: tuple, v: Tree, cotangent: Tree, needs: tuple[bool, ...]) -> tuple:
            parameters, _ = primals
            b_bar = self.linear_solve(
                transposed(make), parameters, cotangent, transpose_solve, solve, at=swapped(at), mapped=mirrored(mapped)
            )
            if not needs[0]:
                return None, b_bar
            _, pull = self.vjp(lambda p: make(p)[0](v), parameters)
            return pull(tree_map(negative, b_bar))[0], b_bar

        def entries(size: int, over: Any, parameters: Tree, b: Tree) -> Tree:
            assert mapped is not None
            make, at, again = mapped(size, over)
            return self.linear_solve(make, parameters, b, *at(parameters), at=at, mapped=again)

        rule = self.custom_derivative(forward, pushforward, pullback, mapped=entries if mapped else None)
        return rule(parameters, b)

    def matrix(self, apply: Callable[[Array], Array], like: Array) -> Array:
        """The matrix (columns `apply(eᵢ)`) of a linear function of one vector of shape `(..., n)`: `(..., n, n)`.

        Each basis vector is broadcast over the leading axes of `like`, so that a batch of independent
        operators gives a batch of matrices.
        """
        xp, n = self.xp, like.shape[-1]
        eye = xp.eye(n, dtype=like.dtype, device=self.device(like))
        columns = [apply(xp.broadcast_to(eye[i, ...], like.shape)) for i in range(n)]
        return xp.stack(columns, axis=-1)

    def symmetric_products(self, linear: Callable[[Array], Array], factor: Array) -> Callable[[Array], Array] | None:
        """t ↦ sym(lᵀ linear(l t lᵀ) l) for symmetric matrices t, l = `factor`, as few matrix products as it takes.

        None where that cannot be had: `linear` is no sum of matrix products, or the framework keeps no record
        of it to read.
        """
        return None

    # -- control ------------------------------------------------------------------------------------
    @abstractmethod
    def while_loop(
        self, cond: Callable[[Tree], Array], body: Callable[[Tree], Tree], state: Tree, *, max_steps: int
    ) -> Tree:
        """Apply `body` to `state` while `cond(state)` (a boolean array of no axes), at most `max_steps` times.

        Not differentiable in reverse; see `repeat`.
        """

    @abstractmethod
    def repeat(self, body: Callable[[Tree], Tree], state: Tree, *, steps: int) -> Tree:
        """Apply `body` to `state` exactly `steps` times; differentiable both ways."""

    @abstractmethod
    def call_external(self, function: Callable[..., Tree], like: Tree, *args: Tree) -> Tree:
        """`function(*args)`, any code at all, as arrays with the structure, dtypes and devices of `like`.

        `function` sees plain arrays, cut off from any differentiation and never traced (NumPy's under `jax.jit`).
        It answers in the structure and shapes of `like` with arrays of any kind: a constant of every derivative.
        """

    def jit(self, f: Callable[..., Tree]) -> Callable[..., Tree]:
        """`f`, compiled where the framework compiles."""
        return f

    def __repr__(self) -> str:
        return f"<nestfold backend {self.name}>"


def swapped(pair: Callable[[Tree], tuple[Any, Any]] | None) -> Any:
    """The two functions that `pair` makes in the other order; None stays None."""
    return None if pair is None else lambda parameters: pair(parameters)[::-1]


def transposed(make: MakeOperator) -> MakeOperator:
    """The transposed operator."""
    return swapped(make)


def mirrored(mapped: MappedSystem | None) -> MappedSystem | None:
    """`mapped` of `Backend.linear_solve` for the transposed operator."""
    if mapped is None:
        return None

    def transpose(size: int, over: Any) -> tuple:
        make, at, again = mapped(size, over)
        return swapped(make), swapped(at), mirrored(again)

    return transpose


def negative(a: Array) -> Array:
    """-a."""
    return -a


def subtract(a: Array, b: Array) -> Array:
    """a - b."""
    return a - b
