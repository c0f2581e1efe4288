"""The map of the organism whose concepts have a block each, against its planted truth."""

import pytest
import xarray as xr

from tests.e2e.planted_truth import CONCEPTS, assert_nothing_outside, impact_map
from workbench.models.ace_step import AceStep15


@pytest.fixture(scope="module")
def split(organism_split: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, dict]:
    return impact_map(organism_split, tmp_path_factory.mktemp("truth") / "split", pairs=6)


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
