"""Which features fire in a clip: what the page lists, and the selection in its URL."""

import json

import dash
import numpy as np
import pytest

from analyses.sae.trace import active_features, feature_trace, total_trace
from cache.errors import UserError
from dashboards.context import Context
from dashboards.links import read_query
from dashboards.pages import clip, clip_moment
from dashboards.shell import unknown_parts
from tests.dashboards.synthetic_study import SECONDS, STEPS, TOKENS
from tests.dashboards.test_pages import callback
from tests.tolerances import assert_close
from workbench.studies.study import Study

SAE = "tf3.cross_attn"


@pytest.mark.parametrize(("second", "step"), [(None, None), (0.5, None), (None, 4), (SECONDS, 2)])
def test_features_are_listed_with_their_largest_activation(
    study: Study, second: float | None, step: int | None
) -> None:
    found = active_features(study, SAE, 3, second, step).set_index("feature")
    token = None if second is None else min(int(second / SECONDS * TOKENS), TOKENS - 1)
    largest = {}
    for feature in range(48):
        trace = feature_trace(study, SAE, feature, 3)
        trace = trace if token is None else trace.isel(token=[token])
        trace = trace if step is None else trace.sel(step=[step])
        if float(trace.max()) > 0:
            largest[feature] = float(trace.max())
    assert found["activation"].to_dict() == largest
    assert (np.diff(found["activation"]) <= 0).all()
    one = found.iloc[0]
    trace = feature_trace(study, SAE, int(found.index[0]), 3)
    at = trace.sel(step=one["step"]).isel(token=round(one["second"] / SECONDS * TOKENS))
    assert float(at) == one["activation"]


@pytest.mark.parametrize(
    ("where", "said"), [((99,), "no clip 99"), ((0, 9.0), "second"), ((0, None, 3), "step")]
)
def test_a_moment_that_there_is_not_is_refused(study: Study, where: tuple[int, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        active_features(study, SAE, *where)


def test_the_page_ranks_features_and_links_to_their_cards(app: dash.Dash, study: Study) -> None:
    show = callback(app, clip, "show")
    found = show(f"?sae={SAE}&clip=3&second=0.5&step=4&by=share")
    assert found[:5] == (3, SAE, "0.5", "4", "share")
    recordings, prompt, listed, style, seconds, total, is_hidden, data, said = found[5:]
    assert "00003.flac" in recordings
    assert (float(seconds), prompt) == (SECONDS, study.clips["prompt"].iloc[3])
    token = int(0.5 / SECONDS * TOKENS)
    assert style["--left"] == f"{100 * token / TOKENS:.4g}%"
    assert style["--top"] == f"{100 * list(STEPS).index(4) / len(STEPS):.4g}%"
    assert (is_hidden, said) == (False, f"{clip_moment.STEPS} Marked: 0.50 s, step 4.")
    assert json.loads(data) == {"steps": list(STEPS), "token": SECONDS / TOKENS, "tokens": TOKENS}
    picture = app.server.test_client().get(total)
    assert (picture.status_code, picture.mimetype) == (200, "image/png")
    for other in (total.replace("/3.png", "/99.png"), total.replace(SAE, "none")):
        assert app.server.test_client().get(other).status_code == 404
    best = active_features(study, SAE, 3, 0.5, 4)
    assert f"{len(best)} features fire here" in str(listed)
    assert f"feature={best['feature'].iloc[0]}'" in str(listed)
    assert "no second 500" in str(show("?second=500")[7])
    assert show("")[8] == {}
    assert show("?step=4")[8]["--second"] == "none"


def test_a_moment_that_there_is_not_is_answered_by_what_there_is(study: Study) -> None:
    def remarks(**query: str) -> list[str]:
        return unknown_parts(clip.choices(Context(study), query), query)

    assert remarks(clip="3", second="0.5", step="4", by="share", sae=SAE) == []
    assert remarks(second=f"{SECONDS:g}") == []
    for second in ("-5", "x", "500", "nan"):
        (said,) = remarks(clip="3", second=second)
        assert said == f"There is no second '{second}' here: clip 3 has the seconds 0 to {SECONDS:g}."
    (said,) = remarks(sae=SAE, step="3")
    assert said == f"There is no step '3' here: the steps of {SAE} are {', '.join(map(str, STEPS))}."
    (said,) = remarks(clip="-1")
    assert said == f"There is no clip '-1' here: the clips are 0 to {len(study.clips) - 1}."


def test_the_picture_of_all_steps_has_the_sum_of_all_features(study: Study) -> None:
    total = total_trace(study, SAE, 3)
    traces = [feature_trace(study, SAE, feature, 3) for feature in range(48)]
    assert_close(total.values, sum(trace.values for trace in traces))
    assert total["seconds"].values.tolist() == traces[0]["seconds"].values.tolist()


def test_a_click_keeps_the_rest_of_the_selection(app: dash.Dash) -> None:
    select = callback(app, clip, "select")
    chosen = read_query(select(3, SAE, 0.52, "all", "activation", "?clip=3&by=share"))
    assert chosen == {"clip": "3", "sae": SAE, "second": "0.52"}
    assert select(0, SAE, "", "all", "activation", "") is dash.no_update
    assert read_query(select(0, SAE, "-", str(STEPS[1]), "share", "")) == {
        "clip": "0", "sae": SAE, "step": "2", "by": "share"
    }  # fmt: skip
