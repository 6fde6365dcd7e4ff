"""What a user says of a function's derivative: its rule, by hand, or that it shall be recomputed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from ._base import Backend
from ._errors import DTypeError, NoDerivativeError, ShapeError
from ._registry import namespace, owner
from ._trees import Skeleton

Tree = Any
Array = Any
#: one list of arrays for each argument, None for an argument that does not move
Lists = tuple[list[Array] | None, ...]
#: the functions whose missing rule is being had from the other one, here and now
_transposing: ContextVar[frozenset[tuple[int, str]]] = ContextVar("nestfold_transposing", default=frozenset())


def checkpoint(f: Callable[..., Tree]) -> Callable[..., Tree]:
    """`f`, of which a derivative keeps the arguments alone and recomputes the rest when it is asked for.

    Time for memory: a gradient runs f once more, and stores nothing from within. A chain of n steps cut into √n
    checkpointed segments needs memory for 2 √n steps instead of n (Griewank and Walther, 2008, §12). Values and
    derivatives of every order are those of f. Arguments and values are trees; what is no array among them is
    handed through. Arrays that f captured are inputs too. f must give the same again when it is run again.

    On PyTorch it is `torch.utils.checkpoint` without reentrance, which repeats random numbers, and stores
    where derivatives of derivatives are taken, and everything inside `torch.func`; on JAX `jax.checkpoint`. A
    function without any array among its arguments is run as it stands. Raises `NoDerivativeError` where, run
    again, f meets a captured array that it had not met before.
    """

    @functools.wraps(f)
    def recomputed(*args: Tree, **keywords: Any) -> Tree:
        backend = owner(*args, keywords)
        if backend is None:
            return f(*args, **keywords)
        return backend.checkpoint(lambda args, keywords: f(*args, **keywords), args, keywords)

    return recomputed


class CustomDerivative:
    """A function with its derivative given by hand; see `custom_derivative`."""

    __name__: str

    def __init__(self, function: Callable[..., Tree]):
        functools.update_wrapper(self, function)
        self._name = getattr(function, "__name__", repr(function))
        self._function, self._signature = function, inspect.signature(function)
        self._rules: dict[str, Callable[..., Any]] = {}

    def pullback(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Take `rule(primals, out, cotangent, **keywords)` as the pullback; returns the rule."""
        self._rules["pullback"] = rule
        return rule

    def pushforward(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Take `rule(primals, out, tangents, **keywords)` as the pushforward; returns the rule."""
        self._rules["pushforward"] = rule
        return rule

    def __call__(self, *args: Tree, **keywords: Any) -> Tree:
        bound = self._signature.bind(*args, **keywords)
        bound.apply_defaults()
        backend = owner(bound.args, bound.kwargs)
        if backend is None:
            return self._function(*bound.args, **bound.kwargs)
        parts = [backend.split(tree) for tree in (*bound.args, bound.kwargs)]
        call = _Call(self._name, self._function, self._rules, backend, [skeleton for _, skeleton in parts])
        rule = backend.custom_derivative(call.function, call.pushforward, call.pullback)
        out = rule(*(arrays for arrays, _ in parts))
        return call.out.fill(out)


def custom_derivative(function: Callable[..., Tree]) -> CustomDerivative:
    """`function`, on trees of arrays of any framework, with a derivative that you give: forward, backward or both.

    >>> import numpy as np
    >>> import nestfold as nf
    >>> @nf.custom_derivative
    ... def root(a, x):  # the root of x³ + a x = 1 near x, by any code at all
    ...     for _ in range(50):
    ...         x = x - (x**3 + a * x - 1) / (3 * x**2 + a)
    ...     return x
    >>> @root.pullback
    ... def _(primals, out, cotangent):  # the cotangents of a and x; None is zero
    ...     a, _ = primals
    ...     return -out * cotangent / (3 * out**2 + a), None
    >>> value, slope = nf.value_and_grad(root)(np.array(2.0), np.array(1.0))
    >>> print(f"{value:.6f} {slope:.6f}")
    0.453398 -0.173270

    `pullback(primals, out, cotangent)` returns a tuple with the cotangent of each primal; `pushforward(primals, out,
    tangents)` returns the tangent of `out`, where `tangents` holds None for each primal that does not move. They
    are the adjoint of each other for Re⟨conj(a), b⟩, linear in the vectors, and made of differentiable operations,
    calls of the function itself among them: then derivatives of every order follow. Where one of the two is
    missing, it is had by transposing the other (which must then not call the function itself on the vectors).

    Arguments given by position or by the name of such a parameter, defaults included, are primals; what is
    keyword-only is constant, and handed to the rules as keywords. The function itself is never differentiated; it
    meets arrays without a derivative, those of one entry after the other under `torch.vmap`, and may do with
    them what it likes but write to them (under `jax.jit` and `jax.vmap`, and in a rule on JAX, what JAX can trace).

    Raises `NoDerivativeError` where a derivative is asked for and there is no rule, or the one that is there cannot
    be transposed, or a captured or keyword-only array is being differentiated; `ShapeError` where a rule
    returns what does not go with the primals or with `out`.
    """
    return CustomDerivative(function)


class _Call:
    """One call: the function and its rules, on one list of arrays for each argument and one for the keywords."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Tree],
        rules: dict[str, Callable[..., Any]],
        backend: Backend,
        skeletons: list[Skeleton],
    ):
        self.name, self.user_function, self.rules, self.backend = name, function, rules, backend
        self.skeletons = skeletons
        self.out: Skeleton

    def trees(self, lists: Sequence[list[Array]]) -> tuple[tuple[Tree, ...], dict[str, Any]]:
        """The arguments and the keywords with these arrays."""
        *args, keywords = [s.fill(arrays) for s, arrays in zip(self.skeletons, lists, strict=True)]
        return tuple(args), keywords

    def function(self, *lists: list[Array]) -> list[Array]:
        """The user's function."""
        args, keywords = self.trees(lists)
        arrays, self.out = self.backend.split(self.user_function(*args, **keywords))
        return arrays

    def pushforward(self, primals: tuple, out: list[Array], tangents: tuple) -> list[Array]:
        """The tangent of the value, by the rule that there is."""
        tangents = tuple(t or None for t in tangents)
        self.refuse_keywords(tangents[-1] is not None)
        if "pushforward" in self.rules:
            return self.push(primals, out, tangents)
        live = [i for i, t in enumerate(tangents) if t is not None]
        needs = tuple(t is not None for t in tangents)

        def pulled(cotangent: list[Array]) -> list[list[Array]]:
            found = self.pull(primals, out, cotangent, needs)
            return [_or_zeros(found[i], primals[i]) for i in live]

        return self.transposed("pushforward", pulled, [out], [tangents[i] for i in live])[0]

    def pullback(self, primals: tuple, out: list[Array], cotangent: list[Array], needs: tuple) -> Lists:
        """The cotangents of the arguments, by the rule that there is."""
        self.refuse_keywords(needs[-1])
        if "pullback" in self.rules:
            return self.pull(primals, out, cotangent, needs)
        live = [i for i, needed in enumerate(needs) if needed]

        def pushed(*moving: list[Array]) -> list[Array]:
            filled = dict(zip(live, moving, strict=True))
            return self.push(primals, out, tuple(filled.get(i) for i in range(len(primals))))

        found = dict(zip(live, self.transposed("pullback", pushed, [primals[i] for i in live], cotangent), strict=True))
        return tuple(found.get(i) for i in range(len(primals)))

    def transposed(self, missing: str, linear: Callable[..., Any], likes: list[list[Array]], vector: Any) -> Any:
        """The adjoint of the rule that there is, a function of vectors like `likes`, applied to `vector`."""
        there, key = next(iter(self.rules), None), (id(self.user_function), missing)
        if there is None:
            raise NoDerivativeError(f"{self.name} has no {missing}, and no other rule to have it from: give it one")
        if key in _transposing.get():
            raise NoDerivativeError(
                f"{self.name} has no {missing}, and its {there} cannot be transposed to have it, as this calls "
                f"{self.name} itself on the vectors: give it one"
            )
        token = _transposing.set(_transposing.get() | {key})
        try:
            return self.backend.vjp(linear, *(_or_zeros(None, like) for like in likes))[1](vector)
        except NoDerivativeError as error:
            if f"{self.name} has no {missing}" in str(error):
                raise
            raise NoDerivativeError(
                f"{self.name} has no {missing}, and its {there} cannot be transposed to have it: {error}"
            ) from error
        finally:
            _transposing.reset(token)

    def push(self, primals: tuple, out: list[Array], tangents: tuple) -> list[Array]:
        """The user's pushforward."""
        args, keywords = self.trees(primals)
        moved = [None if t is None else s.fill_vector(t) for s, t in zip(self.skeletons, tangents, strict=True)]
        tangent = self.rules["pushforward"](args, self.out.fill(out), tuple(moved[:-1]), **keywords)
        return self.checked("pushforward", tangent, self.out, out)

    def pull(self, primals: tuple, out: list[Array], cotangent: list[Array], needs: tuple) -> Lists:
        """The user's pullback."""
        args, keywords = self.trees(primals)
        pulled = self.rules["pullback"](args, self.out.fill(out), self.out.fill_vector(cotangent), **keywords)
        if not isinstance(pulled, (tuple, list)) or len(pulled) != len(args):
            found = f"{len(pulled)} cotangents" if isinstance(pulled, (tuple, list)) else f"a {type(pulled).__name__}"
            raise ShapeError(f"the pullback of {self.name} returned {found}, not a tuple of {len(args)}")
        checked: list[list[Array] | None] = [None] * (len(args) + 1)
        for i, vector in enumerate(pulled):
            if needs[i]:
                checked[i] = self.checked("pullback", vector, self.skeletons[i], primals[i])
        return tuple(checked)

    def checked(self, rule: str, vector: Tree, skeleton: Skeleton, likes: list[Array]) -> list[Array]:
        """The arrays of what a rule returned, in the shapes and dtypes of `likes`; None is zero."""
        if vector is None:
            return _or_zeros(None, likes)
        given = skeleton.pick(
            self.backend.matching(vector, skeleton.fill(likes), f"what the {rule} of {self.name} returned")
        )
        return [self.fitted(rule, v, x) for v, x in zip(given, likes, strict=True)]

    def fitted(self, rule: str, vector: Any, like: Array) -> Array:
        """One array of what a rule returned. Of a complex cotangent of a real array the real part counts."""
        if vector is None or not self.backend.is_inexact(like):
            return namespace(like).zeros_like(like)
        if not hasattr(vector, "dtype") and like.shape == ():
            vector = self.backend.asarray(vector, like=like)
        shape = getattr(vector, "shape", None)
        if shape is None or tuple(shape) != tuple(like.shape):
            found = f"a {type(vector).__name__}" if shape is None else f"shape {tuple(shape)}"
            raise ShapeError(f"the {rule} of {self.name} returned {found} where the shape is {tuple(like.shape)}")
        if self.backend.is_complex(vector) and not self.backend.is_complex(like):
            if rule == "pushforward":
                raise DTypeError(f"the pushforward of {self.name} returned a complex tangent of a real value")
            vector = namespace(vector).real(vector)
        return vector if vector.dtype == like.dtype else namespace(vector).astype(vector, like.dtype)

    def refuse_keywords(self, moving: bool) -> None:
        """Raise `NoDerivativeError` if a derivative would flow through a keyword-only argument."""
        if moving:
            raise NoDerivativeError(
                f"{self.name} is given by keyword an array that is being differentiated, of which its rules know "
                "nothing: make it an argument that can be given by position, or take stop_gradient of it"
            )


def _or_zeros(found: list[Array] | None, likes: list[Array]) -> list[Array]:
    return [namespace(x).zeros_like(x) for x in likes] if found is None else found
