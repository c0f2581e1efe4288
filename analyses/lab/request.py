"""What the lab is asked for: a clip, its settings and its edits, as plain data. Imports nothing slow.

A request may come from an address that somebody sent: everything in it is bounded, and checked before a model sees it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from analyses.steering_spec import OPERATIONS, PASS_MODES
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
_INVALID = "Invalid request"
_NUMBERS: dict[str, type[int] | type[float]] = {
    "seed": int,
    "steps": int,
    "duration": float,
    "guidance": float,
}

Text = Annotated[str, StringConstraints(max_length=LONGEST_PROMPT)]
Prompt = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_PROMPT)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]
Strength = Annotated[Number, Field(ge=-LARGEST_STRENGTH, le=LARGEST_STRENGTH, allow_inf_nan=False)]
First = Annotated[int, Field(ge=0, le=10**9)]
Range = tuple[First, First]
"""First and last, which is included."""
Sites = Annotated[Names, Field(max_length=MOST_SITES)]


class _Edit(BaseModel):
    """What all edits have: whether they are on, and their steps (None for all)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on: bool = True
    steps: Range | None = None


class _SiteEdit(_Edit):
    """An edit at sites; `*.cross_attn` is that part of every block."""

    sites: Sites


class PatchEdit(_SiteEdit):
    """A patch from another prompt's run: of the conditioning, or some segments of it, or of the sites' outputs."""

    kind: Literal["patch"] = "patch"
    prompt: Prompt
    target: Target = "conditioning"
    segments: Annotated[Names, Field(max_length=MOST_SITES)] | None = None
    tokens: Range | None = None


class AblateEdit(_SiteEdit):
    """An ablation of the sites' outputs: to zero, or to the mean or the output of another prompt's run."""

    kind: Literal["ablate"] = "ablate"
    method: Literal["zero", "mean", "resample"] = "zero"
    prompt: Text = ""
    tokens: Range | None = None


class SteerEdit(_SiteEdit):
    """A steering vector of the study at a strength (see `Vector.at`); no sites are all of the vector's.

    With `resample` its directions are those of the steps nearest in sigma, for runs with other steps.
    """

    kind: Literal["steer"] = "steer"
    sites: Sites = ()
    pack: Name
    strength: Strength = 1.0
    unit: Literal["difference", "norm"] = "difference"
    passes: Literal[PASS_MODES] = "cond_only"  # type: ignore[valid-type]
    operation: Literal[OPERATIONS] = "add"  # type: ignore[valid-type]
    keep_norm: bool = False
    resample: bool = False
    tokens: Range | None = None
    ignore_gate: bool = False


class SliderEdit(_Edit):
    """A concept slider of the study, a LoRA, at a strength: at all of its sites."""

    kind: Literal["slider"] = "slider"
    slider: Name
    strength: Strength = 1.0


class PromptEdit(_SiteEdit):
    """Steering through the prompt, from a negative to a positive one, at cross-attentions.

    `pci` switches the prompt for the last |strength| steps, `text-embedding` moves the conditioning by the strength
    times the difference of the two prompts', and `free-sliders` the velocity.
    """

    kind: Literal["prompt"] = "prompt"
    sites: Sites = ("*.cross_attn",)
    method: Literal["pci", "text-embedding", "free-sliders"] = "text-embedding"
    positive: Prompt
    negative: Prompt
    strength: Strength = 1.0


class FeatureEdit(_SiteEdit):
    """A feature of a sparse autoencoder of the study at a strength (see `wb.edit_features`)."""

    kind: Literal["feature"] = "feature"
    sae: Name
    feature: First
    strength: Strength = 1.0
    mode: Literal["post_activation", "pre_activation", "inject"] = "post_activation"
    tokens: Range | None = None
    ignore_gate: bool = False


LabEdit = Annotated[
    PatchEdit | AblateEdit | SteerEdit | SliderEdit | PromptEdit | FeatureEdit, Field(discriminator="kind")
]


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


def schedule(edit: SteerEdit | SliderEdit | PromptEdit, n_steps: int) -> str | tuple[float, ...]:
    """Return the schedule of a strength that is 1 at the edit's steps and otherwise 0.

    Raises:
        UserError: if the edit has a step that a run of `n_steps` does not have.
    """
    if edit.steps is None:
        return "constant"
    check_steps(edit, n_steps)
    first, last = edit.steps
    return tuple(float(first <= step <= last) for step in range(n_steps))


def check_steps(edit: LabEdit, n_steps: int) -> None:
    """Raise UserError if an edit has a step that a run of `n_steps` does not have."""
    first, last = edit.steps or (0, 0)
    if not first <= last < n_steps:
        raise UserError(
            f"The steps of {_named(edit)} must be from 0 to {n_steps - 1}, the lower one first; got {first} to {last}."
        )


def _named(edit: LabEdit) -> str:
    if isinstance(edit, PromptEdit):
        return edit.method
    name = (
        edit.pack
        if isinstance(edit, SteerEdit)
        else edit.slider
        if isinstance(edit, SliderEdit)
        else edit.kind
    )
    return f"'{name}'"


def check_duration(duration: float | None, of_study: GenerationSettings) -> None:
    """Raise UserError for a clip that is longer than the lab makes."""
    if duration is not None and duration > (most := longest(of_study)):
        raise UserError(
            f"The duration must be at most {most:g} s, twice that of the study's clips; got {duration:g}."
        )


def longest(of_study: GenerationSettings) -> float:
    """Return how many seconds a clip of the lab may have: twice those of the study's clips."""
    return 2 * of_study.duration


def request_of(values: Any) -> LabRequest:
    """Return the request of plain data; raise UserError with a sentence on the first mistake."""
    return validated(LabRequest, values, _INVALID)


def edit_of(text: str) -> LabEdit:
    """Return one edit from its JSON; raise UserError with a sentence on the first mistake."""
    (edit,) = request_of({"prompt": "-", "edits": _parsed(f"[{text}]")}).edits
    return edit


def read_request(query: Mapping[str, str], base: LabRequest) -> tuple[LabRequest, str]:
    """Return the request of an address's names and values, and a sentence on what in it was not understood, or "".

    What is not given, or not understood, is that of `base`; names that a request does not have are left out.
    """
    found: dict[str, Any] = {}
    faults: list[str] = []
    for name in (name for name in LabRequest.model_fields if name in query):
        try:
            found[name] = _edits(query[name], faults) if name == "edits" else _value(name, query[name])
        except UserError as error:
            faults.append(_fault(error))
    request = base.model_copy(update=found)
    return request, f"Not understood in the address, and left out: {'; '.join(faults)}." if faults else ""


def _value(name: str, text: str) -> Any:
    kind = _NUMBERS.get(name)
    given = text if kind is None else _number(name, text, kind)
    return getattr(request_of({"prompt": "-", name: given}), name)


def _edits(text: str, faults: list[str]) -> tuple[LabEdit, ...]:
    """Return the edits that can be read, and add what is wrong with the others to `faults`."""
    given = _parsed(text)
    edits: list[LabEdit] = []
    if not isinstance(given, list):
        raise UserError("edits must be a list of edits as JSON.")
    if len(given) > MOST_EDITS:
        faults.append(f"edits after the first {MOST_EDITS}")
    for number, each in enumerate(given[:MOST_EDITS], 1):
        try:
            edits += request_of({"prompt": "-", "edits": [each]}).edits
        except UserError as error:
            faults.append(_edit_fault(number, _fault(error)))
    return tuple(edits)


def _edit_fault(number: int, fault: str) -> str:
    """Return what is wrong with an edit of a list, by the list's own fault, which names the edit's kind as a field."""
    found = re.fullmatch(r"edits\.0(?:\.(?P<kind>[a-z]+)(?=\.))?(?P<dot>\.?)(?P<rest>.*)", fault, re.DOTALL)
    if found is None:
        return fault
    kind = f" ({found['kind']})" if found["kind"] else ""
    return f"edit {number}{kind}{':' if found['dot'] else ''} {found['rest'].strip()}"


def _fault(error: UserError) -> str:
    return str(error).removeprefix(f"{_INVALID}: ").removesuffix(".")


def _parsed(text: str) -> Any:
    if len(text) > LONGEST_QUERY:
        raise UserError(f"{_INVALID}: edits must have at most {LONGEST_QUERY} characters, not {len(text)}.")
    try:
        values = parse_document(f'{{"edits":{text}}}')
    except ValueError as error:
        raise UserError(f"{_INVALID}: edits must be a list of edits as JSON.") from error
    if set(values) != {"edits"}:
        raise UserError(f"{_INVALID}: edits must be a list of edits as JSON.")
    return values["edits"]


def _number(name: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return TypeAdapter(kind).validate_python(text[:40])
    except ValueError as error:
        raise UserError(f"{_INVALID}: {name} must be a number, not '{text[:40]}'.") from error
