"""The sweep behind a map on a tiny model: labels, audio, scores, sharing, and going on where it was cut off."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from pydantic import ValidationError

from analyses.patching import run, sweep
from analyses.patching.arms import Arm, arm_tensors, arms_from_file, patch_arm, set_name
from analyses.patching.asking import asked_spec, tensors_beside
from analyses.patching.contexts import PairContext
from analyses.patching.greedy import grow_sets
from analyses.patching.run import check_patching, custom_arms, run_patching
from analyses.patching.spec import PatchingSpec, Screening
from analyses.patching.stopping import run_pairs
from analyses.patching.sweep import Sweep
from analyses.statistics import too_few_pairs
from cache.errors import UserError
from tests.tolerances import FLOAT32, SCORE, difference
from tests.workbench.studies.test_study import study_spec
from workbench.audio import read_audio
from workbench.engine.edits import Edit, Run, add, patch
from workbench.engine.tensors import load_tensor, save_tensor
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import Pair, Prompt, PromptSet
from workbench.prompts.reading import unknown_words
from workbench.studies.study import Study
from workbench.validation import validated


class Loudness:
    """Scores a clip by its mean square: a number that the test can compute again from the FLAC."""

    name = "loudness"
    identity = "mean square"
    min_seconds = 0.0
    scored = 0

    def check_texts(self, texts: Sequence[str]) -> None:
        if "unknown text" in texts:
            raise UserError("unknown text")

    def score(self, audio: np.ndarray, sample_rate: int, texts: Sequence[str]) -> np.ndarray:
        self.scored += len(audio)
        return np.repeat((audio**2).mean(axis=(1, 2))[:, None], len(texts), axis=1)


class Peak(Loudness):
    """Scores a clip by its largest sample, and fails for the first clip that it is given."""

    name = "peak"
    identity = "largest sample"

    def score(self, audio: np.ndarray, sample_rate: int, texts: Sequence[str]) -> np.ndarray:
        scores = np.repeat(audio.max(axis=(1, 2))[:, None], len(texts), axis=1)
        if self.scored == 0:
            scores[0] = np.nan
        self.scored += len(audio)
        return scores


SCORERS = {"embedded": Loudness, "clap": Peak}


@pytest.fixture
def study(tiny: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    made = {name: scorer() for name, scorer in SCORERS.items()}
    monkeypatch.setattr(run, "load_scorer", lambda name, device="cpu": made[name])
    return Study.create(tmp_path / "study", study_spec(tiny), tiny.describe(), str)


@pytest.fixture
def probed() -> list[int]:
    """Sizes of the one-step batches that tried the memory."""
    return []


@pytest.fixture
def generated(tiny: AceStep15, probed: list[int], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of the batches that were generated for arms."""
    batches: list[int] = []
    generate = tiny.generate_batch

    def counting(runs, settings, *args, **kwargs):
        rows = len(tiny.plan(runs, settings).rows)
        (batches if settings.num_steps > 1 else probed).append(rows)
        return generate(runs, settings, *args, **kwargs)

    monkeypatch.setattr(tiny, "generate_batch", counting)
    return batches


SPEC = PatchingSpec(concepts=("tempo",), pairs=2, seeds=2, sets=((0, 1),), nulls=("unrelated",))


def test_the_map_labels_scores_and_audio(study: Study, tiny: AceStep15) -> None:
    result = run_patching(study, tiny, SPEC)
    assert list(result.arm.values) == [
        "clean", "corrupt", "tf0", "tf1", "tf0+tf1", "tf0 necessity", "tf1 necessity", "tf0+tf1 necessity",
        "tf0 null unrelated", "tf1 null unrelated", "tf0+tf1 null unrelated",
    ]  # fmt: skip
    assert list(result.role.values) == ["run"] * 2 + ["cell"] * 6 + ["null"] * 3
    assert result.block.values.tolist() == [-1, -1, 0, 1, -1, 0, 1, -1, 0, 1, -1]
    assert result.null_of.values.tolist() == [""] * 8 + ["tf0", "tf1", "tf0+tf1"]
    assert result.null_kind.values.tolist() == [""] * 8 + ["unrelated"] * 3
    assert result.window.values.tolist() == ["", ""] + ["{}"] * 9
    assert result.row.sel(arm="tf1 necessity").item() == "tf1"
    assert result.column.sel(arm="tf1 necessity").item() == "necessity"
    assert result.score.dims == ("concept", "pair", "seed", "arm", "scorer")
    assert not np.isnan(result.score).any()
    seeds = result.noise_seed.values
    assert len(np.unique(seeds)) == seeds.size == 4, "every pair has noise of its own"
    assert not set(seeds.flat) & set(study.clips["seed"])
    for file, score in zip(result.audio.values.flat, result.score.values.flat, strict=True):
        audio, rate = read_audio(study.path / file)
        assert rate == 16000
        assert score == pytest.approx(float((audio**2).mean()), rel=1e-6)
    score = result.score.squeeze("scorer", drop=True)
    apart = difference(score.sel(arm="tf0"), score.sel(arm="corrupt"))
    assert apart > 1e-3
    assert difference(score.sel(arm="tf0+tf1"), score.sel(arm="clean")) < FLOAT32
    assert difference(score.sel(arm="tf0+tf1 necessity"), score.sel(arm="corrupt")) < FLOAT32
    assert (result.clean_value != result.corrupt_value).all()
    attrs = result.attrs
    assert (attrs["kind"], attrs["question"], attrs["schema_version"]) == ("patching", "blocks", 6)
    assert study.result_names() == ["patching-blocks"]


def test_arms_share_a_file_where_they_were_one_row_and_not_where_they_came_out_alike(
    study: Study, tiny: AceStep15
) -> None:
    audio = run_patching(study, tiny, SPEC).audio.isel(concept=0, pair=0, seed=0)
    assert audio.sel(arm="tf0+tf1").item() != audio.sel(arm="clean").item(), (
        "computed apart, if to equal latents"
    )
    idle = [
        Arm(direction, "tf1", direction, (add([1.0] * 32, "tf1.mlp", strength=0.0),), direction)
        for direction in ("sufficiency", "necessity")
    ]
    spec = PatchingSpec(question="custom", concepts=("tempo",), pairs=1, custom_arms=custom_arms(idle))
    audio = run_patching(study, tiny, spec, tensors=arm_tensors(idle)).audio.isel(concept=0, pair=0, seed=0)
    assert [audio.sel(arm=arm.name).item() for arm in idle] == [
        audio.sel(arm=run).item() for run in ("corrupt", "clean")
    ]


def test_what_was_run_is_not_run_again(
    study: Study, tiny: AceStep15, generated: list[int], probed: list[int]
) -> None:
    first = run_patching(study, tiny, SPEC)
    assert generated == [2 + 1 + 9] * 4, "clean, corrupt, the unrelated run and nine arms"
    again = run_patching(study, tiny, SPEC)
    assert len(generated) == 4
    xr.testing.assert_identical(first.drop_attrs(), again.drop_attrs())
    assert len(probed) == 2, "memory is tried once, and not where nothing is to be run"
    more = run_patching(study, tiny, SPEC.model_copy(update={"question": "steps", "windows": 3, "nulls": ()}))
    assert generated[4:] == [2 + 12] * 4
    assert list(more.audio.sel(arm="clean").values.flat) == list(first.audio.sel(arm="clean").values.flat)
    wider = run_patching(study, tiny, SPEC.model_copy(update={"seeds": 3, "name": "wider"}))
    assert len(generated) == 10, "the third seed of both pairs"
    np.testing.assert_array_equal(wider.score.isel(seed=slice(2)), first.score)


def test_a_map_goes_on_where_it_was_cut_off(
    study: Study, tiny: AceStep15, generated: list[int], tmp_path: Path
) -> None:
    other = Study.create(tmp_path / "other", study_spec(tiny), tiny.describe(), str)
    whole = run_patching(other, tiny, SPEC)
    generated.clear()
    generate = tiny.generate_batch

    def failing(runs, settings, *args, **kwargs):
        if len(generated) == 3:
            raise KeyboardInterrupt
        return generate(runs, settings, *args, **kwargs)

    tiny.generate_batch = failing  # type: ignore[method-assign]  # the fixture takes it back
    with pytest.raises(KeyboardInterrupt):
        run_patching(study, tiny, SPEC)
    tiny.generate_batch = generate  # type: ignore[method-assign]
    assert study.result_names() == []
    result = run_patching(study, tiny, SPEC)
    assert len(generated) == 4
    xr.testing.assert_identical(result.drop_attrs(), whole.drop_attrs())


def test_small_batches_give_the_same_scores(
    study: Study, tiny: AceStep15, tmp_path: Path, monkeypatch
) -> None:
    whole = run_patching(study, tiny, SPEC)
    monkeypatch.setattr(sweep, "clips_that_fit", lambda model, settings: 4)
    other = Study.create(tmp_path / "other", study_spec(tiny), tiny.describe(), str)
    in_parts = run_patching(other, tiny, SPEC)
    np.testing.assert_allclose(in_parts.score, whole.score, rtol=SCORE)
    assert in_parts.attrs["denoiser_rows"] > whole.attrs["denoiser_rows"]


def test_every_scorer_scores_each_file_once_and_a_failure_is_no_number(study: Study, tiny: AceStep15) -> None:
    run_patching(study, tiny, SPEC)
    loudness = run.load_scorer("embedded")
    scored = loudness.scored
    both = run_patching(study, tiny, SPEC.model_copy(update={"scorers": ("embedded", "clap"), "name": "two"}))
    assert loudness.scored == scored
    assert list(both.scorer.values) == ["embedded", "clap"]
    failed = both.score.sel(scorer="clap").isel(concept=0, pair=0, seed=0)
    assert np.isnan(failed.sel(arm="clean"))
    assert not np.isnan(both.score.isel(pair=1)).any()
    assert int(both.n.sel(scorer="clap").item()) == int(both.n.sel(scorer="embedded").item()) - 1


def test_arms_rerun_from_the_file_of_a_result(study: Study, tiny: AceStep15, generated: list[int]) -> None:
    first = run_patching(study, tiny, SPEC)
    custom = PatchingSpec(
        question="custom", concepts=("tempo",), pairs=2, seeds=2, custom_arms=first.attrs["arms"]
    )
    again = run_patching(study, tiny, custom)
    assert len(generated) == 4
    np.testing.assert_array_equal(again.score, first.score)


def test_vectors_of_arms_are_kept_by_hash(study: Study, tiny: AceStep15, tmp_path: Path) -> None:
    steer = add(np.linspace(-1, 1, 32), "tf1.mlp", 3.0)
    arms = [Arm(f"added {times}", "tf1", str(times), (steer,) * times) for times in (1, 2)]
    spec = PatchingSpec(question="custom", concepts=("tempo",), pairs=1, custom_arms=custom_arms(arms))
    result = run_patching(study, tiny, spec, tensors=arm_tensors(arms))
    assert [file.stem for file in (study.path / "tensors").iterdir()] == [
        tensor.hash for tensor in steer.tensors
    ]
    records = [file.read_text() for file in study.path.glob("audio/runs/*/runs.json")]
    assert records
    for text in (result.attrs["arms"], result.attrs["spec"], *result["spec"].values, *records):
        assert "0.0322" not in text, "numbers of a vector have no place in JSON"
    base, once, twice = (result.score.sel(arm=arm).item() for arm in ("corrupt", "added 1", "added 2"))
    assert len({base, once, twice}) == 3

    other = Study.create(tmp_path / "other", study_spec(tiny), tiny.describe(), str)
    with pytest.raises(UserError, match="The tensor"):
        run_patching(other, tiny, spec)
    copied = arms_from_file(result.attrs["arms"], partial(load_tensor, study.path))
    again = run_patching(other, tiny, spec, tensors=arm_tensors(copied))
    np.testing.assert_array_equal(again.score, result.score)
    np.testing.assert_array_equal(run_patching(other, tiny, spec).score, result.score)


@pytest.mark.parametrize(
    ("edit", "values", "sentence"),
    [
        (add([1.0], "tf1.mlp"), {}, "must have 32 numbers, the channels of tf1.mlp; it has 1"),
        (add([1.0] * 32, "tf9.mlp"), {}, "tf9 does not exist"),
        (replace(add([1.0] * 32, "tf1.mlp"), made_on=("other", "0" * 16)), {}, "was made on other"),
        (add([1.0] * 32, "tf1.mlp", steps=(7, 9)), {}, "acts in no call of this run"),
        (add([1.0] * 32, "tf1.mlp", tokens=(900, 901)), {}, "acts on no token"),
        (add([1.0] * 32, "tf1.mlp"), {"concepts": ["colour"]}, "colour"),
        (add([1.0] * 32, "tf1.mlp"), {"pairs": 0}, "pairs must be at least 1"),
        (add([1.0] * 32, "tf1.mlp"), {"pairs_file": "none.csv"}, "none.csv"),
        (patch("tf1.mlp", Run("clean", (add([1.0], "tf1.mlp"),)), target="output"), {}, "it has 1"),
    ],
)
def test_a_refused_map_of_arms_leaves_no_tensor(
    study: Study, tiny: AceStep15, tmp_path: Path, edit: Edit, values: dict, sentence: str
) -> None:
    arms = [Arm("added", "tf1", "x", (edit,))]
    for tensor in edit.tensors:
        save_tensor(tmp_path, tensor)
    (tmp_path / "arms.json").write_text(custom_arms(arms))
    file = tmp_path / "arms.json"
    with pytest.raises(UserError, match=sentence):
        run_patching(
            study,
            tiny,
            asked_spec(study, arms=file, **({"concepts": ["tempo"]} | values)),
            tensors=tensors_beside(file),
        )
    assert not (study.path / "tensors").exists()


def test_pairs_of_a_file_are_used_instead(study: Study, tiny: AceStep15, tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(
        "original_feature,clean_prompt,corrupted_prompt\n"
        "fast,a fast song with drums,a slow song with drums\n"
        "fast,a fast song without drums,a slow song without drums\n"
    )
    spec = PatchingSpec(pairs=2, pairs_file=str(file), nulls=("unrelated",))
    result = run_patching(study, tiny, spec)
    assert list(result.concept.values) == ["fast"]
    assert result.corrupt_prompt.values.tolist() == [["a slow song with drums", "a slow song without drums"]]
    with pytest.raises(UserError, match="no pairs of slow"):
        run_patching(study, tiny, spec.model_copy(update={"concepts": ("slow",)}))


def test_a_damaged_record_of_arms_names_its_file(study: Study, tiny: AceStep15) -> None:
    run_patching(study, tiny, SPEC)
    record = next(iter(sorted(study.path.rglob("runs.json"))))
    record.write_text(record.read_text()[:-9])
    with pytest.raises(UserError, match=r"runs\.json is damaged"):
        run_patching(study, tiny, SPEC)


@pytest.mark.parametrize(
    ("values", "twice"),
    [
        ({"blocks": (1, 0, 1)}, "blocks: '1'"),
        ({"sets": ((0, 1), (1, 0))}, "sets: '1+0'"),
        ({"sets": ((0, 1, 1),)}, "sets: '1'"),
        ({"nulls": ("random", "random")}, "nulls: 'random'"),
        ({"directions": ("necessity", "necessity")}, "directions: 'necessity'"),
        ({"ablations": ("zero", "mean", "zero")}, "ablations: 'zero'"),
        ({"concepts": ("tempo", "tempo")}, "concepts: 'tempo'"),
        ({"scorers": ("embedded", "embedded")}, "scorers: 'embedded'"),
        ({"question": "conditioning", "segments": ("text", "text")}, "segments: 'text'"),
        ({"question": "paths", "receivers": ("mlp", "mlp")}, "receivers: 'mlp'"),
    ],
)
def test_what_is_given_twice_is_refused(values: dict, twice: str) -> None:
    with pytest.raises(UserError, match=f"^Invalid map: {re.escape(twice)} is given twice"):
        validated(PatchingSpec, values, "Invalid map")


@pytest.mark.parametrize("names", [("a", "a"), ("a", "clean"), ("corrupt", "b")])
def test_arms_of_the_same_name_are_refused(study: Study, tiny: AceStep15, names: tuple[str, str]) -> None:
    arms = [replace(patch_arm("tf0", "", "tf0.cross_attn"), name=name) for name in names]
    spec = PatchingSpec(question="custom", custom_arms=custom_arms(arms), pairs=1)
    with pytest.raises(UserError, match="is the name of two runs"):
        check_patching(study, tiny, spec)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"concepts": ("genre",)}, "Unknown concept 'genre'"),
        ({"sets": ((0, 5),)}, "tf5 does not exist"),
        ({"sets": ((0,),)}, "at least two different"),
        ({"question": "steps", "windows": 9}, "at most 3, the number of steps"),
        ({"pairs": 2, "screening": Screening()}, "cannot be screened"),
        ({"stop_top": 100}, "less than the number of cells of the map, 4; got 100"),
        ({"stop_top": 4}, "got 4"),
        (
            {"stop_top": 3, "directions": ("sufficiency",), "screening": Screening(top=1, sample=2)},
            "cells of the map, 2; got 3",
        ),
    ],
)
def test_bad_requests_get_one_sentence(study: Study, tiny: AceStep15, values: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        run_patching(study, tiny, PatchingSpec.model_validate({"concepts": ("tempo",)} | values))
    assert not (study.path / "audio").exists()


@pytest.mark.parametrize(
    "values",
    [
        {"segments": ("text",)},
        {"windows": 3},
        {"question": "steps", "sets": ((0, 1),)},
        {"question": "heads", "ablations": ("zero",)},
        {"greedy_fraction": 0.9},
        {"question": "paths", "nulls": ("random",)},
        {"question": "custom", "custom_arms": "[]", "receivers": ("mlp",)},
    ],
)
def test_options_that_a_question_does_not_use_are_refused(values: dict) -> None:
    with pytest.raises(ValidationError, match="not to"):
        PatchingSpec.model_validate(values)


# Strategies, against scores that are known


class KnownScores(Sweep):
    """A sweep whose scores follow from the blocks that an arm patches, plus a little noise."""

    def __init__(self, share: dict[frozenset[int], float], noise: float, pairs: int) -> None:
        made = [
            Pair("tempo", Prompt("x" * (i + 1), {"tempo": "fast"}), Prompt("y", {"tempo": "slow"}), "fast")
            for i in range(pairs)
        ]
        self.contexts = {"tempo": [PairContext(pair, None, None, (), (8,)) for pair in made]}
        self.scorers = {"embedded": Loudness()}
        self.columns = ["embedded"]
        self.share, self.noise, self.asked = share, noise, 0

    def run(self, arms: Mapping[str, Sequence[Arm]], pairs: range) -> Iterator[None]:
        for _ in range(len(pairs) * len(arms)):
            self.asked += 1
            yield

    def scores(self, context: PairContext, seed: int, arms: Sequence[Arm]) -> np.ndarray:
        draw = np.random.default_rng([seed, len(context.pair.clean.text)])
        blocks = [frozenset(int(site[2]) for site in arm.edits[0].sites) for arm in arms]
        best = [max((v for k, v in self.share.items() if k <= found), default=0.0) for found in blocks]
        values = np.array([1.0, 0.0, *best])
        return (values + self.noise * draw.standard_normal(len(values)))[:, None]


def block_arms(study: Study, tiny: AceStep15) -> list[Arm]:
    return run.question_arms(PatchingSpec(directions=("sufficiency",)), study, tiny)


def test_pairs_are_added_until_the_top_cell_is_clear(study: Study, tiny: AceStep15) -> None:
    arms = {"tempo": block_arms(study, tiny)}
    clear = KnownScores({frozenset({1}): 0.8}, noise=0.05, pairs=30)
    told: list[tuple[int, int]] = []
    n_run, sentence = run_pairs(clear, arms, 1, 4, lambda done, total: told.append((done, total)))
    assert clear.asked == n_run["tempo"] == 4
    assert (told[0], told[-1]) == ((0, 30), (4, 4))
    assert sentence == "Stopped when the top cell's interval lay above all others': tempo after 4 pairs."
    unclear = KnownScores({frozenset({1}): 0.5, frozenset({0}): 0.5}, noise=0.3, pairs=30)
    n_run, sentence = run_pairs(unclear, arms, 1, 4, lambda done, total: None)
    assert unclear.asked == n_run["tempo"] == 30
    assert sentence.endswith("none. Ended with the budget of 30 pairs: tempo.")


def test_a_judge_that_does_not_hear_the_concept_keeps_no_map_from_stopping(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear = KnownScores({frozenset({1}): 0.8}, noise=0.05, pairs=30)
    clear.scorers["musicnn"], clear.columns = Loudness(), ["embedded", "musicnn"]
    heard = clear.scores
    monkeypatch.setattr(
        clear, "scores", lambda *asked: np.pad(heard(*asked), ((0, 0), (0, 1)), constant_values=np.nan)
    )
    n_run, _ = run_pairs(clear, {"tempo": block_arms(study, tiny)}, 1, 4, lambda done, total: None)
    assert n_run["tempo"] == 4


def greedy_arm(blocks: Sequence[int]) -> Arm:
    return patch_arm(set_name(blocks), "greedy", [f"tf{block}.cross_attn" for block in blocks])


def test_greedy_finds_the_smallest_set() -> None:
    both_needed = KnownScores({frozenset({1}): 0.3, frozenset({1, 3}): 0.95}, noise=0.01, pairs=8)
    arms, steps = grow_sets(both_needed, greedy_arm, 5, 0.9)
    assert [step["blocks"] for step in steps["tempo"]] == [[1], [1, 3]]
    assert steps["tempo"][1]["fraction"] == pytest.approx(0.95, abs=0.02)
    assert [arm.name for arm in arms] == ["tf1 greedy", "tf1+tf3 greedy"]


def test_greedy_in_a_real_map(study: Study, tiny: AceStep15) -> None:
    spec = PatchingSpec(
        question="sets", concepts=("tempo",), directions=("sufficiency",), pairs=3, greedy_fraction=0.99
    )
    result = run_patching(study, tiny, spec)
    steps = json.loads(result.attrs["greedy"])["tempo"]
    undefined = not bool(result.defined.item())
    assert (
        undefined
        or (steps[-1]["blocks"] == [0, 1] and steps[-1]["fraction"] == 1.0)
        or steps[0]["fraction"] >= 0.99
    )
    assert {"tf0 with tf1", "tf0 all but this"} <= set(result.arm.values)


def test_a_map_shows_only_what_it_asked_for(study: Study, tiny: AceStep15) -> None:
    """Though the study holds more, run for another map."""
    whole = PatchingSpec(
        question="steps", concepts=("tempo",), pairs=2, windows=3, directions=("sufficiency",)
    )
    run_patching(study, tiny, whole)
    screened = whole.model_copy(update={"screening": Screening(pairs=1, top=1, sample=2), "name": "screened"})
    result = run_patching(study, tiny, screened)
    run = (result.audio != "").isel(concept=0, pair=0, seed=0)
    assert int(run.sum()) == 2 + 3
    np.testing.assert_array_equal(run, ~np.isnan(result.score.isel(concept=0, pair=0, seed=0, scorer=0)))


def test_screened_maps_run_the_top_and_a_sample(study: Study, tiny: AceStep15, generated: list[int]) -> None:
    spec = PatchingSpec(
        question="steps",
        concepts=("tempo",),
        pairs=2,
        windows=3,
        directions=("sufficiency",),
        screening=Screening(pairs=1, top=1, sample=2),
    )
    result = run_patching(study, tiny, spec)
    screen = result.screen.isel(concept=0)
    run = ~np.isnan(result.score.isel(concept=0, pair=0, seed=0, scorer=0))
    assert int(run.sum()) == 2 + 3
    assert bool(run.sel(arm=screen.idxmax("arm").item()))
    assert int((~np.isnan(screen)).sum()) == 6
    told = json.loads(result.attrs["screened"])
    assert told["rows"] == 3 * (2 + 3), "of three steps: corrupt in both passes, clean and two blocks in one"
    assert "screen_agreement" in result


def listed(file: Path, n: int, text: str = "slow") -> PatchingSpec:
    """A map of `n` pairs of a file."""
    rows = [
        f"slow,a slow {mood} song,a fast {mood} song,tempo,fast,{text}"
        for mood in ("happy", "sad", "calm")[:n]
    ]
    head = "original_feature,clean_prompt,corrupted_prompt,concept,counterfactual_feature,scorer_text"
    file.write_text("\n".join([head, *rows, ""]), encoding="utf-8")
    return PatchingSpec(pairs_file=str(file), pairs=12, directions=("sufficiency",))


def test_notes_before_anything_runs(
    study: Study, tiny: AceStep15, tmp_path: Path, generated: list[int]
) -> None:
    notes: list[tuple[str, int]] = []
    spec = listed(tmp_path / "pairs.csv", 2)
    result = run_patching(study, tiny, spec, note=lambda sentence: notes.append((sentence, len(generated))))
    assert notes[:2] == [
        ("The map uses 2 pairs of tempo, not 12: there are no more.", 0),
        (f"No cell of tempo can be significant. {too_few_pairs(2)}", 0),
    ]
    assert int(result.n_pairs.max()) == 2


def test_pairs_of_a_prompt_set_are_taken_as_far_as_they_go(study: Study, tiny: AceStep15) -> None:
    spec = PatchingSpec(concepts=("tempo", "drums"), pairs=100)
    plan = check_patching(study, tiny, spec)
    assert {concept: len(pairs) for concept, pairs in plan.sweep.contexts.items()} == {
        concept: study.spec.prompts.n_pairs(concept) // 2 for concept in ("tempo", "drums")
    }
    assert any("not 100: there are no more" in note for note in plan.notes)


def test_enough_pairs_need_no_note(study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "unknown_words", lambda _: [])
    monkeypatch.setattr(run, "too_few_pairs", lambda _: "")
    monkeypatch.setattr(run, "too_few_for_one", lambda *_: "")
    assert check_patching(study, tiny, SPEC).notes == []


def test_a_segment_that_pairs_do_not_have_is_named(study: Study, tiny: AceStep15, tmp_path: Path) -> None:
    """In one of two pairs the swapped word is the first, in the other it is the last."""
    file = tmp_path / "pairs.csv"
    rows = ("fast,fast song,slow song", "fast,song fast,song slow")
    file.write_text(
        "\n".join(("original_feature,clean_prompt,corrupted_prompt", *rows, "")), encoding="utf-8"
    )
    spec = PatchingSpec(
        question="conditioning", pairs_file=str(file), pairs=2, segments=("before", "swapped")
    )
    notes: list[str] = []
    result = run_patching(study, tiny, spec, note=notes.append).isel(concept=0, seed=0, scorer=0)
    sentence = "1 of 2 pairs of fast has no tokens of the segment before: nothing is patched there."
    assert [note for note in notes if "segment" in note] == [sentence]
    audio = result.audio.sel(arm=["corrupt", "tf0 before"]).values
    assert audio[0, 0] == audio[0, 1], "the arm is the corrupt run itself"
    assert audio[1, 0] != audio[1, 1]


def test_dropped_pairs_are_named_up_to_a_few(tiny: AceStep15) -> None:
    dropped = [{"concept": "x", "clean": f"a{i}", "corrupt": f"b{i}", "reason": "alike"} for i in range(5)]
    notes = run._notes(PatchingSpec(), tiny, {}, dropped, n_cells=4, n_pairs={})
    assert notes[0] == "The pair 'a0' / 'b0' of x is dropped: alike."
    assert notes[3:] == ["2 more pairs are dropped for similar reasons."]


def test_a_descriptor_of_the_prompt_set_has_a_map_beside_the_judges(study: Study, tiny: AceStep15) -> None:
    prompts = study.spec.prompts.model_copy(update={"descriptors": ("level",)})
    study.spec = study.spec.model_copy(update={"prompts": prompts})
    spec = asked_spec(study, concepts=("tempo",), pairs=3)
    assert spec.descriptors == ("level",)
    assert asked_spec(study, descriptors=("flatness",)).descriptors == ("flatness",)
    result = run_patching(study, tiny, spec)
    assert result.scorer.values.tolist() == ["embedded", "level"]
    assert json.loads(result.attrs["spec"])["judges"].keys() == {"embedded", "descriptors"}
    assert (result.orientation.sel(scorer="embedded") == 1).all()
    by_judge, level = (result.score.sel(scorer=name).values for name in ("embedded", "level"))
    np.testing.assert_allclose(level, 10 * np.log10(by_judge), rtol=FLOAT32)


@pytest.mark.parametrize(
    ("seconds", "texts", "scorers"),
    [
        (4.0, ("fast", "slow"), ("embedded", "musicnn")),
        (2.0, ("fast", "slow"), ("embedded",)),
        (4.0, ("happy", "sad"), ("embedded",)),
        (4.0, ("cello", "harp"), ("embedded", "musicnn")),
        (4.0, ("one", "two"), ("embedded",)),
    ],
)
def test_maps_are_made_by_the_judges_that_hear_the_concepts(
    study: Study, seconds: float, texts: tuple[str, str], scorers: tuple[str, ...]
) -> None:
    """musicnn needs 3 s."""
    moods = {"happy": "happy", "sad": "sad"}
    concepts = {"x": {text: {"phrase": text, "text": text} for text in texts}, "y": moods}
    prompts = PromptSet(templates=("a {x} song",), concepts=concepts)
    settings = study.spec.settings.model_copy(update={"duration": seconds})
    study.spec = study.spec.model_copy(update={"prompts": prompts, "settings": settings})
    assert asked_spec(study).scorers == scorers
    assert asked_spec(study, scorers=()).scorers == scorers
    assert asked_spec(study, concepts="x").scorers == (
        (scorers[-1],) if texts == ("cello", "harp") else scorers
    )
    assert asked_spec(study, concepts="y").scorers == ("embedded",), "musicnn has no moods"
    assert asked_spec(study, scorers="clap").scorers == ("clap",)
    assert asked_spec(study, pairs_file="pairs.csv").scorers == ("embedded",)


def test_the_order_of_scorers_makes_no_other_map() -> None:
    orders = [("clap", "musicnn", "embedded"), ("embedded", "clap", "musicnn")]
    one, other = (PatchingSpec(scorers=scorers) for scorers in orders)
    assert one == other
    assert one.scorers == ("embedded", "musicnn", "clap")
    assert PatchingSpec(scorers=("own", "clap")).scorers == ("clap", "own")


@pytest.mark.parametrize(("min_seconds", "is_refused"), [(0.52, False), (0.53, True), (2.0, True)])
def test_clips_too_short_for_the_scorer_end_the_map_before_it_begins(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch, min_seconds: float, is_refused: bool
) -> None:
    """The study's clips of 0.5 s last 13 latent frames of 0.04 s, because ACE-Step 1.5 rounds up."""
    monkeypatch.setattr(Peak, "min_seconds", min_seconds)
    spec = PatchingSpec(pairs=1, seeds=1, scorers=("embedded", "clap"), concepts=("tempo",))
    monkeypatch.setattr(AceStep15, "generate_batch", lambda *_: pytest.fail("nothing is generated"))
    if not is_refused:
        check_patching(study, tiny, spec)
        return
    with pytest.raises(UserError, match=rf"peak needs clips of at least {min_seconds:g} s.*are 0\.52 s long"):
        run_patching(study, tiny, spec)
    assert not (study.path / "audio").exists()


def test_a_text_that_the_scorer_does_not_know_ends_the_map_before_it_begins(
    study: Study, tiny: AceStep15, tmp_path: Path, generated: list[int]
) -> None:
    with pytest.raises(UserError, match="unknown text"):
        run_patching(study, tiny, listed(tmp_path / "pairs.csv", 3, "unknown text"))
    assert not generated
    assert study.result_names() == []


def test_words_that_the_organism_does_not_know(organism_shared: AceStep15) -> None:
    assert organism_shared.unknown_words("a slow male vocal song, lo-fi lo") == ["lo", "fi"]
    sentence = unknown_words(organism_shared, ["a slow song", "a dub song", "dub, and a jazz song"])
    assert sentence == "Words that are not in the vocabulary of organism-shared: 'dub', 'jazz'."
    assert unknown_words(organism_shared, ["a slow happy flute song without drums"]) == ""


@pytest.mark.parametrize(
    ("n_pairs", "n_dropped", "reason"),
    [
        (13, 10, "the others are dropped; ask for more"),
        (12, 10, "the others are dropped, and there are no more"),
        (6, 4, "the others are dropped, and there are no more"),
        (2, 0, "there are no more"),
    ],
)
def test_more_pairs_are_only_advised_where_there_are_more(
    tiny: AceStep15, n_pairs: int, n_dropped: int, reason: str
) -> None:
    text = Prompt("a slow song", {"x": "slow"})
    kept = [PairContext(Pair("x", text, text, "slow"), None, None, ())] * 2
    dropped = [{"concept": "x", "clean": "a", "corrupt": "b", "reason": "alike"}] * n_dropped
    notes = run._notes(PatchingSpec(), tiny, {"x": kept}, dropped, n_cells=4, n_pairs={"x": n_pairs})
    assert f"The map uses 2 pairs of x, not 12: {reason}." in notes


def test_arms_of_blocks_that_the_model_lacks(study: Study, tiny: AceStep15) -> None:
    arm = replace(patch_arm("tf0", "a", "tf0.cross_attn"), block=99)
    spec = PatchingSpec(question="custom", concepts=("tempo",), pairs=2, custom_arms=custom_arms([arm]))
    with pytest.raises(UserError, match="Block tf99 does not exist"):
        check_patching(study, tiny, spec)


@pytest.mark.parametrize("name", ["question", "directions", "concepts", "scorers", "name"])
def test_arrays_are_no_options(study: Study, name: str) -> None:
    with pytest.raises(UserError, match="must be"):
        asked_spec.__wrapped__(study, **{name: np.array([1, 2])})  # without the check of types in tests
