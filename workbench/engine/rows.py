"""Decide which rows of a denoiser call to compute: equal rows once, and unused rows not at all."""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass

from workbench.engine.batch import Row, RowEdit
from workbench.engine.runs import CallLabel, Capture


@dataclass(frozen=True)
class CallRows:
    """The rows of one call: `run` are those that the network computes; the output of row r is that of `run[take[r]]`.

    `idle` are the clips and passes whose output is not used: another row stands in for them, unedited. `stored` are
    those of their rows whose conditioning is read although they are not computed, because it is known.
    """

    label: CallLabel
    run: tuple[int, ...]
    take: tuple[int, ...]
    idle: frozenset[tuple[int, str]] = frozenset()
    stored: tuple[int, ...] = ()

    def place(self, clip: int, pass_name: str) -> int:
        """Return the index of this pass of this clip (or of an equal row) among the rows that can be read."""
        row = self.label.row(clip, pass_name)
        return len(self.run) + self.stored.index(row) if row in self.stored else self.take[row]

    @property
    def readable(self) -> tuple[int, ...]:
        """The rows that can be read: those that are computed, and then those whose conditioning is known."""
        return self.run + self.stored

    @property
    def all_run(self) -> bool:
        """Whether all rows are computed."""
        return len(self.run) == len(self.take)


def call_rows(
    label: CallLabel,
    clips: Sequence[Row],
    edits: Sequence[RowEdit],
    started: set[int],
    reads_velocities: bool = False,
    only_read: Collection[int] = (),
    is_known: Callable[[int, str], bool] = lambda clip, pass_name: False,  # noqa: ARG005 - none are
    captured: Collection[tuple[int, str]] = (),
) -> CallRows:
    """Return the rows of a call that must be computed, given the clips that edits have `started` to change before it.

    Clips that no edit has changed yet are equal if they have the same prompt, lyrics and seed: their rows are computed
    once, so that an arm that starts at step s costs nothing before it and has exactly its base run's output there. A
    shadow is computed only if an edit reads it, if this pass of it is `captured`, or in the cond pass, if
    `reads_velocities`. Of the clips `only_read` nothing but the conditioning is used: they are computed only if an edit
    reads it and it is not known yet (`is_known` of clip and pass).
    """
    acting = [
        (edit, pass_name)
        for edit in edits
        for pass_name in label.distinct_passes
        if edit.acts_at(label.step, label.sigma, pass_name)
    ]
    changed = {(edit.row, pass_name) for edit, pass_name in acting if edit.changes_call}
    used = _needed(label, clips, acting, reads_velocities, only_read, captured)
    known = {(clip, pass_name) for clip, pass_name in used if clip in only_read and is_known(clip, pass_name)}
    needed = used - known
    stored = tuple(label.row(clip, pass_name) for clip, pass_name in sorted(known))
    any_main = next((clip for clip in range(len(clips)) if _has_latents(clip, clips, only_read)), None)
    keys: dict[Hashable, int] = {}
    run: list[int] = []
    take: list[int] = []
    idle: set[tuple[int, str]] = set()
    for clip, pass_name in zip(label.clips, label.passes, strict=True):
        computed = clip
        if (clip, pass_name) not in needed:
            main = any_main if clip in only_read else clips[clip].shadow_of
            assert main is not None
            computed = main
            idle.add((clip, pass_name))
        key = _key(computed, pass_name, clips, changed, started, only_read)
        if key not in keys:
            keys[key] = len(run)
            run.append(label.row(computed, pass_name))
        take.append(keys[key])
    return CallRows(label, tuple(run), tuple(take), frozenset(idle), stored)


def _needed(
    label: CallLabel,
    clips: Sequence[Row],
    acting: Sequence[tuple[RowEdit, str]],
    reads_velocities: bool,
    only_read: Collection[int],
    captured: Collection[tuple[int, str]],
) -> set[tuple[int, str]]:
    """Return the clips and passes whose output is used: by the sampler, as a velocity or source, or captured."""
    needed = set(captured) | {
        (clip, pass_name)
        for clip, pass_name in zip(label.clips, label.passes, strict=True)
        if _has_latents(clip, clips, only_read)
        or (clips[clip].shadow_of is not None and reads_velocities and pass_name == "cond")
    }
    while True:
        read = {
            (source, name) for edit, name in acting if (edit.row, name) in needed for source in edit.sources
        }
        if read <= needed:
            return needed
        needed |= read


def _has_latents(clip: int, clips: Sequence[Row], only_read: Collection[int]) -> bool:
    """Whether a clip's latents are of use: it is no shadow, and more than its conditioning is read."""
    return clips[clip].shadow_of is None and clip not in only_read


def captured_passes(capture: Capture | None, step: int, clips: Sequence[int]) -> set[tuple[int, str]]:
    """Return the passes of some clips that are captured at a step."""
    if capture is None or step not in capture.steps:
        return set()
    return {(clip, pass_name) for clip in clips for pass_name in capture.passes}


def acting_edits(label: CallLabel, edits: Sequence[RowEdit]) -> tuple[RowEdit, ...]:
    """Return the edits that act in a pass of this call."""
    return tuple(
        edit
        for edit in edits
        if any(edit.acts_at(label.step, label.sigma, pass_name) for pass_name in label.distinct_passes)
    )


def shared_clips(clips: Sequence[Row], started: set[int]) -> tuple[int, ...]:
    """For each clip, return the first clip that was the same computed row in every call.

    Those are clips with the same prompt, lyrics and seed that no edit has changed; `started` is the state after the
    last call.
    """
    first: dict[Hashable, int] = {}
    return tuple(
        place
        if place in started or clip.shadow_of is not None
        else first.setdefault((clip.prompt, clip.lyrics, clip.seed), place)
        for place, clip in enumerate(clips)
    )


def _key(
    clip: int,
    pass_name: str,
    clips: Sequence[Row],
    changed: set[tuple[int, str]],
    started: set[int],
    only_read: Collection[int],
) -> Hashable:
    """Return a key; rows with equal keys have the same conditioning, the same latents and no edits."""
    if (clip, pass_name) in changed or clip in only_read:
        return clip, pass_name
    main = clips[clip].shadow_of
    owner = clip if main is None else main
    first = clips[owner]
    latents = owner if owner in started else (first.prompt, first.lyrics, first.seed)
    return clips[clip].prompt, clips[clip].lyrics, latents, pass_name
