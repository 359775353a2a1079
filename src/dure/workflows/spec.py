"""The form in which a workflow is submitted: seven forms, nested at will.

| key | meaning |
| --- | --- |
| `task` | one job |
| `nodes` | any acyclic graph: names, each with a form, which refer to one another |
| `chain` | one after the other; each gets the result of the one before as its first argument |
| `group` | side by side; its result is the list of theirs |
| `chord` | a group, and a body that gets the list |
| `map` | a form for each item of a list that may be known only then |
| `wait` | ends when it is signalled, with what the signal brought |

Every form may have a `name` and `needs`; the outermost has `name` and `timeout` for the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from dure.errors import FieldError, InvalidSubmission
from dure.options import SubmitOptions
from dure.workflows.canvas import spec_of

MAX_DEPTH = 100
SIGNATURE = frozenset({"task", "args", "kwargs", "options", "subtask_type", "immutable"})
FORMS = ("task", "nodes", "chain", "group", "chord", "map", "wait")

_TAG = "\x00"  # begins what pydantic puts into a place to tell which form it took
_YEARS_100 = 100 * 366 * 86_400.0

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")]
TaskName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Seconds = Annotated[float, Field(gt=0, le=_YEARS_100)]


def _no_text(value: Any) -> Any:
    """A list of names, or names with the end that is waited for."""
    if isinstance(value, list | tuple):
        return dict.fromkeys(value) if all(isinstance(name, str) for name in value) else value
    return value


Waited = Literal["success", "end", "failure"] | None
Needs = Annotated[dict[str, Waited], BeforeValidator(_no_text, json_schema_input_type=dict[str, Waited] | list[str])]


class Form(BaseModel):
    """What all forms have. `needs` says on which end of a need this begins; None leaves that to the need."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: Name | None = Field(None, description="What others call it; else it is called by its place, such as `1.0`.")
    needs: Needs = Field(
        default_factory=dict,
        description="What has to end before it begins, also without a reference to it: names, or names with the end "
        "that is waited for.",
        examples=[["charge"], {"charge": "failure"}],
    )
    timeout: Seconds | None = Field(None, description="Of the outermost form: seconds that the whole may take.")


class TaskForm(SubmitOptions, Form):
    """One job, with the options of a submission but those of a unique key."""

    task: TaskName = Field(description="The task's name.")
    args: list[Any] = Field(
        default_factory=list,
        description='Positions. `{"$result": "sum", "path": ["items", 0]}` is what a node returned, or a part of it, '
        '`{"$error": "sum"}` how it failed, in a map `{"$item": true}` the item; `{"$literal": …}` is taken as it is.',
        examples=[[1, {"$result": "sum"}]],
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Named arguments, with references as in `args`.")
    immutable: bool = Field(False, description="In a chain: it does not get the result of the one before.")
    on_failure: Literal["fail", "continue"] = Field(
        "fail", description="`continue`: what needs it begins though it failed, with null for its result."
    )
    link: list[Spec] = Field(default_factory=list, description="Begun when it has succeeded, with its result.")
    link_error: list[Spec] = Field(default_factory=list, description="Begun when it has failed, with its job's id.")

    @field_validator("unique_key", "unique_until", "unique_for", mode="before")
    @classmethod
    def _not_in_a_workflow(cls, value: Any) -> Any:
        raise ValueError("a step has no unique key; an idempotency key keeps the whole from being accepted twice")


class NodesForm(Form):
    """Any graph without a cycle: forms by name, which refer to one another."""

    nodes: dict[Name, Spec] = Field(min_length=1, description="Forms by name.")
    result: Any = Field(None, description="A template of the result; that of each node that nobody needs if not said.")


class ChainForm(Form):
    """One after the other; each gets the result of the one before as its first argument."""

    chain: list[Spec] = Field(min_length=1, description="Forms, first to last.")


class GroupForm(Form):
    """Side by side."""

    group: list[Spec] = Field(description="Forms; the result is the list of theirs.")


class ChordParts(BaseModel):
    """A group, and what gets the list of its results."""

    model_config = ConfigDict(extra="forbid")

    header: list[Spec] = Field(description="The group.")
    body: Spec = Field(description="Gets the list as its first argument.")


class ChordForm(Form):
    """A group, and a body that gets the list of its results."""

    chord: ChordParts = Field(description="Header and body.")


class MapParts(BaseModel):
    """A form for each item of a list."""

    model_config = ConfigDict(extra="forbid")

    over: Any = Field(None, description="A list, or a reference to one; in a chain the result before, if not said.")
    do: Spec = Field(description="Gets the item as its first argument, unless it refers to `$item`.")


class MapTask(TaskForm):
    """A map whose body is one step, written without `do`."""

    over: Any = Field(None, description="A list, or a reference to one; in a chain the result before, if not said.")


class MapForm(Form):
    """A form for each item of a list that may be known only then; its result is the list of theirs."""

    map: Annotated[
        Annotated[MapParts, Tag(f"{_TAG}do")] | Annotated[MapTask, Tag(f"{_TAG}task")],
        Discriminator(lambda value: f"{_TAG}task" if _has(value, "task") else f"{_TAG}do"),
    ] = Field(description="What is done, and over which list.")


class WaitParts(BaseModel):
    """How long is waited."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    timeout: Seconds | None = Field(None, description="Seconds from when its needs are met; then it ends `expired`.")


class WaitForm(Form):
    """Ends when it is signalled; its result is what the signal brought."""

    wait: WaitParts = Field(description="`{}` waits without end.")
    on_failure: Literal["fail", "continue"] = Field(
        "fail", description="`continue`: what needs it begins though its time is over, with null for its result."
    )


def _has(value: Any, key: str) -> bool:
    return key in value if isinstance(value, Mapping) else hasattr(value, key)


def _form(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return next((_TAG + form for form in FORMS if form in value), None)
    return next((_TAG + form for form in FORMS if hasattr(value, form)), None)


Spec = Annotated[
    Annotated[TaskForm, Tag(f"{_TAG}task")]
    | Annotated[NodesForm, Tag(f"{_TAG}nodes")]
    | Annotated[ChainForm, Tag(f"{_TAG}chain")]
    | Annotated[GroupForm, Tag(f"{_TAG}group")]
    | Annotated[ChordForm, Tag(f"{_TAG}chord")]
    | Annotated[MapForm, Tag(f"{_TAG}map")]
    | Annotated[WaitForm, Tag(f"{_TAG}wait")],
    Discriminator(
        _form,
        custom_error_type="no_form",
        custom_error_message=f"an object with one of {', '.join(FORMS)} is wanted here",
    ),
]

for _model in (TaskForm, NodesForm, ChainForm, GroupForm, ChordParts, ChordForm, MapParts, MapTask, MapForm):
    _model.model_rebuild()
_READ: TypeAdapter[Any] = TypeAdapter(Spec)
_BY_TAG: dict[str, type[BaseModel]] = {
    "task": TaskForm,
    "nodes": NodesForm,
    "chain": ChainForm,
    "group": GroupForm,
    "chord": ChordForm,
    "map": MapForm,
    "wait": WaitForm,
    "do": MapParts,
}


def is_signature(value: Any) -> bool:
    """Whether it is a Celery signature as JSON has it."""
    return isinstance(value, dict) and value.keys() - {"chord_size"} == SIGNATURE


def read_spec(value: Any, loc: tuple[str | int, ...] = ()) -> Spec:
    """The workflow in it, which may also be a Celery signature.

    Raises InvalidSubmission with every wrong place, each below `loc`.
    """
    if is_signature(value):
        value = spec_of(value)
    _check_depth(value, loc)
    try:
        return _READ.validate_python(value)  # type: ignore[no-any-return]
    except ValidationError as exc:
        found = [_field_error(error, loc) for error in exc.errors(include_url=False)]
        first = {error.loc: error for error in reversed(found)}  # a union complains once for each of its types
        raise InvalidSubmission([first[place] for place in dict.fromkeys(error.loc for error in found)]) from None


def written(spec: Spec) -> Any:
    """Back to JSON, as `read_spec` takes it."""
    return _READ.dump_python(spec, mode="json", exclude_unset=True)


def _check_depth(value: Any, loc: tuple[str | int, ...]) -> None:
    level = [(loc, value)]
    for _ in range(MAX_DEPTH):
        level = [below for place, form in level for below in _below(form, place)]
        if not level:
            return
    raise InvalidSubmission([FieldError(level[0][0], f"forms are nested deeper than {MAX_DEPTH} levels")])


def _below(form: Any, loc: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if not isinstance(form, Mapping):
        return
    for key in ("nodes", "chain", "group", "link", "link_error", "header"):
        inner = form.get(key)
        if isinstance(inner, Mapping):
            yield from (((*loc, key, name), value) for name, value in inner.items())
        elif isinstance(inner, list | tuple):
            yield from (((*loc, key, index), value) for index, value in enumerate(inner))
    for key in ("chord", "map", "body", "do"):
        if isinstance(form.get(key), Mapping):
            yield (*loc, key), form[key]


def _field_error(error: Any, loc: tuple[str | int, ...]) -> FieldError:
    place = [part for part in error["loc"] if not (isinstance(part, str) and part.startswith(_TAG))]
    message = str(error["msg"]).removeprefix("Value error, ")
    if place[-1:] == ["[key]"]:
        place.pop()
        message = "a node is called by 1 to 100 letters, digits, - and _"
    if "expires" in place[-2:]:
        place = place[: len(place) - place[::-1].index("expires")]  # pydantic adds which of its types was tried
    if error["type"] == "extra_forbidden":
        message = f"there is no such key; {_keys(error['loc'])}"
    return FieldError((*loc, *place), message)


def _keys(loc: tuple[str | int, ...]) -> str:
    """What there is beside an unknown key."""
    tag = next((part for part in reversed(loc) if isinstance(part, str) and part.startswith(_TAG)), "")
    model = _BY_TAG.get(tag.removeprefix(_TAG), Form)
    known = [name for name in model.model_fields if not name.startswith("unique_")]
    return f"known are {', '.join(sorted(known))}"
