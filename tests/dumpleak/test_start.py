"""What a command loads before it has work to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dumpleak.cli import main_group
from dumpleak.commands import COMMANDS

HEAVY = {
    "numpy",
    "rich",
    "dumpleak.api",
    "dumpleak.reports.formats",
    "windumps.dumps",
    "windumps.heaps",
}


def _loaded(code: str) -> set[str]:
    """Names of the modules that a new interpreter has after `code`."""
    code += "\nimport sys\nprint(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


@pytest.mark.parametrize("line", [["--version"], ["--help"], ["--nope"]])
def test_what_reads_no_file_loads_no_reader(line: list[str]) -> None:
    code = (
        "from dumpleak.cli import main\n"
        f"try: main({line!r})\n"
        "except SystemExit as end: assert end.code in (0, 2)"
    )
    assert "dumpleak.cli" in (names := _loaded(code))
    assert not names & HEAVY


def test_the_package_loads_its_functions_when_one_is_used() -> None:
    assert not _loaded("import dumpleak, windumps") & HEAVY
    assert HEAVY - {"rich", "dumpleak.reports.formats"} <= _loaded(
        "import dumpleak; dumpleak.open_dump"
    )


def test_a_function_stays_one_where_a_folder_has_its_name() -> None:
    names = "import dumpleak.compare.diff\nimport dumpleak\nassert callable(dumpleak.compare)"
    assert "dumpleak.compare" in _loaded(names)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_of_each_command_what_the_command_says_itself(name: str) -> None:
    said = main_group.commands[name].help or ""
    assert COMMANDS[name] == " ".join(said.split("\n\n")[0].split())
