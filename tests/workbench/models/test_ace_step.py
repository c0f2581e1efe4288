"""The adapter of ACE-Step 1.5: its schedule, its null embedding, its padding, and an organism's arms in float32."""

import pytest
import torch

from analyses.patching.arms import patch_arm
from analyses.patching.contexts import prompt_set_contexts
from analyses.patching.sweep import run_arms
from cache.errors import UserError
from tests.tolerances import assert_close, difference
from tests.workbench.models.architectures import ace_step
from tests.workbench.models.conformance import LinearRows
from workbench.engine.edits import Run, patch
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models import load_model
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import load_prompt_set

SHORT = Clip("a slow song", 1)
LONG = Clip("a fast happy violin song with drums", 1)
SETTINGS = GenerationSettings(duration=1.0, num_steps=4, guidance_scale=3.0)
INTERVAL = SETTINGS.model_copy(update={"options": {"cfg_interval_start": 0.05, "cfg_interval_end": 0.4}})
BOTH = ("tf0.cross_attn", "tf1.cross_attn")


def test_turbo_runs_one_pass_whatever_the_guidance(tiny_turbo: AceStep15) -> None:
    run = tiny_turbo.generate_batch([LONG], SETTINGS)
    assert tiny_turbo.passes(SETTINGS) == ("cond",)
    assert {call.passes for call in run.calls} == {("cond",)}
    assert torch.equal(run.latents, ace_step(tiny_turbo, [LONG], SETTINGS, output_type="latent"))


def test_guidance_acts_in_an_interval_of_the_shifted_schedule(tiny: AceStep15) -> None:
    sigmas = [3 * t / (1 + 2 * t) for t in (1.0, 0.75, 0.5, 0.25)]
    assert tiny.sigmas(INTERVAL) == pytest.approx(sigmas)
    guided = [0.05 <= 1 - sigma <= 0.4 for sigma in sigmas]
    assert guided == [False, True, True, False]
    assert tiny.step_passes(INTERVAL) == [("cond", "null") if g else ("cond",) for g in guided]


def test_a_null_pass_that_begins_late_gets_its_own_keys(tiny64: AceStep15) -> None:
    patched = Run(LONG, (patch(BOTH, SHORT),))
    latents = tiny64.generate_batch([SHORT, LONG, patched], INTERVAL).latents
    assert_close(latents[2], latents[0])


def test_the_null_pass_reads_one_embedding_so_that_its_conditioning_cannot_matter(tiny64: AceStep15) -> None:
    patched = Run(LONG, (patch(BOTH, SHORT, target="output", passes=("null",)),))
    latents = tiny64.generate_batch([LONG, patched], SETTINGS).latents
    assert_close(latents[1], latents[0])


def test_the_untouched_pipeline_lets_padding_through(tiny64: AceStep15) -> None:
    """So that the adapter's mask is needed."""
    together = ace_step(tiny64, [SHORT, LONG], SETTINGS, output_type="latent")
    assert difference(together[0], tiny64.generate_batch([SHORT], SETTINGS).latents[0]) > 1e-6


def test_equal_prompts_are_encoded_once(tiny64: AceStep15) -> None:
    linears = [
        next(module for module in encoder.modules() if isinstance(module, torch.nn.Linear))
        for encoder in (tiny64.pipeline.text_encoder, tiny64.pipeline.condition_encoder)
    ]
    arms = [Run(LONG, (patch(BOTH[0], SHORT, steps=(step, step)),)) for step in range(4)]
    with LinearRows(linears[0]) as text, LinearRows(linears[1]) as conditions:
        patched = tiny64.generate_batch([SHORT, LONG, *arms], SETTINGS).latents
        plain = tiny64.generate_batch([SHORT, LONG], SETTINGS).latents
    assert text.rows == conditions.rows == [2, 2], "of six clips, and of two"
    assert_close(patched[:2], plain)


def test_lyrics_timbre_and_text_follow_each_other(tiny: AceStep15) -> None:
    spans = tiny.segments(LONG, SETTINGS)
    assert list(spans) == ["lyrics", "timbre", "text"]
    assert spans["timbre"][1] - spans["timbre"][0] == 1
    assert tiny.channels(Site(0, "cross_attn.k")) == 16, "two of four heads are key-value heads"


def test_organism_arms_equal_single_runs() -> None:
    """Over a whole guided run, in float64: in float32, some prompts let rounding grow tenfold."""
    organism = load_model("organism-shared", dtype="float64")
    (context,) = prompt_set_contexts(load_prompt_set("organism"), "mood", 1, seed=0)
    arms = [
        patch_arm(f"tf{block}", direction, f"tf{block}.cross_attn", direction)
        for direction in ("sufficiency", "necessity")
        for block in (0, 3, 7)
    ]
    together = run_arms(organism, context, 5, arms, GenerationSettings()).latents
    for i, arm in enumerate(arms):
        alone = run_arms(organism, context, 5, [arm], GenerationSettings()).latents
        assert_close(together[2 + i], alone[2])
    for row, prompt in enumerate([context.pair.clean, context.pair.corrupt]):
        alone = organism.generate_batch([Clip(prompt.text, 5)], GenerationSettings()).latents
        assert_close(together[row], alone[0])


def test_the_sampling_has_what_was_left_out_and_what_follows_from_it(
    tiny: AceStep15, tiny_turbo: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = GenerationSettings(num_steps=2, guidance_scale=7.0)
    assert tiny.sampling(settings).guidance_scale == 7.0
    assert tiny.sampling(settings).options["shift"] == 3.0
    assert tiny_turbo.sampling(settings).guidance_scale == 1.0, "its guidance is distilled"
    assert tiny_turbo.sampling(settings).passes == (("cond",), ("cond",))
    monkeypatch.setattr(tiny.denoiser, "peft_config", {"slider": None}, raising=False)
    assert tiny.sampling(settings).adapters == ("slider",)
    with pytest.raises(UserError, match="no option omega"):
        tiny.sampling(settings.model_copy(update={"options": {"omega": 7}}))


def test_what_differs_between_two_samplings_is_named(tiny: AceStep15, tiny_turbo: AceStep15) -> None:
    settings = GenerationSettings(num_steps=2, guidance_scale=7.0)
    guided, distilled = tiny.sampling(settings), tiny_turbo.sampling(settings)
    assert guided.differences(guided) == {}
    assert guided.differences(distilled) == {"guidance_scale": (7.0, 1.0)}
    shifted = tiny.sampling(settings.model_copy(update={"options": {"shift": 1}}))
    assert shifted.differences(guided) == {"shift": (1.0, 3.0)}
