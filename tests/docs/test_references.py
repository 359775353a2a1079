"""What the code has, the documentation names; what the documentation names, the code has."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from dure.cli.codes import Code
from dure.cli.commands import app
from dure.gateway.app import create_app
from dure.job import Job, Reason, State
from dure.options import OPTION_NAMES
from dure.settings import Settings
from tests.docs.documents import CHECKOUT, code, document, tables
from tests.unit.test_imports import MAY_IMPORT

SETTINGS, HTTP, CLI, DESIGN = (document(f"docs/{name}.md") for name in ("settings", "http", "cli", "design"))
GATEWAY = CHECKOUT / "src/dure/gateway"
URN = "urn:dure:problem:"
BESIDE_THE_DOCUMENT = {("GET", "/openapi.json"), ("GET", "/docs")}


def commands(group: Any, before: str = "") -> dict[str, Any]:
    """Each command by all of its words."""
    found = {}
    for name, command in group.commands.items():
        found[before + name] = command
        found |= commands(command, f"{before}{name} ") if hasattr(command, "commands") else {}
    return found


COMMANDS = commands(get_command(app))


def default_text(value: Any) -> str:
    if value is None:
        return "unset"
    if value == ():
        return "none"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def options_of(command: Any) -> set[str]:
    shown = [param for param in command.params if param.param_type_name == "option" and not param.hidden]
    return {name for param in shown for name in (*param.opts, *param.secondary_opts)} - {"--help", "-h"}


def named_options(section: str) -> set[str]:
    return {name for table in tables(section) for row in table for name in code(row[0]) if name.startswith("-")}


def schema() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def emitted_problems() -> set[tuple[str, int | None]]:
    """Every call of `problem` or `BodyProblem` that names its kind; a status that is not written there is None."""
    found = set()
    for path in GATEWAY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id="problem" | "BodyProblem"),
                    args=[status, ast.Constant(value=str(kind)), *_],
                ):
                    found.add((kind, int(status.value) if isinstance(status, ast.Constant) else None))  # type: ignore[arg-type]
    return found


def test_every_setting_is_listed_with_its_variable_and_default() -> None:
    listed = [(row[0], row[1], row[2]) for row in tables(SETTINGS.text)[0]]
    assert listed == [
        (f"`{name}`", f"`DURE_{name.upper()}`", default_text(field.default))
        for name, field in Settings.model_fields.items()
    ]


def test_celerys_variables_are_listed() -> None:
    understood = {
        (f"`{name}`", f"`{alias}`")
        for name, field in Settings.model_fields.items()
        for alias in getattr(field.validation_alias, "choices", ())
        if alias.startswith("CELERY_")
    }
    assert {tuple(row) for row in tables(SETTINGS.text)[1]} == understood


@pytest.mark.parametrize("path", sorted((CHECKOUT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_no_document_names_a_setting_that_there_is_not(path: Path) -> None:
    known = {f"DURE_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"DURE_[A-Z_]+\b", path.read_text())) - known == set()


def test_every_route_is_listed_and_no_other() -> None:
    listed = {(row[0], *code(row[1])) for row in tables(HTTP.section("Routes"))[0]}
    served = {(method.upper(), path) for path, methods in schema()["paths"].items() for method in methods}
    assert listed == served | BESIDE_THE_DOCUMENT


def test_every_parameter_of_a_list_is_described() -> None:
    parameters = {parameter["name"] for parameter in schema()["paths"]["/api/v1/jobs"]["get"]["parameters"]}
    assert {name for row in tables(HTTP.section("Looking jobs up"))[0] for name in code(row[0])} == parameters


def test_every_option_of_a_submission_is_described() -> None:
    assert {code(row[0])[0] for row in tables(HTTP.section("Options"))[0]} == OPTION_NAMES


def test_every_field_of_a_record_is_described() -> None:
    described = {name for row in tables(HTTP.section("Looking jobs up"))[1] for name in code(row[0])}
    assert described == set(Job.__struct_fields__) - {"attempt"}


def test_every_problem_that_the_gateway_can_answer_is_listed_with_its_status() -> None:
    listed = {code(row[0])[0].removeprefix(URN): row[1] for row in tables(HTTP.section("Problems"))[0]}
    emitted = emitted_problems()
    assert {kind for kind, _ in emitted} == set(listed)
    assert [kind for kind, status in emitted if status is not None and listed[kind] != str(status)] == []


def test_every_command_has_a_section_and_a_row_and_no_other_has() -> None:
    titles = {title.removeprefix("dure ") for _, title in CLI.headings if title.startswith("dure ")}
    linked = {code(row[0])[0].removeprefix("dure ") for row in tables(CLI.text)[0]}
    assert titles == linked == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_described(name: str) -> None:
    shared, _ = tables(CLI.section("Options of every command"))
    everywhere = {option for row in shared for option in code(row[0])} - {"--help", "-h"}
    assert named_options(CLI.section(f"dure {name}")) | everywhere == options_of(COMMANDS[name])


def test_every_option_of_the_program_itself_is_described() -> None:
    _, own = tables(CLI.section("Options of every command"))
    assert {option for row in own for option in code(row[0])} == options_of(get_command(app))


def test_every_exit_code_is_listed() -> None:
    listed = [int(row[0]) for row in tables(CLI.section("Exit codes"))[0]]
    assert listed == [code.value for code in Code]


def test_every_state_and_reason_is_described_in_the_design() -> None:
    states, reasons = tables(DESIGN.section("States"))
    assert [code(row[0])[0] for row in states] == [state.value for state in State]
    assert {code(row[0])[0] for row in reasons} == {reason.value for reason in Reason}


def test_the_design_says_who_may_import_whom_as_the_rule_does() -> None:
    listed = {code(row[0])[0]: set(code(row[1])) for row in tables(DESIGN.section("Who may import whom"))[0]}
    assert listed == MAY_IMPORT
