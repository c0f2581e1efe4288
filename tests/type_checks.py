"""Check types and shapes while the tests run, with beartype and, for arrays, jaxtyping."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, get_args

import jaxtyping
import jaxtyping._storage
from beartype import BeartypeConf, beartype
from greenlet import getcurrent

_with_shapes = jaxtyping.jaxtyped
# Raise jaxtyping's error, which is a TypeError like Python's own.
_plain = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))


class PerGreenlet:
    """Greenlet-local attributes."""

    def __getattr__(self, name: str) -> Any:
        return getattr(getcurrent(), f"shapes_{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(getcurrent(), f"shapes_{name}", value)


def checked(function: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """Like `jaxtyping.jaxtyped`, but without its work on sizes (half the time of many tests) if there are no arrays."""
    if function is None:
        return partial(checked, typechecker=typechecker)
    if dataclasses.is_dataclass(function) and inspect.isfunction(vars(function).get("__init__")):
        if _has_arrays(function.__init__.__annotations__.values()):
            return _with_shapes(function, typechecker=typechecker)
        function.__init__ = _plain(function.__init__)
        return function
    if inspect.isfunction(function) and not _has_arrays(function.__annotations__.values()):
        return _plain(function)
    return _with_shapes(function, typechecker=typechecker)


def _has_arrays(annotations: Iterable[Any]) -> bool:
    return any(
        isinstance(annotation, str)
        or getattr(annotation, "__module__", "") == "jaxtyping"
        or _has_arrays(annotation if isinstance(annotation, list) else get_args(annotation))
        for annotation in annotations
    )


def check_types(*packages: str) -> None:
    """Check the types of all functions in packages that are imported from now on."""
    # jaxtyping keeps the sizes of all running functions on one stack, but nnsight switches between a model and its
    # tracer in the middle of such functions: each needs its own stack.
    jaxtyping._storage._shape_storage = PerGreenlet()
    jaxtyping.jaxtyped = checked
    jaxtyping.install_import_hook(list(packages), "beartype.beartype")
