"""Published impacts: the paper's block means and functional sets, and the table as a result of a study."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analyses.patching.published_map import (
    block_means,
    functional_set,
    import_published_map,
    load_published_map,
    published_map,
    published_names,
)
from cache.errors import UserError
from tests.analyses.planted_study import make_planted_study
from workbench.artefacts.published import load_published
from workbench.studies.study import Study

# Impacts by concept as published with TADA (arXiv 2602.11910), of the blocks that decide on the functional sets.
ACE_STEP = {
    "tf5": {
        "drums": 0.16,
        "fast": 0.333333,
        "female": 0.0,
        "happy": 0.0,
        "jazz": 0.012987,
        "male": 0.0,
        "reggae": 0.015748,
        "sad": 0.0,
        "slow": 0.333333,
        "violin": 0.085714,
    },
    "tf6": {
        "drums": 0.08,
        "fast": 0.333333,
        "female": 0.480519,
        "happy": 0.454545,
        "jazz": 0.428571,
        "male": 0.425532,
        "reggae": 0.023622,
        "sad": 0.08,
        "slow": 0.611111,
        "violin": 0.0,
    },
    "tf7": {
        "drums": 0.8,
        "fast": 0.208333,
        "female": 0.116883,
        "happy": 0.454545,
        "jazz": 0.506494,
        "male": 0.680851,
        "reggae": 0.606299,
        "sad": 0.4,
        "slow": 0.111111,
        "violin": 1.0,
    },
}
# Means as published; the other blocks of both models lie below.
MEANS = {
    "ace": {"tf3": 0.0266, "tf5": 0.0941, "tf6": 0.2917, "tf7": 0.4885, "tf13": 0.0346, "tf14": 0.0350},
    "sao": {"tf4": 0.0946, "tf5": 0.0683, "tf11": 0.2216, "tf12": 0.5112, "tf13": 0.1167, "tf18": 0.0660},
}


def write(file: Path, rows: list[tuple[object, ...]]) -> Path:
    names = ["model", "metric", "concept", "block", "attn", "impact"]
    pd.DataFrame(rows, columns=names).to_csv(file, index=False)
    return file


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The three blocks of ACE-Step as published, and both models' means as two concepts around them."""
    rows: list[tuple[object, ...]] = [
        ("ace", "clap" if concept in ("female", "male") else "muq", concept, block, 0, impact)
        for block, of_concept in ACE_STEP.items()
        for concept, impact in of_concept.items()
    ]
    for model, means in MEANS.items():
        for block, mean in means.items():
            rows += [(f"{model}-means", "clap", "one", block, 0, mean - 0.02)]
            rows += [(f"{model}-means", "clap", "two", block, 0, mean + 0.02)]
    return write(tmp_path / "impacts.csv", rows)


def test_block_means_are_the_published_ones(table: Path) -> None:
    means = block_means(load_published(table), "ace")
    assert means.round(4).to_dict() == {"tf5": 0.0941, "tf6": 0.2917, "tf7": 0.4885}
    for model, published in MEANS.items():
        assert block_means(load_published(table), f"{model}-means").to_dict() == pytest.approx(published)


@pytest.mark.parametrize(
    ("model", "threshold", "blocks"),
    [
        ("ace-means", 0.10, ["tf6", "tf7"]),
        ("ace-means", 0.20, ["tf6", "tf7"]),
        ("ace-means", 0.075, ["tf5", "tf6", "tf7"]),
        ("ace", 0.10, ["tf6", "tf7"]),
        ("ace", 0.075, ["tf5", "tf6", "tf7"]),
        ("sao-means", 0.10, ["tf11", "tf12", "tf13"]),
        ("sao-means", 2.0, []),
    ],
)
def test_functional_sets_are_the_published_ones(
    table: Path, model: str, threshold: float, blocks: list[str]
) -> None:
    assert functional_set(block_means(load_published(table), model), threshold) == blocks


def test_the_threshold_itself_is_in_the_set() -> None:
    assert functional_set({"tf0": 0.1, "tf1": 0.0999, "tf2": float("nan")}, 0.1) == ["tf0"]


def test_every_concept_has_the_same_weight(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [("m", "", "a", "tf0", "", 1), ("m", "", "b", "tf0", "", 0)]
    rows += [("m", "", "a", "tf1", "", 0.5), ("m", "", "b", "tf1", "", 0.25)]
    assert block_means(load_published(write(tmp_path / "t.csv", rows))).tolist() == [0.5, 0.375]


def test_attentions_of_one_block_are_blocks_of_their_own(tmp_path: Path) -> None:
    """AudioLDM2's: one row of the table for each of a block's two transformers."""
    rows: list[tuple[object, ...]] = [
        ("m", "clap", "fast", "up1tf5", 0, 0.54),
        ("m", "clap", "fast", "up1tf5", 1, 0.16),
        ("m", "clap", "fast", "midtf1", 0, 0.0),
    ]
    means = block_means(load_published(write(tmp_path / "t.csv", rows)))
    assert means.to_dict() == {"up1tf5attn0": 0.54, "up1tf5attn1": 0.16, "midtf1": 0.0}


def test_the_table_is_a_dataset(table: Path) -> None:
    result = published_map(load_published(table), "ace")
    assert result.attrs == {"kind": "published", "schema_version": 1, "model": "ace"}
    assert result.impact.dims == ("concept", "block")
    for block, of_concept in ACE_STEP.items():
        for concept, impact in of_concept.items():
            assert result.impact.sel(concept=concept, block=block).item() == impact
    assert result.metric.sel(concept="female").item() == "clap"
    assert result.metric.sel(concept="slow").item() == "muq"
    np.testing.assert_allclose(result["mean"], result.impact.mean("concept"))


def test_a_study_keeps_it(tmp_path: Path, table: Path) -> None:
    study = make_planted_study(tmp_path / "study")
    assert published_names(study) == []
    result = import_published_map(study, table, "sao-means")
    assert published_names(study) == ["sao-means"]
    assert study.result_names() == ["published-sao-means"]
    assert load_published_map(Study.open(study.path), "sao-means").identical(result)
    assert '"source":"impacts.csv"' in result.attrs["spec"]
    with pytest.raises(UserError, match=r"no published map of 'ace' \(it has sao-means\).*workbench import"):
        load_published_map(study, "ace")
    with pytest.raises(UserError, match="no model 'other'"):
        import_published_map(study, table, "other")
    with pytest.raises(UserError, match="has several models"):
        import_published_map(study, table)


def test_a_model_cannot_lead_elsewhere(tmp_path: Path) -> None:
    study = make_planted_study(tmp_path / "study")
    file = write(tmp_path / "t.csv", [("../../evil", "", "a", "tf0", "", 1)])
    with pytest.raises(UserError, match="cannot be part of a file name"):
        import_published_map(study, file)
    assert study.result_names() == []
    assert not list(tmp_path.rglob("*evil*"))
