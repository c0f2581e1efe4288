"""The adapter of ACE-Step 1.5: labels, exactness against the untouched pipeline, independent rows."""

import pytest
import torch

from analyses.patching.arms import patch_arm
from analyses.patching.contexts import prompt_set_contexts
from analyses.patching.sweep import run_arms
from cache.errors import UserError
from tests.edited import edited
from tests.tolerances import assert_close
from workbench.engine.edits import Edit, Run, ablate, add, patch
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site, parse_sites
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import load_prompt_set

SHORT = Clip("a slow song", 1)
LONG = Clip("a fast happy violin song with drums", 2)
SAME_LENGTH = [Clip("a slow happy song", 1), Clip("a fast sad song", 2)]
SETTINGS = GenerationSettings(duration=1.0, num_steps=4, guidance_scale=3.0)


def stock_latents(model: AceStep15, clips: list[Clip], settings: GenerationSettings) -> torch.Tensor:
    """What the pipeline gives without nnsight and without us."""
    return model.pipeline(
        prompt=[clip.prompt for clip in clips],
        lyrics=[clip.lyrics for clip in clips],
        audio_duration=settings.duration,
        num_inference_steps=settings.num_steps,
        guidance_scale=settings.guidance_scale,
        **settings.options,
        latents=model.noise(clips, settings.duration),
        output_type="latent",
    ).audios


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("duration", [1.0, 1.3])
def test_traced_equals_untraced_bit_for_bit(tiny: AceStep15, guidance: float, duration: float) -> None:
    settings = GenerationSettings(duration=duration, num_steps=4, guidance_scale=guidance)
    capture = Capture(tuple(tiny.sites()), (0, 3), ("cond",))
    traced = tiny.generate_batch(SAME_LENGTH, settings, capture=capture)
    assert torch.equal(traced.latents, stock_latents(tiny, SAME_LENGTH, settings))


def test_turbo_runs_one_pass_whatever_the_guidance(tiny_turbo: AceStep15) -> None:
    run = tiny_turbo.generate_batch(SAME_LENGTH, SETTINGS)
    assert tiny_turbo.passes(SETTINGS) == ("cond",)
    assert {call.passes for call in run.calls} == {("cond", "cond")}
    assert torch.equal(run.latents, stock_latents(tiny_turbo, SAME_LENGTH, SETTINGS))


def test_organism_traced_equals_untraced_bit_for_bit(organism_shared: AceStep15) -> None:
    clips = [Clip("a fast happy violin song with drums", 5), Clip("a slow happy violin song with drums", 6)]
    capture = Capture(parse_sites(["*.cross_attn"], organism_shared.n_blocks), (0, 7), ("cond", "null"))
    settings = GenerationSettings()
    traced = organism_shared.generate_batch(clips, settings, capture=capture)
    assert torch.equal(traced.latents, stock_latents(organism_shared, clips, settings))


def test_each_clip_is_decoded_as_the_pipeline_decodes_it_alone(tiny: AceStep15) -> None:
    latents = torch.cat([stock_latents(tiny, [clip], SETTINGS) for clip in SAME_LENGTH])
    for clip, decoded in zip(SAME_LENGTH, tiny.decode(latents), strict=True):
        audio = tiny.pipeline(
            prompt=[clip.prompt],
            lyrics=[""],
            audio_duration=SETTINGS.duration,
            num_inference_steps=SETTINGS.num_steps,
            guidance_scale=SETTINGS.guidance_scale,
            latents=tiny.noise([clip], SETTINGS.duration),
        ).audios
        assert_close(decoded, audio[0])


def test_labels_are_read_off_the_calls(tiny: AceStep15) -> None:
    settings = SETTINGS.model_copy(update={"options": {"cfg_interval_start": 0.05, "cfg_interval_end": 0.4}})
    calls = tiny.generate_batch(SAME_LENGTH, settings).calls
    sigmas = [3 * t / (1 + 2 * t) for t in (1.0, 0.75, 0.5, 0.25)]
    assert [call.step for call in calls] == [0, 1, 2, 3]
    assert [call.sigma for call in calls] == pytest.approx(sigmas)
    guided = [0.05 <= 1 - sigma <= 0.4 for sigma in sigmas]
    assert guided == [False, True, True, False]
    assert [call.passes for call in calls] == [
        ("cond", "cond", "null", "null") if g else ("cond", "cond") for g in guided
    ]
    assert calls[1].clips == (0, 1, 0, 1)


def test_labels_do_not_depend_on_earlier_generations(tiny: AceStep15) -> None:
    first = tiny.generate_batch([LONG], SETTINGS).calls
    tiny.generate_batch([LONG, SHORT], GenerationSettings(duration=1.0, num_steps=3, guidance_scale=1.0))
    assert tiny.generate_batch([LONG], SETTINGS).calls == first


def test_noise_follows_each_clips_seed_and_nothing_else(tiny: AceStep15) -> None:
    noise = tiny.noise([Clip("a slow song", 1), Clip("a slow song", 2), Clip("a fast song", 1)], 1.0)
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(tiny.noise([Clip("a song", 2)], 1.0)[0], noise[1])


def test_batch_rows_equal_single_runs_even_when_prompts_differ_in_length(tiny64: AceStep15) -> None:
    together = tiny64.generate_batch([SHORT, LONG], SETTINGS).latents
    alone = torch.cat([tiny64.generate_batch([clip], SETTINGS).latents for clip in (SHORT, LONG)])
    assert_close(together, alone)
    stock = stock_latents(tiny64, [SHORT, LONG], SETTINGS)
    assert (stock[0] - alone[0]).abs().max() > 1e-6, (
        "the untouched pipeline lets padding through: the mask is needed"
    )


def test_batch_rows_equal_single_runs_in_float32(tiny: AceStep15) -> None:
    together = tiny.generate_batch(SAME_LENGTH, SETTINGS).latents
    alone = torch.cat([tiny.generate_batch([clip], SETTINGS).latents for clip in SAME_LENGTH])
    assert_close(together, alone)


def test_captured_values_are_what_the_modules_gave(tiny: AceStep15) -> None:
    seen: dict[str, list[torch.Tensor]] = {"cross": [], "heads": [], "block": []}
    layer = tiny.pipeline.transformer.layers[1]
    hooks = [
        layer.cross_attn.register_forward_hook(lambda m, i, o: seen["cross"].append(o)),
        layer.cross_attn.to_out[0].register_forward_pre_hook(lambda m, i: seen["heads"].append(i[0])),
        layer.register_forward_hook(lambda m, i, o: seen["block"].append(o)),
    ]
    stock_latents(tiny, SAME_LENGTH, SETTINGS)
    for hook in hooks:
        hook.remove()
    sites = {"cross": Site(1, "cross_attn"), "heads": Site(1, "cross_attn.heads"), "block": Site(1, "block")}
    capture = Capture(tuple(sites.values()), (1, 3), ("null", "cond"))
    kept = tiny.generate_batch(SAME_LENGTH, SETTINGS, capture=capture).activations
    for name, site in sites.items():
        assert kept[site].shape == (2, 2, 2, tiny.tokens(1.0), tiny.channels(site))
        for s, step in enumerate((1, 3)):
            assert torch.equal(kept[site][:, s, 0], seen[name][step][2:]), "null pass"
            assert torch.equal(kept[site][:, s, 1], seen[name][step][:2]), "cond pass"


def patch_all(model: AceStep15, mode: str, part: str = "cross_attn") -> Edit:
    return patch(tuple(f"tf{b}.{part}" for b in range(model.n_blocks)), "other", target=mode)


@pytest.mark.parametrize("clips", [SAME_LENGTH, [SHORT, LONG]], ids=["same length", "padded"])
def test_patching_all_conditioning_gives_the_clean_run(tiny64: AceStep15, clips: list[Clip]) -> None:
    clean = Clip(clips[0].prompt, 7)
    corrupt = Clip(clips[1].prompt, 7)
    patched = edited(corrupt, [patch_all(tiny64, "conditioning")], clean)
    latents = tiny64.generate_batch([clean, corrupt, patched], SETTINGS).latents
    assert_close(latents[2], latents[0])
    assert (latents[2] - latents[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "spec",
    [
        patch(("tf0.cross_attn", "tf1.cross_attn"), "other"),
        patch(("tf0.cross_attn.heads", "tf1.mlp", "tf1.block"), "other", target="output"),
    ],
)
def test_patching_a_row_with_itself_changes_nothing(tiny: AceStep15, spec: Edit) -> None:
    plain = tiny.generate_batch(SAME_LENGTH, SETTINGS).latents
    identity = edited(SAME_LENGTH[1], [spec], SAME_LENGTH[1])
    assert_close(tiny.generate_batch([SAME_LENGTH[0], identity], SETTINGS).latents, plain)


def test_patching_the_last_block_output_gives_the_sources_velocity(tiny: AceStep15) -> None:
    clips = [SAME_LENGTH[0], Clip(SAME_LENGTH[1].prompt, SAME_LENGTH[0].seed)]
    patched = Run(clips[1], (patch("tf1.block", clips[0], target="output"),))
    latents = tiny.generate_batch([clips[0], patched], SETTINGS).latents
    assert_close(latents[1], latents[0])


def test_organism_arms_equal_single_runs(organism_shared: AceStep15) -> None:
    """In float32, over a whole guided run, relative to the latents' size."""
    (context,) = prompt_set_contexts(load_prompt_set("organism"), "mood", 1, seed=0)
    arms = [
        patch_arm(f"tf{block}", direction, f"tf{block}.cross_attn", direction)
        for direction in ("sufficiency", "necessity")
        for block in (0, 3, 7)
    ]
    together = run_arms(organism_shared, context, 5, arms, GenerationSettings()).latents
    for i, arm in enumerate(arms):
        alone = run_arms(organism_shared, context, 5, [arm], GenerationSettings()).latents
        assert_close(together[2 + i], alone[2])
    for row, prompt in enumerate([context.pair.clean, context.pair.corrupt]):
        alone = organism_shared.generate_batch([Clip(prompt.text, 5)], GenerationSettings()).latents
        assert_close(together[row], alone[0])


def test_edits_act_on_their_rows_steps_and_passes_only(tiny: AceStep15) -> None:
    sites = (Site(1, "cross_attn"),)
    capture = Capture(sites, (0, 1, 2, 3), ("cond", "null"))
    edit = ablate("tf1.cross_attn", steps=(2, 3), passes=("cond",))
    runs = [SAME_LENGTH[0], Run(SAME_LENGTH[1], (edit,))]
    kept = tiny.generate_batch(runs, SETTINGS, capture).activations[sites[0]]
    assert (kept[1, 2:, 0] == 0).all()
    for clip, step, pass_index in [(1, 0, 0), (1, 1, 0), (1, 2, 1), (0, 2, 0), (0, 3, 1)]:
        assert (kept[clip, step, pass_index] != 0).any()


def test_steering_adds_the_direction(tiny: AceStep15) -> None:
    site = Site(0, "cross_attn")
    capture = Capture((site,), (0,), ("cond",))
    direction = tuple(float(i) for i in range(32))
    run = Run(LONG, (add(direction, str(site), strength=0.5),))
    plain = tiny.generate_batch([LONG], SETTINGS, capture=capture).activations[site]
    steered = tiny.generate_batch([run], SETTINGS, capture).activations[site]
    assert_close(steered, plain + 0.5 * torch.tensor(direction, dtype=plain.dtype))


def test_segments_cover_the_conditioning(tiny: AceStep15) -> None:
    spans = tiny.segments(LONG, SETTINGS)
    length = spans["text"][1]
    capture = Capture((Site(0, "cross_attn.k"),), (0,), ("cond",))
    keys = tiny.generate_batch([LONG], SETTINGS, capture=capture).activations[Site(0, "cross_attn.k")]
    assert keys.shape[3] == length
    assert spans["lyrics"][0] == 0
    assert spans["lyrics"][1] == spans["timbre"][0] == spans["timbre"][1] - 1
    assert spans["timbre"][1] == spans["text"][0]
    assert keys.shape[-1] == tiny.channels(Site(0, "cross_attn.k")) == 16, (
        "two of four heads are key-value heads"
    )


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda m: m.generate_batch([], SETTINGS), "empty"),
        (
            lambda m: m.generate_batch([Run(LONG, (patch("tf0.cross_attn", "clean"),))], SETTINGS),
            "'clean' must be bound to a clip",
        ),
        (
            lambda m: m.generate_batch(
                [Run(LONG, (patch("tf9.cross_attn", LONG, parts=("mask",)),))], SETTINGS
            ),
            "tf9 does not exist",
        ),
        (
            lambda m: m.generate_batch([Run(LONG, (ablate("tf9.mlp"),))], SETTINGS),
            "tf9 does not exist",
        ),
        (
            lambda m: m.generate_batch([Run(LONG, (add((1.0,), "tf0.mlp"),))], SETTINGS),
            "must have 32 numbers, the channels of tf0.mlp; it has 1",
        ),
        (
            lambda m: m.generate_batch([Run(LONG, (add((1.0,), "tf0.mlp", strength=0.0),))], SETTINGS),
            "must have 32 numbers, the channels of tf0.mlp; it has 1",
        ),
        (
            lambda m: m.generate_batch([LONG], SETTINGS, capture=Capture((Site(0, "mlp"),), (9,), ("cond",))),
            "steps 0 to 3",
        ),
        (
            lambda m: m.generate_batch(
                [LONG],
                SETTINGS.model_copy(update={"guidance_scale": 1.0}),
                capture=Capture((Site(0, "mlp"),), (0,), ("null",)),
            ),
            "null pass needs a guidance",
        ),
        (
            lambda m: m.generate_batch(
                [LONG],
                SETTINGS.model_copy(update={"options": {"cfg_interval_start": 0.5}}),
                capture=Capture((Site(0, "mlp"),), (0,), ("null",)),
            ),
            "Step 0 runs only the cond pass; guidance is on in steps 3 to 3",
        ),
    ],
)
def test_bad_requests_get_one_clear_sentence(tiny: AceStep15, call, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        call(tiny)
