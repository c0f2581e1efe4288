"""Which rows of a call are computed: each once, none that nobody needs, and every clip finds its own."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.engine.batch import Row, RowEdit
from workbench.engine.edits import Edit, ablate
from workbench.engine.edits import patch as patch_sites
from workbench.engine.rows import CallRows, acting_edits, call_rows, shared_clips
from workbench.engine.runs import CallLabel

A, B = "a slow song", "a fast song"
BOTH = ("cond", "null")


def label(n_clips: int, passes: tuple[str, ...] = BOTH, step: int = 0) -> CallLabel:
    """A call of all clips, one pass after the other."""
    clips = tuple(range(n_clips)) * len(passes)
    return CallLabel(step, 1 - step / 10, clips, tuple(p for p in passes for _ in range(n_clips)))


def patch(site: str = "tf0.cross_attn", **window: Any) -> Edit:
    return patch_sites(site, "other", target="output", **window)


def computed(rows: CallRows) -> list[tuple[int, str]]:
    """Clip and pass of the rows that the network computes."""
    return [(rows.label.clips[row], rows.label.passes[row]) for row in rows.run]


def by_clip(rows: CallRows) -> list[tuple[int, ...]]:
    """Where each clip's passes lie."""
    passes = dict.fromkeys(rows.label.passes)
    return [tuple(rows.place(clip, p) for p in passes) for clip in sorted(set(rows.label.clips))]


def test_equal_clips_are_computed_once() -> None:
    rows = call_rows(label(4), [Row(A, 1), Row(B, 1), Row(A, 1), Row(A, 2)], [], set())
    assert computed(rows) == [(0, "cond"), (1, "cond"), (3, "cond"), (0, "null"), (1, "null"), (3, "null")]
    assert by_clip(rows) == [(0, 3), (1, 4), (0, 3), (2, 5)]
    assert not rows.all_run


@pytest.mark.parametrize("other", [Row(B, 1), Row(A, 2), Row(A, 1, "la")], ids=["prompt", "seed", "lyrics"])
def test_clips_that_differ_in_anything_are_computed_each(other: Row) -> None:
    rows = call_rows(label(2), [Row(A, 1), other], [], set())
    assert rows.all_run
    assert rows.run == rows.take == (0, 1, 2, 3)


def test_an_edited_row_is_its_own_in_the_pass_that_is_edited() -> None:
    edit = RowEdit(ablate("tf0.mlp", passes=("null",)), 1)
    rows = call_rows(label(2), [Row(A, 1)] * 2, [edit], set())
    assert computed(rows) == [(0, "cond"), (0, "null"), (1, "null")]
    assert by_clip(rows) == [(0, 1), (0, 2)]


@pytest.mark.parametrize(
    "window", [{"steps": (1, 1)}, {"sigmas": (0.85, 0.9)}, {"steps": (0, 1), "passes": ("null",)}]
)
def test_an_edit_that_does_not_act_in_this_call_shares(window: dict) -> None:
    edit = RowEdit(ablate("tf0.mlp", **window), 1)
    clips = [Row(A, 1)] * 2
    assert len(call_rows(label(2, ("cond",), step=2), clips, [edit], set()).run) == 1
    assert acting_edits(label(2, ("cond",), step=2), [edit]) == ()
    assert acting_edits(label(2, step=1), [edit]) == (edit,)
    assert len(call_rows(label(2, step=1), clips, [edit], set()).run) > 2


def test_a_started_clip_shares_no_more() -> None:
    clips = [Row(A, 1)] * 3
    rows = call_rows(label(3), clips, [], {1})
    assert computed(rows) == [(0, "cond"), (1, "cond"), (0, "null"), (1, "null")]
    assert by_clip(rows) == [(0, 2), (1, 3), (0, 2)]
    assert call_rows(label(3), clips, [], {0, 1, 2}).all_run


def test_an_idle_shadow_stands_on_its_clip() -> None:
    clips = [Row(A, 1, shadow_of=1), Row(B, 1), Row(B, 1, shadow_of=1)]
    rows = call_rows(label(3), clips, [], set())
    assert computed(rows) == [(1, "cond"), (1, "null")]
    assert by_clip(rows) == [(0, 1)] * 3


def test_probing_computes_shadows_in_the_cond_pass() -> None:
    clips = [Row(A, 1, shadow_of=1), Row(B, 1), Row(B, 1, shadow_of=1)]
    rows = call_rows(label(3), clips, [], set(), reads_velocities=True)
    assert computed(rows) == [(0, "cond"), (1, "cond"), (1, "null")]
    assert by_clip(rows) == [(0, 2), (1, 2), (1, 2)], "a shadow with the prompt of its clip equals it"


def test_a_shadow_that_is_read_is_computed_and_so_is_what_it_reads() -> None:
    clips = [Row(A, 1), Row(B, 1), Row(B, 1, shadow_of=1), Row(A, 1, shadow_of=1)]
    into_shadow = RowEdit(patch(), 2, (3,))
    from_shadow = RowEdit(patch(passes=("cond",)), 1, (2,))
    alone = call_rows(label(4), clips, [into_shadow], set())
    assert computed(alone) == [(0, "cond"), (1, "cond"), (0, "null"), (1, "null")]
    both = call_rows(label(4), clips, [into_shadow, from_shadow], {1})
    assert computed(both) == [(clip, "cond") for clip in range(4)] + [(0, "null"), (1, "null")]


def test_a_shadow_sees_latents_that_have_left_those_of_its_prompt() -> None:
    clips = [Row(A, 1), Row(B, 1), Row(A, 1, shadow_of=1)]
    before = call_rows(label(3), clips, [], set(), reads_velocities=True)
    assert computed(before)[:3] == [(0, "cond"), (1, "cond"), (2, "cond")], "other latents than clip 0"
    twin = [Row(A, 1), Row(A, 1), Row(A, 1, shadow_of=1)]
    assert by_clip(call_rows(label(3), twin, [], set(), reads_velocities=True)) == [(0, 1)] * 3
    assert by_clip(call_rows(label(3), twin, [], {1}, reads_velocities=True)) == [(0, 2), (1, 3), (1, 3)]


@pytest.mark.parametrize("passes", [BOTH, ("cond",)])
@pytest.mark.parametrize("n_steps", [1, 4, 7])
def test_a_sweep_of_single_steps_costs_what_its_arms_have_left(n_steps: int, passes: tuple[str, ...]) -> None:
    """Step s computes clean, corrupt, and the arms that have begun: sum over s of 2 + blocks * (s + 1)."""
    blocks = 3
    specs = [patch(f"tf{b}.cross_attn", steps=(s, s)) for b in range(blocks) for s in range(n_steps)]
    clips = [Row(A, 1)] + [Row(B, 1)] * (1 + len(specs))
    edits = [RowEdit(spec, 2 + i, (0,)) for i, spec in enumerate(specs)]
    started: set[int] = set()
    total = 0
    for step in range(n_steps):
        call = label(len(clips), passes, step)
        total += len(call_rows(call, clips, edits, started).run)
        started |= {edit.row for edit in acting_edits(call, edits)}
    assert total == len(passes) * (2 * n_steps + blocks * n_steps * (n_steps + 1) // 2)


windows = st.sampled_from([None, (0, 0), (1, 2)])
pass_sets = st.sampled_from([BOTH, ("cond",), ("null",)])


@st.composite
def calls(draw: st.DrawFn) -> tuple[CallLabel, list[Row], list[RowEdit], set[int], bool]:
    n_own = draw(st.integers(1, 4))
    clip = st.builds(Row, st.sampled_from([A, B]), st.integers(0, 1), st.sampled_from(["", "la"]))
    clips = draw(st.lists(clip, min_size=n_own, max_size=n_own))
    for _ in range(draw(st.integers(0, 3))):
        main = draw(st.integers(0, n_own - 1))
        clips.append(Row(draw(st.sampled_from([A, B])), clips[main].seed, clips[main].lyrics, shadow_of=main))
    row = st.integers(0, len(clips) - 1)
    means = st.builds(
        ablate, st.just("tf0.mlp"), st.just("mean"), st.just(("one", "two")), steps=windows, passes=pass_sets
    )
    edits = draw(st.lists(st.builds(RowEdit, means, row, st.tuples(row, row)), max_size=4))
    started = draw(st.sets(st.integers(0, n_own - 1)))
    passes = draw(st.sampled_from([BOTH, ("cond",)]))
    call = label(len(clips), passes, draw(st.integers(0, 2)))
    return call, clips, edits, started, draw(st.booleans())


@given(calls())
def test_every_place_is_a_row_that_equals_the_clips_own(call: tuple) -> None:
    where, clips, edits, started, probing = call
    rows = call_rows(where, clips, edits, started, probing)
    acting = [
        (i.row, name, i.sources)
        for i in edits
        for name in BOTH
        if i.acts_at(where.step, where.sigma, name) and name in where.passes
    ]
    changed = {(row, name) for row, name, _ in acting}
    used = {
        (clip, name)
        for clip, name in zip(where.clips, where.passes, strict=True)
        if clips[clip].shadow_of is None or (probing and name == "cond")
    }
    for _ in clips:  # as many links as there can be in a chain of sources
        used |= {(source, name) for row, name, sources in acting if (row, name) in used for source in sources}
    assert len(set(rows.run)) == len(rows.run)
    assert set(rows.take) == set(range(len(rows.run))), "nothing is computed in vain"
    for row, (clip, name) in enumerate(zip(where.clips, where.passes, strict=True)):
        assert 0 <= rows.place(clip, name) < len(rows.run)
        if (clip, name) not in used:
            continue
        standing = rows.run[rows.take[row]]
        other = where.clips[standing]
        assert where.passes[standing] == name
        if (clip, name) in changed or (other, name) in changed:
            assert standing == row, "edits are nobody else's"
        assert (clips[clip].prompt, clips[clip].lyrics) == (clips[other].prompt, clips[other].lyrics)
        mains = [c if clips[c].shadow_of is None else clips[c].shadow_of for c in (clip, other)]
        ours, theirs = (clips[main] for main in mains)
        if mains[0] != mains[1]:
            assert not started & set(mains), "their latents may have parted"
            assert (ours.prompt, ours.lyrics, ours.seed) == (theirs.prompt, theirs.lyrics, theirs.seed)


@given(calls())
def test_clips_of_their_own_are_never_left_out(call: tuple) -> None:
    where, clips, edits, started, probing = call
    with_all = call_rows(where, clips, edits, started | set(range(len(clips))), probing)
    own = {clip for clip in range(len(clips)) if clips[clip].shadow_of is None}
    assert {(clip, name) for clip in own for name in where.passes} <= set(computed(with_all))
    assert acting_edits(where, edits) == tuple(
        i for i in edits if any(i.acts_at(where.step, where.sigma, name) for name in where.passes)
    )


def test_clips_are_shared_that_were_one_row_all_along() -> None:
    clips = [Row(A, 1), Row(B, 1), Row(A, 1), Row(A, 1), Row(A, 2), Row(A, 1, shadow_of=0), Row(B, 1)]
    assert shared_clips(clips, {3}) == (0, 1, 0, 3, 4, 5, 1)
    assert shared_clips(clips, {0}) == (0, 1, 2, 2, 4, 5, 1)


def test_a_clip_of_which_only_the_conditioning_is_read_is_computed_until_it_is_known() -> None:
    clips = [Row(A, 1), Row(A, 1), Row(B, 1), Row(B, 1)]
    read = RowEdit(patch(steps=(1, 2), passes=("cond",)), 1, (2,))
    known: set[tuple[int, str]] = set()

    def of(step: int) -> CallRows:
        return call_rows(label(4, step=step), clips, [read], set(), False, {2}, lambda *each: each in known)

    before = of(0)
    assert computed(before) == [(0, "cond"), (3, "cond"), (0, "null"), (3, "null")]
    assert (before.stored, before.place(2, "cond")) == ((), before.place(0, "cond")), "another row stands in"
    first = of(1)
    assert computed(first)[:4] == [(0, "cond"), (1, "cond"), (2, "cond"), (3, "cond")], (
        "not shared with clip 3"
    )
    assert first.place(2, "cond") == 2
    known.add((2, "cond"))
    later = of(2)
    assert computed(later)[:3] == [(0, "cond"), (1, "cond"), (3, "cond")]
    assert later.stored == (2,)
    assert later.readable == (*later.run, 2)
    assert later.place(2, "cond") == len(later.run)
