"""A whole small study of AudioLDM 2 through the command line, whose blocks have names and several resolutions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dashboards.figures.patching_comparison import PatchingComparisonSpec, compare
from dashboards.tables.probes import block_labels, probes_frame
from tests.e2e.cli import Workbench, workbench
from tests.e2e.small_study import audio_of, check_steering
from tests.tiny_audioldm2 import save_tiny_pipeline
from tests.tolerances import AUDIO_STEP
from workbench.audio import read_audio
from workbench.studies.study import Study

__all__ = ["workbench"]

SITE = "up1tf5attn0.cross_attn"
CLIP = ("--duration", "2", "--num-steps", "3", "--option", "negative_prompt=low quality")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("audioldm2"))


def test_trace(workbench: Workbench, model: Path, folder: Path) -> None:
    sites = ("--site", "down0tf2attn0.cross_attn", "--site", SITE)
    outcome = workbench(
        "trace", model, "--out", folder, "--n-prompts", "16", "--seeds", "1", *CLIP,
        *sites, "--steps", "0,2", "--passes", "cond,null", "--site-dtype", f"{SITE}=float32",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    study = Study.open(folder)
    assert study.spec.sites == ("tf1.cross_attn", "tf6.cross_attn")
    assert study.block_names[6] == "up1tf5attn0"
    assert study.cache.read("tf6.cross_attn").shape == (16, 2, 2, 400, 16)
    assert study.cache.plan.dtypes == {"tf1.cross_attn": "float16", "tf6.cross_attn": "float32"}
    audio, rate = read_audio(study.audio_path(3))
    assert rate == 16000
    assert audio.shape[0] == 1
    assert np.abs(audio).max() > 0.01


def test_blocks_of_several_resolutions_are_refused_or_pooled(
    workbench: Workbench, model: Path, tmp_path: Path
) -> None:
    command = ("trace", model, "--out", tmp_path / "all", "--n-prompts", "2", "--seeds", "1", *CLIP)
    outcome = workbench(*command)
    assert outcome.code == 2
    assert "same number of tokens; down0tf1attn0 to down0tf2attn0 have 400" in outcome.err
    assert not (tmp_path / "all").exists()
    assert workbench(*command, "--tokens", "mean", "--dry-run").code == 0
    outcome = workbench(*command, "--tokens", "mean")
    assert outcome.code == 0, outcome
    cache = Study.open(tmp_path / "all").cache
    assert cache.read("tf0.block").shape == (2, 3, 1, 1, 16)
    assert cache.read("tf2.block").shape == (2, 3, 1, 1, 24)
    assert cache.plan.token_seconds == pytest.approx(2.0)


def test_patch(workbench: Workbench, folder: Path) -> None:
    outcome = workbench(
        "patch", folder, "--concept", "mood", "--pairs", "2", "--null", "unrelated",
        "--block", "midtf1attn0", "--block", "tf6", "--set", "up1tf5attn0+up1tf6attn0",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    result = Study.open(folder).result("patching-blocks")
    cells = result.arm.values[(result.role == "cell") & (result.direction == "sufficiency")]
    assert list(cells) == ["midtf1attn0", "up1tf5attn0", "up1tf5attn0+up1tf6attn0"]
    assert result.score.notnull().all()
    assert "tf2.cross_attn" in result.spec.sel(arm="midtf1attn0").item()


def test_patch_through_each_encoder(workbench: Workbench, folder: Path) -> None:
    outcome = workbench(
        "patch", folder, "--concept", "mood", "--pairs", "1", "--question", "conditioning",
        "--block", "up1tf5attn0", "--block", "up1tf6attn0",
        "--segment", "generated", "--segment", "text",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    result = Study.open(folder).result("patching-conditioning")
    name = "patching-conditioning"
    corrupt = audio_of(folder, "corrupt", name)
    apart = {str(arm): np.abs(audio_of(folder, str(arm), name) - corrupt).max() for arm in result.arm.values}
    same = {arm for arm, difference in apart.items() if difference <= 2 * AUDIO_STEP}
    assert same == {"corrupt", "up1tf5attn0 text", "up1tf6attn0 generated"}, "not read there"


def test_steer(workbench: Workbench, folder: Path) -> None:
    check_steering(workbench, folder)


def test_probe(workbench: Workbench, folder: Path) -> None:
    outcome = workbench("probe", folder, "--concept", "mood", "--folds", "2", "--site", SITE)
    assert outcome.code == 0, outcome
    frame = probes_frame(Study.open(folder).result("probes"))
    assert set(frame["site"]) == {"tf6.cross_attn"}
    assert block_labels(frame) == ["up1tf5attn0"]
    assert frame["accuracy"].notna().all()


def test_sae(workbench: Workbench, folder: Path) -> None:
    outcome = workbench(
        "sae", "train", folder, "--site", SITE, "--expansion", "2", "--k", "4", "--train-steps", "50"
    )
    assert outcome.code == 0, outcome
    assert 0 < float(Study.open(folder).result("sae-tf6.cross_attn").final_l0) <= 4


@pytest.mark.parametrize("figure", ["patching", "probes"])
def test_export_names_the_blocks(workbench: Workbench, folder: Path, tmp_path: Path, figure: str) -> None:
    outcome = workbench("export", folder, "--figure", figure, "--format", "svg", "--out", tmp_path)
    assert outcome.code == 0, outcome
    files = {file.suffix: file for file in map(Path, outcome.out.split())}
    assert "up1tf5attn0" in files[".csv"].read_text()
    assert "up1tf5attn0" in json.dumps(json.loads(files[".json"].read_text()))


def test_the_published_table_has_the_same_rows(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "published.csv"
    rows = [
        ("audioldm2", "mood", block, attn, impact)
        for block, attn, impact in [
            ("midtf1", 0, 0.1),
            ("midtf1", 1, 0.2),
            ("up1tf5", 0, 0.5),
            ("up1tf5", 1, 0),
        ]
    ]
    pd.DataFrame(rows, columns=["model", "concept", "block", "attn", "impact"]).to_csv(table, index=False)
    spec = PatchingComparisonSpec(name="blocks", published=str(table), model="audioldm2")
    matched = compare(Study.open(folder), spec).frame
    assert set(matched[matched["side"] == "right"]["row"]) == {
        "midtf1attn0",
        "midtf1attn1",
        "up1tf5attn0",
        "up1tf5attn1",
    }
    assert {"midtf1attn0", "up1tf5attn0"} <= set(matched[matched["side"] == "left"]["row"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--block", "up1tf5"), "'up1tf5' is not a block. Write it like down0tf1attn0"),
        (
            ("--set", "up1tf5attn0+nothing"),
            "is not a set of blocks. Write it like down0tf1attn0+down0tf2attn0",
        ),
        (("--question", "paths"), "Paths are not supported for this model"),
        (("--question", "seconds"), "same number of tokens"),
    ],
)
def test_bad_requests(workbench: Workbench, folder: Path, arguments: tuple[str, ...], sentence: str) -> None:
    outcome = workbench("patch", folder, "--concept", "mood", "--pairs", "1", *arguments)
    assert outcome.code == 2
    assert sentence in " ".join(outcome.err.split())
