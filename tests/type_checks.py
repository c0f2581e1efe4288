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


def checked(function: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """Like `jaxtyping.jaxtyped`, but without its work on sizes (half the time of many tests) if there are no arrays."""
    if function is None:
        return partial(checked, typechecker=typechecker)
    if dataclasses.is_dataclass(function) and inspect.isfunction(vars(function).get("__init__")):
        function.__init__ = _checked(function.__init__, typechecker)
        return function
    return _checked(function, typechecker) if inspect.isfunction(function) else function


def _checked(function: Callable[..., Any], typechecker: Callable[[Any], Any]) -> Callable[..., Any]:
    annotations = function.__annotations__.values()
    if _some(lambda annotation: isinstance(annotation, str), annotations):
        return _checked_from_the_first_call_on(function, typechecker)
    if _some(lambda annotation: getattr(annotation, "__module__", "") == "jaxtyping", annotations):
        is_lazy = inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function)
        return _jaxtyped(function, typechecker=typechecker) if is_lazy else _with_shapes(function)
    return _plain(function)


def _with_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose axes of the same name must have the same size.

    `jaxtyping.jaxtyped` checks the arguments twice and binds them for each call, which takes a third of the time of
    many tests.
    """
    inner = _plain(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        sizes = _SIZES.memo_stack
        # Of axes, of groups of axes, and of trees; and the arguments, which no size refers to.
        sizes.append(({}, {}, {}, {}))
        try:
            return inner(*args, **kwargs)
        finally:
            sizes.pop()

    return call


def _checked_from_the_first_call_on(
    function: Callable[..., Any], typechecker: Callable[[Any], Any]
) -> Callable[..., Any]:
    """A function with types in quotes, whose classes may be defined after it."""
    inner: Callable[..., Any] | None = None

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal inner
        if inner is None:
            function.__annotations__ = {
                name: _without_quotes(annotation, function.__globals__)
                for name, annotation in function.__annotations__.items()
            }
            inner = _checked(function, typechecker)
        return inner(*args, **kwargs)

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
