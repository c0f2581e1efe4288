"""`workbench import` into a file and into a study, and what it prints."""

from pathlib import Path

import pytest
import xarray as xr

from analyses.patching.published_map import load_published_map
from analyses.sae.names import load_sae
from cache.errors import UserError
from tests.analyses.planted_study import CHANNELS, make_planted_study
from tests.workbench.artefacts import builders
from tests.workbench.artefacts.test_hostile import KINDS, Kind, run
from workbench.artefacts.written import list_imported
from workbench.sae.folder import load_folder
from workbench.studies.study import Study

TABLE = """model,metric,concept,block,attn,impact
ace,clap,fast,tf6,0,0.30
ace,clap,fast,tf7,0,0.50
ace,clap,slow,tf6,0,0.20
ace,clap,slow,tf7,0,0.10
ace,clap,slow,tf8,0,0.05
other,clap,slow,tf8,0,1
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_planted_study(tmp_path / "study")


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.command != "sae"], ids=lambda kind: kind.command
)
def test_a_study_keeps_an_artefact_by_its_name(tmp_path: Path, study: Study, kind: Kind) -> None:
    source = kind.write(tmp_path / "source")
    run(kind.command, source, "--study", study.path)
    (imported,) = list_imported(study.path)
    assert imported.metadata["kind"] == kind.command
    assert imported.metadata["source"] == str(source)
    assert imported.file.parent == study.path / "imported"
    run(kind.command, source, "--study", study.path)  # again: the same file
    assert len(list_imported(study.path)) == 1


def test_what_is_printed_tells_the_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = builders.write_caa(tmp_path / "caa")
    run("caa", folder, "--out", tmp_path / "v.safetensors")
    printed = " ".join(capsys.readouterr().out.split())
    for words in (
        "CAA steering vectors",
        "concept rock_genre",
        "+ is jazz (jazz song, {p})",
        "− is rock (rock song, {p})",
        "sites tf0.cross_attn, tf1.cross_attn",
        "steps 3",
        "4 of 3 × 8",
        "without lyrics",
    ):
        assert words in printed


def test_the_concept_can_be_given(tmp_path: Path) -> None:
    folder = builders.write_caa(tmp_path / "caa", concept=None)
    with pytest.raises(UserError, match="no concept given"):
        run("caa", folder, "--out", tmp_path / "v.safetensors")
    run("caa", folder, "--out", tmp_path / "v.safetensors", "--concept", "electronic-music")
    assert not (tmp_path / "v.safetensors").is_dir()


def test_vectors_of_another_model_are_not_kept(tmp_path: Path, study: Study) -> None:
    vectors = builders.caa_vectors({"tf0": CHANNELS, "tf1": CHANNELS + 1})
    folder = builders.write_caa(tmp_path / "caa", vectors)
    with pytest.raises(
        UserError, match=r"9 channels at tf1\.cross_attn, but .* has 8 there. They belong to another model"
    ):
        run("caa", folder, "--study", study.path)
    assert list_imported(study.path) == []


def test_an_autoencoder_is_put_into_a_study_or_a_folder(tmp_path: Path, study: Study) -> None:
    folder = builders.write_sae(tmp_path / "tf1.cross_attn")
    run("sae", folder, "--study", study.path)
    assert study.result_names() == ["sae-tf1.cross_attn"]
    assert load_sae(study, "tf1.cross_attn").config.settings == {"k": 4}
    run("sae", folder, "--out", tmp_path / "converted", "--site", "tf3.cross_attn")
    assert load_folder(tmp_path / "converted").config.metadata["hook_name"] == "tf3.cross_attn"


def test_a_published_table_is_put_into_a_study_or_a_file(
    tmp_path: Path, study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "impacts.csv"
    table.write_text(TABLE)
    with pytest.raises(UserError, match=r"has several models.*Choose one of ace, other"):
        run("localisation", table, "--study", study.path)
    run("localisation", table, "--study", study.path, "--model", "ace")
    printed = " ".join(capsys.readouterr().out.split())
    assert "largest means tf7 0.3000, tf6 0.2500, tf8 0.0500" in printed
    assert "functional set, τ = 0.1 tf6, tf7" in printed
    assert load_published_map(study, "ace")["mean"].sel(block="tf7").item() == pytest.approx(0.3)
    run("localisation", table, "--out", tmp_path / "map.nc", "--model", "ace", "--threshold", "0.05")
    assert "functional set, τ = 0.05 tf6, tf7, tf8" in " ".join(capsys.readouterr().out.split())
    assert xr.load_dataset(tmp_path / "map.nc", engine="h5netcdf").attrs["model"] == "ace"
