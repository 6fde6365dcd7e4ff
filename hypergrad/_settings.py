"""Settings that make no sense are refused where they are made."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from ..manifolds import Manifold


def require_count(owner: Any, name: str, *, least: int = 0) -> None:
    """Raise unless the field `name` of `owner` is None or an integer ≥ `least`."""
    value = getattr(owner, name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise TypeError(f"{type(owner).__name__}: {name} must be an integer, not {value!r}")
    require_number(owner, name, least=least)


def require_number(
    owner: Any, name: str, *, least: float | None = None, above: float | None = None, below: float | None = None
) -> None:
    """Raise unless the field `name` of `owner` is None or a number ≥ `least`, > `above` and < `below`."""
    value = getattr(owner, name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{type(owner).__name__}: {name} must be a number, not {value!r}")
    number = float(value)
    if below is not None and not number < below:
        raise ValueError(f"{type(owner).__name__}: {name} must be less than {below}, not {value!r}")
    if (least is not None and not number >= least) or (above is not None and not number > above):
        bound = f"at least {least}" if above is None else f"more than {above}"
        raise ValueError(f"{type(owner).__name__}: {name} must be {bound}, not {value!r}")


def require_kind(owner: Any, name: str, *kinds: type) -> None:
    """Raise `TypeError` unless the field `name` of `owner` is None or an instance of one of `kinds`."""
    value = getattr(owner, name)
    if value is not None and not isinstance(value, kinds):
        wanted = " or ".join(with_article(kind.__name__) for kind in kinds)
        raise TypeError(f"{type(owner).__name__}: {name} must be {wanted}, not {value!r}")


def with_article(name: str) -> str:
    """The name after its article: an Argmin, a Root."""
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


def require_level_parts(owner: Any, function: str) -> None:
    """Raise `TypeError` unless the field `function` of `owner` can be called and its `manifold` is a manifold."""
    if not callable(getattr(owner, function)):
        raise TypeError(f"{type(owner).__name__}: {function} must be a function, not {getattr(owner, function)!r}")
    if not isinstance(owner.manifold, Manifold):
        raise TypeError(
            f"{type(owner).__name__}: manifold must be a manifold such as Euclidean(3), not {owner.manifold!r}"
        )


def require_callable(owner: Any, name: str) -> None:
    """Raise `TypeError` unless the field `name` of `owner` is None or can be called."""
    value = getattr(owner, name)
    if value is not None and not callable(value):
        raise TypeError(f"{type(owner).__name__}: {name} must be a function, not {value!r}")
