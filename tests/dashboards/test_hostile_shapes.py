"""Results of other shapes, types or kinds than they should have are named, and nothing of them is shown."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from cache.errors import UserError
from dashboards.export import export_figure
from dashboards.results import load_result, problem
from tests.dashboards.synthetic_study import _Spec
from workbench.studies.study import Study

Change = Callable[[xr.Dataset], xr.Dataset]


@pytest.fixture(scope="module")
def spoilt(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A complete study, whose results the tests replace."""
    return Study.open(shutil.copytree(study.path, tmp_path_factory.mktemp("spoilt") / "study"))


@pytest.fixture(scope="module")
def good(spoilt: Study) -> dict[str, xr.Dataset]:
    """Its results, read once, which can all be shown, also as the tests write them."""
    results = {name: spoilt.result(name) for name in FIGURES_OF}
    for name, result in results.items():
        with replaced_file(spoilt, name, result):
            assert problem(spoilt, name) is None
    return results


def write(result: xr.Dataset, file: Path) -> None:
    """Write a result as the product does, but six times as fast with netCDF4 if that is possible."""
    if not all(result.sizes.values()):  # netCDF4 cannot write a dimension of length 0
        result.to_netcdf(file, engine="h5netcdf")
        return
    result.drop_attrs(deep=False).to_netcdf(file, engine="netcdf4")
    with h5py.File(file, "r+") as stored:  # netCDF4 would write texts as bytes
        stored.attrs.update(result.attrs)


@contextmanager
def replaced_file(study: Study, name: str, result: xr.Dataset) -> Iterator[None]:
    """A study whose file of a result has other contents."""
    file = study.path / "results" / f"{name}.nc"
    kept = file.read_bytes()
    file.unlink()
    try:
        write(result, file)
        yield
    finally:
        file.unlink()
        file.write_bytes(kept)


def audio(path: str) -> Change:
    def change(result: xr.Dataset) -> xr.Dataset:
        values = result["audio"].values.astype(object)
        values.flat[0] = path
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
        "values of score that are not numbers",
    ),
    (
        "patching-blocks",
        replaced("row", lambda old: ("arm", np.arange(old.size))),
        "values of row that are not text",
    ),
    ("patching-blocks", attribute("kind", "probes"), "is of the kind 'probes', not 'patching'"),
    ("patching-blocks", attribute("question", 3), "has no question"),
    ("probes", replaced("accuracy_mean", lambda old: old.isel(step=0, drop=True)), "for accuracy_mean"),
    ("probes", replaced("concept", lambda old: ("concept", ["tempo"] * old.size)), "labels of concept twice"),
    (
        "patching-blocks",
        replaced("p_adjusted", lambda old: old + 99),
        "values of p_adjusted outside the range 0 to 1",
    ),
    (
        "probes",
        replaced("held_together", lambda old: ("concept", ["seed"] * old.size)),
        "held_together other than context, prompt",
    ),
    ("probes", replaced("held_together", lambda old: old == ""), "held_together that are not text"),
    ("probes", replaced("p_value", lambda old: old - 0.999), "values of p_value outside the range 0 to 1"),
    (
        "sae-tf3.cross_attn",
        replaced("auroc", lambda old: old + 1.1),
        "values of auroc outside the range 0 to 1",
    ),
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
    (
        "sae-tf3.cross_attn",
        replaced("quantile_clip", lambda old: old + 10**6),
        "names clips that the study does not have",
    ),
    (
        "sae-tf3.cross_attn",
        replaced("coactive_neighbour", lambda old: old + 10**6),
        "names neighbours that are not features",
    ),
    (
        "sae-tf3.cross_attn",
        replaced("label", lambda old: ("feature", ["?"] * old.size)),
        "labels that are not values of concepts",
    ),
    (
        "sae-tf3.cross_attn",
        replaced("mean_to_spread", lambda old: old.astype(str)),
        "values of mean_to_spread that are not numbers",
    ),
    ("sae-tf3.cross_attn", replaced("label", lambda old: old == ""), "values of label that are not text"),
    ("sae-tf3.cross_attn", replaced("p_adjusted", lambda old: old + 3), "values of p_adjusted outside"),
    ("steering-tempo", audio("../secret.flac"), "names recordings outside"),
    ("steering-tempo", attribute("kind", "patching"), "is of the kind 'patching', not 'steering'"),
    ("steering-tempo", attribute("concept", "key"), "has no scores of the steered concept"),
    ("steering-tempo", replaced("strength", lambda old: old.astype(str)), "strength that are not numbers"),
    ("steering-tempo", replaced("strength", lambda old: old * np.nan), "strengths that are not finite"),
    ("steering-tempo", replaced("role", lambda old: ("arm", ["cell"] * old.size)), "has no unsteered runs"),
    (
        "steering-tempo",
        replaced("row", lambda old: ("arm", np.arange(old.size))),
        "values of row that are not text",
    ),
    ("steering-tempo", replaced("effect", lambda old: old.isel(arm=0, drop=True)), "for effect"),
    ("steering-tempo", replaced("impact", lambda old: old.isel(scorer=0, drop=True)), "for impact"),
    ("steering-tempo", replaced("upward", lambda old: old.astype(str)), "upward that are not numbers"),
    ("steering-tempo", replaced("p", lambda old: old + 3), "values of p outside the range 0 to 1"),
    ("steering-tempo", replaced("n_pairs", lambda old: old * np.nan), "invalid pair counts"),
    (
        "benchmark-strict",
        attribute("kind", "benchmark"),
        "is of the kind 'benchmark', not 'steering-benchmark'",
    ),
    ("benchmark-strict", attribute("spec", "{}"), "has a spec that does not name its trials"),
    ("benchmark-strict", attribute("protocol", "lenient"), "has an unknown protocol 'lenient'"),
    ("benchmark-strict", attribute("confidence", "95"), "has no confidence level"),
    ("benchmark-strict", attribute("warnings", 3), "it has no warnings"),
    ("benchmark-strict", replaced("sign", lambda _: ("sign", ["positive", "up"])), "signs other than"),
    ("benchmark-strict", replaced("ratio", lambda old: old.isel(arm=0, drop=True)), "for ratio"),
    ("benchmark-strict", replaced("leakage", lambda old: old.astype(str)), "leakage that are not numbers"),
    ("benchmark-strict", replaced("reason", lambda old: old == ""), "values of reason that are not text"),
    ("benchmark-strict", replaced("strength", lambda old: old * np.nan), "strengths that are not finite"),
    (
        "benchmark-strict",
        replaced("row", lambda old: ("arm", [f"{row}!" for row in old.values])),
        "arms of ways of steering that it does not",
    ),
    ("benchmark-strict", replaced("role", lambda old: ("arm", ["cell"] * old.size)), "that it does not have"),
    ("benchmark-strict", replaced("n_pairs", lambda old: old * np.nan), "invalid counts in n_pairs"),
    ("benchmark-strict", replaced("judged", lambda _: ("judged", ["mood", "key"])), "judges other concepts"),
    ("sae-tf3.cross_attn", replaced("final_loss", lambda _: ("bin", np.zeros(12))), "for final_loss"),
]


@pytest.mark.parametrize(
    ("name", "change", "told"), CASES, ids=lambda value: getattr(value, "__name__", None)
)
def test_what_no_result_has_is_told(
    spoilt: Study, good: dict[str, xr.Dataset], name: str, change: Change, told: str
) -> None:
    with replaced_file(spoilt, name, change(good[name])), pytest.raises(UserError) as refused:
        load_result(spoilt, name)
    assert told in str(refused.value)


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


def lacking(kind: str) -> list[tuple[str, Change]]:
    """Each variable and label of a result left out, each label cut to nothing."""
    names = {
        "patching-blocks": (
            "scorer_b",
            "impact",
            "role",
            "concept",
            "arm",
            "scorer",
            "n_pairs",
            "p_adjusted",
        ),
        "probes": ("accuracy", "site", "step", "concept", "chance"),
        "sae-tf3.cross_attn": ("feature", "density", "hist_edge", "train_step", "step", "auroc"),
        "steering-tempo": (
            "way",
            "effect",
            "upward",
            "impact",
            "strength",
            "arm",
            "concept",
            "defined",
            "null_lo",
        ),
        "benchmark-strict": ("way", "ratio", "reason", "judged", "arm", "overall", "published_area_mean"),
    }[kind]
    dimensions = {
        "patching-blocks": ("concept", "arm", "scorer", "scorer_b", "pair", "seed"),
        "probes": ("concept", "site", "step"),
        "sae-tf3.cross_attn": ("feature", "step"),
        "steering-tempo": ("concept", "arm", "scorer", "pair", "seed"),
        "benchmark-strict": ("concept", "arm", "way", "sign", "scorer", "measure"),
    }[kind]
    return [
        *((f"no {name}", lambda old, name=name: old.drop_vars(name)) for name in names),
        *((f"empty {name}", lambda old, name=name: old.isel({name: slice(0)})) for name in dimensions),
    ]


OTHER = [
    ("patching-blocks", "runs only", lambda old: old.isel(arm=old["role"].values == "run")),
    ("patching-blocks", "no cells", lambda old: old.isel(arm=old["role"].values != "cell")),
    ("patching-blocks", "other roles", lambda old: old.assign(role=("arm", ["x"] * old.sizes["arm"]))),
    ("patching-blocks", "confidence", lambda old: old.assign_attrs(confidence="x")),
    ("patching-blocks", "n_pairs", lambda old: old.assign(n_pairs=old["n_pairs"] * np.nan)),
    ("patching-blocks", "n_pairs", lambda old: old.assign(n_pairs=old["n_pairs"] * 0 + 10**9)),
]
OTHER += [("steering-tempo", told, change) for _, told, change in OTHER[:4]]
FIGURES_OF: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "patching-blocks": [
        ("patching", {"name": "blocks"}),
        ("patching", {"name": "blocks", "concept": "all"}),
        ("patching-pairs", {"name": "blocks", "concept": "tempo", "arm": "tf3"}),
    ],
    "steering-tempo": [
        ("dose-response", {"name": "tempo"}),
        ("ladder", {"name": "tempo"}),
        ("steering-effects", {"name": "tempo"}),
    ],
    "probes": [
        ("probes", {}),
        ("probe-folds", {"concept": "tempo", "site": "tf3.cross_attn", "step": 0}),
        ("probe-descriptors", {}),
    ],
    "sae-tf3.cross_attn": [
        ("sae-training", {"name": "tf3.cross_attn"}),
        ("feature", {"name": "tf3.cross_attn", "feature": 0}),
    ],
    "benchmark-strict": [
        ("alignment-preservation", {"name": "strict"}),
        ("method-ranking", {"name": "strict"}),
        ("leakage", {"name": "strict"}),
    ],
}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param(name, change, id=f"{name} {told}")
        for name, told, change in [
            *((name, *case) for name in FIGURES_OF for case in lacking(name)),
            *OTHER,
        ]
    ],
)
def test_a_result_that_lacks_something_is_not_drawn(
    spoilt: Study, good: dict[str, xr.Dataset], tmp_path: Path, name: str, change: Change
) -> None:
    with replaced_file(spoilt, name, change(good[name])):
        for figure, options in FIGURES_OF[name]:
            with pytest.raises(UserError, match="compute it again with"):
                export_figure(spoilt, figure, "svg", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
