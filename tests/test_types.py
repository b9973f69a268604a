"""Annotations hold: every name in them is one, so that shapes are checked and tools can read them."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import typing

import pytest
import torch
from jaxtyping import Float64, TypeCheckError
from torch import Tensor

import dissect
from dissect.scoring.scores import SiteScores
from tests.checker import checked, unchecked

MODULES = sorted(found.name for found in pkgutil.walk_packages(dissect.__path__, "dissect.") if "__" not in found.name)


def names_for_type_checkers(module):
    """What a module imports under `if TYPE_CHECKING:` alone."""
    names = {}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            exec(compile(ast.Module(node.body, []), module.__name__, "exec"), names)
    return names


def annotated(module):
    """The classes of a module, their methods, and its functions; not those that traitlets fills with its own."""
    found = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    classes = [value for value in found if inspect.isclass(value) and not hasattr(value, "class_traits")]
    methods = [part for value in classes for part in vars(value).values() if inspect.isfunction(part)]
    yield from classes
    yield from (part for part in (*found, *methods) if inspect.isfunction(part))


@pytest.mark.parametrize("name", MODULES)
def test_every_annotation_is_made_of_names_that_exist(name):
    module = importlib.import_module(name)
    names = vars(module) | names_for_type_checkers(module)
    for found in annotated(module):
        typing.get_type_hints(found, globalns=names)


@pytest.mark.parametrize("public", [name for name in dissect.__all__ if name != "views"])
def test_hints_of_public_dataclasses_need_nothing_else(public):
    found = getattr(dissect, public)
    if inspect.isclass(found):
        typing.get_type_hints(found)


def test_a_wrong_shape_is_an_error():
    """Under the checks that the tests run with: shapes are of no use as names that are never looked up."""
    units = torch.zeros(2, 3, dtype=torch.float64)
    SiteScores("mlp", "abs", 1e-3, units, units, units)
    with pytest.raises(TypeCheckError):
        SiteScores("mlp", "abs", 1e-3, units.float(), units, units)
    with pytest.raises(TypeCheckError):
        SiteScores("mlp", "abs", 1e-3, units, units[:, :2], units)


def test_a_function_within_a_function_is_checked_each_time_it_is_made():
    """One checker serves them all: it has the shapes, and nothing of what each of them does."""

    def adding(number):
        @checked
        def add(to: Float64[Tensor, " unit"]) -> Float64[Tensor, " unit"]:
            return to + number

        return add

    for number in (1, 2):
        assert adding(number)(torch.zeros(3, dtype=torch.float64)).tolist() == [number] * 3
        with pytest.raises(TypeCheckError):
            adding(number)(torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(TypeCheckError):
        adding(torch.zeros(2, 3))(torch.zeros(3, dtype=torch.float64))


def test_arguments_of_every_kind_are_checked():
    @checked
    def of_every_kind(a: int, *more: str, b: float = 0, **others: bytes) -> int:
        return a if more else "none"

    assert of_every_kind(1, "x", "y", b=2, c=b"z") == 1
    for args, kwargs in (((1,), {}), (("1", "x"), {}), ((1, "x", 2), {}), ((1, "x"), {"b": "2"}), ((1, "x"), {"c": 3})):
        with pytest.raises(TypeCheckError):
            of_every_kind(*args, **kwargs)


def test_options_that_are_passed_on_are_checked():
    with pytest.raises(TypeCheckError):
        dissect.prune("no-model", forget="a", retain="b", out="c", steps="many")


def test_what_is_not_checked_for_a_while():
    units = torch.zeros(2, 3)
    with unchecked():
        SiteScores("mlp", "abs", 1e-3, units, units, units)
    with pytest.raises(TypeCheckError):
        SiteScores("mlp", "abs", 1e-3, units, units, units)
