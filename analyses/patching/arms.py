"""Arms of a patching sweep: the conditions of a map as plain data, built for each question."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Unpack, get_args

import numpy as np
from pydantic import ConfigDict

from analyses.patching.spec import Ablation, Direction, Null, PatchingSpec
from cache.errors import UserError
from cache.wording import quoted
from workbench.engine.edits import SELF, Edit, Run, ablate, edit_from_json, patch
from workbench.engine.edits.window import CONDITIONING_PARTS, WindowOptions
from workbench.engine.operators import Seeded, Weights
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import PARTS, Site, Target, check_blocks
from workbench.engine.tensors import Tensors
from workbench.engine.windows import SAME_SIGMA
from workbench.models.base import AudioDiffusionModel
from workbench.models.token_axis import shared_tokens
from workbench.text_files import parse_json
from workbench.validation import name_problem, shown, taken_for_numbers, validated

Role = Literal["clean", "corrupt", "unrelated", "control", "references"]

# The parts that add to the residual stream, in order of computation.
WRITERS = ("self_attn", "cross_attn", "mlp")
RANDOM_NULL_SEED = 1


@dataclass(frozen=True)
class Arm:
    """One condition: a run of the `base` prompt with edits, at (`row`, `column`) of the map.

    Its edits name the runs that they read from by role in the pair (`Role`). Sufficiency changes the corrupt run
    towards the clean one; necessity removes something from the clean run. `block` is the block of the row, or None if
    there is none or more than one. A "null" arm should have no impact: `null_of` is the name of the arm that it is a
    null of, and `null_kind` its kind; both may be "".
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    row: str
    column: str
    edits: tuple[Edit, ...]
    direction: Direction = "sufficiency"
    role: Literal["cell", "null"] = "cell"
    block: int | None = None
    null_of: str = ""
    null_kind: Null | Literal[""] = ""

    @property
    def base(self) -> Literal["clean", "corrupt"]:
        """The prompt of the arm's run."""
        return "corrupt" if self.direction == "sufficiency" else "clean"

    @property
    def run(self) -> Run:
        """The arm's run, with roles instead of clips."""
        return Run(self.base, self.edits)

    @cached_property
    def sources(self) -> frozenset[str]:
        """Roles of the runs that the arm's edits read from."""
        return self.run.source_names

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; `arm_from_json` reads it back."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**given, "edits": [edit.to_json() for edit in self.edits]}


def arm_from_json(data: Any, tensors: Tensors | None = None) -> Arm:
    """Rebuild an arm from `Arm.to_json` data; `tensors` returns the tensors of its edits by hash.

    Raises:
        UserError: if the data are invalid.
    """
    what = "An arm is wrong"
    if not isinstance(data, dict) or not isinstance(data.get("edits"), list):
        raise UserError(
            f"{what}: it must be an object with name, row, column, direction and a list of edits."
        )
    edits = tuple(edit_from_json(edit, tensors) for edit in data["edits"])
    arm = validated(Arm, {**data, "edits": edits}, what)
    for field in ("name", "row", "column"):
        if problem := name_problem(getattr(arm, field)):
            raise UserError(f"{what}: its {field} {problem}; got {shown(getattr(arm, field))}.")
    for place, value in taken_for_numbers(data, arm.to_json(), (bool, str)):
        raise UserError(f"The arm {quoted(arm.name)} is wrong: {place} must be a number, not {value!r}.")
    if not edits:
        raise UserError(
            f"The arm {quoted(arm.name)} must have at least one edit: without one it is the unedited run."
        )
    if unknown := sorted(arm.sources - set(get_args(Role))):
        raise UserError(
            f"Sources of the arm {quoted(arm.name)} must be among {', '.join(get_args(Role))}; got {unknown[0]}."
        )
    if all(_changes_nothing(edit, arm.base) for edit in edits):
        raise UserError(
            f"The arm {quoted(arm.name)} changes nothing: it edits the {arm.base} run and reads from no other. Read "
            "from another run, or change the direction."
        )
    return arm


def _changes_nothing(edit: Edit, base: str) -> bool:
    """Whether an edit of the base run puts in the values that are there."""
    copies = edit.operator in ("patch", "random_patch") or (
        isinstance(edit.parameters, Weights) and sum(edit.parameters.weights) == 1
    )
    return copies and all(source in (Run(base), Run(SELF)) for source in edit.sources)


def arms_from_file(text: str, tensors: Tensors | None = None) -> list[Arm]:
    """Parse a JSON list of arms, such as a result's `arms` attribute; raise UserError if it is invalid."""
    data = parse_json(text, "The file of arms")
    if not isinstance(data, list):
        raise UserError("The file of arms must be a JSON list of arms.")
    if not data:
        raise UserError("The file of arms is an empty list. Give at least one arm.")
    arms = [arm_from_json(entry, tensors) for entry in data]
    if not any(arm.role == "cell" for arm in arms):
        raise UserError('The file of arms must have at least one cell, an arm with the role "cell".')
    return arms


def arm_tensors(arms: Sequence[Arm]) -> Tensors:
    """Return a function that looks up the tensors of arms by hash."""
    return {tensor.hash: tensor for arm in arms for edit in arm.edits for tensor in edit.tensors}.__getitem__


# Building blocks


def patch_arm(
    row: str,
    column: str,
    sites: str | Sequence[str],
    direction: Direction = "sufficiency",
    target: Target = "conditioning",
    block: int | None = None,
    **window: Unpack[WindowOptions],
) -> Arm:
    """Make the arm of one patch: from the clean run into the corrupt one, or (necessity) vice versa.

    `block` defaults to the block of the sites, if there is only one.
    """
    source = "clean" if direction == "sufficiency" else "corrupt"
    edit = patch(sites, source, target=target, **window)
    blocks = edit.blocks if block is None else {block}
    of_row = min(blocks) if len(blocks) == 1 else None
    return Arm(_name(row, column, direction), row, column, (edit,), direction, block=of_row)


def ablation_arm(row: str, column: str, site: str, method: Ablation) -> Arm:
    """Make the arm of an ablation of the clean run."""
    sources: dict[Ablation, tuple[Role, ...]] = {
        "zero": (),
        "mean": ("references",),
        "resample": ("unrelated",),
    }
    edit = ablate(site, method, sources[method])
    name = _name(row, column, "necessity", method)
    return Arm(name, row, column, (edit,), "necessity", block=Site.parse(site).block)


def null_arms(arms: Iterable[Arm], kinds: Sequence[Null]) -> list[Arm]:
    """Make null arms of the arms that patch from the clean run: the same patch from a source without the concept.

    "unrelated" patches from a run with the corrupt value in another context; "control" from a run that differs only in
    another concept; "random" moves the arm's own value as far as the patch does, in a random direction.
    """
    patches = [arm for arm in arms if arm.sources == {"clean"}]
    return [
        Arm(
            name=f"{arm.name} null {kind}",
            row=arm.row,
            column=f"null: {kind}",
            edits=tuple(_nulled(arm.edits, kind)),
            role="null",
            block=arm.block,
            null_of=arm.name,
            null_kind=kind,
        )
        for kind, arm in itertools.product(kinds, patches)
    ]


def _nulled(edits: Iterable[Edit], kind: Null) -> Iterator[Edit]:
    for edit in edits:
        if kind == "random":
            seeded = Seeded(seed=RANDOM_NULL_SEED)
            yield replace(edit, operator="random_patch", parameters=seeded, sources=(Run("clean"),))
        else:
            yield replace(edit, sources=(Run(kind),))


def path_arm(sender: int, receiver: Site, mode: Target) -> Arm:
    """Path patching (Wang et al. 2022, arXiv 2211.00593): from a block's cross-attention directly to a later part.

    In a helper run that sees the arm's own latents, the sender takes the clean value and everything between it and the
    receiver is held at its unpatched value; the receiver's output in that run is patched into the arm.
    """
    between = [
        str(site)
        for site in (Site(block, part) for block in range(sender, receiver.block + 1) for part in WRITERS)
        if Site(sender, "cross_attn").order < site.order < receiver.order
    ]
    sent = patch(f"tf{sender}.cross_attn", "clean", target=mode)
    held = (patch(between, SELF, target="output"),) if between else ()
    helper = Run("corrupt", (sent, *held), follows=Run(SELF))
    row, column = f"tf{sender}", str(receiver)
    received = patch(str(receiver), helper, target="output")
    return Arm(_name(row, column, "sufficiency"), row, column, (received,), block=sender)


def _name(row: str, column: str, direction: str, kind: str = "") -> str:
    words = [row, column if column not in get_args(Direction) + get_args(Ablation) else ""]
    return " ".join(
        word for word in [*words, kind or ("necessity" if direction == "necessity" else "")] if word
    )


# Questions


@dataclass(frozen=True)
class Request:
    """The inputs from which the arms of a map are built."""

    model: AudioDiffusionModel
    settings: GenerationSettings
    spec: PatchingSpec

    @property
    def chosen_blocks(self) -> tuple[int, ...]:
        """Blocks to patch, all by default; raises UserError for blocks that do not exist."""
        check_blocks(self.spec.blocks, self.model.n_blocks)
        return self.spec.blocks or tuple(range(self.model.n_blocks))

    def name(self, *blocks: int) -> str:
        """Return the name of a block, or of several together."""
        return set_name(blocks, self.model.block_names)

    def patch_arm(
        self, row: str, column: str, blocks: Iterable[int], direction: Direction, **options: Any
    ) -> Arm:
        """Make the arm that patches the requested part of these blocks."""
        sites = [f"tf{block}.{self.spec.part}" for block in blocks]
        return patch_arm(row, column, sites, direction, **{"target": self.spec.mode, **options})

    def set_arm(self, blocks: Sequence[int]) -> Arm:
        """Make the arm that patches a set of blocks, for sets that are grown one block at a time."""
        return self.patch_arm(self.name(*blocks), "greedy", blocks, "sufficiency")


def blocks_arms(request: Request) -> list[Arm]:
    """Question blocks: patch every block (and set) in each direction, and ablate every block in each way.

    Raises:
        UserError: if a set has fewer than two different blocks, or a block does not exist.
    """
    check_blocks([block for blocks in request.spec.sets for block in blocks], request.model.n_blocks)
    if any(len(set(blocks)) < 2 for blocks in request.spec.sets):
        raise UserError(
            "A set must have at least two different blocks, such as tf3+tf4; single blocks are always patched."
        )
    groups = [(block,) for block in request.chosen_blocks] + list(request.spec.sets)
    patches = [
        request.patch_arm(request.name(*group), direction, group, direction)
        for direction in request.spec.directions
        for group in groups
    ]
    ablations = [
        ablation_arm(request.name(*group), method, f"tf{group[0]}.{request.spec.part}", method)
        for method in request.spec.ablations
        for group in groups
        if len(group) == 1
    ]
    return patches + ablations


def steps_arms(request: Request) -> list[Arm]:
    """Question steps: patch every block in one window of steps at a time.

    Raises:
        UserError: if there are more windows than steps.
    """
    n_steps = request.settings.num_steps
    if not 1 <= request.spec.windows <= n_steps:
        raise UserError(
            f"The number of windows must be at most {n_steps}, the number of steps; got {request.spec.windows}."
        )
    edges = [round(i * n_steps / request.spec.windows) for i in range(request.spec.windows + 1)]
    windows = [(first, last - 1) for first, last in itertools.pairwise(edges)]
    return _grid(request, {_span("step", w): {"steps": w} for w in windows})


def sigmas_arms(request: Request) -> list[Arm]:
    """Question sigmas: patch every block in one window of noise levels at a time.

    Windows are equal parts of sigma from 1 to 0 or, if the schedule begins above 1, equal ratios of its sigmas. Windows
    without a step are left out.
    """
    sigmas = request.model.sigmas(request.settings)
    n = request.spec.windows
    first = max(1.0, *sigmas)  # schedules that begin at 1 may begin a rounding error above it
    in_ratios = first > 1 + SAME_SIGMA
    edges = np.geomspace(first, min(sigmas), n + 1) if in_ratios else np.linspace(first, 0, n + 1)
    windows = [(low, high) for high, low in itertools.pairwise([*edges[:-1].tolist(), 0.0])]
    columns = {
        f"σ {high:.3g}–{low:.3g}": {"sigmas": (low, high)}
        for low, high in windows
        if any(low < sigma <= high for sigma in sigmas)
    }
    return _grid(request, columns)


def parts_arms(request: Request) -> list[Arm]:
    """Question parts: patch keys, values, mask, the whole conditioning, and the output of every part of each block."""
    arms = []
    for direction, block in itertools.product(request.spec.directions, request.chosen_blocks):
        name, site = request.name(block), f"tf{block}.cross_attn"
        arms += [patch_arm(name, part, site, direction, parts=(part,)) for part in CONDITIONING_PARTS]
        arms.append(patch_arm(name, "conditioning", site, direction))
        for part in ("cross_attn", "self_attn", "mlp", "block"):
            arms.append(patch_arm(name, f"{part} output", f"tf{block}.{part}", direction, "output"))
    return arms


def heads_arms(request: Request) -> list[Arm]:
    """Question heads: patch the outputs of query heads, and the keys and values of their groups."""
    arms = []
    queries, groups = request.model.heads("heads"), request.model.heads("k")
    for direction, block in itertools.product(request.spec.directions, request.chosen_blocks):
        row, name = request.name(block), f"tf{block}.cross_attn"
        for head in range(queries):
            arms.append(patch_arm(row, f"head {head}", f"{name}.heads", direction, "output", heads=(head,)))
        for group in range(groups):
            sites = (f"{name}.k", f"{name}.v")
            arms.append(patch_arm(row, f"KV head {group}", sites, direction, "output", heads=(group,)))
    return arms


def passes_arms(request: Request) -> list[Arm]:
    """Question passes: patch every block in one guidance pass at a time.

    Raises:
        UserError: if the run has no guidance.
    """
    passes = request.model.passes(request.settings)
    if len(passes) < 2:
        raise UserError("The question passes needs guidance; this run has only one pass.")
    columns: dict[str, dict[str, Any]] = {name: {"passes": (name,)} for name in passes}
    together = "both" if len(passes) == 2 else "all"
    return _grid(request, {**columns, together: {"passes": passes}})


def conditioning_arms(request: Request) -> list[Arm]:
    """Question conditioning: patch segments of the conditioning tokens, and the words that the pair swaps or keeps.

    Raises:
        UserError: if the mode is not conditioning.
    """
    if request.spec.mode != "conditioning":
        raise UserError("The question conditioning needs the mode conditioning.")
    known = request.model.segments(Clip("music", 0), request.settings)
    names = request.spec.segments or (*known, "template", "before", "swapped", "after")
    return _grid(request, {name: {"segments": (name,)} for name in names})


def seconds_arms(request: Request) -> list[Arm]:
    """Question seconds: patch the part's output in one window of latent tokens at a time."""
    sites = [Site(block, request.spec.part) for block in request.chosen_blocks]
    n_tokens = shared_tokens(request.model, sites, request.settings.duration)
    edges = [round(i * n_tokens / request.spec.windows) for i in range(request.spec.windows + 1)]
    seconds = request.model.token_seconds_at(sites[0])
    columns = {
        f"{first * seconds:.2f}–{last * seconds:.2f} s": {"tokens": (first, last - 1), "target": "output"}
        for first, last in itertools.pairwise(edges)
        if last > first
    }
    return _grid(request, columns)


def sets_arms(request: Request) -> list[Arm]:
    """Question sets: patch single blocks, pairs of blocks, and all blocks but one."""
    blocks = request.chosen_blocks
    arms = []
    for direction in request.spec.directions:
        for first, second in itertools.combinations_with_replacement(blocks, 2):
            group = sorted({first, second})
            column = f"with {request.name(second)}"
            arms.append(request.patch_arm(request.name(first), column, group, direction, block=first))
        everything = range(request.model.n_blocks)
        for block in blocks:
            rest = [other for other in everything if other != block]
            arms.append(request.patch_arm(request.name(block), "all but this", rest, direction, block=block))
    return arms


def paths_arms(request: Request) -> list[Arm]:
    """Question paths: patch from each block's cross-attention directly to a later part.

    Raises:
        UserError: if a part is unknown, or layers between the model's blocks cannot be held fixed.
    """
    if not request.model.one_stream:
        raise UserError(
            "Paths are not supported for this model: between its blocks are layers that cannot be held fixed. Use "
            "another question, such as sets."
        )
    parts = request.spec.receivers or ("self_attn", "mlp")
    if unknown := sorted(set(parts) - set(PARTS)):
        raise UserError(f"'{unknown[0]}' is not a part that a path can lead to. Parts: {', '.join(PARTS)}.")
    receivers = [
        Site(block, part) for block in range(request.model.n_blocks) for part in PARTS if part in parts
    ]
    return [
        path_arm(sender, receiver, request.spec.mode)
        for sender in request.chosen_blocks
        for receiver in receivers
        if Site(sender, "cross_attn").order < receiver.order
    ]


def arms_of(request: Request) -> list[Arm]:
    """Make the arms of the spec's question, with the function named after it, such as `blocks_arms`."""
    arms: list[Arm] = globals()[f"{request.spec.question}_arms"](request)
    return arms


def set_name(blocks: Iterable[int], names: Sequence[str] = ()) -> str:
    """Return `tf3+tf4`, or the same with the model's own `names` of blocks, if it has any."""
    return "+".join(names[block] if names else f"tf{block}" for block in blocks)


def _grid(request: Request, columns: dict[str, dict[str, Any]]) -> list[Arm]:
    return [
        request.patch_arm(request.name(block), column, (block,), direction, **window)
        for direction in request.spec.directions
        for block in request.chosen_blocks
        for column, window in columns.items()
    ]


def _span(word: str, window: tuple[int, int]) -> str:
    return f"{word} {window[0]}" if window[0] == window[1] else f"{word}s {window[0]}–{window[1]}"
