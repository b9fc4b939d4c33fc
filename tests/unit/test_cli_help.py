"""Help answers at once: it imports the command line's own libraries, and nothing that a command works with."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from pipelines.cli.main import app


def commands_of(command, path=()):
    """Yield the path of words and the command, of every command below a group."""
    for name, below in getattr(command, "commands", {}).items():
        yield (*path, name), below
        yield from commands_of(below, (*path, name))


ALL = dict(commands_of(typer.main.get_command(app)))
COMMANDS = {path: command for path, command in ALL.items() if not hasattr(command, "commands")}
HEAVY = {"pandas", "pyarrow", "numpy", "sqlalchemy", "duckdb", "prefect", "httpx", "pydantic", "stamina", "fsspec"}
OUR_PACKAGES = {"pipelines", "transforms", "sinks"}
SMALLEST_APP = """typer.Typer()
@app.command()
def one(option: bool = False): "One."
@app.command()
def two(option: bool = False): "Two."
app()"""
SHOW_IMPORTS = """
import contextlib, io, sys
before = set(sys.modules)
import {module}
sys.argv = ["callhistory", *{arguments!r}]
with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
    {call}
print(*(set(sys.modules) - before))
assert not {arguments!r} or "Usage" in shown.getvalue()
"""


def imports(module, call="pass", arguments=()):
    """Return the modules outside of the standard library that a fresh interpreter ends up with."""
    code = SHOW_IMPORTS.format(module=module, call=call, arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}


def foreign(modules):
    return {name.partition(".")[0] for name in modules} - OUR_PACKAGES


@pytest.fixture(scope="module")
def what_typer_needs():
    """What the smallest typer app imports for the same: typer itself takes pydantic for a command's help."""
    code = "\n    ".join(f"app = {SMALLEST_APP}".splitlines())
    return {size: foreign(imports("typer, rich", code, ["one", "--help"][-size:])) for size in (1, 2)}


@pytest.mark.parametrize("arguments", [["--help"], *([*path, "--help"] for path in ALL)], ids=" ".join)
def test_help_imports_only_what_typer_and_rich_need(arguments, what_typer_needs):
    seen = imports("pipelines.cli.main", "pipelines.cli.main.main()", arguments)
    assert "pipelines.cli.main" in seen
    assert foreign(seen) <= what_typer_needs[min(len(arguments), 2)]
    assert foreign(seen) & (HEAVY if len(arguments) == 1 else HEAVY - {"pydantic"}) == set()
    assert {name for name in seen if name.startswith("sinks")} == set()
    assert {name for name in seen if name.startswith("transforms")} <= {"transforms", "transforms.errors"}


def test_this_would_notice_a_heavy_import():
    assert {"pydantic", "pyarrow", "sqlalchemy"} <= foreign(imports("pipelines.context"))


def test_the_documented_commands_are_there():
    assert {"demo", "export", "backfill", "status", "check"} <= {" ".join(path) for path in COMMANDS}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_says_what_it_is_for_and_has_the_common_options(path):
    command = COMMANDS[path]
    assert command.help
    for option in command.params:
        assert option.help, option.name
    assert {"--json", "--quiet", "--verbose", "--debug"} <= {flag for option in command.params for flag in option.opts}


def test_without_a_command_it_shows_the_help():
    shown = CliRunner().invoke(app, [])
    assert shown.exit_code == 0
    assert all(path[0] in shown.output for path in ALL)
    assert "Exit codes" in shown.output


def test_version():
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.exit_code == 0
    assert shown.output.startswith("callhistory ")


@pytest.mark.parametrize(
    ("shell", "words", "found"),
    [
        ("bash", {"COMP_WORDS": "callhistory rec", "COMP_CWORD": "1"}, {"recordings"}),
        ("bash", {"COMP_WORDS": "callhistory backfill --f", "COMP_CWORD": "2"}, {"--from", "--force"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "callhistory rec"}, {"recordings"}),
        (
            "fish",
            {"_TYPER_COMPLETE_ARGS": "callhistory rec", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
            {"recordings"},
        ),
    ],
)
def test_a_shell_completes_commands_and_options(shell, words, found):
    environment = {"PATH": "", "_CALLHISTORY_COMPLETE": f"complete_{shell}"} | words
    code = "from pipelines.cli.main import app; app(prog_name='callhistory')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert {name for name in found if name in done.stdout} == found, done.stdout
    assert "status" not in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_where_the_shell_looks(shell, tmp_path):
    command = [str(Path(sys.executable).with_name("callhistory")), "--install-completion", shell]
    # The shell is the one that the command was started from; a test has none.
    environment = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert f"{shell} completion installed" in done.stdout
    assert any("_CALLHISTORY_COMPLETE" in path.read_text() for path in written)


def test_what_only_looks_does_without_pandas_and_the_client() -> None:
    assert not {"pandas", "httpx"} & foreign(imports("pipelines.context"))
