"""The run-time type checker: beartype and jaxtyping's shapes, of every function and dataclass of `dissect`.

It stands in for `jaxtyping.jaxtyped`, which checks the same in several times the time: that binds the arguments of a
call in Python, checks them once more with the result, and makes a checker anew for each function within a function.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeCallHintViolation
from typing_extensions import Unpack

Check = Callable[[Any], None]

_one_call = jaxtyping.jaxtyped("context")  # within it each word of a shape stands for one number
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))  # int is taken for float, as Python does
_on = True


@contextmanager
def unchecked() -> Iterator[None]:
    """Without the checker, which would refuse wrong types before we do."""
    global _on
    _on = False
    try:
        yield
    finally:
        _on = True


def checked(thing: Any) -> Any:
    """A decorator of functions, and of dataclasses for what they are made with.

    Raises:
        jaxtyping.TypeCheckError: At a call: an argument or the result is not of the type that it is annotated with.
    """
    if inspect.isclass(thing):
        if dataclasses.is_dataclass(thing) and isinstance(vars(thing).get("__init__"), FunctionType):
            thing.__init__ = checked(thing.__init__)
        return thing
    checks = None

    @functools.wraps(thing)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal checks
        if not _on:
            return thing(*args, **kwargs)
        if checks is None:  # at the first call: by then there are all the names in annotations
            checks = _checks_of(thing)
        with _one_call:
            checks.check_arguments(args, kwargs)
            result = thing(*args, **kwargs)
            if checks.result is not None:
                checks.check("result", checks.result, result)
        return result

    return wrapper


@dataclasses.dataclass(frozen=True)
class _Checks:
    """What is checked at a call of `name`: its arguments by place and by name, and its result; None for anything."""

    name: str
    positional: tuple[tuple[str, Check | None], ...]
    more: Check | None
    named: Mapping[str, Check | None]
    others: Check | None
    result: Check | None

    def check_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        for (name, check), value in zip(self.positional, args, strict=False):
            if check is not None:
                self.check(name, check, value)
        for value in args[len(self.positional) :] if self.more is not None else ():
            self.check("*", self.more, value)
        for name, value in kwargs.items():
            check = self.named.get(name, self.others)
            if check is not None:
                self.check(name, check, value)

    def check(self, name: str, check: Check, value: Any) -> None:
        try:
            check(value)
        except BeartypeCallHintViolation as violation:
            raise jaxtyping.TypeCheckError(f"{self.name}, {name}: {violation}") from None


_known: dict[tuple[str, CodeType], _Checks] = {}  # one for all functions that a function makes at its calls


def _checks_of(function: Any) -> _Checks:
    name = f"{function.__module__}.{function.__qualname__}"
    if (name, function.__code__) not in _known:
        parameters = inspect.signature(function).parameters
        kinds = {name: each.kind for name, each in parameters.items()}
        hints = {name: _hint(each.annotation, function) for name, each in parameters.items()}
        for name_of_others in [name for name, kind in kinds.items() if kind is kind.VAR_KEYWORD]:
            if typing.get_origin(hints[name_of_others]) is Unpack:
                options = typing.get_args(hints.pop(name_of_others))[0]
                hints |= typing.get_type_hints(options, include_extras=True)
        checks = {name: _check_of(hint) for name, hint in hints.items()}
        of_kind = {kind: checks.get(name) for name, kind in kinds.items()}
        _known[name, function.__code__] = _Checks(
            name=name,
            positional=tuple(
                (name, checks[name]) for name, kind in kinds.items() if kind <= kind.POSITIONAL_OR_KEYWORD
            ),
            more=of_kind.get(inspect.Parameter.VAR_POSITIONAL),
            named=checks,
            others=of_kind.get(inspect.Parameter.VAR_KEYWORD),
            result=_check_of(_hint(function.__annotations__.get("return", Any), function)),
        )
    return _known[name, function.__code__]


def _hint(annotation: Any, function: Any) -> Any:
    """The type that an annotation names; `Any` for one with names that are there for type checkers alone."""
    if annotation is inspect.Parameter.empty:
        return Any
    holder = SimpleNamespace(__annotations__={"value": annotation})
    try:
        return typing.get_type_hints(holder, function.__globals__, include_extras=True)["value"]
    except Exception:
        return Any


@functools.cache
def _check_of(hint: Any) -> Check | None:
    if hint is Any:
        return None

    def check(value: Any) -> None:
        pass

    check.__annotations__ = {"value": hint}
    return _beartype(check)
