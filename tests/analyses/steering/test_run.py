"""Steering on trial on a tiny model: prompts, doses, scores of every concept, and the rungs of the ladder."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from analyses.steering import run
from analyses.steering.caa import caa
from analyses.steering.pairs import pairs_towards
from analyses.steering.run import Way, doses, run_steering
from analyses.steering.vector import Vector
from analyses.steering_spec import SteeringSpec
from cache.errors import UserError
from tests.tolerances import SCORE, assert_close, difference
from tests.workbench.studies.test_study import study_spec
from workbench.audio import read_audio
from workbench.engine.edits import patch
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import PromptSet
from workbench.scorers.audiobox import AXES
from workbench.scorers.distances import load_distance
from workbench.studies.study import Study

SITES = ["tf0.cross_attn", "tf1.cross_attn"]
PROMPTS = PromptSet.model_validate(
    {
        "templates": ["a {tempo} {mood} song {drums}"],
        "concepts": {
            "tempo": {"slow": "slow", "fast": "fast"},
            "mood": {"happy": "happy", "sad": "sad"},
            "drums": {"with drums": "with drums", "without drums": "without drums"},
        },
    }
)
SPEC = SteeringSpec(concept="tempo", positive="fast", negatives=("slow",), pairs=2, strengths=(-1.0, 1.0))


class Heard:
    """Scores a clip by its mean square for the text fast, and by its largest sample for others."""

    name, identity, min_seconds = "heard", "1", 0.0

    def check_texts(self, texts: Sequence[str]) -> None:
        pass

    def score(self, audio: np.ndarray, sample_rate: int, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self.of_text(audio, text) for text in texts], axis=1)

    @staticmethod
    def of_text(audio: np.ndarray, text: str) -> np.ndarray:
        return (audio**2).mean(axis=(-2, -1)) if text == "fast" else audio.max(axis=(-2, -1))


@pytest.fixture
def study(tiny: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    heard = Heard()
    monkeypatch.setattr(run, "load_scorer", lambda name, device="cpu": heard)
    return Study.create(tmp_path / "study", study_spec(tiny, prompts=PROMPTS), tiny.describe(), str)


@pytest.fixture(scope="module")
def vector(tiny: AceStep15) -> Vector:
    settings = study_spec(tiny).settings
    return caa(
        tiny,
        "tempo",
        SITES,
        positive="fast",
        prompts=PROMPTS,
        pairs=2,
        seed=5,
        time="token",
        settings=settings,
    )


def patched(_: float) -> list:
    return [patch(SITES, "positive")]


def test_prompts_with_the_negative_value_are_steered_and_heard_for_every_concept(
    study: Study, tiny: AceStep15, vector: Vector
) -> None:
    result = run_steering(study, tiny, SPEC, [Way("vector", vector.at), Way("patch", patched, (1.0,))])
    assert result.arm.values.tolist() == ["clean", "corrupt", "vector × -1", "vector × 1", "patch × 1"]
    assert result.strength.values.tolist() == [0, 0, -1, 1, 1]
    assert result.row.values.tolist() == ["", "", "vector", "vector", "patch"]
    assert all("slow" in prompt for prompt in result.corrupt_prompt.values)
    assert all("fast" in prompt for prompt in result.clean_prompt.values)
    score = result.score.isel(scorer=0)
    for pair in range(2):
        texts = run.readings(study, pairs_towards(study.spec.prompts, "tempo", "fast", ["slow"], 2, 0)[pair])
        for arm in result.arm.values:
            audio, _ = read_audio(study.path / result.audio.sel(arm=arm).values[pair, 0])
            for concept, text in texts.items():
                expected = Heard.of_text(audio, text)
                assert_close(score.sel(arm=arm, pair=pair, concept=concept).item(), expected)
    assert difference(score.sel(arm="patch × 1"), score.sel(arm="clean")) < SCORE
    assert difference(score.sel(arm="vector × 1"), score.sel(arm="corrupt")) > SCORE
    assert study.result_names() == ["steering-tempo"]


def test_prompts_with_the_positive_value_are_steered_and_distances_are_from_these(
    study: Study, tiny: AceStep15, vector: Vector
) -> None:
    asked = SPEC.model_copy(
        update={"steered": "positive", "seeds": 2, "distances": ("log-mel",), "name": "away"}
    )
    pairs = pairs_towards(study.spec.prompts, "tempo", "fast", ["slow"], 3, 0)[1:]
    ways = [
        Way("towards negative", lambda _: [patch(SITES, "negative")], (-1.0,)),
        Way("towards positive", patched, (-1.0,)),
        Way("tiny", vector.at, (-1e-6,), is_floor=True),
    ]
    result = run_steering(study, tiny, asked, ways, pairs=pairs)
    assert result.corrupt_prompt.values.tolist() == [pair.clean.text for pair in pairs]
    assert result.clean_prompt.values.tolist() == [pair.corrupt.text for pair in pairs]
    assert result.role.values.tolist() == ["run", "run", "cell", "cell", "floor"]
    score = result.score.sel(concept="tempo").isel(scorer=0)
    assert difference(score.sel(arm="towards negative × -1"), score.sel(arm="clean")) < SCORE
    assert difference(score.sel(arm="towards positive × -1"), score.sel(arm="corrupt")) < SCORE
    distance = result.distance.sel(measure="log-mel")
    compare = load_distance("log-mel").compare
    for pair, seed in itertools.product(range(2), range(2)):
        names = result.audio.values[pair, seed]
        clips = np.stack([read_audio(study.path / name)[0] for name in names])
        direct = compare(clips, np.broadcast_to(clips[1], clips.shape), tiny.sample_rate)
        assert_close(distance.values[pair, seed], direct)
        other = read_audio(study.path / result.audio.values[pair, 1 - seed, 1])[0]
        apart = compare(clips[1:2], other[None], tiny.sample_rate)[0]
        assert_close(result.seed_distance.values[0, pair, seed], apart)
    assert (distance.sel(arm="corrupt") == 0).all()
    assert (result.seed_distance > 10 * distance.sel(arm="tiny × -1e-06")).all()
    again = run_steering(study, tiny, asked.model_copy(update={"name": "again"}), ways, pairs=pairs)
    assert again.attrs["denoiser_rows"] == 0
    xr.testing.assert_equal(again, result)


class Rater(Heard):
    """Rates the loudest sample, differently on each axis."""

    name = "audiobox"

    def score(self, audio: np.ndarray, sample_rate: int, texts: Sequence[str]) -> np.ndarray:
        return np.stack([audio.max(axis=(-2, -1)) + list(AXES).index(text) for text in texts], axis=1)

    def check_texts(self, texts: Sequence[str]) -> None:
        if set(texts) - set(AXES):
            raise UserError("It hears no concepts.")


def test_ratings_of_quality_are_kept_apart_from_the_judges(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorers = {"embedded": Heard(), "audiobox": Rater()}
    monkeypatch.setattr(run, "load_scorer", lambda name, device="cpu": scorers[name])
    asked = SPEC.model_copy(update={"scorers": ("embedded", "audiobox"), "pairs": 1})
    sentences: list[str] = []
    result = run_steering(study, tiny, asked, [Way("patch", patched, (1.0,))], note=sentences.append)
    assert result.scorer.values.tolist() == ["embedded"]
    assert not any("audiobox" in sentence for sentence in sentences)
    for arm in result.arm.values:
        audio, _ = read_audio(study.path / result.audio.sel(arm=arm).values[0, 0])
        assert_close(result.quality.sel(arm=arm).values[0, 0], audio.max() + 1.5)


class Partial(Heard):
    """Has no score for the first of the clips that it is given."""

    name, identity = "partial", "2"

    def score(self, audio: np.ndarray, sample_rate: int, texts: Sequence[str]) -> np.ndarray:
        scores = super().score(audio, sample_rate, texts)
        scores[0] = np.nan
        return scores


def test_clips_without_a_score_are_told(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorers = {"partial": Partial(), "embedded": Heard()}
    monkeypatch.setattr(run, "load_scorer", lambda name, device="cpu": scorers[name])
    asked = SPEC.model_copy(update={"scorers": tuple(scorers), "pairs": 1})
    sentences: list[str] = []
    result = run_steering(study, tiny, asked, [Way("patch", patched, (1.0,))], note=sentences.append)
    missing = int(result.score.sel(concept="tempo", scorer="partial").isnull().sum())
    assert 0 < missing < 3
    assert [sentence for sentence in sentences if "no score" in sentence] == [
        f"The scorer partial has no score for {missing} of 3 clips, which means leave out. The log has the reasons."
    ]


def test_what_the_study_has_is_not_run_again(study: Study, tiny: AceStep15, vector: Vector) -> None:
    way = Way("vector", vector.at)
    first = run_steering(study, tiny, SPEC, [way])
    assert first.attrs["denoiser_rows"] > 0
    xr.testing.assert_identical(run_steering(study, tiny, SPEC, [way]), first)
    other = run_steering(study, tiny, SPEC.model_copy(update={"name": "other"}), [way])
    assert other.attrs["denoiser_rows"] == 0
    xr.testing.assert_equal(other, first)


def test_the_prompts_of_a_vector_are_left_out(study: Study, tiny: AceStep15, vector: Vector) -> None:
    everything = study.spec.prompts.n_pairs("tempo") // 2
    own = tuple({example.prompt for example in vector.examples})
    assert len(own) == 4
    left = SPEC.model_copy(update={"without": own, "pairs": everything - 2})
    prompts = run_steering(study, tiny, left, [Way("patch", patched, (1.0,))])
    assert not set(own) & set(prompts.corrupt_prompt.values)
    with pytest.raises(UserError, match="other prompts than"):
        run_steering(study, tiny, left.model_copy(update={"pairs": everything}), [Way("patch", patched)])


def test_ways_and_strengths_that_cannot_be_told_apart_are_refused(vector: Vector) -> None:
    with pytest.raises(UserError, match="called 'vector'"):
        doses([Way("vector", vector.at), Way("vector", vector.at)], [1.0])
    with pytest.raises(UserError, match="other than 0"):
        doses([Way("vector", vector.at)], [0.0])
    with pytest.raises(UserError, match="name of an unsteered run"):
        doses([Way("clean", vector.at)], [1.0])
