"""Effects of features on a tiny model: which features are changed, and what that does, from runs made one by one."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from analyses.evaluation import feature_effects
from analyses.evaluation.feature_effects import Used, asked_effects, run_effects
from analyses.evaluation.feature_sets import chosen_features
from analyses.evaluation.prompts import contexts_of_value, own_texts
from analyses.evaluation.spec import EffectsSpec
from analyses.sae.names import load_sae
from analyses.sae.run import run_sae
from analyses.sae.train import train_spec
from analyses.statistics import benjamini_hochberg
from cache.errors import UserError
from dashboards.numbers import fixed
from dashboards.results import load_result
from dashboards.summaries import effects_summary
from tests.analyses.evaluation.conftest import NAME, OTHER, PROMPTS, SITE, WRITTEN, heard
from tests.tolerances import SCORE
from workbench.engine.edits import Run, edit_features
from workbench.engine.runs import Clip
from workbench.models.ace_step import AceStep15
from workbench.sae.gate import Gate, GatedStep, set_gate
from workbench.studies.feature_notes import Noted, change_set, write_all
from workbench.studies.result_files import DamagedResult, result_bytes
from workbench.studies.study import Study

OPTIONS = {"pairs": 2, "features": 1, "together": 3, "randoms": 1, "concepts": ["mood"], "ignore_gate": True}
VALUES = ["mood=happy", "mood=sad"]


def features_of(cell: xr.Dataset) -> list[int]:
    return [int(each) for each in str(cell["features"].item()).split(", ")]


@pytest.fixture(autouse=True)
def judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_effects, "load_scorer", heard)


@pytest.fixture(scope="module")
def study_of_two(evaluated_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study with an autoencoder of another site, too."""
    folder = tmp_path_factory.mktemp("copy") / "study"
    study = Study.open(Path(shutil.copytree(evaluated_study.path, folder)))
    options: dict[str, Any] = {"k": 4, "train_steps": 20, "batch_size": 16, "held_out_fraction": 0.5}
    run_sae(study, train_spec(WRITTEN, **options), name="written")
    return study


@pytest.fixture(scope="module")
def result(evaluated_study: Study, tiny: AceStep15) -> xr.Dataset:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(feature_effects, "load_scorer", heard)
        return run_effects(
            evaluated_study, tiny, asked_effects(evaluated_study, OTHER, **OPTIONS), note=lambda _: None
        )


def test_it_has_its_schema_and_is_saved(evaluated_study: Study, result: xr.Dataset) -> None:
    of_effects = ("effect", "effect_lo", "effect_hi", "p", "p_adjusted", "null_lo", "null_hi")
    of_prompts = ("control", "control_lo", "control_hi", "unedited")
    assert {name: variable.dims for name, variable in result.data_vars.items()} == {
        **dict.fromkeys(of_effects, ("cell", "factor", "concept", "scorer")),
        **dict.fromkeys(of_prompts, ("cell", "concept", "scorer")),
        **dict.fromkeys(("value", "set", "size", "role", "n_pairs"), ("cell",)),
        **dict.fromkeys(("features", "auroc"), ("cell", "sae")),
    }
    assert result["factor"].values.tolist() == [0.0, 2.0]
    assert result["concept"].values.tolist() == list(PROMPTS.concepts)
    assert result["value"].values.tolist() == [value for value in VALUES for _ in range(4)]
    assert result["role"].values.tolist() == ["cell", "null"] * 4
    assert result["size"].values.tolist() == [1, 1, 3, 3] * 2
    assert (result.attrs["kind"], result["sae"].values.tolist(), result["site"].values.tolist()) == (
        "feature-effects",
        [OTHER],
        [SITE],
    )
    assert evaluated_study.result(f"feature-effects-{OTHER}").identical(result)


def test_the_features_are_those_with_the_highest_auroc(evaluated_study: Study, result: xr.Dataset) -> None:
    trained = evaluated_study.result(f"sae-{OTHER}")
    for cell in range(result.sizes["cell"]):
        of_cell = result.isel(cell=cell)
        areas = trained["auroc"].sel(value=of_cell["value"].item())
        changed = features_of(of_cell)
        of_set = sorted(areas.sel(feature=changed).values.tolist())
        assert (len(set(changed)), of_set[:1]) == (of_cell["size"].item(), of_cell["auroc"].values.tolist())
        if of_cell["role"].item() == "cell":
            assert of_set == sorted(areas.dropna("feature").values.tolist())[-len(changed) :]
        else:
            best = features_of(result.isel(cell=cell - 1))
            alive = trained["feature"].values[trained["alive"].values].tolist()
            assert set(changed) <= set(alive) - set(best)


def test_of_equal_aurocs_the_largest_difference_is_first(evaluated_study: Study) -> None:
    """One with a larger difference but a lower AUROC comes after them, and one without an AUROC not at all."""
    of_feature = {"auroc": [1.0, 0.9, 1.0, np.nan, 1.0, 0.8], "diff": [0.1, 0.9, 0.3, 0.9, 0.2, 0.0]}
    trained = xr.Dataset(
        {name: (("value", "feature"), [numbers]) for name, numbers in of_feature.items()},
        {"value": ["mood=sad"], "feature": range(6)},
    ).assign(alive=("feature", [True] * 6))
    spec = asked_effects(evaluated_study, OTHER, **{**OPTIONS, "features": 5, "together": 2, "randoms": 0})
    sets = chosen_features([trained], ["mood"], spec)["mood=sad"]
    assert [each.features for each in sets] == [*[((f,),) for f in (2, 4, 0, 1, 5)], ((2, 4),)]


def test_a_set_is_at_most_half_of_the_features(evaluated_study: Study) -> None:
    trained = evaluated_study.result(f"sae-{OTHER}")
    known = trained["auroc"].sel(value="mood=sad").dropna("feature").sizes["feature"]
    spec = asked_effects(evaluated_study, OTHER, **{**OPTIONS, "together": 10_000})
    sets = chosen_features([trained], ["mood"], spec)["mood=sad"]
    assert [len(each.features[0]) for each in sets] == [1, 1, known // 2, known // 2]
    assert not set(sets[2].features[0]) & set(sets[3].features[0])
    spec = asked_effects(evaluated_study, OTHER, **{**OPTIONS, "together": 0})
    assert [each.size for each in chosen_features([trained], ["mood"], spec)["mood=sad"]] == [1, 1]


def test_sets_of_the_notes_are_changed_too(study_of_two: Study) -> None:
    change_set(study_of_two.path, "own", OTHER, add=[2, 5])
    change_set(study_of_two.path, "other", "written", add=[0, 1, 3])
    trained = study_of_two.result(f"sae-{OTHER}")
    (best,) = (
        each.features[0]
        for each in chosen_features([trained], ["mood"], _asked(study_of_two))["mood=sad"][:1]
    )
    change_set(study_of_two.path, "best", OTHER, add=best)
    sets = chosen_features([trained], ["mood"], _asked(study_of_two, "own", "best"))["mood=sad"]
    named = {each.name: (each.features, each.size) for each in sets if not each.is_random}
    assert named["own"] == (((2, 5),), 2)
    assert named["best"] == ((best,), 1)
    rows = [each.row for each in sets]
    assert len(set(rows)) == len(rows) == 6, "the best one is also the set; random ones of each size"
    assert [each.is_random for each in sets] == [False, True] * 3
    assert not {2, 5} & set(next(each for each in sets if each.is_random and each.size == 2).features[0])


@pytest.mark.parametrize(
    ("names", "of_set", "words"),
    [
        ([OTHER], "nothing", r"no set 'nothing' with features of 'two' \(its sets: .*uneven"),
        ([OTHER, "written"], "uneven", "3 of 'two', 1 of 'written'"),
        ([OTHER], "beyond", "which has only features 0 to"),
        ([OTHER], "earlier", "'earlier' was made of an autoencoder 'two' with other weights"),
    ],
)
def test_sets_that_cannot_be_changed_are_refused(
    study_of_two: Study, names: list[str], of_set: str, words: str
) -> None:
    change_set(study_of_two.path, "uneven", OTHER, add=[0, 1, 2])
    change_set(study_of_two.path, "uneven", "written", add=[0])
    change_set(study_of_two.path, "beyond", OTHER, add=[10_000])
    earlier = Noted(OTHER, "0" * 16, 1, {}, ("earlier",))
    write_all(study_of_two.path, [earlier])
    with pytest.raises(UserError, match=words):
        asked_effects(study_of_two, names, **OPTIONS, sets=[of_set])


def _asked(study: Study, *sets: str) -> EffectsSpec:
    return asked_effects(study, OTHER, **OPTIONS, sets=sets)


def test_features_of_earlier_weights_that_a_set_has_are_counted(study_of_two: Study, tiny: AceStep15) -> None:
    change_set(study_of_two.path, "mixed", OTHER, add=[2, 5])
    write_all(study_of_two.path, [Noted(OTHER, "0" * 16, 1, {}, ("mixed",))])
    options = {**OPTIONS, "together": 0, "randoms": 0, "factors": [0.0], "sets": ["mixed"]}
    said: list[str] = []
    run_effects(study_of_two, tiny, asked_effects(study_of_two, OTHER, **options), note=said.append)
    assert [each for each in said if "earlier" in each] == [
        f"The set mixed has 1 more feature of an earlier autoencoder {OTHER}, which had other weights; changed are "
        "only those of the present one."
    ]


@pytest.mark.parametrize("place", [4, 6])
def test_effects_by_hand(evaluated_study: Study, tiny: AceStep15, result: xr.Dataset, place: int) -> None:
    """Of the best feature of sadness, and the best three, turned off and doubled, for every concept."""
    check_by_hand(evaluated_study, tiny, result.isel(cell=place, scorer=0))


def test_effects_of_several_by_hand(study_of_two: Study, tiny: AceStep15, result: xr.Dataset) -> None:
    """Features of the autoencoders of two sites are changed at once."""
    options = {**OPTIONS, "together": 2, "randoms": 0, "factors": [0.0, 2.0]}
    found = run_effects(
        study_of_two, tiny, asked_effects(study_of_two, [OTHER, "written"], **options), note=lambda _: None
    )
    assert load_result(study_of_two, f"feature-effects-{OTHER}+written").identical(found)
    assert found["site"].sel(sae=[OTHER, "written"]).values.tolist() == [SITE, WRITTEN]
    assert found["size"].values.tolist() == [1, 2] * 2
    check_by_hand(study_of_two, tiny, found.isel(cell=3, scorer=0))
    alone = result["features"].isel(cell=4).item()
    assert found["features"].isel(cell=2).sel(sae=OTHER) == alone
    table = effects_summary(found)
    assert table["feature"].tolist()[4:] == [
        *[f"{alone} and {found['features'].values[2, 1]}"] * 2,
        *["the 2 best of each"] * 2,
    ]
    assert table["AUROC"].tolist()[::2] == [fixed(area) for area in found["auroc"].min("sae").values]


def test_random_features_of_several_are_as_many_of_each(study_of_two: Study) -> None:
    trained = [study_of_two.result(f"sae-{name}") for name in (OTHER, "written")]
    spec = asked_effects(study_of_two, [OTHER, "written"], **OPTIONS)
    best, by_chance = chosen_features(trained, ["mood"], spec)["mood=sad"][2:]
    assert by_chance.is_random
    assert not best.is_random
    for of_sae, some, others in zip(trained, best.features, by_chance.features, strict=True):
        assert len(set(some)) == len(set(others)) == 3
        assert set(others) <= set(of_sae["feature"].values[of_sae["alive"].values].tolist()) - set(some)


def check_by_hand(study: Study, tiny: AceStep15, cell: xr.Dataset) -> None:
    """Compare a cell of sadness with changes of scores from runs that are generated here."""
    changes = []
    for context in contexts_of_value(study, tiny, "mood=sad", 2, 0, 1):
        clip = Clip(context.pair.clean.text, context.seeds[0])
        assert "sad" in clip.prompt
        edits = [
            tuple(
                edit_features(
                    load_sae(study, name),
                    features_of(cell.sel(sae=name)),
                    site,
                    strength,
                    passes=("cond",),
                    ignore_gate=True,
                )
                for name, site in zip(cell["sae"].values, cell["site"].values, strict=True)
            )
            for strength in (-1.0, 1.0)
        ]
        made = tiny.generate_batch([Run(clip), *(Run(clip, each) for each in edits)], study.spec.settings)
        audio = tiny.decode(made.latents, study.spec.settings.duration).float().cpu().numpy()
        texts = own_texts(PROMPTS, context.pair.clean)
        scores = heard("").score(audio, tiny.sample_rate, [texts[c] for c in PROMPTS.concepts])
        changes.append(scores[1:] - scores[0])
    assert cell["effect"].values == pytest.approx(np.mean(changes, axis=0), abs=SCORE * 1e-2)
    assert (np.abs(cell["effect"].values) > 0).any()


def test_the_null_and_the_correction(result: xr.Dataset) -> None:
    """Random features are the null of the features beside them, and count in no correction."""
    cells = result.isel(cell=[0, 2, 4, 6])
    nulls = result.isel(cell=[1, 3, 5, 7])
    assert (cells["null_lo"].values <= nulls["effect"].values + 1e-12).all()
    assert (nulls["effect"].values <= cells["null_hi"].values + 1e-12).all()
    assert nulls["p_adjusted"].isnull().all()
    for concept in result["concept"].values:
        of_concept = cells.sel(concept=concept).isel(scorer=0)
        expected = benjamini_hochberg(of_concept["p"].values)
        assert of_concept["p_adjusted"].values == pytest.approx(expected)


def test_the_same_effects_are_not_measured_again(
    evaluated_study: Study, tiny: AceStep15, result: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_effects, "Sweep", None)
    assert run_effects(evaluated_study, tiny, asked_effects(evaluated_study, OTHER, **OPTIONS)).identical(
        result
    )


def test_damaged_effects_are_measured_again(
    evaluated_study: Study, tiny: AceStep15, result: xr.Dataset
) -> None:
    """Also where what they were computed with can still be read."""
    spec = asked_effects(evaluated_study, OTHER, **OPTIONS)
    file = evaluated_study.path / "results" / f"{spec.result_name}.nc"
    file.write_bytes(result_bytes(result.assign_coords(cell=[0] * result.sizes["cell"])))
    with pytest.raises(DamagedResult):
        evaluated_study.result(spec.result_name)
    assert run_effects(evaluated_study, tiny, spec, note=lambda _: None).equals(result)
    assert evaluated_study.result(spec.result_name).equals(result)


def test_steps_that_the_gate_closes_are_left_out(
    evaluated_study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = load_sae(evaluated_study, OTHER)
    monkeypatch.setattr(feature_effects, "load_sae", lambda *_: sae)
    spec = asked_effects(evaluated_study, OTHER, **{**OPTIONS, "ignore_gate": False})
    trained = evaluated_study.result(f"sae-{OTHER}")
    chosen = chosen_features([trained], ["mood"], spec)
    explained = {"steps": (0, 1, 2), "sigmas": (1.0, 0.6, 0.3), "loss_recovered": (None,) * 3}
    set_gate(sae, Gate(explained_variance=(0.9, 0.1, 0.8), **explained))
    arms = feature_effects._arms([Used(OTHER, sae, trained)], chosen, spec)["mood=sad"]
    assert {tuple(edit.window.steps for edit in arm.edits) for arm in arms} == {((0, 0), (2, 2))}
    set_gate(sae, Gate(explained_variance=(0.4, 0.1, 0.3), **explained))
    with pytest.raises(GatedStep, match=r"may not be used at any step: its explained variance there is 0.40"):
        run_effects(evaluated_study, tiny, spec)


def test_names_are_checked_before_a_model_is_loaded(evaluated_study: Study) -> None:
    with pytest.raises(UserError, match="no sparse autoencoder named 'none'"):
        asked_effects(evaluated_study, [OTHER, "none"])


def test_two_of_the_same_site_are_refused(evaluated_study: Study, tiny: AceStep15) -> None:
    with pytest.raises(UserError, match=f"'{NAME}' and '{OTHER}' are both of {SITE} \\(cond pass\\)"):
        run_effects(evaluated_study, tiny, asked_effects(evaluated_study, [NAME, OTHER]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"concepts": ["key"]}, "Unknown concept 'key'"),
        ({"factors": [1.0]}, "A factor of 1"),
        ({"factors": []}, "factors"),
        ({"features": 0}, "features must be at least 1"),
        ({"together": -1}, "together must be at least 0"),
    ],
)
def test_what_cannot_be_asked_for(evaluated_study: Study, options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        asked_effects(evaluated_study, OTHER, **options)


def test_the_table_has_a_line_for_each_feature_and_factor(result: xr.Dataset) -> None:
    table = effects_summary(result)
    assert table["responds to"].tolist() == [value for value in VALUES for _ in range(4)]
    assert table["factor"].tolist() == ["0", "2"] * 4
    assert table["feature"].tolist()[4:] == [*[result["features"].values[4, 0]] * 2, *["the 3 best"] * 2]
    own = result["effect"].isel(cell=4, scorer=0).sel(factor=2.0, concept="mood").item()
    assert table["change [95 %]"][5].startswith(fixed(own))
    assert table["other concepts"][5].split(", ")[0].startswith("tempo ")
