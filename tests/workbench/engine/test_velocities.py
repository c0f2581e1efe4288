"""Edits of velocities: what is read and changed, on numbers made by hand, and the edits that are refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from cache.errors import UserError
from tests.tolerances import assert_close, difference
from workbench.engine.batch import Row, RowEdit, plan_batch
from workbench.engine.edits import (
    SELF,
    Edit,
    Run,
    Window,
    add_difference,
    add_velocity,
    edit_from_json,
    patch,
)
from workbench.engine.rows import call_rows
from workbench.engine.runs import CallLabel, Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.engine.velocities import VelocityEdits
from workbench.models.base import AudioDiffusionModel

CLIP, PLUS, MINUS = (Clip(f"a {tempo} song", 7) for tempo in ("the", "fast", "slow"))
SETTINGS = GenerationSettings(duration=1.0, num_steps=4, guidance_scale=3.0)


def followers(strength: float = 1.0, **window: Any) -> Edit:
    return add_velocity(*(Run(clip, follows=Run(SELF)) for clip in (PLUS, MINUS)), strength, **window)


def test_differences_are_added_to_their_rows_in_their_steps() -> None:
    rows = [Row("a", 1), Row("b", 1), Row("c", 1)]
    edits = [
        RowEdit(add_velocity("x", "y", 2.0, steps=(1, 3)), 0, (1, 2)),
        RowEdit(add_velocity("x", "y", -1.0, steps=(1, 1)), 0, (2, 0)),
        RowEdit(add_velocity("x", "y", 0.5, passes=("null",)), 2, (0, 1)),
    ]
    changes = VelocityEdits(edits)
    assert changes and not VelocityEdits([])
    guided = torch.zeros(3, 2, 2)
    found = {}
    for step in range(3):
        label = CallLabel(step, 1.0, (0, 1, 2) * 2, ("cond",) * 3 + ("null",) * 3)
        changes.read(
            call_rows(label, rows, edits, set()), torch.arange(1.0, 7.0).expand(2, 2, 6).permute(2, 0, 1) ** 2
        )
        found[step] = changes.apply(guided)
    cond, null = {0: 1, 1: 4, 2: 9}, {0: 16, 1: 25, 2: 36}
    first, second = 2.0 * (cond[1] - cond[2]), -1.0 * (cond[2] - cond[0])
    third = 0.5 * (null[0] - null[1])
    for step, pushed in enumerate((0.0, first + second, first)):
        assert found[step][:, 0, 0].tolist() == [pushed, 0.0, third]
        assert (found[step] == found[step][:, :1, :1]).all()
    assert not guided.any(), "the guided velocities are not changed in place"


def test_what_is_captured_of_a_run_that_follows_is_its_own(tiny64: AudioDiffusionModel) -> None:
    """It is what an edit reads from it: patched into the followed run at one step, it is captured there, too."""
    site, step = Site.parse("tf1.cross_attn"), 2
    capture = Capture((site,), (step,), ("cond", "null"))
    follower = Run(PLUS, follows=Run(CLIP))
    patched = Run(CLIP, (patch(str(site), follower, target="output", steps=(step, step)),))
    plain, own, read = tiny64.generate_batch([CLIP, follower, patched], SETTINGS, capture).activations[site]
    assert_close(own, read)
    assert difference(own[:, 0], plain[:, 0]) > 1e-3
    assert_close(own[:, 1], plain[:, 1])  # the null pass has no prompt
    (alone,) = tiny64.generate_batch([follower], SETTINGS, capture).activations[site]
    assert_close(alone, own)


def test_runs_with_latents_of_their_own_can_be_read(tiny64: AudioDiffusionModel) -> None:
    """At the first step all runs have the same latents, so that it does not matter whether they follow."""
    edits = [add_velocity(PLUS, MINUS, 2.0, steps=(0, 0)), followers(2.0, steps=(0, 0)), followers(2.0)]
    own = [add_velocity(PLUS, MINUS, 2.0)]
    runs = [CLIP, *(Run(CLIP, (edit,)) for edit in edits + own)]
    plain, one, other, following, apart = tiny64.generate_batch(runs, SETTINGS).latents
    assert_close(one, other)
    assert difference(one, plain) > 1e-6
    assert difference(following, apart) > 1e-6


def test_edits_of_a_velocity_add_up(tiny64: AudioDiffusionModel) -> None:
    runs = [
        Run(CLIP, (followers(0.5), followers(1.5))),
        Run(CLIP, (followers(2.0),)),
        Run(CLIP, (followers(2.0, steps=(0, 1)), followers(2.0, steps=(2, 3)))),
        Run(CLIP, (followers(2.0), followers(-2.0))),
    ]
    twice, once, parts, neither = tiny64.generate_batch(runs, SETTINGS).latents
    assert_close(twice, once)
    assert_close(parts, once)
    assert_close(neither, tiny64.generate_batch([CLIP], SETTINGS).latents[0])


def test_steered_runs_can_be_patched_from(tiny64: AudioDiffusionModel) -> None:
    """A run whose velocity is edited is a source like any other."""
    steered = Run(CLIP, (followers(2.0),))
    copied = Run(CLIP, (add_difference("tf0.mlp", steered, CLIP),))
    plain, moved = tiny64.generate_batch([CLIP, copied], SETTINGS).latents
    assert difference(moved, plain) > 1e-9


def test_strength_0_is_the_unedited_row() -> None:
    batch = plan_batch([CLIP, Run(CLIP, (followers(0.0),))])
    assert (len(batch.rows), batch.requested, batch.edits) == (1, (0, 0), ())


def test_its_json_is_read_back() -> None:
    edit = followers(0.5, sigmas=(0.1, 0.9))
    assert edit_from_json(edit.to_json()) == edit
    assert edit.to_json()["sites"] == []
    assert edit.blocks == frozenset() and edit.value_sites == () and edit.conditioning_sites == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sites": ("tf0.mlp",)}, "has no sites; got tf0.mlp"),
        ({"window": Window()}, "must have one pass.*got none"),
        ({"window": Window(passes=("cond", "null"))}, "must have one pass"),
        ({"window": Window(passes=("cond",), tokens=(0, 3))}, "steps and sigmas.*got passes, tokens"),
        ({"window": Window(passes=("cond",), parts=("keys",))}, "got parts, passes"),
        ({"parameters": replace(followers().parameters, constant=True)}, "cannot be constant"),
        ({"sources": ()}, "must have 2 source runs; got 0"),
        ({"target": "output"}, "must have at least one site"),
    ],
)
def test_what_is_no_edit_of_a_velocity(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        replace(followers(), **change)


def test_a_follower_has_no_velocity_to_edit(tiny64: AudioDiffusionModel) -> None:
    with pytest.raises(UserError, match="Edit the velocity of the run that it follows"):
        tiny64.generate_batch([Run(PLUS, (followers(),), follows=Run(CLIP))], SETTINGS)


def test_a_velocity_edit_that_acts_nowhere_is_refused(tiny64: AudioDiffusionModel) -> None:
    with pytest.raises(UserError, match="'add_difference' of the velocity acts in no call"):
        tiny64.generate(CLIP, SETTINGS, edits=[followers(steps=(4, 9))])
