"""What is damaged, unknown or changed blanks no page: everything else is shown, and a sentence says what to do."""

import errno
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dash
import pandas as pd
import pytest
import xarray as xr
from dash import no_update
from werkzeug.test import Client

from analyses.steering.study_packs import save_pack
from cache.errors import UserError
from cache.opening import read_file
from dashboards import result_commands, results, shell
from dashboards.address import Address
from dashboards.app import Dashboard, create_app, open_context
from dashboards.components import notices
from dashboards.export import export_figure
from dashboards.figures import FIGURES, make_spec
from dashboards.figures.feature import FeatureSpec
from dashboards.figures.patching_comparison import compare
from dashboards.links import page_path
from dashboards.media import audio_url, spectrogram_url
from dashboards.packs import load_pack, pack_names
from dashboards.pages import (
    PAGES,
    evaluation,
    feature_effects,
    feature_pairs,
    features,
    imported,
    overview,
    patching,
    probes,
    steering,
    steering_arm,
    steering_vectors,
)
from dashboards.pages.page import Page
from dashboards.results import (
    SCHEMA_VERSIONS,
    STORED_KINDS,
    load_result,
    patching_names,
    problems,
    sae_names,
    shown_name,
    steering_names,
)
from dashboards.tables.comparison import published_map
from dashboards.versions import shown_version
from tests.dashboards.synthetic_benchmark import SPEC
from tests.dashboards.synthetic_steering import slider, vector
from tests.dashboards.tables.test_features import effects
from tests.dashboards.test_pages import callback
from tests.result_kinds import written_kinds
from workbench.studies.result_files import result_bytes
from workbench.studies.study import Study

RESULTS = {
    "patching-steps": patching,
    "probes": probes,
    "sae-tf3.cross_attn": features,
    "steering-tempo": steering,
    "benchmark-strict": evaluation,
}
COMMANDS = {
    "patching": "workbench patch",
    "probes": "workbench probe",
    "sae": "workbench sae train",
    "steering": "workbench steer",
    "benchmark": "workbench steer evaluate",
}
STEERING_FIGURES = ("dose-response", "ladder", "steering-effects")
BENCHMARK_FIGURES = ("alignment-preservation", "method-ranking", "leakage")


@pytest.fixture(scope="module")
def copied(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the study."""
    return shutil.copytree(study.path, tmp_path_factory.mktemp("copied") / "study")


@pytest.fixture
def damaged(study: Study, copied: Path) -> Iterator[Study]:
    """A copy of the study that a test may damage: what it changes is copied again.

    Reading results takes longest. Those of the same copy that no test changes are read once.
    """
    before = states(copied)
    yield Study.open(copied)
    after = states(copied)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    for name in sorted(changed, reverse=True):
        remove(copied / name)
    for name in sorted(set(changed) & set(before)):
        if (study.path / name).is_dir():
            (copied / name).mkdir()
        else:
            shutil.copy2(study.path / name, copied / name)
    assert set(states(copied)) == set(before)


def states(folder: Path) -> dict[str, tuple[int, ...]]:
    """By relative name, what tells whether a file was changed or replaced; the mode of a folder."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            state = path.lstat()
            is_folder = stat.S_ISDIR(state.st_mode)
            found[str(path.relative_to(folder))] = (
                (state.st_mode,)
                if is_folder
                else (state.st_mode, state.st_ino, state.st_mtime_ns, state.st_ctime_ns, state.st_size)
            )
    return found


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:3000])


def strip_variables(file: Path) -> None:
    xr.Dataset(attrs=xr.load_dataset(file).attrs).to_netcdf(file.with_suffix(".new"), engine="h5netcdf")
    file.with_suffix(".new").replace(file)


def strip_attributes(file: Path) -> None:
    xr.load_dataset(file).drop_attrs().to_netcdf(file.with_suffix(".new"), engine="h5netcdf")
    file.with_suffix(".new").replace(file)


def outdate(file: Path, version: int = 1) -> None:
    xr.load_dataset(file).assign_attrs(schema_version=version).to_netcdf(
        file.with_suffix(".new"), engine="h5netcdf"
    )
    file.with_suffix(".new").replace(file)


def page_text(app: dash.Dash, path: str, search: str = "", is_folded: bool = False) -> str:
    """A page with what is said above it, as its callbacks and styles give them; folded, without the lists there."""
    state = callback(app, shell, "show_state")("", path, search)
    above = str([state[1], state[4]] if is_folded else state)
    remarks, page = (str(callback(app, shell, name)(path, search)) for name in ("show_remarks", "show_page"))
    is_hidden = "className='lost'" in remarks and "className='empty'" in page  # assets/notices.css
    return above + ("" if is_hidden else remarks) + page


@pytest.mark.parametrize("damage", [cut, strip_variables, strip_attributes])
@pytest.mark.parametrize("name", RESULTS)
def test_a_damaged_result_blanks_no_page(damaged: Study, name: str, damage: Any) -> None:
    damage(damaged.path / "results" / f"{name}.nc")
    kind = name.partition("-")[0]
    site = " --site tf3.cross_attn" if kind == "sae" else ""
    app = create_app(damaged.path)
    for module in (overview, patching, probes, features, steering, evaluation):
        text = page_text(app, module.PATH)
        assert module.SENTENCE in text
        assert f"{name}.nc" in text
        # The card of a kind of which nothing can be shown says what the line above the pages says.
        says_twice = module is overview and kind not in ("patching", "sae")
        assert len(re.findall(r"\bagain\b", text)) == text.count("compute it again with") == 1 + says_twice, (
            "one piece of advice"
        )
        assert COMMANDS[kind] in text
        assert site in text
    assert patching_names(damaged) == (["blocks"] if kind == "patching" else ["blocks", "steps"])
    assert len(sae_names(damaged)) == (1 if kind == "sae" else 2)


def test_a_result_of_another_version_is_left_out(damaged: Study) -> None:
    outdate(damaged.path / "results" / "patching-steps.nc")
    assert patching_names(damaged) == ["blocks"]
    said = "is of an older version of the workbench (schema version 1; this one reads 6)"
    assert said in page_text(create_app(damaged.path), "/patching")


def test_an_export_of_a_damaged_result_says_so(damaged: Study) -> None:
    cut(damaged.path / "results" / "patching-steps.nc")
    with pytest.raises(UserError, match=r"patching-steps\.nc.*workbench patch"):
        make_spec(damaged, "patching", {"name": "steps"})


@pytest.mark.parametrize("cut_all", [False, True], ids=["the default", "all"])
@pytest.mark.parametrize("figure", [figure for figure in FIGURES if figure != "vector-reliability"])
def test_an_export_does_not_take_another_result_for_a_damaged_default(
    damaged: Study, figure: str, cut_all: bool
) -> None:
    """The default is named, though there are others of its kind; or, where all are damaged, the first."""
    default = {"patching": "patching-blocks", "probe": "probes"}.get(re.split("s|-", figure)[0])
    default = "benchmark-strict" if figure in BENCHMARK_FIGURES else default
    default = "steering-tempo" if figure in STEERING_FIGURES else default or f"sae-{sae_names(damaged)[0]}"
    kind = default.partition("-")[0]
    for file in (damaged.path / "results").glob(f"{kind}*.nc"):
        if cut_all or file.stem == default:
            cut(file)
    with pytest.raises(UserError, match=rf"{default}\.nc.*compute it again with `workbench"):
        export_figure(damaged, figure, out_dir=damaged.path / "out")
    assert not (damaged.path / "out").exists()


@pytest.mark.parametrize(
    ("figure", "default", "other"),
    [
        ("patching", "patching-blocks", {"name": "steps"}),
        ("sae-training", "sae-tf3.cross_attn", {"name": "tf4.cross_attn"}),
    ],
)
def test_an_export_takes_the_result_that_is_asked_for_beside_a_damaged_default(
    damaged: Study, figure: str, default: str, other: dict[str, str]
) -> None:
    cut(damaged.path / "results" / f"{default}.nc")
    assert export_figure(damaged, figure, out_dir=damaged.path / "out", **other)


def test_a_result_that_was_computed_anew_is_shown_anew(damaged: Study) -> None:
    """Even within one tick of the clock, and of the same size."""
    file = damaged.path / "results" / "probes.nc"
    before = load_result(damaged, "probes")
    changed = before.copy(deep=True)
    changed["chance"] = changed["chance"] * 0 + 0.125
    stamp = file.stat()
    changed.to_netcdf(file.with_suffix(".new"), engine="h5netcdf")
    file.with_suffix(".new").replace(file)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert float(load_result(damaged, "probes")["chance"][0]) == 0.125
    cut(file)
    assert len(problems(damaged)) == 1
    changed.to_netcdf(file.with_suffix(".new"), engine="h5netcdf")
    file.with_suffix(".new").replace(file)
    assert problems(damaged) == []


def test_a_damaged_recording_says_so_in_its_player(damaged: Study) -> None:
    damaged.audio_path(3).write_bytes(b"fLaC nonsense")
    client = create_app(damaged.path).server.test_client()
    answer = client.get(spectrogram_url("audio/clips/00003.flac"))
    assert (answer.status_code, answer.mimetype) == (422, "text/plain")
    assert "00003.flac is damaged" in answer.text
    assert client.get(audio_url("audio/clips/00004.flac")).status_code == 200


def test_a_damaged_autoencoder_says_so_in_its_pictures(damaged: Study) -> None:
    (damaged.path / "sae" / "tf3.cross_attn" / "codes" / "00003.safetensors").write_bytes(b"nonsense")
    answer = create_app(damaged.path).server.test_client().get("/activation/tf3.cross_attn/5/3.svg")
    assert (answer.status_code, answer.mimetype) == (422, "text/plain")
    assert "of clip 3" in answer.text


def test_a_damaged_vector_says_so_and_leaves_the_others(damaged: Study) -> None:
    save_pack(damaged.path, "other", vector())
    (damaged.path / "packs" / "tempo.safetensors").write_bytes(b"nonsense")
    text = page_text(create_app(damaged.path), "/steering")
    assert "tempo.safetensors" in text
    assert "Some vectors cannot be shown" in text
    assert '"other"' in text.replace("'", '"')
    with pytest.raises(UserError, match=r"tempo\.safetensors"):
        export_figure(damaged, "vector-reliability", pack="tempo")
    with pytest.raises(UserError, match=r"'nope' \(it has other\)"):
        export_figure(damaged, "vector-reliability", pack="nope")
    assert "There is no pack 'tempo' here (choices: other)" in page_text(
        create_app(damaged.path), "/steering", "?pack=tempo"
    )


def test_a_damaged_vector_in_the_address_stays_there(damaged: Study) -> None:
    """The row of the vector that is shown instead is selected by the page, which is no choice of the reader's."""
    save_pack(damaged.path, "other", vector())
    (damaged.path / "packs" / "tempo.safetensors").write_bytes(b"nonsense")
    select = callback(create_app(damaged.path), steering_vectors, "select_vector")
    assert select([{"id": "other"}], "?pack=tempo") is no_update


def test_where_no_vector_can_be_read_none_is_offered(damaged: Study) -> None:
    (damaged.path / "packs" / "tempo.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="none that can be read"):
        load_pack(damaged, "nope")
    assert "There is no pack 'tempo' here." in page_text(create_app(damaged.path), "/steering", "?pack=tempo")


def test_a_folder_of_vectors_that_is_a_link_is_not_followed(damaged: Study, tmp_path: Path) -> None:
    (damaged.path / "packs").rename(tmp_path / "elsewhere")
    (damaged.path / "packs").symlink_to(tmp_path / "elsewhere")
    assert pack_names(damaged) == []
    assert steering.SENTENCE in page_text(create_app(damaged.path), "/steering")
    with pytest.raises(UserError):
        load_pack(damaged, "tempo")


@pytest.mark.parametrize(
    ("name", "command"),
    [("ladder-tempo", "ladder {study} --concept tempo"), ("check-tempo", "check {study} tempo")],
)
def test_the_advice_on_a_damaged_trial_names_its_command(damaged: Study, name: str, command: str) -> None:
    folder = damaged.path / "results"
    cut((folder / "steering-tempo.nc").rename(folder / f"steering-{name}.nc"))
    (told,) = problems(damaged)
    assert f"workbench steer {command.format(study=damaged.path)}" in told


OF_EVERY_KIND = {
    "patching-blocks": "compute it again with `workbench patch {study}`",
    "patching-steps": "compute it again with `workbench patch {study} --question steps`",
    "patching-mine": "compute it again with `workbench patch {study} --name mine`",
    "probes": "compute it again with `workbench probe {study}`",
    "sae-tf4.cross_attn": "delete it, and compute it again with `workbench sae train {study} --site tf4.cross_attn`",
    "steering-tempo": "compute it again with `workbench steer apply {study} --pack tempo`",
    "steering-check-mood": "compute it again with `workbench steer check {study} mood`",
    "steering-ladder-mood": "compute it again with `workbench steer ladder {study} --concept mood`",
    "steering-benchmark-strict-tempo-towards-report": "compute it again with `workbench steer evaluate {study}`",
    "benchmark-strict": "compute it again with `workbench steer evaluate {study}`",
    "benchmark-published": "compute it again with `workbench steer evaluate {study} --protocol published`",
    "evaluation-tf4.cross_attn": "compute it again with `workbench sae evaluate {study} tf4.cross_attn`",
    "feature-effects-tf4.cross_attn": "compute it again with `workbench sae effects {study} tf4.cross_attn`",
    "feature-effects-tf3.cross_attn+tf4.cross_attn": (
        "compute it again with `workbench sae effects {study} tf3.cross_attn tf4.cross_attn`"
    ),
    "feature-effects-too-long-0123abcd": "compute it again with `workbench sae effects {study} NAME`",
    "published-tiny": (
        "import it again with `workbench import localisation SOURCE --study {study} --model tiny`, where SOURCE is its "
        "table"
    ),
}
"""What to do about a damaged result, by its name; of every kind of result that a study has."""


@pytest.mark.parametrize("name", OF_EVERY_KIND)
def test_a_damaged_result_of_every_kind_has_its_command(damaged: Study, name: str) -> None:
    file = damaged.path / "results" / f"{name}.nc"
    file.write_bytes(b"nonsense")
    told = OF_EVERY_KIND[name].format(study=damaged.path)
    options = "" if name == "published-tiny" else " and the options that it had"
    (sentence,) = problems(damaged)
    assert sentence.startswith(f"The result {file} is damaged or was not written by the workbench (")
    assert sentence.endswith(f"): {told}{options}.")


def test_the_options_of_an_autoencoder_are_found_beside_its_weights(damaged: Study) -> None:
    name = "tf4.cross_attn"
    (damaged.path / "results" / f"sae-{name}.nc").write_bytes(b"nonsense")
    folder = damaged.path / "sae" / name
    folder.mkdir(parents=True, exist_ok=True)
    for metadata, said in (
        ({"made_with": {}}, f", which sae/{name}/cfg.json names as made_with."),
        (None, "."),
    ):
        (folder / "cfg.json").write_text(json.dumps({"metadata": metadata}))
        results._problem.cache_clear()
        assert problems(damaged)[0].endswith(f"and the options that it had{said}")


def test_every_kind_of_result_is_known() -> None:
    """All that is written into studies; the analysis of a listening study is in a folder of its own."""
    written = written_kinds()
    del written["listening"]
    assert {STORED_KINDS[kind]: SCHEMA_VERSIONS[kind] for kind in result_commands.COMMANDS} == written
    assert {name.partition("-")[0] for name in OF_EVERY_KIND} == set(result_commands.COMMANDS)


@pytest.mark.parametrize(
    ("name", "kind", "is_outdated"),
    [
        ("evaluation-tf4.cross_attn", "sae-evaluation", True),
        ("published-tiny", "published", False),  # of a paper, whatever the study is
    ],
)
def test_results_of_another_study_are_outdated(
    damaged: Study, name: str, kind: str, is_outdated: bool
) -> None:
    attributes = {"kind": kind, "schema_version": 1, "result_id": "other", "spec": "{}", "provenance": "{}"}
    shape = xr.Dataset({"impact": (("concept", "block"), [[0.5]]), "mean": ("block", [0.5])})
    labels = {"concept": ["tempo"], "block": ["tf3"], "metric": ("concept", ["clap"])}
    found = shape.assign_coords(labels).assign_attrs(attributes)
    (damaged.path / "results" / f"{name}.nc").write_bytes(result_bytes(found))
    assert problems(damaged) == []
    assert [f"results/{name}.nc" in said for said in results.outdated(damaged)].count(True) == is_outdated


def test_a_result_that_no_command_makes_is_to_be_deleted(damaged: Study) -> None:
    (damaged.path / "results" / "mine.nc").write_bytes(b"nonsense")
    (sentence,) = problems(damaged)
    assert sentence.endswith("): delete it, as no command makes a result of this name.")


@pytest.mark.parametrize("name", ["sae-tf4.cross_attn", "patching-steps", "steering-check-mood"])
def test_the_card_of_a_damaged_result_says_what_the_line_above_says(damaged: Study, name: str) -> None:
    """Also where the usual command of the kind makes another result."""
    folder, kind = damaged.path / "results", name.partition("-")[0]
    for file in folder.glob(f"{kind}*.nc"):
        file.unlink()
    (folder / f"{name}.nc").write_bytes(b"nonsense")
    (line,) = problems(damaged)
    card = overview._result_card(damaged, kind)
    texts = [text for part in card._traverse() if isinstance(text := getattr(part, "children", None), list)]
    assert notices.with_code(line)[0] in [text[0] for text in texts]
    assert OF_EVERY_KIND[name].format(study=damaged.path).partition("`")[2].rstrip("`") in str(card)
    assert "className='command'" not in str(card), "no other command"
    assert "and the options that it had." in str(card)


def test_damaged_effects_of_a_feature_are_not_said_to_be_missing(damaged: Study) -> None:
    spec = FeatureSpec(name="tf4.cross_attn", feature=5)
    folder = damaged.path / "results"
    for name in ("tf3.cross_attn", "tf4.cross_attn"):
        (folder / f"feature-effects-{name}.nc").write_bytes(b"nonsense")
    _, said = feature_effects.measured(damaged, spec)
    assert len(said) == 1, "none of another autoencoder"
    assert f"workbench sae effects {damaged.path} tf4.cross_attn` and the options that it had." in said[0]
    assert "feature-effects-tf4.cross_attn.nc is damaged" in str(feature_effects.effects(damaged, spec))
    result = effects().assign_coords(sae=["tf4.cross_attn"]).assign_attrs(kind="feature-effects")
    for changed, fault in (
        (result.drop_vars("null_lo"), "is incomplete (it has no null_lo)"),
        (result.assign_attrs(schema_version=2), "is of an older version of the workbench"),
    ):
        damaged.save_result("feature-effects-tf4.cross_attn", changed, SPEC, seconds=1.0)
        (told,) = feature_effects.measured(damaged, spec)[1]
        assert fault in told


def test_a_damaged_published_map_is_told_where_it_would_be_shown(damaged: Study) -> None:
    (damaged.path / "results" / "published-tiny.nc").write_bytes(b"nonsense")
    context = open_context(damaged.path)
    page = str(imported.layout(context, {}))
    assert "published-tiny.nc is damaged" in page
    assert "workbench import localisation SOURCE" in page
    with pytest.raises(UserError, match="import it again with `workbench import localisation SOURCE"):
        compare(damaged, context.comparison_spec("published, tiny", name="blocks"))


def test_a_damaged_own_map_is_told_beside_a_published_one(damaged: Study) -> None:
    cut(damaged.path / "results" / "patching-blocks.nc")
    impacts = pd.DataFrame({"concept": ["tempo"], "block": ["tf3"], "impact": [0.5]})
    own, notes = imported._own(damaged, published_map("published", impacts))
    assert own is None
    assert "patching-blocks.nc is damaged" in notes[0]


def test_pairs_of_features_tell_of_a_damaged_autoencoder(damaged: Study) -> None:
    cut(damaged.path / "results" / "sae-tf3.cross_attn.nc")
    page = str(feature_pairs.layout(open_context(damaged.path), {}))
    assert "sae-tf3.cross_attn.nc is damaged" in page
    assert "delete it, and compute it again with" in page
    assert "--seed 1" not in page


def test_open_pages_are_told_when_a_study_is_partly_or_wholly_traced(damaged: Study) -> None:
    manifest = damaged.path / "activations.zarr" / "manifest.jsonl"
    before, whole = shown_version(damaged.path), manifest.read_text()
    manifest.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    assert shown_version(damaged.path) != before
    manifest.write_text(whole)
    assert shown_version(damaged.path) == before


def test_trials_are_listed_without_reading_them(damaged: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = damaged.path / "results"
    shutil.copy(folder / "steering-tempo.nc", folder / "steering-ladder-tempo.nc")
    cut(Path(shutil.copy(folder / "steering-tempo.nc", folder / "steering-cut.nc")))
    monkeypatch.setattr(Study, "result", None)
    assert steering_names(damaged) == ["ladder-tempo", "tempo"]


def test_a_trial_with_wrong_numbers_is_listed_and_another_one_shown(damaged: Study) -> None:
    wrong = damaged.result("steering-tempo").drop_vars("score")
    (damaged.path / "results" / "steering-first.nc").write_bytes(result_bytes(wrong))
    assert steering_names(damaged) == ["first", "tempo"]
    assert [shown_name(damaged, "steering", asked) for asked in ("first", "", "nope")] == ["tempo"] * 3
    assert steering.view(damaged, {"result": "first"}).name == "tempo"
    text = page_text(create_app(damaged.path), "/steering", "?result=first")
    assert "steering-first.nc is incomplete (it has no score)" in text


def test_trials_before_a_judge_are_not_shown_first(damaged: Study) -> None:
    folder = damaged.path / "results"
    shutil.copy(folder / "steering-tempo.nc", folder / "steering-check-tempo.nc")
    assert steering_names(damaged) == ["tempo", "check-tempo"]


def test_a_damaged_slider_says_so_and_leaves_the_others(damaged: Study) -> None:
    slider().save(damaged.path / "sliders" / "mine.safetensors")
    (damaged.path / "sliders" / "bad.safetensors").write_bytes(b"nonsense")
    text = page_text(create_app(damaged.path), "/steering")
    assert "bad.safetensors is not a slider, or is damaged" in text and "Some sliders cannot be shown" in text
    assert "'mine'" in text.replace('"', "'")


def test_a_folder_of_sliders_that_is_a_link_is_not_followed(damaged: Study, tmp_path: Path) -> None:
    slider().save(tmp_path / "elsewhere" / "mine.safetensors")
    (damaged.path / "sliders").symlink_to(tmp_path / "elsewhere")
    text = page_text(create_app(damaged.path), "/steering")
    assert steering.SENTENCE in text and "Concept sliders" not in text


def test_a_damaged_import_leaves_the_others(damaged: Study) -> None:
    (damaged.path / "imported").mkdir()
    (damaged.path / "imported" / "piano.safetensors").write_bytes(b"nonsense")
    text = page_text(create_app(damaged.path), "/imported")
    assert imported.SENTENCE in text
    assert "piano.safetensors is damaged" in text


@pytest.mark.parametrize(
    ("path", "search", "named"),
    [
        ("/", "?clip=999", ["clip '999'"]),
        ("/", "?concept=x", ["'concept=x' in the URL has no effect on this page."]),
        ("/nonsense", "", ["There is no page '/nonsense', so the overview is shown."]),
        ("/patching", "?scorer=y&shown=z&column=c", ["scorer 'y'", "shown 'z'", "column 'c'"]),
        (
            "/patching",
            "?concept=x&arm=y&pair=77&seed=z&arms=w",
            ["concept 'x'", "arm 'y'", "pair '77'", "arms 'w'"],
        ),
        (
            "/probes",
            "?concept=x&site=y&step=z&part=w&quantity=v",
            ["concept 'x'", "step 'z'", "quantity 'v'"],
        ),
        ("/features", "?feature=-1", ["feature '-1'"]),
        ("/patching", "?arm=" + "9" * 5000, ["There is no arm '999", "…"]),
        ("/" + "x" * 5000, "", ["There is no page '/xxx", "xxx', so the overview is shown."]),
        ("/features", "?" + "x" * 20_000, ["'xxx", "x' in the URL has no effect on this page."]),
        ("/", "?" + "&".join(f"n{number}=1" for number in range(500)), ["'n7=1' in", "492 more parts"]),
        (
            "/steering",
            "?scorer=y&shown=z&strength=9&arm=clean&pair=77&pack=v&site=s",
            [
                "scorer 'y'",
                "shown 'z'",
                "strength '9'",
                "arm 'clean'",
                "pair '77'",
                "pack 'v'",
                "site 's'",
            ],
        ),
    ],
)
def test_unknown_parts_of_an_address_fall_back_and_say_so(
    app: dash.Dash, path: str, search: str, named: list[str]
) -> None:
    text = page_text(app, path, search)
    for words in named:
        assert words in text.replace('"', "'").replace("\\'", "'")
    assert "cannot be shown" not in text
    page = next((page for page in PAGES if page.path == path), PAGES[0])
    assert page.sentence in text


def test_a_known_address_has_no_remark(app: dash.Dash) -> None:
    for path, search in (
        ("/patching", "?result=steps&scorer=clap&shown=all&column=steps+2–3&concept=drums&arm=tf3+steps+2–3"),
        ("/patching", "?concept=drums&arm=tf3&pair=1&seed=1&arms=all"),
        ("/probes/", "?concept=drums&site=tf3.cross_attn&step=4&part=mlp&quantity=control"),
        ("/features", "?sae=tf4.cross_attn&feature=5"),
        (
            "/steering",
            "?result=tempo&scorer=clap&shown=mood&strength=2&arm=vector+×+-1&pair=1&seed=0&pack=tempo",
        ),
        ("/", "?clip=3"),
    ):
        assert callback(app, shell, "show_remarks")(path, search) is None


def test_a_probe_of_no_number_is_no_fault(app: dash.Dash) -> None:
    for step in ("nonsense", "", "9" * 5000, "²"):
        assert callback(app, probes, "draw")(f"?concept=drums&site=tf3.cross_attn&step={step}")[0] is not None


@pytest.mark.parametrize("threshold", ["nan", "inf", "-inf", "x", "1e999"])
def test_a_threshold_that_is_none_falls_back(threshold: str) -> None:
    assert imported._threshold({"threshold": threshold}) == imported.THRESHOLD


def test_a_dashboard_opens_a_changed_study_again(damaged: Study) -> None:
    """A half-written study is not shown; the last whole one is."""
    dashboard = Dashboard(open_context(damaged.path), Address())
    client = Client(dashboard)
    version = client.get("/_alive").headers["Study-Version"]
    first = dashboard.app
    assert client.get("/_alive").headers["Study-Version"] == version
    assert dashboard.app is first
    before = (damaged.path / "study.json").read_text()
    (damaged.path / "study.json").write_text(before[:100])
    assert client.get("/_alive").headers["Study-Version"] != version
    assert dashboard.app is first
    (damaged.path / "study.json").write_text(before.replace('"synthetic"', '"another"'))
    assert client.get("/_alive").status_code == 204
    assert dashboard.app is not first
    assert "another" in page_text(dashboard.app, "/")


@pytest.mark.parametrize("name", ["results/probes.nc", "packs/tempo.safetensors"])
def test_open_pages_notice_new_and_removed_files(damaged: Study, name: str) -> None:
    before = shown_version(damaged.path)
    (damaged.path / name).rename(damaged.path / f"{name}.moved")
    between = shown_version(damaged.path)
    (damaged.path / f"{name}.moved").unlink()
    assert len({before, between, shown_version(damaged.path)}) == 3


def test_a_page_with_its_first_result_is_linked(damaged: Study) -> None:
    app = create_app(damaged.path)
    shown = callback(app, shell, "show_links")
    place = [page.path for page in PAGES].index("/imported")
    assert shown("")[place] == {"display": "none"}
    (damaged.path / "imported").mkdir()
    (damaged.path / "imported" / "piano.safetensors").write_bytes(b"nonsense")
    assert shown("")[place] == {}


class Sent(list[dict[str, Any]]):
    """The notifications that were sent to the page."""

    def __call__(self, _id: str, props: dict[str, Any]) -> None:
        self.extend(props["sendNotifications"])


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    sent = Sent()
    monkeypatch.setattr(notices.dash, "set_props", sent)
    return sent


def test_a_failing_callback_leaves_a_notice_that_stays(sent: Sent, caplog: pytest.LogCaptureFixture) -> None:
    notices.report_failure(UserError("Give another folder."))
    assert (sent[0]["message"], sent[0]["autoClose"]) == (["Give another folder."], False)
    assert not caplog.records
    with caplog.at_level(logging.ERROR):
        notices.report_failure(KeyError("secret path"))
    assert "terminal" in str(sent[1]["message"])
    assert "secret path" not in str(sent[1])
    assert caplog.records[0].exc_info is not None
    notices.report_failure(UserError("Give another folder."))
    assert sent[0]["id"] == sent[2]["id"], "the same notice is shown once"


@pytest.mark.parametrize("error", [UserError("Give another folder."), KeyError("x")])
def test_a_callback_never_answers_500(
    study: Study, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    app = create_app(study.path)
    monkeypatch.setattr(Page, "show", fail)
    body = {
        "output": "page.children",
        "outputs": {"id": "page", "property": "children"},
        "inputs": [{"id": "url", "property": "pathname", "value": "/"}],
        "state": [{"id": "url", "property": "search", "value": ""}],
        "changedPropIds": ["url.pathname"],
    }
    answer = app.server.test_client().post("/_dash-update-component", json=body)
    assert answer.status_code == 200
    assert "This page cannot be shown" in answer.text


def test_paths_are_found_below_a_prefix(study: Study) -> None:
    app = create_app(study.path, address=Address(prefix="/user/me/proxy/8050"))
    with app.server.app_context():
        assert page_path("/user/me/proxy/8050/patching") == "/patching"
        assert page_path("/user/me/proxy/8050/") == page_path("/user/me/proxy/8050") == "/"
        assert audio_url("audio/a b.flac") == "/user/me/proxy/8050/audio/a%20b.flac"
    client = app.server.test_client()
    layout = client.get("/_dash-layout").text
    assert '"href":"/user/me/proxy/8050/patching"' in layout.replace("\\u002f", "/")
    assert page_path("/patching") == "/patching"


def test_an_open_page_offers_what_there_is_now(damaged: Study) -> None:
    follow = create_app(damaged.path).callback_map["sae-name.data"]["callback"].__wrapped__
    offered = {
        "patching-steps": lambda: patching._choices(damaged, {})["result"].data,
        "sae-tf3.cross_attn": lambda: follow(""),
    }
    for result, now in offered.items():
        name = result.partition("-")[2]
        assert f"'{name}'" in str(now())
        (damaged.path / "results" / f"{result}.nc").unlink()
        assert f"'{name}'" not in str(now())


def outlawed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing read a file any more, as its permissions would if the tests did not run as root."""
    os.utime(file)  # else it is remembered

    def refuse(root: Path, name: str, limit: int) -> bytes:
        if root / name == file:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return read_file(root, name, limit)

    monkeypatch.setattr("workbench.studies.result_files.read_file", refuse)


@pytest.mark.parametrize(
    ("name", "damage", "cause"),
    [
        ("patching-steps", "cut", "is damaged or was not written by the workbench"),
        ("patching-steps", "emptied", "is empty (it has 0 bytes)"),
        ("patching-steps", "another kind", "is of the kind 'probes', not 'patching'"),
        ("patching-steps", "older", "is of an older version of the workbench"),
        ("patching-steps", "newer", "is of a newer version of the workbench"),
        ("patching-steps", "forbidden", "cannot be read, as its permissions forbid it"),
        ("patching-steps", "gone", "There is no result 'steps' here"),
        ("benchmark-strict", "older", "is of an older version of the workbench"),
        ("probes", "forbidden", "cannot be read, as its permissions forbid it"),
        ("probes", "gone", "No probe results yet."),
    ],
)
def test_one_sentence_tells_why_the_result_in_the_address_cannot_be_shown(
    damaged: Study, monkeypatch: pytest.MonkeyPatch, name: str, damage: str, cause: str
) -> None:
    file = damaged.path / "results" / f"{name}.nc"
    act: dict[str, Callable[[], Any]] = {
        "cut": lambda: cut(file),
        "emptied": lambda: file.write_bytes(b""),
        "another kind": lambda: shutil.copyfile(file.with_stem("probes"), file),
        "older": lambda: outdate(file),
        "newer": lambda: outdate(file, 99),
        "forbidden": lambda: outlawed(file, monkeypatch),
        "gone": file.unlink,
    }
    act[damage]()
    kind, _, result = name.partition("-")
    search = f"?concept=drums&site=tf3&{f'result={result}' if result else 'step=0'}"
    text = page_text(create_app(damaged.path), RESULTS[name].PATH, search, is_folded=True)
    assert text.count(cause) == 1 and "in the URL" not in text and shell.UNKNOWN not in text
    assert text.count("chmod u+r" if damage == "forbidden" else COMMANDS[kind]) == 1


def test_a_page_whose_last_result_is_gone_says_so(damaged: Study, sent: Sent) -> None:
    """Above the page, and once: not by each of its callbacks."""
    app = create_app(damaged.path)
    (damaged.path / "results" / "steering-tempo.nc").unlink()
    for module, name, given in (
        (steering, "draw", [""]),
        (steering, "select", [None, None, {"points": [{"x": 0.5, "y": 0.5}]}, ""]),
        (steering_arm, "show_arm", ["", None]),
    ):
        with pytest.raises(UserError) as caught:
            callback(app, module, name)(*given)
        notices.report_failure(caught.value)
    assert sent == []
    told = str(callback(app, shell, "show_remarks")("/steering", "?arm=x&result=tempo"))
    assert f"{damaged.path / 'results'} has no steering result any more: make one with " in told
    assert f"workbench steer apply {damaged.path} --pack NAME" in told and shell.UNKNOWN not in told


def test_a_page_whose_first_result_is_damaged_says_what_it_shows_instead(damaged: Study) -> None:
    (damaged.path / "results" / "patching-blocks.nc").write_bytes(b"no result")
    app = create_app(damaged.path)
    told = str(callback(app, shell, "show_remarks")("/patching", "?concept=drums&arm=tf3"))
    assert "patching-blocks" in told and "Shown instead: steps." in told
    assert callback(app, shell, "show_remarks")("/patching", "?result=steps") is None
