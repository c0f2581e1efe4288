"""Results of other shapes, types or kinds than they should have are named, and nothing of them is shown."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from cache.errors import UserError
from dashboards.results import load_result, problem
from tests.dashboards.synthetic_study import _Spec, make_study
from workbench.study import Study

Change = Callable[[xr.Dataset], xr.Dataset]


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A complete study, whose results the tests replace."""
    return make_study(tmp_path_factory.mktemp("spoilt"))


def audio(path: str) -> Change:
    def change(result: xr.Dataset) -> xr.Dataset:
        values = result["audio"].values.astype(object)
        values[0, 0, 0, 0] = path
        return result.assign(audio=(result["audio"].dims, values))

    change.__name__ = path or "none"
    return change


def replaced(name: str, value: Callable[[xr.DataArray], object]) -> Change:
    def change(result: xr.Dataset) -> xr.Dataset:
        return result.assign({name: value(result[name])})

    change.__name__ = name
    return change


def attribute(name: str, value: object) -> Change:
    def change(result: xr.Dataset) -> xr.Dataset:
        return result.assign_attrs({name: value})

    change.__name__ = f"{name}={value}"
    return change


CASES = [
    ("patching-blocks", audio("../secret.flac"), "names recordings outside"),
    ("patching-blocks", audio("audio/../../secret.flac"), "names recordings outside"),
    ("patching-blocks", audio("/evil.example/a.flac"), "names recordings outside"),
    ("patching-blocks", audio("audio//evil.example/a.flac"), "names recordings outside"),
    ("patching-blocks", audio("audio/\\evil.flac"), "names recordings outside"),
    ("patching-blocks", audio("audio/clips/00000.wav"), "names recordings outside"),
    ("patching-blocks", audio("study.json"), "names recordings outside"),
    (
        "patching-blocks",
        replaced("impact", lambda old: old.isel(arm=0, drop=True)),
        "dimensions (concept, scorer)",
    ),
    (
        "patching-blocks",
        replaced("score", lambda old: old.astype(str)),
        "other values for score than numbers",
    ),
    ("patching-blocks", replaced("row", lambda old: ("arm", np.arange(old.size))), "for row than texts"),
    ("patching-blocks", attribute("kind", "probes"), "of the kind 'probes', not 'patching'"),
    ("patching-blocks", attribute("question", 3), "has no question"),
    ("probes", replaced("accuracy_mean", lambda old: old.isel(step=0, drop=True)), "for accuracy_mean"),
    ("probes", replaced("concept", lambda old: ("concept", ["tempo"] * old.size)), "labels of concept"),
    (
        "sae-tf3.cross_attn",
        replaced("top_clip", lambda old: old + 10**6),
        "names clips that the study does not have",
    ),
    (
        "sae-tf3.cross_attn",
        replaced("top_clip", lambda old: old - 10),
        "names clips that the study does not have",
    ),
    ("sae-tf3.cross_attn", replaced("final_loss", lambda _: ("bin", np.zeros(12))), "for final_loss"),
]


@pytest.mark.parametrize(
    ("name", "change", "told"), CASES, ids=lambda value: getattr(value, "__name__", None)
)
def test_what_no_result_has_is_told(spoilt: Study, name: str, change: Change, told: str) -> None:
    file = spoilt.path / "results" / f"{name}.nc"
    kept = file.read_bytes()
    assert problem(spoilt, name) is None
    try:
        spoilt.save_result(name, change(spoilt.result(name)), _Spec(note=name), 1.0)
        with pytest.raises(UserError) as refused:
            load_result(spoilt, name)
        assert told in str(refused.value)
    finally:
        file.write_bytes(kept)


def test_a_result_without_recordings_is_shown(spoilt: Study) -> None:
    file = spoilt.path / "results" / "patching-blocks.nc"
    kept = file.read_bytes()
    try:
        spoilt.save_result(
            "patching-blocks", audio("")(spoilt.result("patching-blocks")), _Spec(note="none"), 1.0
        )
        assert problem(spoilt, "patching-blocks") is None
    finally:
        file.write_bytes(kept)
