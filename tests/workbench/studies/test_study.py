"""The study folder: made whole or not at all, continued, refused, and its results with their provenance."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pydantic import BaseModel

from cache.errors import CacheError, UserError
from cache.opening import UnsafeFile
from cache.plan import TokenReduction
from tests.full_disk import full_disk
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site, parse_sites
from workbench.files import file_version
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import PromptSet
from workbench.studies.study import STUDY_VERSION, Study, StudySpec
from workbench.studies.tracing import trace_study

PROMPTS = PromptSet.model_validate(
    {
        "templates": ["a {tempo} song {drums}"],
        "concepts": {
            "tempo": {"slow": "slow", "fast": "fast"},
            "drums": {"with drums": "with drums", "without drums": "without drums"},
        },
    }
)


def study_spec(model: AceStep15, **changes: object) -> StudySpec:
    values = {
        "model": model.name,
        "prompts": PROMPTS,
        "settings": GenerationSettings(duration=0.5, num_steps=3),
        "n_prompts": 4,
        "seeds": 2,
        "sites": ("tf0.cross_attn", "tf1.block"),
        "steps": (0, 2),
        "passes": ("cond",),
        "clips_per_shard": 3,
    }
    return StudySpec.model_validate(values | changes)


@pytest.fixture(scope="module")
def study(tiny: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return trace_study(tmp_path_factory.mktemp("studies") / "tiny", study_spec(tiny), tiny)


def test_every_clip_has_its_row_its_audio_and_its_seed(study: Study) -> None:
    assert list(study.clips["clip"]) == list(range(8))
    assert study.clips["seed"].is_unique
    assert study.clips.groupby("prompt_id")["prompt"].nunique().eq(1).all()
    assert set(study.clips["label_tempo"]) == {"slow", "fast"}
    assert all(study.audio_path(clip).is_file() for clip in study.clips["clip"])


def test_lyrics_reach_every_clip(tiny: AceStep15, tmp_path: Path) -> None:
    study = trace_study(tmp_path / "sung", study_spec(tiny, lyrics="happy song", n_prompts=2, seeds=1), tiny)
    row = study.clips.iloc[1]
    assert row.lyrics == "happy song"
    capture = Capture(parse_sites(["tf1.block"], 2), (2,), ("cond",))
    for lyrics, is_the_same in (("happy song", True), ("", False)):
        clip = Clip(row.prompt, int(row.seed), lyrics)
        alone = tiny.generate_batch([clip], study.spec.settings, capture=capture).activations[
            capture.sites[0]
        ]
        cached = study.cache.read("tf1.block", clips=[1], steps=[2])
        assert np.allclose(cached, alone.numpy(), rtol=1e-3, atol=2e-3) is is_the_same


def test_the_cache_holds_what_a_clip_alone_gives(study: Study, tiny: AceStep15) -> None:
    row = study.clips.iloc[5]
    capture = Capture(parse_sites(study.spec.sites, 2), (0, 2), ("cond",))
    alone = tiny.generate_batch(
        [Clip(row.prompt, int(row.seed))], study.spec.settings, capture=capture
    ).activations
    for site, value in alone.items():
        cached = study.cache.read(str(site), clips=[5])
        np.testing.assert_allclose(cached, value.numpy(), rtol=1e-3, atol=2e-3)  # float16 on disk


def test_tracing_again_changes_nothing(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AceStep15, "generate_batch", lambda *_: pytest.fail("nothing is missing"))
    assert trace_study(study.path, study.spec, tiny).clips.equals(study.clips)


@pytest.mark.parametrize("lost", [[4], [3, 4, 5], [0, 7]], ids=["one", "a shard", "of two shards"])
def test_audio_that_was_lost_is_generated_again(
    tiny: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: list[int]
) -> None:
    study = trace_study(tmp_path / "study", study_spec(tiny), tiny)
    before = contents(study.path)
    for clip in lost:
        study.audio_path(clip).unlink()
    kept = [study.audio_path(clip) for clip in range(8) if clip not in lost]
    versions = [file_version(file) for file in kept]
    notes: list[str] = []
    trace_study(study.path, study.spec, tiny, note=notes.append)
    assert contents(study.path) == before, "the same clips of the same batch"
    assert [file_version(file) for file in kept] == versions
    assert len(notes) == 1 and f"({', '.join(map(str, lost))})" in notes[0]
    monkeypatch.setattr(AceStep15, "generate_batch", lambda *_: pytest.fail("nothing is missing"))
    trace_study(study.path, study.spec, tiny, note=notes.append)
    assert len(notes) == 1


def test_lost_audio_returns_with_an_extension_and_in_its_job_only(tiny: AceStep15, tmp_path: Path) -> None:
    study = trace_study(tmp_path / "study", study_spec(tiny), tiny)
    for clip in (1, 7):
        study.audio_path(clip).unlink()
    trace_study(study.path, study.spec, tiny, job=(1, 2))
    assert [study.has_audio(clip) for clip in (1, 7)] == [True, False]
    study.audio_path(1).unlink()
    grown = trace_study(study.path, study_spec(tiny, seeds=3), tiny)
    assert all(grown.has_audio(clip) for clip in range(12))


def test_the_audio_folder_may_be_lost_whole(tiny: AceStep15, tmp_path: Path) -> None:
    study = trace_study(tmp_path / "study", study_spec(tiny), tiny)
    shutil.rmtree(study.path / "audio")
    notes: list[str] = []
    trace_study(study.path, study.spec, tiny, note=notes.append)
    assert all(study.has_audio(clip) for clip in range(8))
    assert "8 traced clips" in notes[0] and "(0, 1, 2, 3, 4, …)" in notes[0]


def test_a_model_of_another_dtype_is_refused(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = {**tiny.describe(), "dtype": "bfloat16"}
    monkeypatch.setattr(tiny, "describe", lambda: described)
    with pytest.raises(UserError, match=r"another study \(model_dtype differs\)"):
        trace_study(study.path, study.spec, tiny)


@pytest.mark.parametrize(("factor", "continues"), [(1 + 1e-7, True), (1.01, False)])
def test_another_processor_may_compute_sigmas_to_other_last_digits(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch, factor: float, continues: bool
) -> None:
    sigmas = [factor * sigma for sigma in tiny.sigmas(study.spec.settings)]
    monkeypatch.setattr(AceStep15, "sigmas", lambda *_: sigmas)
    monkeypatch.setattr(AceStep15, "generate_batch", lambda *_: pytest.fail("nothing is missing"))
    stored = study.cache.plan.sigmas
    if continues:
        assert trace_study(study.path, study.spec, tiny).cache.plan.sigmas == stored
    else:
        with pytest.raises(UserError, match="differs in sigmas"):
            trace_study(study.path, study.spec, tiny)


def test_another_spec_is_refused_by_name(study: Study, tiny: AceStep15) -> None:
    with pytest.raises(UserError, match=r"another study \(seeds differs\)"):
        trace_study(study.path, study_spec(tiny, seeds=1), tiny)
    with pytest.raises(UserError, match=r"another study \(seeds, lyrics differ\)"):
        trace_study(study.path, study_spec(tiny, seeds=3, lyrics="la"), tiny)


def test_more_prompts_and_seeds_extend_a_study(
    tiny: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = trace_study(tmp_path / "grown", study_spec(tiny, n_prompts=2, seeds=2), tiny)
    audio = [small.audio_path(clip).read_bytes() for clip in range(3)]
    acts = small.cache.read("tf1.block", clips=[0, 1, 2])
    generated: list[Clip] = []
    generate = AceStep15.generate_batch

    def spy(self: AceStep15, clips: list[Clip], *args: object, **options: object) -> object:
        generated.extend(clips)
        return generate(self, clips, *args, **options)

    monkeypatch.setattr(AceStep15, "generate_batch", spy)
    grown = trace_study(tmp_path / "grown", study_spec(tiny, n_prompts=4, seeds=3), tiny)
    assert Study.open(grown.path).spec == study_spec(tiny, n_prompts=4, seeds=3)
    assert grown.clips.iloc[:4].equals(small.clips)
    assert grown.clips["seed"].tolist() == list(range(12))
    assert grown.clips.groupby("prompt_id")["prompt"].nunique().eq(1).all()
    assert grown.clips.groupby("prompt_id").size().tolist() == [3] * 4
    assert grown.clips["prompt"].nunique() == 4
    assert [clip.seed for clip in generated] == list(range(3, 12)), "the full shard of clips 0 to 2 stays"
    assert [grown.audio_path(clip).read_bytes() for clip in range(3)] == audio
    np.testing.assert_array_equal(grown.cache.read("tf1.block", clips=[0, 1, 2]), acts)
    alone = tiny.generate_batch(
        [Clip(grown.clips["prompt"][11], 11)],
        grown.spec.settings,
        capture=Capture(parse_sites(["tf1.block"], 2), (0, 2), ("cond",)),
    )
    cached = grown.cache.read("tf1.block", clips=[11])
    np.testing.assert_allclose(cached, alone.activations[Site(1, "block")].numpy(), rtol=1e-3, atol=2e-3)
    generated.clear()
    again = trace_study(grown.path, grown.spec, tiny)
    assert again.clips.equals(grown.clips)
    assert not generated


def test_an_extension_that_was_cut_off_goes_on(
    tiny: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = study_spec(tiny, n_prompts=4, seeds=2)
    whole = trace_study(tmp_path / "a", study_spec(tiny, n_prompts=2, seeds=2), tiny)
    whole = trace_study(whole.path, larger, tiny)
    for function in ("extended", "_write"):  # before and after the table of clips is stored
        cut = trace_study(tmp_path / function, study_spec(tiny, n_prompts=2, seeds=2), tiny)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            if function == "extended":
                patch.setattr(Study, "extended", interrupted)
            else:
                patch.setattr("workbench.studies.study.provenance", interrupted)
            trace_study(cut.path, larger, tiny)
        assert len(Study.open(cut.path).clips) == 4
        gone_on = trace_study(cut.path, larger, tiny)
        assert gone_on.clips.equals(whole.clips)
        assert np.isfinite(gone_on.cache.read("tf1.block")).all()


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_an_extension_without_enough_prompts_changes_nothing(tiny: AceStep15, tmp_path: Path) -> None:
    small = trace_study(tmp_path / "small", study_spec(tiny, n_prompts=2), tiny)
    before = contents(small.path)
    with pytest.raises(UserError, match="got 9"):
        trace_study(small.path, study_spec(tiny, n_prompts=9), tiny)
    assert contents(small.path) == before


def test_a_folder_of_something_else_is_refused_and_left_alone(tiny: AceStep15, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not a study"):
        trace_study(tmp_path, study_spec(tiny), tiny)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sites": ("tf7.mlp",)}, "tf7 does not exist"),
        ({"steps": (5,)}, "Steps must be from 0 to 2"),
        ({"n_prompts": 9}, "got 9"),
        (
            {"settings": GenerationSettings(duration=0.5, guidance_scale=1), "passes": ("null",)},
            "null pass needs a guidance",
        ),
    ],
)
def test_bad_requests_leave_no_folder_behind(
    tiny: AceStep15, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        trace_study(tmp_path / "new", study_spec(tiny, **changes), tiny)
    assert not (tmp_path / "new").exists()


def test_no_room_on_the_disk_leaves_no_folder_behind(
    tiny: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match=r"1.0 kB free"):
        trace_study(tmp_path / "new", study_spec(tiny), tiny)
    assert not (tmp_path / "new").exists()


def test_a_trace_is_the_same_whether_one_process_does_it_or_two_jobs(
    study: Study, tiny: AceStep15, tmp_path: Path
) -> None:
    half = trace_study(tmp_path / "jobs", study.spec, tiny, job=(2, 2))
    with pytest.raises(CacheError, match="half-written: 5 of its 8 clips are traced"):
        _ = half.cache
    jobs = trace_study(tmp_path / "jobs", study.spec, tiny, job=(1, 2))
    assert contents(jobs.path / "activations.zarr") == contents(study.path / "activations.zarr")
    assert contents(jobs.path / "audio") == contents(study.path / "audio")


@pytest.mark.parametrize("job", [(0, 2), (3, 2), (1, 4)])
def test_jobs_that_cannot_be(tiny: AceStep15, tmp_path: Path, job: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="the number of shards"):
        trace_study(tmp_path / "new", study_spec(tiny), tiny, job=job)


def test_the_cache_may_lie_in_an_object_store(study: Study, tiny: AceStep15, tmp_path: Path) -> None:
    store = f"file://{tmp_path}/bucket/activations.zarr"
    (tmp_path / "bucket" / "activations.zarr").mkdir(parents=True)
    trace_study(tmp_path / "study", study.spec, tiny, store=store)
    far = Study.open(tmp_path / "study")
    assert far.store == store
    assert np.array_equal(far.cache.read("tf1.block"), study.cache.read("tf1.block"))
    with pytest.raises(UserError, match="stores its activations in file://"):
        trace_study(tmp_path / "study", study.spec, tiny)


def test_reduced_tokens_and_dtypes_of_sites_reach_the_cache(
    study: Study, tiny: AceStep15, tmp_path: Path
) -> None:
    reduced = study_spec(
        tiny, tokens=TokenReduction(kind="mean", size=2), site_dtypes={"tf1.block": "float32"}, zstd_level=3
    )
    cache = trace_study(tmp_path / "reduced", reduced, tiny).cache
    assert cache.plan.token_seconds == 2 * tiny.token_seconds
    whole = study.cache.read("tf1.block")
    pairs = [whole[:, :, :, token : token + 2].mean(axis=3) for token in range(0, whole.shape[3], 2)]
    np.testing.assert_allclose(cache.read("tf1.block"), np.stack(pairs, axis=3), rtol=1e-3, atol=2e-3)
    rounding = {site: file.rms_error for site, file in cache.manifest.entries[0].files.items()}
    assert rounding["tf1.block"] == 0
    assert 1e-5 < rounding["tf0.cross_attn"] < 4.9e-4  # half a unit in the last place of float16


def test_a_dtype_of_a_site_that_is_not_kept_is_refused(tiny: AceStep15, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tf0\.mlp has a dtype but is not captured"):
        trace_study(tmp_path / "new", study_spec(tiny, site_dtypes={"tf0.mlp": "float32"}), tiny)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def broken(path: Path, how: str) -> Path:
    path.mkdir()
    document = {"study_version": STUDY_VERSION, "spec": {}, "model": {}, "store": None}
    if how == "version":
        document["study_version"] = 99
    text = json.dumps(document)
    (path / "study.json").write_text(text[:20] if how == "torn" else text)
    if how != "clips":
        (path / "clips.parquet").touch()
    return path


@pytest.mark.parametrize(
    ("how", "sentence"),
    [("torn", "damaged"), ("version", "format 99"), ("clips", "no clips.parquet"), ("spec", "damaged")],
)
def test_damaged_studies_get_one_sentence(tmp_path: Path, how: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Study.open(broken(tmp_path / "study", how))


def test_missing_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a study"):
        Study.open(tmp_path / "nowhere")


class Spec(BaseModel):
    folds: int = 5


def test_results_keep_labels_spec_and_provenance(study: Study) -> None:
    dataset = xr.Dataset(
        {"accuracy": (("site", "step"), np.array([[0.5, np.nan]]))},
        coords={"site": ["tf0.cross_attn"], "step": [0, 2]},
        attrs={"kind": "probes", "schema_version": 1},
    )
    saved = study.save_result("probes", dataset, Spec(), seconds=1.23)
    loaded = study.result("probes")
    xr.testing.assert_equal(loaded, dataset)
    xr.testing.assert_identical(loaded, saved)
    assert json.loads(loaded.attrs["spec"]) == {"folds": 5}
    facts = json.loads(loaded.attrs["provenance"])
    assert facts["weights_hash"] == study.model["weights_hash"]
    assert facts["duration_s"] == 1.2
    assert {"torch", "nnsight", "diffusers", "zarr"} <= set(facts["libraries"])
    assert study.is_done("probes", Spec())
    assert not study.is_done("probes", Spec(folds=4))
    assert study.result_names() == ["probes"]


def test_a_results_spec_is_read_without_its_arrays(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = xr.Dataset({"accuracy": ("step", [0.5, 1.0])}, attrs={"kind": "probes", "schema_version": 1})
    study.save_result("other", dataset, Spec(), seconds=0.0)
    file = study.path / "results" / "other.nc"
    monkeypatch.setattr(xr, "load_dataset", lambda *_, **__: pytest.fail("the arrays were read"))
    assert study.is_done("other", Spec())
    assert study.made(study.result_attributes("other"))
    file.write_bytes(file.read_bytes()[:-8])  # cut, so that it is to be made again
    assert not study.is_done("other", Spec())
    file.unlink()


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (lambda good: good.assign_coords(step=[2, 2]), "labels of step twice"),
        (lambda good: xr.concat([good, good], "step"), "labels of step twice"),
        (lambda good: good.assign(extra=("step", np.array([1j, 2j]))), "is not a variable"),
        (lambda good: good.assign_attrs(schema_version="one"), "schema_version is not a number"),
    ],
)
def test_an_unreadable_result_never_replaces_a_readable_one(
    study: Study, spoilt: Callable[[xr.Dataset], xr.Dataset], reason: str
) -> None:
    good = xr.Dataset(
        {"accuracy": ("step", [0.5, 1.0])}, {"step": [0, 2]}, {"kind": "probes", "schema_version": 1}
    )
    study.save_result("other", good, Spec(), seconds=0.0)
    file = study.path / "results" / "other.nc"
    kept, files = file.read_bytes(), set(file.parent.iterdir())
    with pytest.raises(UserError, match=f"is not saved, because it could not be read again .*{reason}"):
        study.save_result("other", spoilt(good), Spec(folds=4), seconds=0.0)
    assert file.read_bytes() == kept
    assert set(file.parent.iterdir()) == files
    file.unlink()


def test_a_result_on_a_full_disk_leaves_the_earlier_one(study: Study) -> None:
    """HDF5 itself would crash the process."""
    good = xr.Dataset({"accuracy": ("step", [0.5, 1.0])}, attrs={"kind": "probes", "schema_version": 1})
    study.save_result("other", good, Spec(), seconds=0.0)
    file = study.path / "results" / "other.nc"
    kept, files = file.read_bytes(), set(file.parent.iterdir())
    with full_disk(1000), pytest.raises(UserError, match=rf"{file} cannot be written .*Free some space"):
        study.save_result("other", good, Spec(folds=4), seconds=0.0)
    assert file.read_bytes() == kept
    assert set(file.parent.iterdir()) == files
    file.unlink()


def test_result_ids_tell_specs_apart(study: Study) -> None:
    dataset = xr.Dataset(attrs={"kind": "probes", "schema_version": 1})
    ids = []
    for folds in (3, 3, 4):
        study.save_result("other", dataset, Spec(folds=folds), seconds=0.0)
        ids.append(study.result("other").attrs["result_id"])
    (study.path / "results" / "other.nc").unlink()
    assert ids[0] == ids[1] != ids[2]


def test_missing_and_damaged_results(study: Study) -> None:
    with pytest.raises(UserError, match="has no result 'magic'"):
        study.result("magic")
    file = study.path / "results" / "torn.nc"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"not a netcdf file")
    with pytest.raises(UserError, match="damaged"):
        study.result("torn")
    file.unlink()


def test_a_creation_that_was_killed_is_begun_anew(tiny: AceStep15, tmp_path: Path) -> None:
    path = tmp_path / "study"
    path.mkdir()
    (path / "clips.parquet").write_bytes(b"half")
    (path / f".part-{'0123456789abcdef' * 2}.json").write_text("half")
    assert Study.create(path, study_spec(tiny), tiny.describe(), str).spec == study_spec(tiny)
    for name in ("part-study.json", ".part-mine.json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
        with pytest.raises(UserError, match="is not a study"):
            Study.create(tmp_path / name, study_spec(tiny), tiny.describe(), str)


def test_what_a_killed_save_left_is_no_result(study: Study) -> None:
    (study.path / "results").mkdir(exist_ok=True)
    left = study.path / "results" / f".part-{'0123456789abcdef' * 2}.nc"
    left.touch()
    try:
        assert left.stem not in study.result_names()
    finally:
        left.unlink()


def test_a_study_whose_cache_is_a_link_is_neither_read_nor_continued(
    study: Study, tiny: AceStep15, tmp_path: Path
) -> None:
    own = tmp_path / "study"
    shutil.copytree(study.path, own)
    shutil.rmtree(own / "activations.zarr")
    (own / "activations.zarr").symlink_to(study.path / "activations.zarr")
    before = contents(study.path)
    with pytest.raises(UnsafeFile):
        _ = Study.open(own).cache
    with pytest.raises(UnsafeFile):
        trace_study(own, study.spec, tiny)
    assert contents(study.path) == before


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"clip,prompt\n", pd.DataFrame({"clip": [0]}).to_parquet(compression="snappy")]
)
def test_a_table_of_clips_that_is_damaged(study: Study, tmp_path: Path, content: bytes) -> None:
    shutil.copytree(study.path, tmp_path / "study")
    (tmp_path / "study" / "clips.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"clips.parquet (is damaged|has 1 clips)"):
        Study.open(tmp_path / "study")
