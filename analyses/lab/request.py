"""What the lab is asked for: a clip, its settings and its edits, as plain data. Imports nothing slow.

A request may come from an address that somebody sent: everything in it is bounded, and checked before a model sees it.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from cache.errors import UserError
from workbench.documents import parse_document
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Target
from workbench.seeds import Seed
from workbench.validation import Names, Number, validated

MOST_EDITS = 16
MOST_SITES = 128
LONGEST_PROMPT = 4_000
LONGEST_NAME = 300
LARGEST_STRENGTH = 1_000.0
LONGEST_SECONDS = 600.0
MOST_STEPS = 1_000
LONGEST_QUERY = 100_000
"""Characters of the edits in a query."""

Text = Annotated[str, StringConstraints(max_length=LONGEST_PROMPT)]
Prompt = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_PROMPT)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]
Strength = Annotated[Number, Field(ge=-LARGEST_STRENGTH, le=LARGEST_STRENGTH, allow_inf_nan=False)]
First = Annotated[int, Field(ge=0, le=10**9)]
Range = tuple[First, First]
"""First and last, which is included."""
Sites = Annotated[Names, Field(max_length=MOST_SITES)]


class _Edit(BaseModel):
    """What all edits have: whether they are on, their sites, and their steps (None for all)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on: bool = True
    sites: Sites
    steps: Range | None = None


class PatchEdit(_Edit):
    """A patch from another prompt's run: of the conditioning, or some segments of it, or of the sites' outputs."""

    kind: Literal["patch"] = "patch"
    prompt: Prompt
    target: Target = "conditioning"
    segments: Annotated[Names, Field(max_length=MOST_SITES)] | None = None
    tokens: Range | None = None


class AblateEdit(_Edit):
    """An ablation of the sites' outputs: to zero, or to the mean or the output of another prompt's run."""

    kind: Literal["ablate"] = "ablate"
    method: Literal["zero", "mean", "resample"] = "zero"
    prompt: Text = ""
    tokens: Range | None = None


class SteerEdit(_Edit):
    """A steering vector of the study at a strength; no sites are all of the vector's."""

    kind: Literal["steer"] = "steer"
    sites: Sites = ()
    pack: Name
    strength: Strength = 1.0
    unit: Literal["difference", "norm"] = "difference"
    tokens: Range | None = None
    ignore_gate: bool = False


class FeatureEdit(_Edit):
    """A feature of a sparse autoencoder of the study at a strength (see `wb.edit_features`)."""

    kind: Literal["feature"] = "feature"
    sae: Name
    feature: First
    strength: Strength = 1.0
    mode: Literal["post_activation", "pre_activation", "inject"] = "post_activation"
    tokens: Range | None = None
    ignore_gate: bool = False


LabEdit = Annotated[PatchEdit | AblateEdit | SteerEdit | FeatureEdit, Field(discriminator="kind")]


class LabRequest(BaseModel):
    """One clip with its edits; settings that are None are the study's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt
    lyrics: Text = ""
    seed: Seed = 0
    duration: Annotated[float, Field(gt=0, le=LONGEST_SECONDS)] | None = None
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    guidance: Annotated[float, Field(ge=1, le=1_000)] | None = None
    edits: Annotated[tuple[LabEdit, ...], Field(max_length=MOST_EDITS)] = ()

    def settings(self, of_study: GenerationSettings) -> GenerationSettings:
        """Return the settings of the clip: those that are given, and otherwise those of the study."""
        asked = {"duration": self.duration, "num_steps": self.steps, "guidance_scale": self.guidance}
        given = {name: value for name, value in asked.items() if value is not None}
        return GenerationSettings(**{**of_study.model_dump(), **given})

    @property
    def active(self) -> tuple[LabEdit, ...]:
        """The edits that are on."""
        return tuple(edit for edit in self.edits if edit.on)

    def query(self) -> dict[str, str]:
        """Return the names and values of the address that asks for this; `read_request` reads them."""
        given = self.model_dump(mode="json", exclude={"edits"}, exclude_none=True)
        named = {name: str(value) for name, value in given.items() if value != ""}
        return {**named, "edits": edits_as_text(self.edits)} if self.edits else named


def edit_as_data(edit: LabEdit) -> dict[str, Any]:
    """Return an edit as plain data without what is default."""
    return {"kind": edit.kind, **edit.model_dump(mode="json", exclude_defaults=True)}


def edits_as_text(edits: Sequence[LabEdit]) -> str:
    """Return edits as JSON in one line."""
    return json.dumps([edit_as_data(edit) for edit in edits], ensure_ascii=False, separators=(",", ":"))


def schedule(edit: SteerEdit, n_steps: int) -> str | tuple[float, ...]:
    """Return the schedule of a vector's strength that is 1 at the edit's steps and otherwise 0.

    Raises:
        UserError: if the edit has a step that a run of `n_steps` does not have.
    """
    if edit.steps is None:
        return "constant"
    first, last = edit.steps
    if not first <= last < n_steps:
        raise UserError(
            f"The steps of '{edit.pack}' must be from 0 to {n_steps - 1}, the lower one first; got {first} to {last}."
        )
    return tuple(float(first <= step <= last) for step in range(n_steps))


def request_of(values: Any) -> LabRequest:
    """Return the request of plain data; raise UserError with a sentence on the first mistake."""
    return validated(LabRequest, values, "Invalid request")


def edit_of(text: str) -> LabEdit:
    """Return one edit from its JSON; raise UserError with a sentence on the first mistake."""
    (edit,) = request_of({"prompt": "-", "edits": _parsed(f"[{text}]")}).edits
    return edit


def read_request(query: dict[str, str]) -> LabRequest:
    """Return the request of an address's names and values.

    Raises:
        UserError: for a name or value that a request cannot have.
    """
    values: dict[str, Any] = dict(query)
    for name, number in (("seed", int), ("steps", int), ("duration", float), ("guidance", float)):
        if name in values:
            values[name] = _number(name, values[name], number)
    if "edits" in values:
        values["edits"] = _parsed(values["edits"])
    return request_of(values)


def _parsed(text: str) -> Any:
    if len(text) > LONGEST_QUERY:
        raise UserError(
            f"Invalid request: edits must have at most {LONGEST_QUERY} characters, not {len(text)}."
        )
    try:
        values = parse_document(f'{{"edits":{text}}}')
    except ValueError as error:
        raise UserError("Invalid request: edits must be a list of edits as JSON.") from error
    if set(values) != {"edits"}:
        raise UserError("Invalid request: edits must be a list of edits as JSON.")
    return values["edits"]


def _number(name: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return TypeAdapter(kind).validate_python(text[:40])
    except ValueError as error:
        raise UserError(f"Invalid request: {name} must be a number, not '{text[:40]}'.") from error
