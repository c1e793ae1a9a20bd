"""What holds for every subject alike: one kind of spec, one way to run, sizes of rooms."""

import ast
import dataclasses
import inspect
import math
import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import thermorun
from thermorun.errors import InputError
from thermorun.specs import Spec, defaults, parameters, types

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "thermokernels").rglob("*.py"), *(ROOT / "python").rglob("*.py")])
RUN_OPTIONS = ["out", "resume", "threads", "show_progress"]
# The function that a user calls for each command.
FUNCTIONS = {
    "excess-work": "learning.excess_work",
    "drive": "learning.drive",
    "learn": "learning.learn",
    "metric": "metric.measure",
    "metric-drive": "metric.drive",
    "protocol": "protocol.find",
    "free-energy": "free_energy.measure",
    "cycles": "cycles.train",
    "cycles-ceiling": "cycles.ceiling",
    "cycles-circulation": "cycles.circulation",
    "computer": "computer.train",
    "computer-classify": "computer.classify",
    "computer-sweep": "computer.sweep",
    "computer-energy": "computer.energy",
    "computer-devices": "computer.devices",
    "computer-compare": "computer.compare",
    "computer-generate": "computer.generate",
}


def all_specs():
    found = {}
    for subject in thermorun.SUBJECTS:
        for kind in vars(import_module(f"thermorun.{subject}")).values():
            if isinstance(kind, type) and issubclass(kind, Spec) and kind is not Spec:
                found[kind.command] = kind
    return found


SPECS = all_specs()


def test_a_spec_that_lacks_what_it_needs_is_refused():
    with pytest.raises(InputError, match="file is missing from the spec of a run of computer-classify"):
        SPECS["computer-classify"].from_json("{}")


def function_of(command):
    subject, name = FUNCTIONS[command].split(".")
    return getattr(import_module(f"thermorun.{subject}"), name)


def test_every_command_has_its_function():
    assert set(FUNCTIONS) <= set(SPECS)


@pytest.mark.parametrize("command", FUNCTIONS)
def test_signatures_are_those_of_the_specs(command):
    """Names, types and defaults of a function are the fields of its spec; then come the options of every run."""
    function, spec = function_of(command), SPECS[command]
    given = {name: one for name, one in inspect.signature(function).parameters.items() if name not in RUN_OPTIONS}
    extra = [name for name in given if name not in parameters(spec)]
    assert set(parameters(spec)) <= set(given)
    assert set(extra) <= {"data", "images", "x", "labels", "X", "y"}  # arrays, which no spec holds
    for name, default in defaults(spec).items():
        assert given[name].default == default, name
    hints = inspect.get_annotations(function, eval_str=True)
    for name in parameters(spec):
        assert hints[name] == types(spec)[name], name
    assert [one.kind for one in inspect.signature(function).parameters.values()][-4:] == [
        inspect.Parameter.KEYWORD_ONLY
    ] * 4
    assert list(inspect.signature(function).parameters)[-4:] == RUN_OPTIONS
    for name, parameter in parameters(spec).items():
        assert parameter.help, name
        assert f"{name} :" in function.__doc__


@pytest.mark.parametrize("command", sorted(SPECS))
def test_specs_go_through_json_and_pickle(command):
    spec = SPECS[command]
    needed = {field.name: "a.h5" for field in dataclasses.fields(spec) if field.default is dataclasses.MISSING}
    one = spec(**needed)
    assert spec.from_json(one.to_json()) == one
    assert pickle.loads(pickle.dumps(one)) == one
    assert hash(one) == hash(spec.from_json(one.to_json()))
    assert import_module(spec.runner).run
    assert import_module(spec.runner).read


def refusal(spec, values):
    """What a spec says of values that it cannot take; empty where it takes them."""
    try:
        spec(**values)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("command", sorted(SPECS))
def test_every_field_refuses_what_it_cannot_be_and_names_itself(command):
    """Wild values of every field: taken, or one sentence that begins with the field's name."""
    spec = SPECS[command]
    needed = {field.name: "a.h5" for field in dataclasses.fields(spec) if field.default is dataclasses.MISSING}
    wild = [
        True, 0, -1, 2**70, 1e308, math.nan, math.inf, "", "x", "5", b"x", (), [], {}, {"a": 1}, (None,), None,
        np.array([]), np.float64(2), np.int64(3), np.array(3), object(), 1j, lambda: 0,
    ]  # fmt: skip
    for name in parameters(spec):
        for value in wild:
            sentence = refusal(spec, needed | {name: value})
            assert sentence.count("\n") == 0
            assert len(sentence) < 600
    for name, kind in types(spec).items():
        if kind is int:
            with pytest.raises(InputError, match=f"^{name} is True; it must be an integer"):
                spec(**needed | {name: True})
            assert getattr(spec(**needed | {name: np.int64(getattr(spec(**needed), name))}), name) is not None
        if kind is bool:
            with pytest.raises(InputError, match=f"^{name} is 'x'; it must be True or False"):
                spec(**needed | {name: "x"})
        if kind is float:
            with pytest.raises(InputError, match=f"^{name} is '5'; it must be a"):
                spec(**needed | {name: "5"})


def test_importing_is_quick_and_subjects_come_on_demand():
    code = (
        "import sys, thermorun, thermorun.cli\n"
        "heavy = ('numba', 'scipy', 'h5py', 'matplotlib', 'numpy')\n"
        "print([m for m in heavy if m in sys.modules])\n"
        "print(thermorun.cycles.train.__name__, sorted(dir(thermorun))[-1])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\ntrain workers\n"


def functions():
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield source.relative_to(ROOT), node


def test_rooms_are_small():
    """No module over about 400 lines, no function over 60 without its docstring."""
    large = {str(source.relative_to(ROOT)): len(source.read_text().splitlines()) for source in SOURCES}
    assert {name: lines for name, lines in large.items() if lines > 420} == {}
    long = {}
    for source, node in functions():
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        lines = node.end_lineno - body[0].lineno + 1 if body else 0
        if lines > 60:
            long[f"{source}:{node.name}"] = lines
    assert long == {}


def test_kernels_take_ten_arguments_at_most():
    wide = {
        f"{source}:{node.name}": len(node.args.args)
        for source, node in functions()
        if source.parts[0] == "thermokernels" and len(node.args.args) > 10
    }
    assert wide == {}


def test_nothing_that_nobody_uses():
    """Every function, class and constant at the top of a module is named elsewhere too, or is public."""
    text = "\n".join(
        path.read_text() for path in [*SOURCES, *(ROOT / "bench").glob("*.py"), *ROOT.glob("docs/**/*.md")]
    )
    unused = []
    for source in SOURCES:
        for node in ast.parse(source.read_text()).body:
            names = []
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [] if node.decorator_list else [node.name]  # a decorator may have registered it
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            unused += [
                f"{source.relative_to(ROOT)}:{name}" for name in names
                if not name.startswith("__") and text.count(name) < 2
            ]  # fmt: skip
    assert unused == []


@pytest.mark.parametrize("bench", sorted((ROOT / "bench").glob("*.py")), ids=lambda path: path.stem)
def test_benches_know_the_house(bench):
    """What they import is there, also where peers are not installed, and pytest finds what they share."""
    import_module(bench.stem)
