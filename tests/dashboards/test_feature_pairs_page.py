"""Two autoencoders side by side: the pairs that the page lists, and the selection in its URL."""

import threading
from pathlib import Path
from typing import Any

import dash
import numpy as np
import pytest

from analyses.sae.names import load_sae
from analyses.sae.pairs import By, Pairs, feature_pairs
from analyses.sae.trace import feature_trace
from cache.errors import UserError
from dashboards import feature_pairs as background
from dashboards.app import create_app
from dashboards.links import read_query
from dashboards.pages import feature_pairs as page
from dashboards.results import load_result
from tests.dashboards.synthetic_study import FEATURES, make_study
from tests.dashboards.test_pages import callback
from tests.tolerances import FLOAT32
from workbench.sae.folder import save_folder
from workbench.sae.topk import TopKConfig, TopKSAE
from workbench.studies.study import Study

ONE, TWO = "tf3.cross_attn", "tf4.cross_attn"


def test_cosines_and_correlations_are_those_of_decoders_and_traces(study: Study) -> None:
    found = feature_pairs(study, ONE, TWO)
    assert (found.by, found.is_one_to_one, found.clips) == ("decoder", True, len(study.clips))
    alive = load_result(study, f"sae-{ONE}")["alive"].values
    assert found.frame["feature"].tolist() == np.flatnonzero(alive).tolist()
    pair = found.frame[found.frame["other"] >= 0].iloc[0]
    features = {ONE: int(pair["feature"]), TWO: int(pair["other"])}
    rows = [load_sae(study, name).W_dec[feature].detach().numpy() for name, feature in features.items()]
    assert pair["cosine"] == pytest.approx(rows[0] @ rows[1] / np.prod([np.linalg.norm(row) for row in rows]))
    means = [
        [float(feature_trace(study, name, feature, clip).mean()) for clip in study.clips["clip"]]
        for name, feature in features.items()
    ]
    assert pair["correlation"] == pytest.approx(np.corrcoef(means)[0, 1])


@pytest.mark.parametrize(("by", "measure"), [("decoder", "cosine"), ("clips", "correlation")])
def test_an_autoencoder_is_matched_with_itself(study: Study, by: By, measure: str) -> None:
    """Several of its features have the same decoder row, so that not every one must be matched with itself."""
    found = feature_pairs(study, ONE, ONE, by)
    assert sorted(found.frame["other"]) == found.frame["feature"].tolist()
    assert found.frame[measure].to_numpy() == pytest.approx(1, abs=FLOAT32)


def test_decoders_of_other_widths_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(tmp_path)
    save_folder(TopKSAE(TopKConfig(d_in=8, d_sae=FEATURES, k=4)), study.path / "sae" / TWO, study.path)
    found = feature_pairs(study, ONE, TWO)
    assert found.by == "clips"
    assert found.frame["cosine"].isna().all()
    assert found.frame["correlation"].notna().any()
    assert "no cosines" in page.summary(found, TWO)
    with pytest.raises(UserError, match="16 and 8 channels"):
        feature_pairs(study, ONE, TWO, "decoder")
    monkeypatch.setattr(page, "PATIENCE", 60.0)
    said = callback(create_app(study.path), page, "show")(f"?sae={ONE}&with={TWO}&by=decoder", None)[6]
    assert "cannot be compared" in str(said)


def test_the_page_lists_pairs_with_links_to_both_cards(
    app: dash.Dash, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "PATIENCE", 60.0)
    show = callback(app, page, "show")
    *chosen, shown, total, table, _, _, is_over = show(f"?sae={ONE}&with={TWO}&page=99", None)
    assert (chosen, is_over) == ([ONE, TWO, "", ""], True)
    assert shown == total == 1
    found = feature_pairs(study, ONE, TWO)
    assert f"{found.frame['cosine'].median():.2f}" in str(table)
    best = found.frame.sort_values("cosine", ascending=False).iloc[0]
    for name, column in ((ONE, "feature"), (TWO, "other")):
        assert f"sae={name}&feature={int(best[column])}'" in str(table)
    assert str(table) != str(show(f"?sae={ONE}&with={TWO}&order=least", None)[6])


def test_the_page_says_how_far_the_matching_is_until_it_is_done(
    app: dash.Dash, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work goes on in the background, and who asks again gets the pairs."""
    half, all_of_it = threading.Event(), threading.Event()

    def match(*args: Any) -> Pairs:
        args[-1](0.5)
        half.set()
        all_of_it.wait(60)
        return feature_pairs(*args)

    monkeypatch.setattr(background, "feature_pairs", match)
    background._matching.cache_clear()
    monkeypatch.setattr(page, "PATIENCE", 0.0)
    show, search = callback(app, page, "show"), f"?sae={ONE}&with={TWO}"
    show(search, None)
    assert half.wait(60)
    table, is_hidden, done, is_over = show(search, 1)[6:]
    assert (table, is_hidden, done, is_over) == (None, False, 50, False)
    all_of_it.set()
    monkeypatch.setattr(page, "PATIENCE", 60.0)
    table, is_hidden, done, is_over = show(search, 2)[6:]
    assert (is_hidden, is_over) == (True, True)
    assert "matched by decoder" in str(table)


def test_the_selection_is_in_the_url(app: dash.Dash) -> None:
    select = callback(app, page, "select")
    assert select(ONE, TWO, "", "", 1, "") is dash.no_update
    assert read_query(select(ONE, TWO, "clips", "least", 1, "?page=2")) == {
        "sae": ONE, "with": TWO, "by": "clips", "order": "least"
    }  # fmt: skip
    assert read_query(select(ONE, TWO, "", "", 2, "")) == {"page": "2"}


def test_autoencoders_of_one_site_are_compared_unless_others_are_asked_for(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = {"a": "tf3.mlp", "b": "tf4.mlp", "c": "tf4.mlp", "d": "tf3.mlp"}
    monkeypatch.setattr(page, "sae_site", lambda _study, name: sites[name])

    def asked(*names: str, **query: str) -> tuple[str, str]:
        monkeypatch.setattr(page, "sae_names", lambda _study: list(names))
        return page._asked(study, query)[:2]

    assert asked("a", "b", "c") == ("b", "c")
    assert asked("a", "b", "c", "d", sae="d") == ("d", "a")
    assert asked("a", "b") == ("a", "b")
    assert asked("a", "b", "c", sae="b", **{"with": "a"}) == ("b", "a")
    assert page._sites(study, "b", "c") == ""
    assert "different sites, tf3.mlp and tf4.mlp" in page._sites(study, "a", "b")


def test_the_page_says_that_the_sites_differ(app: dash.Dash) -> None:
    *_, table, _hidden, _value, _disabled = callback(app, page, "show")("", None)
    assert f"different sites, {ONE} and {TWO}" in str(table)


def test_long_labels_do_not_widen_the_table(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    named = page.browser_frame(study, ONE).assign(label="<b>" + "W" * 5000)
    monkeypatch.setattr(page, "browser_frame", lambda _study, _name: named)
    rows = feature_pairs(study, ONE, TWO).frame.iloc[:1]
    told = str(page._table(study, ONE, TWO, rows))
    assert "<b>W" in told
    assert "W" * page.LONGEST_NAME not in told
