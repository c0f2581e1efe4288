"""Which rows of a denoiser call are computed: each once, and none that nobody needs."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from workbench.engine.batch import Row, RowEdit
from workbench.engine.runs import CallLabel


@dataclass(frozen=True)
class CallRows:
    """The rows of one call: `run` are those that the network computes; row r's output is that of `run[take[r]]`.

    `idle` are the clips and passes whose output nobody uses: a row of another stands for them, unedited.
    """

    label: CallLabel
    run: tuple[int, ...]
    take: tuple[int, ...]
    idle: frozenset[tuple[int, str]] = frozenset()

    def place(self, clip: int, pass_name: str) -> int:
        """Where, among the computed rows, this pass of this clip lies (or a row that equals it)."""
        return self.take[self.label.row(clip, pass_name)]

    @property
    def all_run(self) -> bool:
        """Whether nothing is left out."""
        return len(self.run) == len(self.take)


def call_rows(
    label: CallLabel,
    clips: Sequence[Row],
    edits: Sequence[RowEdit],
    started: set[int],
    probing: bool = False,
) -> CallRows:
    """Rows of a call that must be computed, given the clips that edits have `started` to change before it.

    A clip that no edit has changed yet equals every other one of the same prompt, lyrics and seed: their rows
    are computed once, so that an arm which starts at step s costs nothing before it and has its base run's very output
    there. A clip that shadows another is computed where an edit reads it, or where `probing` asks for its
    velocity, in the cond pass.
    """
    acting = [
        (edit, pass_name)
        for edit in edits
        for pass_name in set(label.passes)
        if edit.acts_at(label.step, label.sigma, pass_name)
    ]
    changed = {(edit.row, pass_name) for edit, pass_name in acting}
    needed = _needed(label, clips, acting, probing)
    keys: dict[Hashable, int] = {}
    run: list[int] = []
    take: list[int] = []
    idle: set[tuple[int, str]] = set()
    for clip, pass_name in zip(label.clips, label.passes, strict=True):
        main = clips[clip].shadow_of
        computed = clip
        if main is not None and (clip, pass_name) not in needed:
            computed = main
            idle.add((clip, pass_name))
        key = _key(computed, pass_name, clips, changed, started)
        if key not in keys:
            keys[key] = len(run)
            run.append(label.row(computed, pass_name))
        take.append(keys[key])
    return CallRows(label, tuple(run), tuple(take), frozenset(idle))


def _needed(
    label: CallLabel,
    clips: Sequence[Row],
    acting: Sequence[tuple[RowEdit, str]],
    probing: bool,
) -> set[tuple[int, str]]:
    """Clips and passes whose output is used: by the sampler, as a velocity, or as a source of one that is needed."""
    needed = {
        (clip, pass_name)
        for clip, pass_name in zip(label.clips, label.passes, strict=True)
        if clips[clip].shadow_of is None or (probing and pass_name == "cond")
    }
    while True:
        read = {
            (source, name) for edit, name in acting if (edit.row, name) in needed for source in edit.sources
        }
        if read <= needed:
            return needed
        needed |= read


def started_clips(label: CallLabel, edits: Sequence[RowEdit]) -> set[int]:
    """Clips that an edit changes in this call."""
    return {
        edit.row
        for edit in edits
        if any(edit.acts_at(label.step, label.sigma, pass_name) for pass_name in label.passes)
    }


def shared_clips(clips: Sequence[Row], started: set[int]) -> tuple[int, ...]:
    """For each clip the first one that was one computed row with it in every call; `started` is as after the last.

    Those are clips of one prompt, lyrics and seed that no edit has changed.
    """
    first: dict[Hashable, int] = {}
    return tuple(
        place
        if place in started or clip.shadow_of is not None
        else first.setdefault((clip.prompt, clip.lyrics, clip.seed), place)
        for place, clip in enumerate(clips)
    )


def _key(
    clip: int, pass_name: str, clips: Sequence[Row], changed: set[tuple[int, str]], started: set[int]
) -> Hashable:
    """Rows with equal keys have equal outputs: the same conditioning, the same latents, and no edits."""
    if (clip, pass_name) in changed:
        return clip, pass_name
    main = clips[clip].shadow_of
    owner = clip if main is None else main
    first = clips[owner]
    latents = owner if owner in started else (first.prompt, first.lyrics, first.seed)
    return clips[clip].prompt, clips[clip].lyrics, latents, pass_name
