"""Directions of descriptors steer the descriptor: in sound, above and below what random vectors do."""

from dataclasses import replace

import numpy as np
import pytest

from analyses.steering.descriptor import MeasuredClips, measured_clips
from analyses.steering.descriptor_effects import descriptor_effects
from cache.errors import UserError
from tests.tolerances import assert_close, difference
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models import load_model
from workbench.models.base import AudioDiffusionModel

SETTINGS = GenerationSettings(duration=1.0)
PROMPTS = [
    f"a slow happy {instrument} song {drums} drums"
    for instrument in ("flute", "piano", "guitar", "trumpet")
    for drums in ("with", "without")
]
DARK = [Clip("a slow sad guitar song without drums", 900)]
BRIGHT = [Clip("a fast sad trumpet song with drums", 901)]


@pytest.fixture(scope="module")
def organism() -> AudioDiffusionModel:
    return load_model("organism-shared")


@pytest.fixture(scope="module")
def measured(organism: AudioDiffusionModel) -> MeasuredClips:
    clips = [Clip(prompt, seed) for seed, prompt in enumerate(PROMPTS)]
    return measured_clips(
        organism, "brightness", ["tf3.block", "tf4.block"], clips, time="token", settings=SETTINGS
    )


def test_plus_makes_a_dark_song_brighter_and_minus_a_bright_one_darker(
    organism: AudioDiffusionModel, measured: MeasuredClips
) -> None:
    """Random vectors of the same norm make dark songs brighter, too, but less."""
    vector = measured.vector()
    up = descriptor_effects(organism, vector, DARK, [2.0], randoms=6).isel(strength=0)
    down = descriptor_effects(organism, vector, BRIGHT, [-2.0], randoms=6).isel(strength=0)
    assert up.effect > up.random_effect.max()
    assert down.effect < down.random_effect.min()


def test_effects_are_mean_changes_from_the_unsteered_clips(tiny64: AudioDiffusionModel) -> None:
    settings = GenerationSettings(duration=1.0, num_steps=2)
    clips = [Clip("a song", 1), Clip("another song", 2), Clip("a song", 3)]

    def level(samples: np.ndarray, sample_rate: int) -> float:
        assert sample_rate == tiny64.sample_rate
        return float(np.abs(samples).mean())

    vector = measured_clips(tiny64, level, "tf1.block", clips, settings=settings).vector()
    found = descriptor_effects(tiny64, vector, clips, [20.0, -10.0], descriptor=level, randoms=3, unit="norm")
    for number, clip in enumerate(clips):
        steered = [
            tiny64.generate(clip, settings, edits=vector.at(by, unit="norm")).samples
            for by in (0.0, 20.0, -10.0)
        ]
        alone = [level(samples.mean(axis=0), tiny64.sample_rate) for samples in steered]
        of_clip = found.isel(clip=number)
        values = [float(of_clip.unsteered), *(of_clip.unsteered + of_clip.change).values]
        assert_close(np.float32(values), np.float32(alone))
    assert difference(found.change.values, np.zeros((2, 3))) > 1e-4
    assert_close(found.effect.values, found.change.mean("clip").values)
    assert (found.effect_lo < found.effect).all() and (found.effect < found.effect_hi).all()
    assert_close(found.null_hi.values, found.random_effect.quantile(0.975, "random").values)


def test_a_vector_of_another_concept_needs_a_descriptor(tiny64: AudioDiffusionModel) -> None:
    clips = [Clip("a song", seed) for seed in range(3)]
    settings = GenerationSettings(duration=1.0, num_steps=1)
    vector = measured_clips(tiny64, "level", "tf1.block", clips, settings=settings).vector()
    with pytest.raises(UserError, match="Unknown descriptor 'mood'"):
        descriptor_effects(tiny64, replace(vector, concept="mood"), clips)
