"""Every code block and every command of README, CONTRIBUTING and the pages runs.

The blocks of a page run in their order, in a folder of their own.  Python shares one set of names; a block that
starts with ``# file: NAME`` is written there instead.  In shell blocks each line that begins with ``thermorun`` is
run.  The pages that a newcomer reads first run always, the others with ``-m slow``.
"""

import re
import shlex
import sys
from pathlib import Path

import pytest

from helpers import thermorun

ROOT = Path(__file__).parents[1]
FIRST = [ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md", ROOT / "docs" / "start.md"]
PAGES = [*FIRST, *sorted(set((ROOT / "docs").rglob("*.md")) - set(FIRST))]
BLOCK = re.compile(r"^(```+)([\w{}:-]*)[^\n]*\n(.*?)^\1$", re.DOTALL | re.MULTILINE)
# Commands that install, or that belong to other programs.
OTHERS = ("pip ", "pytest", "python ", "git ", "sbatch ", "#")


def blocks(page):
    return [(match[2], match[3]) for match in BLOCK.finditer(page.read_text()) if not match[2].startswith("{")]


def with_code(pages):
    for page in pages:
        if any(language in ("python", "sh") for language, _ in blocks(page)):
            marks = [] if page in FIRST else [pytest.mark.slow]
            yield pytest.param(page, id=str(page.relative_to(ROOT)), marks=marks)


@pytest.mark.parametrize("page", list(with_code(PAGES)))
def test_blocks_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    names = {"__name__": "page"}
    for number, (language, code) in enumerate(blocks(page)):
        if language == "python" and code.startswith("# file: "):
            name = code.split("\n", 1)[0].removeprefix("# file: ")
            (tmp_path / name).write_text(code)
            sys.modules.pop(Path(name).stem, None)
        elif language == "python":
            block = tmp_path / f"block_{number}.py"  # in a file, for what asks for its source
            block.write_text(code)
            exec(compile(code, str(block), "exec"), names)
        elif language == "sh":
            for line in code.replace("\\\n", " ").splitlines():
                for command in line.split("&&"):
                    words = shlex.split(command, comments=True)
                    if words and words[0] == "thermorun":
                        run = thermorun(*words[1:], folder=tmp_path)
                        assert run.returncode == 0, (command, run.stderr)
                    else:
                        assert not words or command.strip().startswith(OTHERS), command


def test_only_known_languages():
    """A block that no test runs is text, and says so."""
    for page in PAGES:
        for language, code in blocks(page):
            assert language in ("python", "sh", "text"), (page, language)
            assert language != "text" or "thermorun " not in code.split("\n")[0], page


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_the_worked_example_is_short():
    example = next(code for _, code in blocks(ROOT / ".github" / "CONTRIBUTING.md") if code.startswith("# file: "))
    assert len(example.splitlines()) < 150
