"""Patching: the impact against closed forms, and the sweep on a tiny model with a scorer of known answers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from analyses import patching
from analyses.patching import PatchingSpec, impact, patch_arms, run_patching
from cache.errors import UserError
from tests.workbench.test_study import study_spec
from workbench.audio import read_audio
from workbench.models.ace_step import AceStep15
from workbench.study import Study


def scores(clean: Sequence[float], corrupt: Sequence[float], arm: Sequence[float]) -> xr.DataArray:
    """One concept, one seed, a pair for each entry."""
    values = np.stack([clean, corrupt, arm], axis=-1)[None, :, None, :]
    coords = {
        "concept": ["tempo"],
        "pair": range(len(clean)),
        "seed": [7],
        "arm": ["clean", "corrupt", "tf0"],
    }
    return xr.DataArray(values, coords=coords, dims=tuple(coords))


def test_impact_is_the_recovered_share() -> None:
    result = impact(scores([0.9, 0.8, 1.0, 0.9], [0.1, 0.2, 0.0, 0.1], [0.5, 0.4, 0.6, 0.3]))
    assert result.impact.sel(concept="tempo").values == pytest.approx([1.0, 0.0, (0.45 - 0.1) / 0.8])
    low, high = (float(result[f"impact_{end}"].sel(concept="tempo", arm="tf0")) for end in ("lo", "hi"))
    assert low < (0.45 - 0.1) / 0.8 < high
    assert float(result.denominator.sel(concept="tempo")) == pytest.approx(0.8)
    assert int(result.n.sel(concept="tempo")) == 4
    assert bool(result.defined.sel(concept="tempo"))


def test_an_arm_that_changes_nothing_has_exactly_no_impact() -> None:
    corrupt = [0.1, 0.2, 0.05, 0.1]
    result = impact(scores([0.9, 0.8, 1.0, 0.9], corrupt, corrupt)).sel(concept="tempo", arm="tf0")
    assert (float(result.impact), float(result.impact_lo), float(result.impact_hi)) == (0.0, 0.0, 0.0)


def test_a_denominator_that_may_be_zero_makes_the_impact_undefined() -> None:
    result = impact(scores([0.5, 0.1, 0.9, 0.4], [0.4, 0.3, 0.6, 0.6], [0.5, 0.5, 0.5, 0.5]))
    assert not bool(result.defined.sel(concept="tempo"))
    assert np.isnan(result.impact).all()
    assert float(result.denominator_lo.sel(concept="tempo")) < 0


def test_rows_without_a_score_do_not_count() -> None:
    whole = impact(scores([0.9, 0.8, 1.0], [0.1, 0.2, 0.0], [0.5, 0.4, 0.6]))
    holed = impact(scores([0.9, 0.8, 1.0, 0.7], [0.1, 0.2, 0.0, 0.1], [0.5, 0.4, 0.6, np.nan]))
    xr.testing.assert_equal(holed, whole)


class LoudnessOfRow:
    """Scores a clip by its mean square: a number that the test can compute again from the FLAC."""

    name = "loudness"

    def score(self, audio: np.ndarray, sample_rate: int, texts: Sequence[str]) -> np.ndarray:
        return np.repeat((audio**2).mean(axis=(1, 2))[:, None], len(texts), axis=1)


@pytest.fixture
def study(tiny: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(patching, "load_scorer", lambda name: LoudnessOfRow())
    return Study.create(tmp_path / "study", study_spec(tiny), tiny.describe())


def test_the_sweep_labels_scores_and_audio(study: Study, tiny: AceStep15) -> None:
    spec = PatchingSpec(concepts=("tempo",), pairs=2, seeds=2, sets=((0, 1),))
    result = run_patching(study, tiny, spec)
    assert list(result.arm.values) == ["clean", "corrupt", "tf0", "tf1", "tf0+tf1", "all"]
    assert result.score.dims == ("concept", "pair", "seed", "arm")
    assert not np.isnan(result.score).any()
    assert not set(result.seed.values) & set(study.clips["seed"]), "pairs have seeds of their own"
    for file, score in zip(result.audio.values.flat, result.score.values.flat, strict=True):
        audio, rate = read_audio(study.path / file)
        assert rate == 16000
        assert score == pytest.approx(float((audio**2).mean()), rel=1e-2)
    np.testing.assert_array_equal(result.score.sel(arm="all"), result.score.sel(arm="clean"))
    np.testing.assert_array_equal(result.score.sel(arm="tf0+tf1"), result.score.sel(arm="clean"))
    assert (result.clean_value != result.corrupt_value).all()
    assert result.attrs["kind"] == "patching"


def test_equal_latents_are_heard_once(study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    decode = tiny.decode
    monkeypatch.setattr(tiny, "decode", lambda latents: decoded.append(len(latents)) or decode(latents))
    run_patching(study, tiny, PatchingSpec(concepts=("tempo",), pairs=1, seeds=1))
    assert decoded == [4], "clean = all, and corrupt, tf0, tf1 differ"


def test_sweeps_with_other_specs_keep_their_audio_apart(study: Study, tiny: AceStep15) -> None:
    files = [
        set(
            run_patching(
                study, tiny, PatchingSpec(concepts=("tempo",), pairs=1, seeds=1, mode=mode)
            ).audio.values.flat
        )
        for mode in ("conditioning", "output")
    ]
    assert not files[0] & files[1]
    assert all((study.path / file).is_file() for file in files[0] | files[1])


def test_arms_take_the_part_and_mode_asked_for() -> None:
    arms = patch_arms(PatchingSpec(mode="output", part="mlp", sets=((0, 2),)), 3)
    assert list(arms) == ["tf0", "tf1", "tf2", "tf0+tf2", "all"]
    assert arms["tf0+tf2"].sites == ("tf0.mlp", "tf2.mlp")
    assert all(arm.mode == "output" for arm in arms.values())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"concepts": ("genre",)}, "Unknown concept 'genre'"),
        ({"sets": ((0, 5),)}, "tf5 does not exist"),
        ({"pairs": 99}, "99 pairs of tempo were asked for"),
        ({"sets": ((0,),)}, "at least two different"),
    ],
)
def test_bad_requests_get_one_sentence(study: Study, tiny: AceStep15, values: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        run_patching(study, tiny, PatchingSpec.model_validate({"concepts": ("tempo",)} | values))
    assert not (study.path / "audio").exists()
