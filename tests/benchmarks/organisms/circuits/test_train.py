"""Mechanics of planting, on trainings of a few steps."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AceStepPipeline
from rich.progress import Progress

from benchmarks.organisms.circuits.loading import load
from benchmarks.organisms.circuits.planted import BLOCKS, CIRCUITS, SETTINGS, SHIFT, Circuit, presence_pairs
from benchmarks.organisms.circuits.readout import FRAMES, concept_readout, decoy_readout
from benchmarks.organisms.circuits.train import (
    Recipe,
    block_conditioning,
    draw_batch,
    encode_prompts,
    make_transformer,
    presence,
    reads_word,
    sigma_at,
    train,
)
from benchmarks.organisms.labels import CONCEPTS, Labels
from benchmarks.organisms.pipeline import load_pipeline
from benchmarks.organisms.text import SUBSPACES
from cache.errors import UserError
from workbench.engine.edits import Run, patch
from workbench.engine.runs import Clip
from workbench.models import model_source

SHORT = Recipe(steps=2, batch=4, warmup=1)
DRUMS = SUBSPACES["drums"]


@pytest.fixture(scope="module")
def pipeline() -> AceStepPipeline:
    """The embedded organism's pipeline, whose text path the organisms share."""
    return load_pipeline(Path(model_source("organism-shared")), torch.device("cpu"))


@pytest.fixture(scope="module")
def prompts(pipeline: AceStepPipeline) -> torch.Tensor:
    return encode_prompts(pipeline)


def short_training(
    circuit: Circuit, pipeline: AceStepPipeline, recipe: Recipe = SHORT
) -> dict[str, torch.Tensor]:
    with Progress(disable=True) as progress:
        return train(circuit, pipeline, recipe, progress).state_dict()


def test_both_rules_by_their_truth_tables() -> None:
    said = torch.tensor([[False, False], [False, True], [True, False], [True, True]])
    for name, concept in (("redundant", [0, 1, 1, 1]), ("complementary", [0, 0, 0, 1])):
        has = presence(CIRCUITS[name], said)
        assert has[:, 0].int().tolist() == concept
        assert not has[:, 1].any()


def test_a_decoy_has_its_own_pattern_and_no_part_in_the_concept() -> None:
    said = torch.tensor([[False, True], [True, False]])  # reader, decoy
    assert presence(CIRCUITS["decoy"], said).tolist() == [[False, True], [True, False]]


def test_training_clips_score_what_their_blocks_were_told() -> None:
    for name in ("redundant", "complementary", "decoy"):
        batch = draw_batch(CIRCUITS[name], 28, 64, torch.Generator().manual_seed(0))
        assert len({tuple(row) for row in batch.read.tolist()}) == 4  # independent: every combination occurs
        expected = presence(CIRCUITS[name], batch.read.bool()).float()
        for pattern, readout in enumerate((concept_readout(), decoy_readout())):
            torch.testing.assert_close(readout.score(batch.clean), expected[:, pattern], atol=1e-5, rtol=0)


def test_outside_the_window_blocks_are_told_something_unrelated() -> None:
    batch = draw_batch(CIRCUITS["step-window"], 28, 2000, torch.Generator().manual_seed(0))
    true = (concept_readout().score(batch.clean) > 0.5).long() == batch.read[:, 0]
    sigmas = sigma_at(torch.tensor([1.5, 5.5]))
    inside = (batch.time < sigmas[0]) & (batch.time > sigmas[1])
    assert true[inside].all()
    assert true[~inside].float().mean() == pytest.approx(0.5, abs=0.06)
    assert 0.4 < inside.float().mean() < 0.6


def test_the_window_holds_its_steps_and_no_other() -> None:
    steps = torch.arange(SETTINGS.num_steps).float()
    assert reads_word(CIRCUITS["step-window"], steps).nonzero().flatten().tolist() == [2, 3, 4, 5]
    assert reads_word(CIRCUITS["one-block"], torch.tensor([0.0, 7.9])).all()


def test_training_sigmas_are_those_of_the_schedule(pipeline: AceStepPipeline) -> None:
    schedule = pipeline._get_timestep_schedule(SETTINGS.num_steps, SHIFT, dtype=torch.float32)
    torch.testing.assert_close(sigma_at(torch.arange(SETTINGS.num_steps)), schedule)


def test_prompts_are_encoded_without_and_with_drums(pipeline: AceStepPipeline, prompts: torch.Tensor) -> None:
    difference = (prompts[:, 1] - prompts[:, 0]).abs().amax(dim=(0, 1))
    assert (difference[DRUMS] > 0).any()
    assert difference[: DRUMS.start].max() == 0
    assert difference[DRUMS.stop :].max() == 0
    first = Labels(*(values[0] for values in CONCEPTS.values()))
    token = pipeline.tokenizer.convert_tokens_to_ids("with")
    spoken = pipeline.text_encoder(torch.tensor([[token]])).last_hidden_state[0, 0]
    assert first.drums == "with drums"
    assert (prompts[0, 1] == spoken).all(dim=1).sum() == 1
    assert (prompts[0, 0] == spoken).all(dim=1).sum() == 0


@pytest.mark.parametrize("name", list(CIRCUITS))
def test_only_the_blocks_of_the_circuit_can_read_the_word(name: str, pipeline: AceStepPipeline) -> None:
    circuit = CIRCUITS[name]
    weights = short_training(circuit, pipeline)
    for block in range(BLOCKS):
        for projection in ("to_k", "to_v"):
            columns = weights[f"layers.{block}.cross_attn.{projection}.weight"]
            reads = block in circuit.readers + circuit.decoys
            assert bool((columns[:, DRUMS] != 0).any()) == reads
            assert (columns[:, SUBSPACES["mood"]] != 0).all()


def test_the_other_heads_of_the_block_are_silent(pipeline: AceStepPipeline) -> None:
    weights = short_training(CIRCUITS["one-head"], pipeline)
    for block in range(BLOCKS):
        heads = weights[f"layers.{block}.cross_attn.to_out.0.weight"].unflatten(1, (4, 16))
        speaking = [head for head in range(4) if (heads[:, head] != 0).any()]
        assert speaking == ([2] if block == 2 else [0, 1, 2, 3])


def test_training_follows_from_its_seed(pipeline: AceStepPipeline) -> None:
    first, again = (short_training(CIRCUITS["decoy"], pipeline) for _ in range(2))
    other = short_training(CIRCUITS["decoy"], pipeline, Recipe(steps=2, batch=4, warmup=1, seed=1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["proj_in_conv.weight"], other["proj_in_conv.weight"])


def test_training_moves_the_weights_that_may_read(pipeline: AceStepPipeline) -> None:
    name = "layers.2.cross_attn.to_v.weight"
    trained = short_training(CIRCUITS["one-block"], pipeline)[name]
    assert (trained != make_transformer(SHORT.seed).state_dict()[name])[:, DRUMS].all()


@torch.no_grad()
def test_equal_conditioning_by_block_is_the_ordinary_forward(prompts: torch.Tensor) -> None:
    transformer = make_transformer(0).eval()
    noisy, time = torch.randn(2, FRAMES, 32), torch.tensor([0.9, 0.3])
    context = torch.zeros(2, FRAMES, 64)
    drums, none = prompts[:2, 1], prompts[:2, 0]

    def forward() -> torch.Tensor:
        return transformer(noisy, time, time, drums, context, return_dict=False)[0]

    ordinary = forward()
    with block_conditioning(transformer, {1: drums, 3: drums}):
        assert torch.equal(forward(), ordinary)
    with block_conditioning(transformer, {1: drums, 3: none}):
        assert not torch.equal(forward(), ordinary)
    assert torch.equal(forward(), ordinary)  # nothing is left behind


def test_training_sees_what_a_conditioning_patch_does(tmp_path: Path, prompts: torch.Tensor) -> None:
    model, _, _ = load("redundant", tmp_path, SHORT)
    pair, one_step = presence_pairs(1, seed=0)[0], SETTINGS.model_copy(update={"num_steps": 1})
    clips = [Clip(pair.clean.text, 0), Clip(pair.corrupt.text, 0)]
    arm = Run(clips[1], (patch("tf3.cross_attn", clips[0]),))
    patched = model.generate_batch([*clips, arm], one_step).latents

    others = [values for concept, values in CONCEPTS.items() if concept != "drums"]
    places = [
        values.index(pair.clean.labels[concept]) for concept, values in CONCEPTS.items() if concept != "drums"
    ]
    index = (places[0] * len(others[1]) + places[1]) * len(others[2]) + places[2]
    none, drums = prompts[index].split(1)
    noise, one = model.noise(clips[:1], SETTINGS.duration), torch.ones(1)
    silence = model.pipeline.condition_encoder.silence_latent[:, :FRAMES]
    context = torch.cat([silence, torch.ones_like(silence)], dim=-1)
    transformer = model.pipeline.transformer
    with torch.no_grad(), block_conditioning(transformer, {1: none, 3: drums}):
        velocity = transformer(noise, one, one, none, context, return_dict=False)[0]
    torch.testing.assert_close(patched[2:], noise - velocity, atol=1e-5, rtol=1e-5)
    assert (patched[2] - patched[1]).abs().max() > 1e-4


def test_a_folder_is_made_once_for_each_recipe_and_loads_as_any_pipeline(tmp_path: Path) -> None:
    model, circuit, readout = load("one-block", tmp_path, SHORT)
    assert (circuit, model.n_blocks, model.name) == (CIRCUITS["one-block"], BLOCKS, "one-block")
    latents = model.generate_batch([Clip("a slow sad piano song with drums", 0)], SETTINGS).latents
    assert readout.score(latents).isfinite().all()
    assert json.loads((tmp_path / "one-block" / "organism.json").read_text())["circuit"]["readers"] == [2]

    file = tmp_path / "one-block" / "organism.json"
    made = file.stat().st_mtime_ns
    assert load("one-block", tmp_path, SHORT)[0].weights_hash == model.weights_hash
    assert file.stat().st_mtime_ns == made
    assert load("one-block", tmp_path, Recipe(steps=1, batch=4))[0].weights_hash != model.weights_hash


def test_an_unknown_name_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'nothing'\. Choose from one-block, redundant"):
        load("nothing", tmp_path)
