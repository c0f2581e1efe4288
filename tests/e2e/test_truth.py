"""The maps against the planted truth, for both organisms, through the real scorer."""

from pathlib import Path

import pytest
import xarray as xr

from analyses.patching import PatchingSpec, run_patching
from workbench.models.ace_step import AceStep15
from workbench.models.protocol import GenerationSettings
from workbench.prompts import load_prompt_set
from workbench.study import Study, StudySpec

PAIRS = 3
SEEDS = 2


def impact_map(
    model: AceStep15, folder: Path, sets: tuple[tuple[int, ...], ...] = ()
) -> tuple[xr.Dataset, dict]:
    """The patching result on few pairs, and the planted truth."""
    spec = StudySpec(
        model=model.name,
        prompts=load_prompt_set("organism"),
        settings=GenerationSettings(),
        n_prompts=2,
        seeds=1,
        sites=("tf0.cross_attn",),
        steps=(0,),
        passes=("cond",),
    )
    study = Study.create(folder, spec, model.describe())
    truth = study.truth_card()
    assert truth is not None
    return run_patching(study, model, PatchingSpec(pairs=PAIRS, seeds=SEEDS, sets=sets)), truth["concepts"]


def single_blocks(result: xr.Dataset) -> list[str]:
    return [arm for arm in result.arm.values if arm.startswith("tf") and "+" not in arm]


@pytest.fixture(scope="module")
def shared(organism_shared: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, dict]:
    return impact_map(organism_shared, tmp_path_factory.mktemp("truth") / "shared", sets=((3, 4),))


@pytest.fixture(scope="module")
def split(organism_split: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, dict]:
    return impact_map(organism_split, tmp_path_factory.mktemp("truth") / "split")


CONCEPTS = ["instrument", "tempo", "mood", "drums"]


@pytest.mark.parametrize("concept", CONCEPTS)
def test_shared_organism_holds_every_concept_in_its_two_blocks(
    shared: tuple[xr.Dataset, dict], concept: str
) -> None:
    result, truth = shared
    impact = result.sel(concept=concept)
    planted = [f"tf{block}" for block in truth[concept]]
    assert planted == ["tf3", "tf4"]
    assert bool(impact.defined)
    outside = [arm for arm in single_blocks(result) if arm not in planted]
    assert (impact.impact_lo.sel(arm=outside) <= 0).all()
    assert (impact.impact_lo.sel(arm=planted) > 0).any()
    assert float(impact.impact.sel(arm="tf3+tf4")) >= 0.9
    assert int(impact.n) == PAIRS * SEEDS


@pytest.mark.parametrize("concept", CONCEPTS)
def test_split_organism_holds_each_concept_in_its_own_block(
    split: tuple[xr.Dataset, dict], concept: str
) -> None:
    result, truth = split
    impact = result.sel(concept=concept)
    (block,) = truth[concept]
    assert bool(impact.defined)
    assert float(impact.impact.sel(arm=f"tf{block}")) >= 0.9
    outside = [arm for arm in single_blocks(result) if arm != f"tf{block}"]
    assert (impact.impact_lo.sel(arm=outside) <= 0).all()
    assert (abs(impact.impact.sel(arm=outside)) < 0.05).all()
