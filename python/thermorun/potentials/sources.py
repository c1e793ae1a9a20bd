"""Functions by what their source says: a fingerprint that no version of Python changes, and the text itself.

Takes nothing but the standard library, so that any Python can be asked for a fingerprint.
"""

import ast
import functools
import hashlib
import linecache
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Function = Callable[..., Any]
_Node = ast.FunctionDef | ast.Lambda
# Of compiled functions, the flags that change what they give.
_FLAGS = ("fastmath", "error_model")


def written(expression: str, **space: Any) -> Function:
    """A function of x and theta from the text of an expression, its loops over dimensions and parameters written out.

    ``space`` holds the functions that it calls.
    """
    return from_text(f"def function(x, theta):\n    return {expression}\n", space)


def from_text(text: str, space: dict[str, Any]) -> Function:
    """The function that a text defines under the name ``function``; it keeps its text."""
    exec(text, space)
    function: Function = space.pop("function")
    function.__dict__["__text__"] = text
    return function


def sources_of(functions: Iterable[Function]) -> str | None:
    """The text of the files, or of the notebook's cells, that functions were read from, one after the other.

    None where one of them has no such text, or the text is not what it was made from (it was edited since).
    """
    texts: list[str | None] = []
    for function in functions:
        if "__text__" in _plain(function).__dict__:
            called = [value for value in _plain(function).__globals__.values() if hasattr(_plain(value), "__code__")]
            texts.append(sources_of(called) if called else "")
        else:
            texts.append(_source_of(_plain(function)))
    known = [text for text in dict.fromkeys(texts) if text]
    return "\n".join(known) if known and None not in texts else None


def _source_of(function: Any) -> str | None:
    code = function.__code__
    text = "".join(linecache.getlines(code.co_filename, function.__globals__))
    return text if code in _codes(text, code.co_filename) else None


def fingerprint(value: Any) -> str:
    """A hash of a function as it would be compiled: what its source says, and the values of all that it uses.

    From the syntax tree of the source, without positions, comments, docstrings and annotations, the values of the
    closure, the defaults and the globals that are used, and the same of all functions that are called.  So it is equal
    in every process and on every version of Python.  Where the source is not at hand (a function typed at a prompt
    without history, or edited since it was read) the bytecode stands for it, which other versions of Python do not
    share.  Takes functions, compiled functions, numbers, strings, arrays and tuples of them.
    """
    digest = hashlib.sha256()
    _describe(value, digest, set())
    return digest.hexdigest()


def _plain(function: Function) -> Any:
    """The function of Python in a compiled one."""
    return getattr(function, "py_func", function)


def _describe(value: Any, digest: Any, seen: set[int]) -> None:
    if hasattr(value, "py_func"):
        for name in _FLAGS:
            flag = value.targetoptions.get(name, False)
            digest.update(f"{name} {sorted(flag) if isinstance(flag, set) else flag};".encode())
        value = value.py_func
    if isinstance(value, types.FunctionType):
        if id(value) not in seen:
            seen.add(id(value))
            _describe_function(value, digest, seen)
    elif hasattr(value, "dtype") and hasattr(value, "tobytes"):
        digest.update(f"{value.dtype.str} {value.shape}".encode() + value.tobytes())
    elif isinstance(value, tuple | list):
        digest.update(f"{type(value).__name__} {len(value)}".encode())
        for element in value:
            _describe(element, digest, seen)
    elif isinstance(value, bool | int | float | complex | str | bytes | None):
        digest.update(f"{type(value).__name__} {value!r};".encode())
    else:
        name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
        digest.update(name.encode())


def _describe_function(function: Any, digest: Any, seen: set[int]) -> None:
    code, node = function.__code__, definition_of(function)
    if node is None:
        _describe_code(code, digest)
        names, local = _names_of_code(code), set(code.co_varnames)
    else:
        digest.update("".join(_dump(node.args)).encode())
        body = _without_docstring(node.body) if isinstance(node.body, list) else [ast.Return(node.body)]
        digest.update("".join(_dump(body)).encode())
        names, local = _names_of_tree(node)
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    for name in sorted(cells):
        digest.update(name.encode())
        _describe(cells[name].cell_contents, digest, seen)
    _describe(function.__defaults__ or (), digest, seen)
    for name in sorted(names - local - set(cells)):
        if name in function.__globals__:
            digest.update(name.encode())
            _describe_global(function.__globals__[name], names, digest, seen)


def _names_of_tree(node: _Node) -> tuple[set[str], set[str]]:
    """All names that a function uses, those of attributes too, and those that are its own."""
    inner = list(ast.walk(node))
    used = {one.id for one in inner if isinstance(one, ast.Name)}
    used |= {one.attr for one in inner if isinstance(one, ast.Attribute)}
    own = {one.id for one in inner if isinstance(one, ast.Name) and not isinstance(one.ctx, ast.Load)}
    return used, own | {one.arg for one in inner if isinstance(one, ast.arg)}


def _describe_global(value: Any, names: set[str], digest: Any, seen: set[int]) -> None:
    if not isinstance(value, types.ModuleType):
        _describe(value, digest, seen)
        return
    digest.update(value.__name__.encode())
    if value.__name__.partition(".")[0] not in ("math", "numpy", "numba"):
        for name in sorted(names):
            if hasattr(value, name):
                _describe(getattr(value, name), digest, seen)


def _describe_code(code: types.CodeType, digest: Any) -> None:
    digest.update(code.co_code)
    digest.update(repr((code.co_names, code.co_argcount)).encode())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _describe_code(constant, digest)
        else:
            digest.update(repr(constant).encode())


def _names_of_code(code: types.CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names_of_code, inner))


def definition_of(function: Any) -> _Node | None:
    """The syntax tree of a function; None without a source."""
    function = _plain(function)
    text = function.__dict__.get("__text__")
    if text is not None:
        return next(node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    text = _source_of(function)
    if text is None:
        return None
    code = function.__code__
    nodes = [node for node in _definitions(text, code.co_filename) if _first_line(node) == code.co_firstlineno]
    if len(nodes) > 1:
        # Lambdas of one line: the one that spans all that the code comes from.
        places = [(line, column) for line, _, column, _ in code.co_positions() if line and column]
        nodes = [node for node in nodes if places and all(_spans(node, place) for place in places)]
    return min(nodes, key=_length, default=None)


def _first_line(node: _Node) -> int:
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    return min([node.lineno, *(one.lineno for one in decorators)])


def _spans(node: _Node, place: tuple[int, int]) -> bool:
    return (node.lineno, node.col_offset) <= place <= (node.end_lineno or 0, node.end_col_offset or 0)


def _length(node: _Node) -> tuple[int, int]:
    return (node.end_lineno or 0) - node.lineno, (node.end_col_offset or 0) - node.col_offset


@functools.lru_cache(64)
def _definitions(text: str, file: str) -> list[_Node]:
    return [node for node in ast.walk(ast.parse(text, file)) if isinstance(node, _Node)]


@functools.lru_cache(64)
def _codes(text: str, file: str) -> frozenset[types.CodeType]:
    """All code that a text compiles to; none where it does not."""
    try:
        whole = compile(text, file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return frozenset()
    return frozenset(_nested(whole))


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _dump(value: Any) -> Iterator[str]:
    """A syntax tree as text, of what every version of Python agrees on: no positions, contexts, empty fields."""
    if isinstance(value, list):
        yield "["
        for element in value:
            yield from _dump(element)
        yield "]"
    elif isinstance(value, ast.AST):
        yield f"{type(value).__name__}("
        for name, field in ast.iter_fields(value):
            if name == "body" and isinstance(value, ast.FunctionDef):
                field = _without_docstring(field)
            if field not in (None, []) and name not in ("ctx", "kind", "type_comment", "annotation", "returns"):
                yield f"{name}="
                yield from _dump(field)
        yield ")"
    else:
        yield f"{type(value).__name__} {value!r},"


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0]
    told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return body[1:] if told else body
