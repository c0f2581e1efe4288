"""Which rows a batch has: each different run once, sources included, helpers for whom they follow."""

import pytest
import torch

from cache.errors import UserError
from tests.tolerances import assert_close, difference
from workbench.engine.batch import Row, plan_batch
from workbench.engine.edits import SELF, Run, ablate, add, blend, patch
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.base import AudioDiffusionModel

CLEAN, CORRUPT, OTHER = Clip("a slow song", 1), Clip("a fast song", 1), Clip("a sad song", 1)
SITE = "tf0.cross_attn"
SETTINGS = GenerationSettings(duration=1.0, num_steps=3, guidance_scale=3.0)


def rows(*clips: Clip) -> tuple[Row, ...]:
    return tuple(Row(clip.prompt, clip.seed, clip.lyrics) for clip in clips)


def test_sources_have_rows_although_nobody_asked_for_them() -> None:
    batch = plan_batch([Run(CORRUPT, (patch(SITE, CLEAN),))])
    assert batch.rows == rows(CLEAN, CORRUPT)
    assert batch.requested == (1,)
    assert [(edit.row, edit.sources) for edit in batch.edits] == [(1, (0,))]


def test_runs_that_are_asked_for_serve_as_sources() -> None:
    batch = plan_batch([Run(CORRUPT, (patch(SITE, CLEAN),)), CORRUPT, CLEAN])
    assert batch.rows == rows(CORRUPT, CLEAN, CORRUPT), "runs without edits come first"
    assert batch.requested == (2, 0, 1)
    assert [(edit.row, edit.sources) for edit in batch.edits] == [(2, (1,))]


def test_equal_runs_are_one_row() -> None:
    arm = Run(CORRUPT, (patch(SITE, CLEAN),))
    batch = plan_batch([CLEAN, arm, CLEAN, arm])
    assert batch.rows == rows(CLEAN, CORRUPT)
    assert batch.requested == (0, 1, 0, 1)


def test_strength_0_is_the_unedited_row() -> None:
    idle = add([1.0], "tf1.mlp", strength=0.0)
    reads_idle = patch(SITE, Run(CLEAN, (idle,)))
    batch = plan_batch([Run(CORRUPT, (idle,)), Run(CORRUPT, (idle, reads_idle)), CORRUPT, CLEAN])
    assert batch.rows == rows(CORRUPT, CLEAN, CORRUPT)
    assert batch.requested == (0, 2, 0, 1)
    assert [(edit.edit.operator, edit.sources) for edit in batch.edits] == [("patch", (1,))]


def test_a_run_that_follows_an_idle_edit_follows_the_unedited_run() -> None:
    idle = Run(CORRUPT, (add([1.0], "tf1.mlp", strength=0.0),))
    batch = plan_batch([CORRUPT, Run(CLEAN, follows=idle)])
    assert [row.shadow_of for row in batch.rows] == [None, 0]


def test_a_source_may_have_edits_and_sources_of_its_own() -> None:
    inner = Run(CLEAN, (patch(SITE, OTHER),))
    outer = Run(
        CORRUPT, (patch("tf1.mlp", inner, target="output"), ablate("tf1.mlp", "mean", [inner, OTHER]))
    )
    batch = plan_batch([outer])
    assert batch.rows == rows(OTHER, CLEAN, CORRUPT)
    assert [(edit.row, edit.sources) for edit in batch.edits] == [(1, (0,)), (2, (1,)), (2, (1, 0))]


def test_a_helper_is_another_row_for_each_run_that_reads_it() -> None:
    helper = Run(CORRUPT, (patch(SITE, SELF, target="output"), patch(SITE, CLEAN)), follows=Run(SELF))
    arms = [Run(CORRUPT, (patch(f"tf1.{part}", helper, target="output"),)) for part in ("mlp", "block")]
    batch = plan_batch(arms)
    assert [row.shadow_of for row in batch.rows] == [None, None, 1, None, 3]
    assert {(edit.row, edit.sources) for edit in batch.edits} == {
        (1, (2,)), (2, (1,)), (2, (0,)), (3, (4,)), (4, (3,)), (4, (0,)),
    }  # fmt: skip


def test_a_run_that_follows_another_is_a_shadow_of_its_row() -> None:
    batch = plan_batch([Run(CLEAN, follows=Run(CORRUPT)), CORRUPT])
    assert [row.shadow_of for row in batch.rows] == [None, 0]
    assert batch.requested == (1, 0)


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (Run("clean"), "'clean' is the name of a run, which must be bound to a clip .* wb.clips"),
        (Run(CORRUPT, (patch(SITE, "clean"),)), "'clean' is the name of a run"),
        (Run(CLEAN, follows=Run(CLEAN, follows=Run(CORRUPT))), "itself follows"),
        (Run(CLEAN, follows=Run(SELF)), "'self'"),
        (Run(SELF), "'self'"),
    ],
)  # fmt: skip
def test_runs_that_cannot_be_planned(run: Run, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        plan_batch([run])


def test_only_what_was_asked_for_is_given(model64: AudioDiffusionModel) -> None:
    capture = Capture((Site(1, "mlp"),), (1,), ("cond",))
    patched = Run(CORRUPT, (patch(SITE, CLEAN),))
    alone = model64.generate_batch([patched], SETTINGS, capture, velocity_steps=(1,))
    beside = model64.generate_batch([CLEAN, CORRUPT, patched], SETTINGS, capture, velocity_steps=(1,))
    assert alone.latents.shape[0] == len(alone.velocities[1]) == len(alone.activations[Site(1, "mlp")]) == 1
    assert (alone.shared_with, alone.broke_at) == ((0,), (None,))
    assert_close(alone.latents[0], beside.latents[2])
    assert_close(alone.velocities[1][0], beside.velocities[1][2])
    assert_close(alone.activations[Site(1, "mlp")][0], beside.activations[Site(1, "mlp")][2])
    repeated = model64.linearise(alone.inputs[1], 0, ())
    plain = model64.generate_batch([CORRUPT], SETTINGS, velocity_steps=(1,))
    assert repeated.output.shape == plain.velocities[1].shape
    passes = [set(call.passes) for call in beside.calls]
    first = len(set().union(*passes))
    # The corrupt run, and the clean one, of which otherwise only the conditioning is read: in one call of each pass.
    assert beside.rows == alone.rows + 2 * sum(map(len, passes)) - first


def test_strength_0_computes_no_further_row(model64: AudioDiffusionModel) -> None:
    vector = torch.ones(model64.channels(Site(1, "mlp")))
    strengths = [Run(CORRUPT, (add(vector, "tf1.mlp", strength),)) for strength in (0.0, 3.0)]
    found = model64.generate_batch([CORRUPT, *strengths], SETTINGS)
    assert torch.equal(found.latents[1], found.latents[0]), "one computed row"
    assert found.shared_with == (0, 0, 2)
    assert found.rows == model64.generate_batch([CORRUPT, strengths[1]], SETTINGS).rows
    assert difference(found.latents[2], found.latents[0]) > 1e-6


def test_a_patch_from_an_edited_run_takes_what_its_edits_made(model64: AudioDiffusionModel) -> None:
    """Where all conditioning is patched the source's edits do nothing, and where its last block is, they are all."""
    ablated = Run(CLEAN, (ablate("tf1.mlp"),))
    taking = Run(CORRUPT, (patch("tf1.block", ablated, target="output"),))
    found = model64.generate_batch([ablated, CLEAN, taking], SETTINGS).latents
    assert_close(found[2], found[0])
    assert difference(found[2], found[1]) > 1e-6


# Blends


def both(model: AudioDiffusionModel) -> list[str]:
    return [f"tf{block}.cross_attn" for block in range(model.n_blocks)]


def blended(model: AudioDiffusionModel, *weights: float, sources: tuple[Clip, ...] = (CLEAN, OTHER)) -> Run:
    return Run(CORRUPT, (blend(both(model), sources, weights),))


def test_a_blend_with_one_weight_is_the_patch(model64: AudioDiffusionModel) -> None:
    runs = [blended(model64, 1.0, 0.0), blended(model64, 0.0, 1.0)]
    patches = [Run(CORRUPT, (patch(both(model64), clip),)) for clip in (CLEAN, OTHER)]
    found = model64.generate_batch([*runs, *patches, CLEAN, OTHER], SETTINGS).latents
    for place in (0, 1):
        assert_close(found[place], found[2 + place])
        assert_close(found[place], found[4 + place])


def test_half_and_half_is_the_mean_of_keys_and_of_values(model64: AudioDiffusionModel) -> None:
    sites = tuple(Site(block, f"cross_attn.{part}") for block in range(model64.n_blocks) for part in "kv")
    capture = Capture(sites, (0, 2), ("cond",))
    found = model64.generate_batch([CLEAN, OTHER, blended(model64, 0.5, 0.5)], SETTINGS, capture)
    for site in sites:
        clean, other, half = found.activations[site]
        assert_close(half, (clean + other) / 2, site)
        assert difference(clean, other) > 1e-6


def test_a_blend_with_itself_changes_nothing(model64: AudioDiffusionModel) -> None:
    alone = Run(CORRUPT, (blend(both(model64), [CORRUPT], [1.0]),))
    halves = Run(CORRUPT, (blend(both(model64), [CORRUPT, CORRUPT], [0.5, 0.5]),))
    found = model64.generate_batch([CORRUPT, alone, halves], SETTINGS).latents
    assert_close(found[1], found[0])
    assert_close(found[2], found[0])


def test_a_blend_follows_its_weights(model64: AudioDiffusionModel) -> None:
    found = model64.generate_batch([CORRUPT, CLEAN, blended(model64, 0.5, 0.5)], SETTINGS).latents
    assert difference(found[2], found[0]) > 1e-6
    assert difference(found[2], found[1]) > 1e-6


@pytest.mark.parametrize(
    "other",
    [Clip("a slow happy violin song", 1), Clip("a slow song", 1, "oh")],
    ids=["longer", "with lyrics"],
)
def test_prompts_of_other_lengths_are_not_blended(tiny64: AudioDiffusionModel, other: Clip) -> None:
    with pytest.raises(UserError, match="Cannot blend"):
        tiny64.generate_batch([blended(tiny64, 0.5, 0.5, sources=(CLEAN, other))], SETTINGS)
