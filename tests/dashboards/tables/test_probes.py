"""The table of probes holds the result's numbers, corrected over all of them."""

from analyses.statistics import benjamini_hochberg
from dashboards.tables.probes import probes_frame
from workbench.studies.study import Study


def test_probes_equal_the_result(study: Study) -> None:
    result = study.result("probes")
    frame = probes_frame(result)
    assert len(frame) == result["p_value"].size
    for row in frame.sample(40, random_state=0).itertuples():
        cell = result.sel(concept=row.concept, site=row.site, step=row.step)
        assert (row.accuracy, row.accuracy_lo, row.accuracy_hi) == (
            cell.accuracy_mean,
            cell.accuracy_lo,
            cell.accuracy_hi,
        )
        assert (row.control, row.selectivity, row.chance, row.sigma) == (
            cell.control_mean,
            cell.selectivity,
            cell.chance,
            cell.sigma,
        )
        assert row.site == f"tf{row.block}.{row.part}"


def test_probes_are_corrected_over_the_whole_result(study: Study) -> None:
    result = study.result("probes")
    frame = probes_frame(result)
    assert sorted(frame["q_value"]) == sorted(benjamini_hochberg(result["p_value"].values).ravel())
    assert (frame["q_value"] >= frame["p_value"]).all()
    assert frame["q_value"].min() > frame["p_value"].min()


def test_sites_are_in_order_of_computation(study: Study) -> None:
    frame = probes_frame(study.result("probes"))
    assert list(dict.fromkeys(frame["part"])) == ["cross_attn", "mlp"]
    of_part = frame[frame["part"] == "mlp"]
    assert list(dict.fromkeys(of_part["block"])) == list(range(8))
