"""Published vectors steer ACE-Step v1 like its own, and are refused where they do not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyses.steering.published import vector_from_published
from analyses.steering.vector import Vector, load_vector
from cache.errors import UserError
from tests.tolerances import assert_close
from tests.workbench.artefacts import builders
from workbench.engine.runs import Clip
from workbench.models.ace_step import AceStep15
from workbench.models.ace_step_v1.adapter import AceStepV1

WIDTH = 32  # of the tiny model
SITES = ("tf0.cross_attn", "tf1.cross_attn")


def published_caa(folder: Path, **settings: Any) -> str:
    vectors = builders.caa_vectors({"tf0": WIDTH, "tf1": WIDTH})
    return str(builders.write_caa(folder, vectors, audio_duration=1, **settings))


def published_austeer(folder: Path) -> str:
    draw = np.random.default_rng(1)
    betas = draw.integers(-20, 21, (builders.STEPS, 2, WIDTH)) / 20
    scores = {
        step: {f"tf{block}": {"betas": beta, "scores": np.abs(beta)} for block, beta in enumerate(of_step)}
        for step, of_step in enumerate(betas)
    }
    return str(builders.write_austeer(folder, scores))


@pytest.fixture
def vector(tiny_v1_64: AceStepV1, tmp_path: Path) -> Vector:
    return vector_from_published(published_caa(tmp_path / "caa"), tiny_v1_64)


def test_its_directions_are_the_published_ones(vector: Vector) -> None:
    vectors = builders.caa_vectors({"tf0": WIDTH, "tf1": WIDTH})
    assert list(vector.directions) == list(SITES)
    for block, site in enumerate(SITES):
        for step in range(builders.STEPS):
            for number, name in enumerate(("cond", "null")):
                found = vector.directions[site].sel({"pass": name, "step": step}).values
                np.testing.assert_array_equal(found, vectors[step, number][f"tf{block}"][0])


def test_it_says_what_is_known_of_it(vector: Vector, tiny_v1_64: AceStepV1) -> None:
    assert (vector.method, vector.concept, vector.positive, vector.negative) == (
        "caa",
        "rock_genre",
        "jazz",
        "rock",
    )
    assert vector.unit == "a direction of length 1"
    assert all(norms.isnull().all() for norms in vector.raw_norms.values()), "unknown"
    assert vector.reliability["split_half"].isnull().all()
    assert (vector.settings.duration, vector.settings.num_steps, vector.settings.guidance_scale) == (1, 3, 5)
    sampling = vector.sampling
    assert (sampling.options["guidance_interval"], sampling.options["erg_lyric"]) == (1.0, False)
    assert (sampling.options["cfg_type"], sampling.options["omega"]) == ("apg", 10.0)
    assert sampling.passes == (("cond", "null"),) * 3
    assert vector.model["weights_hash"] == tiny_v1_64.weights_hash
    assert "without lyrics" in vector.provenance["note"]
    assert vector.provenance["prompts"] == "jazz song, {p} (+), rock song, {p} (−)"


def test_it_steers_from_its_file(
    vector: Vector, tiny_v1_64: AceStepV1, tiny: AceStep15, tmp_path: Path
) -> None:
    back = load_vector(vector.save(tmp_path / "pack"))
    assert [edit.hash for edit in back.at(2.0)] == [edit.hash for edit in vector.at(2.0)]
    clip = Clip("a sad song", 3)
    plain, steered = (
        tiny_v1_64.generate(clip, back.settings, edits=edits, capture=SITES[0]).activations[SITES[0]]
        for edits in ((), back.at(2.0, passes="separate"))
    )
    change = (steered - plain).sel(step=0, clip=0)
    expected = 2 * vector.directions[SITES[0]].sel(step=0).values[:, None]
    assert_close(change.values, np.broadcast_to(expected, change.shape))
    with pytest.raises(UserError, match=r"was made on .* but this model is"):
        tiny.generate(clip, back.settings.model_copy(update={"options": {}}), edits=[back.at(2.0)])


def test_vectors_that_are_not_normalised_are_mean_differences(tiny_v1_64: AceStepV1, tmp_path: Path) -> None:
    vectors = builders.caa_vectors({"tf0": WIDTH, "tf1": WIDTH})
    vectors[0, 0]["tf0"][0] *= 3
    folder = builders.write_caa(tmp_path / "caa", vectors, audio_duration=1, normalize_sv=False)
    vector = vector_from_published(str(folder), tiny_v1_64)
    assert "mean difference" in vector.unit
    assert vector.raw_norms[SITES[0]].values[0] == pytest.approx([3, 1, 1])


def test_austeer_keeps_the_largest_of_the_chosen_sites(tiny_v1_64: AceStepV1, tmp_path: Path) -> None:
    source = published_austeer(tmp_path / "austeer")
    every = vector_from_published(source, tiny_v1_64, k=2 * WIDTH)
    assert (every.method, every.concept) == ("austeer", "tempo")
    for sites in (SITES, SITES[1:]):
        vector = vector_from_published(source, tiny_v1_64, sites=sites, k=10)
        assert tuple(vector.directions) == sites
        for step in range(builders.STEPS):
            of_step = {"pass": "cond", "step": step}
            kept = np.concatenate([vector.directions[site].sel(of_step).values for site in sites])
            betas = np.concatenate([every.directions[site].sel(of_step).values for site in sites])
            assert np.count_nonzero(kept) == 10
            assert np.abs(kept[kept != 0]).min() >= np.abs(betas[kept == 0]).max()
            np.testing.assert_array_equal(kept[kept != 0], betas[kept != 0])
    assert every.settings.duration == 30.0, "as published, where its settings do not say"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sites": "tf0.mlp"}, "no vectors at tf0.mlp. It has tf0.cross_attn, tf1.cross_attn"),
        ({"sites": "tf7.cross_attn"}, "tf7 does not exist"),
        ({"k": 3}, "k belongs to AUSteer"),
        ({"concept": "weather"}, "unknown concept 'weather'"),
        ({"settings": {"guidance_scale": "high"}}, "invalid settings: guidance_scale must be a number"),
        ({"settings": {"audio_duration": float("nan")}}, "invalid settings: duration"),
        ({"width": 8}, "8 channels at tf0.cross_attn, but .* has 32 there. They belong to another model"),
        ({"blocks": 3}, "tf2 does not exist"),
    ],
)
def test_what_does_not_fit_is_refused(
    tiny_v1_64: AceStepV1, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    widths = {f"tf{block}": options.pop("width", WIDTH) for block in range(options.pop("blocks", 2))}
    settings = {"audio_duration": 1, **options.pop("settings", {})}
    source = builders.write_caa(tmp_path / "caa", builders.caa_vectors(widths), **settings)
    with pytest.raises(UserError, match=words):
        vector_from_published(str(source), tiny_v1_64, **options)


def test_settings_that_are_no_numbers_do_no_harm(tiny_v1_64: AceStepV1, tmp_path: Path) -> None:
    source = published_caa(tmp_path / "caa", odd=float("nan"), text="\x1b")
    vector = vector_from_published(source, tiny_v1_64)
    assert load_vector(vector.save(tmp_path / "pack")).provenance == vector.provenance


@pytest.mark.parametrize("k", [None, 0, 2 * WIDTH + 1, True])
def test_austeer_needs_the_number_of_channels(tiny_v1_64: AceStepV1, tmp_path: Path, k: Any) -> None:
    source = published_austeer(tmp_path / "austeer")
    with pytest.raises(UserError, match="from 1 to 64"):
        vector_from_published(source, tiny_v1_64, k=k)


def test_another_architecture_is_refused(tiny64: AceStep15, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"are of ACE-Step v1; .* is ACE-Step 1.5"):
        vector_from_published(published_caa(tmp_path / "caa"), tiny64)
