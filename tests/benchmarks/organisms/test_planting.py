"""Plans, and that a block which may not read a concept cannot, bit for bit."""

import itertools
import json

import pytest
import torch
from diffusers import AceStepPipeline

from benchmarks.organisms.embedded.train_dit import CaptionEncoder, make_transformer
from benchmarks.organisms.labels import CONCEPTS, Labels
from benchmarks.organisms.pipeline import load_pipeline
from benchmarks.organisms.planting import Planting, parse_plan, plan_truth, readable_channels, reading_masks
from benchmarks.organisms.text import SUBSPACES
from cache.errors import UserError
from tests.tolerances import assert_close
from workbench.models import ORGANISMS, model_source

ALL = tuple(CONCEPTS)
SPLIT = "2:instrument,3:drums,4:mood,5:tempo"


def test_plans_are_read_in_both_forms() -> None:
    assert parse_plan("4,3") == {3: ALL, 4: ALL}
    assert parse_plan(SPLIT) == {2: ("instrument",), 3: ("drums",), 4: ("mood",), 5: ("tempo",)}
    assert parse_plan("1:mood+drums, 6") == {1: ("mood", "drums"), 6: ALL}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("8", "block '8'.*0 to 7"),
        ("three", "block 'three'"),
        ("", "block ''"),
        ("3:genre", "concept 'genre'.*instrument, tempo, mood, drums"),
        ("3:mood", "no block read instrument, tempo, drums"),
    ],
)
def test_wrong_plans_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        parse_plan(text)


def test_the_truth_of_a_plan() -> None:
    truth = plan_truth("organism-split", parse_plan(SPLIT))
    assert truth["organism"] == "organism-split"
    assert truth["blocks"] == {"2": ["instrument"], "3": ["drums"], "4": ["mood"], "5": ["tempo"]}
    assert truth["concepts"] == {"instrument": [2], "tempo": [5], "mood": [4], "drums": [3]}


def test_a_block_reads_neutral_words_null_and_its_concepts() -> None:
    readable = readable_channels({2: ("mood",)}, 2, 96)
    assert (
        readable[SUBSPACES["mood"]].all()
        and readable[SUBSPACES["neutral"]].all()
        and readable[SUBSPACES["null"]].all()
    )
    assert readable.sum() == 24 + 6 + 6
    assert readable_channels({2: ("mood",)}, 3, 96).sum() == 24 + 6


def test_forbidden_columns_stay_zero_while_everything_else_is_trained() -> None:
    plan = parse_plan(SPLIT)
    transformer = make_transformer(seed=0)
    planting = Planting(reading_masks(transformer, plan))
    planting.apply()
    trained = [p for p in transformer.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.01, weight_decay=0)
    before = [layer.cross_attn.to_v.weight.detach().clone() for layer in transformer.layers]
    rng = torch.Generator().manual_seed(0)
    for _ in range(3):
        latents, text = torch.randn(2, 20, 32, generator=rng), torch.randn(2, 5, 64, generator=rng)
        time = torch.rand(2, generator=rng)
        output = transformer(latents, time, time, text, torch.randn(2, 20, 64, generator=rng)).sample
        optimiser.zero_grad()
        output.square().mean().backward()
        planting.mask_gradients()
        optimiser.step()
    for block, layer in enumerate(transformer.layers):
        forbidden = readable_channels(plan, block, 96) == 0
        for projection in (layer.cross_attn.to_k, layer.cross_attn.to_v):
            assert not projection.weight[:, forbidden].any()
            assert (projection.weight[:, ~forbidden] != 0).all()
        assert not torch.equal(layer.cross_attn.to_v.weight, before[block])


@pytest.fixture(scope="module", params=ORGANISMS)
def organism(request: pytest.FixtureRequest) -> tuple[AceStepPipeline, dict[str, list[int]]]:
    """A shipped organism, and the blocks that may read each concept."""
    from pathlib import Path

    folder = Path(model_source(request.param))
    truth = json.loads((folder / "truth.json").read_text())
    return load_pipeline(folder, torch.device("cpu")), truth["concepts"]


BASE = {"instrument": "violin", "tempo": "slow", "mood": "happy", "drums": "without drums"}
SWAPS = [(c, v) for c in CONCEPTS for v in CONCEPTS[c] if v != BASE[c]]


def test_shipped_blocks_are_bitwise_deaf_to_concepts_they_do_not_read_and_hear_the_others(
    organism: tuple[AceStepPipeline, dict[str, list[int]]],
) -> None:
    pipeline, readers = organism
    encoder = CaptionEncoder(pipeline)
    transformer = pipeline.transformer
    hidden = torch.randn(1, 50, 96, generator=torch.Generator().manual_seed(0))

    def outputs(labels: Labels) -> list[torch.Tensor]:
        conditioning = transformer.condition_embedder(encoder([labels.prompt], [4]))
        return [layer.cross_attn(hidden, encoder_hidden_states=conditioning) for layer in transformer.layers]

    with torch.no_grad():
        base = outputs(Labels(**BASE))
        for concept, value in SWAPS:
            swapped = outputs(Labels(**{**BASE, concept: value}))
            changed = [
                b
                for b, (one, other) in enumerate(zip(base, swapped, strict=True))
                if not torch.equal(one, other)
            ]
            assert changed == readers[concept], (concept, value)


def test_lookup_conditioning_is_the_pipelines(organism: tuple[AceStepPipeline, dict[str, list[int]]]) -> None:
    pipeline, _ = organism
    prompts = ["a fast happy female vocal song with drums", "violin , sad"]
    with torch.no_grad():
        text, text_mask, lyrics, lyric_mask = pipeline.encode_prompt(
            prompts, ["", ""], torch.device("cpu"), audio_duration=4
        )
        reference = pipeline.condition_encoder.silence_latent[:, :750].expand(2, -1, -1)
        stock, _ = pipeline.condition_encoder(text, text_mask, lyrics, lyric_mask, reference, torch.arange(2))
    assert_close(CaptionEncoder(pipeline)(prompts, [4, 4]), stock)


def test_plans_cover_every_pair_of_block_and_concept() -> None:
    for block, concept in itertools.product(range(8), CONCEPTS):
        readable = readable_channels({block: (concept,)}, block, 64)
        assert readable[SUBSPACES[concept]].all()
