"""The map of the organism whose concepts share two blocks, against its planted truth."""

import pytest
import xarray as xr

from tests.e2e.planted_truth import CONCEPTS, assert_nothing_outside, impact_map
from workbench.models.ace_step import AceStep15

PAIRS = 4  # a concept of two blocks is spread over them differently from pair to pair


@pytest.fixture(scope="module")
def shared(organism_shared: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, dict]:
    return impact_map(organism_shared, tmp_path_factory.mktemp("truth") / "shared", PAIRS, sets=((3, 4),))


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
