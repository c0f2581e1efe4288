"""Check types and shapes while the tests run, with beartype and, for arrays, jaxtyping."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from functools import partial, wraps
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import jaxtyping
import jaxtyping._storage
from beartype import BeartypeConf, beartype
from greenlet import getcurrent

_jaxtyped = jaxtyping.jaxtyped
# Raise jaxtyping's error, which is a TypeError like Python's own.
_plain = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))


class PerGreenlet:
    """A stack of jaxtyping's for each greenlet."""

    @property
    def memo_stack(self) -> list[Any]:
        """The sizes of the running functions' axes."""
        greenlet = getcurrent()
        try:
            return greenlet.sizes
        except AttributeError:
            greenlet.sizes = []
            return greenlet.sizes


_SIZES = PerGreenlet()
CHECKED_CALLS = 20
"""Calls of each function whose arrays are checked in each test; some functions are called thousands of times."""
_TEST = SimpleNamespace(number=0)


def next_test() -> None:
    """Count the calls of functions anew."""
    _TEST.number += 1


def checked(function: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """Like `jaxtyping.jaxtyped`, but without its work on sizes (half the time of many tests) if there are no arrays."""
    if function is None:
        return partial(checked, typechecker=typechecker)
    if dataclasses.is_dataclass(function) and inspect.isfunction(vars(function).get("__init__")):
        function.__init__ = _checked(function.__init__, typechecker)
        return function
    return _checked(function, typechecker) if inspect.isfunction(function) else function


def _checked(function: Callable[..., Any], typechecker: Callable[[Any], Any]) -> Callable[..., Any]:
    """A function that is checked from its first call on: most functions are never called in a process of tests.

    Its types may be in quotes, and their classes defined after it.
    """
    inner: Callable[..., Any] | None = None

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal inner
        if inner is None:
            if _some(lambda annotation: isinstance(annotation, str), function.__annotations__.values()):
                function.__annotations__ = {
                    name: _without_quotes(annotation, function.__globals__)
                    for name, annotation in function.__annotations__.items()
                }
            inner = _checking(function, typechecker)
        return inner(*args, **kwargs)

    return call


def _checking(function: Callable[..., Any], typechecker: Callable[[Any], Any]) -> Callable[..., Any]:
    annotations = function.__annotations__.values()
    if not _some(lambda annotation: getattr(annotation, "__module__", "") == "jaxtyping", annotations):
        return _plain(function)
    is_lazy = inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function)
    return _jaxtyped(function, typechecker=typechecker) if is_lazy else _with_shapes(function)


def _with_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose axes of the same name must have the same size, in its first calls of each test.

    `jaxtyping.jaxtyped` checks the arguments twice and binds them for each call, which takes a third of the time of
    many tests.
    """
    inner = _plain(function)
    test, calls = -1, 0

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal test, calls
        test, calls = _TEST.number, calls + 1 if test == _TEST.number else 1
        if calls > CHECKED_CALLS:
            return function(*args, **kwargs)
        sizes = _SIZES.memo_stack
        # Of axes, of groups of axes, and of trees; and the arguments, which no size refers to.
        sizes.append(({}, {}, {}, {}))
        try:
            return inner(*args, **kwargs)
        finally:
            sizes.pop()

    return call


def _without_quotes(annotation: Any, names: dict[str, Any]) -> Any:
    """The type that an annotation means; any type, as in jaxtyping, if it is imported for type checkers only."""
    try:
        return get_type_hints(
            SimpleNamespace(__annotations__={"it": annotation}), names, include_extras=True
        )["it"]
    except (NameError, AttributeError):
        return Any


def _some(test: Callable[[Any], bool], annotations: Iterable[Any]) -> bool:
    """Whether an annotation, or a part of one that is a type, passes a test."""
    return any(test(annotation) or _some(test, _parts(annotation)) for annotation in annotations)


def _parts(annotation: Any) -> Iterable[Any]:
    if isinstance(annotation, list):  # the arguments of a Callable
        return annotation
    if get_origin(annotation) is Literal:
        return ()
    parts = get_args(annotation)
    return parts[:1] if get_origin(annotation) is Annotated else parts


def check_types(*packages: str) -> None:
    """Check the types of all functions in packages that are imported from now on."""
    # jaxtyping keeps the sizes of all running functions on one stack, but nnsight switches between a model and its
    # tracer in the middle of such functions: each needs its own stack.
    jaxtyping._storage._shape_storage = _SIZES
    jaxtyping.jaxtyped = checked
    jaxtyping.install_import_hook(list(packages), "beartype.beartype")
