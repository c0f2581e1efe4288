"""Studies in Python: the methods give what the commands of the same names give, with their defaults."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr

from analyses.patching.asking import asked_spec
from analyses.steering.caa import caa
from cache.errors import UserError
from dashboards.notebook import OpenStudy, SaeResult, open_study, trace
from dashboards.results import is_usable
from tests.analyses.planted_study import make_planted_study
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.studies.study import Study

SITE = "tf3.cross_attn"


@pytest.fixture(scope="module")
def study(organism_shared: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    """A small study of the organism."""
    return trace(
        organism_shared,
        out=tmp_path_factory.mktemp("notebook") / "study",
        n_prompts=16,
        seeds=1,
        sites=[SITE],
        steps=[2, 5],
        settings=GenerationSettings(duration=2.0),
    )


def test_tracing(study: OpenStudy, organism_shared: AceStep15) -> None:
    spec = study.folder.spec
    assert (spec.model, spec.sites, spec.steps) == ("organism-shared", (SITE,), (2, 5))
    assert study.model is organism_shared
    array = study.activations(SITE)
    assert array.dims == ("clip", "step", "pass", "token", "channel")
    assert array.sel(step=5)["label_mood"].values.tolist() == study.clips["label_mood"].tolist()
    assert len(list((study.path / "audio" / "clips").iterdir())) == 16


def test_patching(study: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map is made once, and has a table and a figure."""
    options = {"concepts": ["mood"], "pairs": 1, "blocks": ["tf3"], "directions": ["sufficiency"]}
    result = study.patch("blocks", **options)
    assert result.data.attrs["kind"] == "patching"
    assert result.data["arm"].size >= 1
    assert isinstance(result.plot(), go.Figure)
    assert result.table()["concept"].tolist() == ["mood"]
    assert np.isfinite(result.data["score"]).any()
    assert repr(result) == f"Result(patching-blocks of {study.path})"
    assert "<table" in result._repr_html_()

    monkeypatch.setattr("dashboards.notebook.run_patching", _must_not_run)
    assert study.patch("blocks", **options).data.attrs["result_id"] == result.data.attrs["result_id"]


def test_an_autoencoder(study: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"k": 4, "expansion": 1, "train_steps": 20}
    made = study.train_sae(SITE, **options)
    assert isinstance(made, SaeResult)
    assert made.autoencoder.config.k == 4
    assert isinstance(made.plot(), go.Figure)
    monkeypatch.setattr("dashboards.notebook.run_saes", _must_not_run)
    assert study.train_sae(SITE, **options).data.equals(made.data)
    assert isinstance(study.result(f"sae-{SITE}"), SaeResult)
    with pytest.raises(UserError, match="k must be"):
        study.train_sae(SITE, k=0)


def test_probes_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_planted_study(tmp_path / "planted")
    study = open_study(folder.path)
    result = study.probe("tf1.cross_attn", concepts=["tempo"], folds=4)
    best = result.data["accuracy_mean"].sel(concept="tempo", site="tf1.cross_attn", step=4)
    assert float(best) > 0.9
    assert study.results == ["probes"]
    monkeypatch.setattr("dashboards.notebook.run_probes", _must_not_run)
    again = study.probe(["tf1.cross_attn"], concepts=["tempo"], folds=4)
    np.testing.assert_array_equal(again.data["accuracy"], result.data["accuracy"])
    assert isinstance(result.plot(quantity="control"), go.Figure)
    assert isinstance(study.figure("probes"), go.Figure)
    files = study.export("probes", "svg", tmp_path / "figures")
    assert {file.suffix for file in files} == {".svg", ".csv", ".json", ".tex", ".txt"}
    with pytest.raises(UserError, match="quantity"):
        study.figure("probes", quantity="colour")


def test_steering(study: OpenStudy) -> None:
    options = {"prompts": study.folder.spec.prompts, "settings": study.settings, "pairs": 2}
    vector = caa(study.model, "mood", ["tf3.cross_attn"], **options)
    result = study.steer(vector, pairs=2, randoms=1, strengths=(2.0,))
    assert result.name == "steering-mood"
    assert result.data.row.values.tolist() == ["", "", "mood", "random 1 (like mood)"]
    assert result.table()["steering"].tolist() == ["(the positive prompt)", "(no steering)", "mood"]
    named = study.steer({"one": vector, "other": vector}, pairs=2, randoms=0, strengths=(2.0,), name="two")
    own = named.data.score.sel(concept="mood")
    np.testing.assert_array_equal(own.sel(arm="one × 2"), own.sel(arm="other × 2"))


def test_judging_a_vector(study: OpenStudy) -> None:
    options = {"prompts": study.folder.spec.prompts, "settings": study.settings, "pairs": 1}
    vector = caa(study.model, "mood", ["tf3.cross_attn"], **options)
    (check,) = study.check(vector, "mine", pairs=1, strengths=[1.0]).checks
    assert (check.scorer, check.pairs, check.sign.minus, check.sign.plus) == ("embedded", 1, 0, 1)
    assert study.result("steering-check-mine").data.row.values.tolist() == ["", "", "vector"]
    with pytest.raises(UserError, match="A vector must be one"):
        study.check.__wrapped__(study, "mood")


def test_the_ladder(study: OpenStudy) -> None:
    result = study.ladder(
        "mood", "tf3+tf4", fit_pairs=2, pairs=1, randoms=0, strengths=(1.0,), ignore_gate=True
    )
    assert result.name == "steering-ladder-mood"
    assert result.data.row.values[2:4].tolist() == ["conditioning patch", "output patch"]


def test_what_is_damaged_is_computed_again(study: OpenStudy) -> None:
    results: dict[str, Callable[[], Any]] = {
        "patching-again": lambda: study.patch(name="again", concepts=["mood"], pairs=1, blocks=["tf1"]),
        f"sae-{SITE}": lambda: study.train_sae(SITE, k=4, expansion=1, train_steps=20),
    }
    for name, make in results.items():
        before = make().data
        file = study.path / "results" / f"{name}.nc"
        with xr.open_dataset(file) as opened:
            damaged = opened.load()
        first = str(next(iter(damaged.data_vars)))
        damaged.drop_vars(first).to_netcdf(file, engine="h5netcdf")
        assert not is_usable(study.folder, name)
        assert make().data[first].equals(before[first])


def _must_not_run(*given: object) -> None:
    pytest.fail("it was computed again")


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda study: study.patch("colours"), "question"),
        (lambda study: study.patch("custom"), "the question custom needs arms"),
        (lambda study: study.patch("blocks", concepts=["colour"]), "colour"),
        (lambda study: study.patch("blocks", colour=1), "colour"),
        (lambda study: study.patch("blocks", blocks=["block 3"]), "block 3"),
        (lambda study: study.probe("tf9.block"), "tf9.block"),
        (lambda study: study.probe(concepts=["colour"]), "colour"),
        (lambda study: study.train_sae("tf9.block"), "tf9.block"),
        (lambda study: study.figure("portrait"), "portrait"),
        (lambda study: study.result("patching-portrait"), "portrait"),
        (lambda study: study.activations("tf9.block"), "tf9.block"),
        (lambda study: open_study(study.path / "nowhere"), "not a study"),
    ],
)
def test_what_there_is_not(study: OpenStudy, ask: Callable[[OpenStudy], Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ask(study)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"prompts": "portraits"}, "portraits"),
        ({"sites": ["tf9.block"]}, "tf9"),
        ({"steps": [8]}, "8"),
        ({"passes": "second"}, "second"),
        ({"n_prompts": 0}, "n_prompts"),
    ],
)
def test_nothing_is_left_of_a_study_that_cannot_be(
    organism_shared: AceStep15, tmp_path: Path, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        trace(organism_shared, out=tmp_path / "study", **asked)
    assert list(tmp_path.iterdir()) == []


def test_directions_follow_the_question(study: OpenStudy) -> None:
    def directions(question: str, **options: Any) -> tuple[str, ...]:
        return asked_spec(study.folder, question, **options).directions

    assert directions("blocks") == ("sufficiency", "necessity")
    assert directions("steps") == ("sufficiency",)
    assert directions("blocks", screening={"method": "velocity"}) == ("sufficiency",)
    assert directions("steps", directions=["necessity"]) == ("necessity",)


def test_blocks_by_name_and_number(study: OpenStudy) -> None:
    spec = asked_spec(study.folder, blocks=["tf3", 4], sets=["tf3+tf4", (1, 2)])
    assert (spec.blocks, spec.sets) == ((3, 4), ((3, 4), (1, 2)))


def test_opening_loads_the_model_when_it_is_needed(study: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_study(study.path)
    assert "16 clips of organism-shared" in repr(opened)
    loaded = []
    monkeypatch.setattr(Study, "load_model", lambda self, device: loaded.append(device) or study.model)
    assert opened.model is opened.model is study.model
    assert loaded == ["cpu"]
