"""Force and gradient of an energy that is given alone: forward-mode differentiation of its source.

For each direction, one coordinate or one parameter, the statements of the energy are written once more, each after the
statement of its tangent, by the rules of calculus; what does not depend on the direction has no tangent at all.  The
result is scalar code that Numba compiles like any other.  Unlike difference quotients it needs no step, so that no unit
of x matters, and it is exact to rounding; unlike dual numbers it costs nothing where a derivative is zero.
"""

import ast
import math
import types
from collections.abc import Callable
from functools import reduce
from itertools import count
from typing import Any

from thermokernels.langevin import device_of
from thermorun.errors import InputError
from thermorun.potentials.sources import definition_of, from_text

Function = Callable[..., Any]
# The argument that a derivative is by, and which element of it where it is a tuple; _ALL along a tuple of their own.
_ALL = -1
Seed = tuple[str, int | None]

# Derivatives of functions of one number u, and of two, u and v; others of their names are constant in steps.
_ONE = {
    "exp": "_math.exp({u})", "expm1": "_math.exp({u})", "log": "1.0 / {u}", "log1p": "1.0 / (1.0 + {u})",
    "log2": "1.0 / ({u} * 0.6931471805599453)", "log10": "1.0 / ({u} * 2.302585092994046)",
    "sqrt": "0.5 / _math.sqrt({u})", "cbrt": "1.0 / (3.0 * abs({u}) ** (2.0 / 3.0))", "square": "2.0 * {u}",
    "sin": "_math.cos({u})", "cos": "-_math.sin({u})", "tan": "1.0 / _math.cos({u}) ** 2",
    "asin": "1.0 / _math.sqrt(1.0 - {u} ** 2)", "acos": "-1.0 / _math.sqrt(1.0 - {u} ** 2)",
    "atan": "1.0 / (1.0 + {u} ** 2)", "sinh": "_math.cosh({u})", "cosh": "_math.sinh({u})",
    "tanh": "1.0 / _math.cosh({u}) ** 2", "asinh": "1.0 / _math.sqrt({u} ** 2 + 1.0)",
    "acosh": "1.0 / _math.sqrt({u} ** 2 - 1.0)", "atanh": "1.0 / (1.0 - {u} ** 2)",
    "erf": "1.1283791670955126 * _math.exp(-({u}) ** 2)", "erfc": "-1.1283791670955126 * _math.exp(-({u}) ** 2)",
    "abs": "_math.copysign(1.0, {u})", "float": "1.0", "positive": "1.0", "negative": "-1.0",
}  # fmt: skip
_TWO = {
    "max": ("1.0 * ({u} >= {v})", "1.0 * ({u} < {v})"), "min": ("1.0 * ({u} <= {v})", "1.0 * ({u} > {v})"),
    "hypot": ("{u} / _math.hypot({u}, {v})", "{v} / _math.hypot({u}, {v})"),
    "atan2": ("{v} / ({u} ** 2 + {v} ** 2)", "-{u} / ({u} ** 2 + {v} ** 2)"),
    "pow": ("{v} * {u} ** ({v} - 1)", "_math.log({u}) * {u} ** {v}"),
    "copysign": ("_math.copysign(1.0, {u}) * _math.copysign(1.0, {v})", "0.0"),
}  # fmt: skip
_STEPS = ("floor", "ceil", "trunc", "rint", "round", "sign", "int", "range", "len")
_OTHER_NAMES = {
    "fabs": "abs", "absolute": "abs", "power": "pow", "maximum": "max", "minimum": "min", "fmax": "max", "fmin": "min",
    "float64": "float", "arctan2": "atan2",
} | {f"arc{name}": f"a{name}" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")}  # fmt: skip


def of(energy: Function, dimension: int, parameters: int) -> tuple[Function, Function]:
    """``force(x, theta)`` = -dE/dx and ``gradient(x, theta)`` = dE/dtheta of ``energy(x, theta)``.

    Raises InputError for what cannot be differentiated, or has no source.
    """
    names = [argument.arg for argument in _definition(energy).args.args]
    if len(names) != 2:
        raise InputError(f"energy has {len(names)} arguments; it must have two, x and theta.")
    x, theta = names
    along = [partial(energy, (x, k if dimension > 1 else None)) for k in range(dimension)]
    by = [partial(energy, (theta, j)) for j in range(parameters)]
    force = [f"-d{k}(x, theta)" for k in range(dimension)]
    gradient = "".join(f"d{j}(x, theta), " for j in range(parameters))
    result = force[0] if dimension == 1 else f"({', '.join(force)})"
    return (
        from_text(f"def function(x, theta):\n    return {result}\n", {f"d{k}": one for k, one in enumerate(along)}),
        from_text(f"def function(x, theta):\n    return ({gradient})\n", {f"d{j}": one for j, one in enumerate(by)}),
    )


def partial(function: Function, seed: Seed) -> Function:
    """The derivative of a function by one of its arguments, or an element of it, compiled where it is called."""
    made: Function = device_of(_Tangent(function, seed).made())
    return made


def along(function: Function, dimension: int, elements: int) -> Function:
    """The derivative of ``function(x, theta)`` by x along v, compiled where it is called: ``along(x, theta, v)``.

    v is of the kind of x; ``elements`` of a tuple that the function returns, 0 where it returns a float.  Raises
    InputError for what cannot be differentiated.
    """
    argument = _definition(function).args.args[0].arg
    if dimension > 1:
        return partial(function, (argument, _ALL))
    slope = partial(function, (argument, None))
    result = "d * v" if not elements else "".join(f"d[{j}] * v, " for j in range(elements))
    text = f"def function(x, theta, v):\n    d = slope(x, theta)\n    return {result}\n"
    made: Function = device_of(from_text(text, {"slope": slope}))
    return made


def arguments(function: Function) -> list[str]:
    """The names of a function's arguments.  Raises InputError where its source is not at hand."""
    return [one.arg for one in _definition(function).args.args]


def _definition(function: Function) -> ast.FunctionDef | ast.Lambda:
    node = definition_of(function)
    if node is None:
        raise InputError("the source of energy is not at hand, so that it cannot be differentiated: give force and"
                         " gradient too.")  # fmt: skip
    return node


class _Tangent:
    """One function and one direction.  Expressions are texts; the tangent of a constant is None."""

    def __init__(self, function: Function, seed: Seed) -> None:
        self.plain = getattr(function, "py_func", function)
        self.node, (self.argument, self.index) = _definition(function), seed
        code = self.plain.__code__
        cells = zip(code.co_freevars, self.plain.__closure__ or (), strict=True)
        self.known = self.plain.__globals__ | {name: cell.cell_contents for name, cell in cells}
        self.space: dict[str, Any] = {}
        self.active: set[str] = set()
        # What the name of a variable's tangent ends with: a derivative of a derivative holds such names already.
        names = [one.id for one in ast.walk(self.node) if isinstance(one, ast.Name)]
        names += [one.arg for one in self.node.args.args]
        self.mark = "__d"
        while any(name.endswith(self.mark) for name in names):
            self.mark += "d"

    def made(self) -> Function:
        given = self.node.body
        body: list[ast.stmt] = given if isinstance(given, list) else [ast.Return(given)]
        before: set[str] | None = None
        # What depends on the direction is found by doing it all until no more variables turn out to.
        while before != self.active:
            before, self.space = set(self.active), {"_math": math}
            lines = self.block(body)
        local = {one.arg for one in self.node.args.args}
        used = {one.id for one in ast.walk(self.node) if isinstance(one, ast.Name)} - local
        space = {name: self.known[name] for name in used if name in self.known} | self.space
        text = "\n".join("    " + line for line in lines)
        arguments = ast.unparse(self.node.args) + (f", {self.argument}{self.mark}" if self.index == _ALL else "")
        return from_text(f"def function({arguments}):\n{text}\n", space)

    def refuse(self, node: ast.AST) -> InputError:
        return InputError(
            f"energy cannot be differentiated where it says {ast.unparse(node).splitlines()[0]!r}: give force and"
            " gradient too."
        )

    # --- Statements ---------------------------------------------------------------------------------------------------

    def block(self, body: list[ast.stmt]) -> list[str]:
        return [line for statement in body for line in self.statement(statement)]

    def statement(self, node: ast.stmt) -> list[str]:
        match node:
            case ast.Return(value=ast.expr() as value):
                none = f"({'0.0, ' * len(value.elts)})" if isinstance(value, ast.Tuple) else "0.0"
                return [f"return {self.tangent(value) or none}"]
            case ast.AugAssign(target=ast.Name() as target):
                whole = ast.BinOp(ast.Name(target.id), node.op, node.value)
                return self.assign([(target, whole)], f"{target.id} = {ast.unparse(whole)}")
            case ast.Assign(targets=[ast.Name() as target]) | ast.AnnAssign(target=ast.Name() as target) if node.value:
                return self.assign([(target, node.value)], f"{target.id} = {ast.unparse(node.value)}")
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
                if isinstance(value, ast.Tuple):
                    parts = value.elts
                else:
                    parts = [ast.Subscript(value, ast.Constant(n)) for n in range(len(targets))]
                return self.assign(list(zip(targets, parts, strict=True)), ast.unparse(node))
            case ast.If():
                lines = [f"if {ast.unparse(node.test)}:", *self.indented(node.body)]
                return lines + (["else:", *self.indented(node.orelse)] if node.orelse else [])
            case ast.For(target=ast.Name(), orelse=[]) if self.tangent(node.iter) is None:
                head = f"for {ast.unparse(node.target)} in {ast.unparse(node.iter)}:"
                return [head, *self.indented(node.body)]
            case ast.While(orelse=[]):
                return [f"while {ast.unparse(node.test)}:", *self.indented(node.body)]
            case ast.Expr(value=ast.Constant()):
                return []
            case ast.Pass() | ast.Break() | ast.Continue():
                return [ast.unparse(node)]
        raise self.refuse(node)

    def indented(self, body: list[ast.stmt]) -> list[str]:
        return ["    " + line for line in self.block(body) or ["pass"]]

    def assign(self, pairs: list[tuple[ast.expr, ast.expr]], line: str) -> list[str]:
        """Tangents first, of the old values of all variables."""
        left, right = [], []
        for target, value in pairs:
            tangent = self.tangent(value)
            if not isinstance(target, ast.Name):
                raise self.refuse(target)
            if tangent is not None:
                self.active.add(target.id)
            if target.id in self.active:
                left.append(f"{target.id}{self.mark}")
                right.append(tangent or "0.0")
        return [f"{', '.join(left)} = {', '.join(right)}", line] if left else [line]

    # --- Expressions --------------------------------------------------------------------------------------------------

    def tangent(self, node: ast.expr) -> str | None:
        """The derivative of an expression; None where it is constant."""
        match node:
            case ast.Constant() | ast.Compare() | ast.BoolOp() | ast.Attribute() | ast.UnaryOp(op=ast.Not()):
                return None
            case ast.Name(id=name):
                if name == self.argument and self.index is not None:
                    raise self.refuse(node)
                return "1.0" if name == self.argument else f"{name}{self.mark}" if name in self.active else None
            case ast.Subscript(value=ast.Name(id=name), slice=index):
                return self.element(name, index)
            case ast.UnaryOp(op=op, operand=operand):
                inner = self.tangent(operand)
                return inner if inner is None or isinstance(op, ast.UAdd) else f"(-({inner}))"
            case ast.BinOp():
                return self.operation(node)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                first, second = self.tangent(body), self.tangent(orelse)
                if first is None and second is None:
                    return None
                return f"(({first or '0.0'}) if {ast.unparse(test)} else ({second or '0.0'}))"
            case ast.Call():
                return self.call(node)
            case ast.Tuple(elts=elements):
                inner_ones = [self.tangent(one) for one in elements]
                known = any(one is not None for one in inner_ones)
                return f"({''.join(f'{one or 0.0}, ' for one in inner_ones)})" if known else None
            case ast.Subscript(value=value, slice=index):
                inner = self.tangent(value)
                return None if inner is None else f"{inner}[{ast.unparse(index)}]"
        raise self.refuse(node)

    def element(self, name: str, index: ast.expr) -> str | None:
        if name != self.argument:
            return f"{name}{self.mark}[{ast.unparse(index)}]" if name in self.active else None
        if self.index is None:
            raise self.refuse(ast.Subscript(ast.Name(name), index))
        if self.index == _ALL:
            return f"{name}{self.mark}[{ast.unparse(index)}]"
        if isinstance(index, ast.Constant):
            return "1.0" if index.value == self.index else None
        return f"(1.0 if {ast.unparse(index)} == {self.index} else 0.0)"

    def operation(self, node: ast.BinOp) -> str | None:
        u, v = f"({ast.unparse(node.left)})", f"({ast.unparse(node.right)})"
        du, dv = self.tangent(node.left), self.tangent(node.right)
        match node.op:
            case ast.Add() | ast.Sub():
                sign = "+" if isinstance(node.op, ast.Add) else "-"
                return du if dv is None else f"({du or '0.0'} {sign} {dv})"
            case ast.Mult():
                return _sum(_times(du, v), _times(dv, u))
            case ast.Div():
                return _sum(_times(du, f"(1.0 / {v})"), _times(dv, f"(-{u} / ({v} * {v}))"))
            case ast.Pow():
                if isinstance(node.right, ast.Constant) and isinstance(power := node.right.value, int | float):
                    factors = {1.0: "1.0", 2.0: f"(2 * {u})"}
                    return _times(du, factors.get(power, f"({power} * {u} ** {power - 1})"))
                first, second = (one.format(u=u, v=v) for one in _TWO["pow"])
                return _sum(_times(du, f"({first})"), _times(dv, f"({second})"))
            case ast.Mod() if dv is None:
                return du
            case ast.FloorDiv():
                return None
        if du is None and dv is None:
            return None
        raise self.refuse(node)

    def call(self, node: ast.Call) -> str | None:
        function = self.function(node.func)
        name = getattr(function, "__name__", "")
        name = _OTHER_NAMES.get(name, name)
        if name in _STEPS and not isinstance(function, types.FunctionType):
            return None
        if node.keywords or function is None:
            raise self.refuse(node)
        texts = [f"({ast.unparse(argument)})" for argument in node.args]
        if hasattr(function, "py_func") or isinstance(function, types.FunctionType):
            return self.call_own(node, function)
        slopes = [self.tangent(argument) for argument in node.args]
        if all(slope is None for slope in slopes):
            return None
        if len(texts) == 1 and name in _ONE:
            return _times(slopes[0], f"({_ONE[name].format(u=texts[0])})")
        if len(texts) == 2 and name in _TWO:
            first, second = (one.format(u=texts[0], v=texts[1]) for one in _TWO[name])
            return _sum(_times(slopes[0], f"({first})"), _times(slopes[1], f"({second})"))
        raise self.refuse(node)

    def function(self, node: ast.expr) -> Any:
        """What is called: a global, a closure's, a built-in, or an attribute of one."""
        if isinstance(node, ast.Attribute):
            return getattr(self.function(node.value), node.attr, None)
        builtins = {"abs": abs, "max": max, "min": min, "float": float, "int": int, "range": range, "len": len}
        builtins |= {"round": round, "pow": pow}
        return self.known.get(node.id, builtins.get(node.id)) if isinstance(node, ast.Name) else None

    def call_own(self, node: ast.Call, function: Function) -> str | None:
        """A user's function, by the chain rule: its derivative by each argument that depends on the direction."""
        whole = f"({', '.join(map(ast.unparse, node.args))})"
        terms: list[str | None] = []
        for parameter, argument in zip(_definition(function).args.args, node.args, strict=False):
            passed_on = isinstance(argument, ast.Name) and argument.id == self.argument
            slope = "1.0" if passed_on else self.tangent(argument)
            if slope is not None:
                seed = (parameter.arg, self.index if passed_on else None)
                name = next(free for n in count() if (free := f"_d{n}") not in self.space and free not in self.known)
                self.space[name] = partial(function, seed)
                every = passed_on and self.index == _ALL
                terms.append(
                    _times(slope, f"{name}{whole[:-1]}, {self.argument}{self.mark})" if every else f"{name}{whole}")
                )
        return reduce(_sum, terms, None)


def _times(slope: str | None, factor: str) -> str | None:
    return None if slope is None else factor if slope == "1.0" else f"({slope} * {factor})"


def _sum(first: str | None, second: str | None) -> str | None:
    return second if first is None else first if second is None else f"({first} + {second})"
