"""The maps against the planted truth, for both organisms, through the real scorer."""

from pathlib import Path

import pytest
import xarray as xr

from analyses.patching import PatchingSpec, run_patching
from workbench.models.ace_step import AceStep15
from workbench.models.protocol import GenerationSettings
from workbench.prompts import load_prompt_set
from workbench.study import Study, StudySpec

PAIRS = 6


def impact_map(
    model: AceStep15, folder: Path, sets: tuple[tuple[int, ...], ...] = ()
) -> tuple[xr.Dataset, dict]:
    """The patching result on few pairs, and the planted truth."""
    study_spec = StudySpec(
        model=model.name,
        prompts=load_prompt_set("organism"),
        settings=GenerationSettings(),
        n_prompts=2,
        seeds=1,
        sites=("tf0.cross_attn",),
        steps=(0,),
        passes=("cond",),
    )
    study = Study.create(folder, study_spec, model.describe())
    truth = study.truth_card()
    assert truth is not None
    spec = PatchingSpec(pairs=PAIRS, sets=sets, nulls=("unrelated",))
    assert spec.result_name == "patching-blocks"
    run_patching(study, model, spec)
    return study.result(spec.result_name), truth["concepts"]


def single_blocks(result: xr.Dataset, suffix: str = "") -> list[str]:
    return [f"{block}{suffix}" for block in sorted(set(result.row.values)) if block and "+" not in block]


@pytest.fixture(scope="module")
def shared(organism_shared: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, dict]:
    return impact_map(organism_shared, tmp_path_factory.mktemp("truth") / "shared", sets=((3, 4),))


@pytest.fixture(scope="module")
def split(organism_split: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, dict]:
    return impact_map(organism_split, tmp_path_factory.mktemp("truth") / "split")


CONCEPTS = ["instrument", "tempo", "mood", "drums"]


def assert_nothing_outside(impact: xr.Dataset, planted: list[str]) -> None:
    """Blocks where nothing is planted neither bring the concept back nor take it away; null arms hardly move it."""
    for suffix in ("", " necessity"):
        outside = [arm for arm in single_blocks(impact, suffix) if arm.removesuffix(suffix) not in planted]
        assert len(outside) == 8 - len(planted)
        assert (impact.impact_lo.sel(arm=outside) <= 0).all()
        assert (abs(impact.impact.sel(arm=outside)) < 0.05).all()
    nulls = impact.impact.sel(arm=single_blocks(impact, " null unrelated"))
    assert (abs(nulls) < 0.15).all()
    assert float(impact.impact.sel(arm=planted).max()) > float(impact.null_hi)


@pytest.mark.parametrize("concept", CONCEPTS)
def test_shared_organism_holds_every_concept_in_its_two_blocks(
    shared: tuple[xr.Dataset, dict], concept: str
) -> None:
    result, truth = shared
    impact = result.sel(concept=concept, scorer="embedded")
    planted = [f"tf{block}" for block in truth[concept]]
    assert planted == ["tf3", "tf4"]
    assert bool(impact.defined)
    assert int(impact.n) == int(impact.n_pairs) == PAIRS
    assert_nothing_outside(impact, planted)
    assert (impact.impact_lo.sel(arm=planted) > 0).any()
    assert float(impact.impact.sel(arm="tf3+tf4")) >= 0.9
    assert float(impact.impact.sel(arm="tf3+tf4 necessity")) >= 0.9


@pytest.mark.parametrize("concept", CONCEPTS)
def test_split_organism_holds_each_concept_in_its_own_block(
    split: tuple[xr.Dataset, dict], concept: str
) -> None:
    result, truth = split
    impact = result.sel(concept=concept, scorer="embedded")
    (block,) = truth[concept]
    assert bool(impact.defined)
    assert float(impact.impact.sel(arm=f"tf{block}")) >= 0.9
    assert float(impact.impact.sel(arm=f"tf{block} necessity")) >= 0.9
    assert_nothing_outside(impact, [f"tf{block}"])
