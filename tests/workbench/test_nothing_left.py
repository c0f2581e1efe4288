"""A trace that comes to nothing leaves nothing, and what somebody else writes or wrote stays."""

import errno
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache import CacheWriter
from cache.errors import CacheBusy, UserError
from cache.local_storage import LocalStorage
from cache.storage import open_storage
from tests.workbench.studies.test_study import contents, study_spec
from workbench.engine.runs import Clip, Generation
from workbench.models.ace_step import AceStep15
from workbench.studies.study import Study
from workbench.studies.tracing import cache_plan, trace_study

JOBS = [(1, 2), (2, 2)]  # shards 0 and 1 to 2
Break = Callable[[range], None]


@pytest.fixture
def break_at(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Call it with seeds: their latents become NaN in step 1."""
    generate = AceStep15.generate_batch
    broken: list[int] = []

    def breaking(self: AceStep15, clips: list[Clip], *args: object, **options: object) -> Generation:
        run = generate(self, clips, *args, **options)
        return replace(run, broke_at=tuple(1 if clip.seed in broken else None for clip in clips))

    def set_seeds(seeds: range) -> None:
        broken[:] = seeds

    monkeypatch.setattr(AceStep15, "generate_batch", breaking)
    return set_seeds


def fails(path: Path, tiny: AceStep15, store: str | None = None, job: tuple[int, int] = (1, 1)) -> None:
    with pytest.raises(UserError, match="NaN or infinite in step 1"):
        trace_study(path, study_spec(tiny), tiny, store=store, job=job)


def full_disk(name: str) -> Callable[..., Any]:
    """`LocalStorage.put`, but for files whose names end so there is no room."""
    put = LocalStorage.put

    def refuse(self: LocalStorage, file: str, *rest: Any, **options: Any) -> Any:
        if file.endswith(name):
            raise OSError(errno.ENOSPC, "No space left on device", file)
        return put(self, file, *rest, **options)

    return refuse


@pytest.mark.parametrize("job", [(1, 1), *JOBS])
@pytest.mark.parametrize("is_far", [False, True], ids=["in the folder", "in a store"])
def test_nothing_is_left_of_a_trace_that_broke(
    tiny: AceStep15, tmp_path: Path, break_at: Break, is_far: bool, job: tuple[int, int]
) -> None:
    break_at(range(8))
    fails(tmp_path / "study", tiny, f"file://{tmp_path}/far.zarr" if is_far else None, job)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_cannot_be_committed_leaves_no_audio(
    tiny: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Audio is written before its shard is."""
    for shard, kept in ((0, range(0)), (1, range(3)), (2, range(6))):
        path = tmp_path / str(shard)
        with monkeypatch.context() as patch, pytest.raises(UserError, match="is full"):
            patch.setattr(LocalStorage, "put", full_disk(f"c.{shard}.0.0.0.0"))
            trace_study(path, study_spec(tiny), tiny)
        assert path.exists() == bool(kept), "nothing is left where nothing was committed"
        assert sorted(file.name for file in path.glob("audio/clips/*")) == [f"{c:05d}.flac" for c in kept]


def test_what_another_job_wrote_stays(tiny: AceStep15, tmp_path: Path, break_at: Break) -> None:
    path = tmp_path / "study"
    trace_study(path, study_spec(tiny), tiny, job=(1, 2))
    before = contents(path)
    break_at(range(6, 8))  # the last shard
    fails(path, tiny, job=(2, 2))
    after = contents(path)
    assert before.items() <= after.items()
    assert {name for name in after if name.startswith("audio")} == {
        f"audio/clips/{c:05d}.flac" for c in range(6)
    }
    break_at(range(0))
    trace_study(path, study_spec(tiny), tiny)
    assert Study.open(path).cache.plan.n_clips == 8


def test_the_last_job_to_break_removes_what_the_first_had_to_leave(
    tiny: AceStep15, tmp_path: Path, break_at: Break
) -> None:
    path = tmp_path / "study"
    break_at(range(8))
    study = Study.create(path, study_spec(tiny), tiny.describe(), str)
    with CacheWriter(study.cache_location, cache_plan(study.spec, tiny), study.clips, (1, 2)):
        fails(path, tiny, job=(1, 2))
        assert Study.open(path).spec == study.spec, "somebody is writing"
    fails(path, tiny, job=(2, 2))
    assert list(tmp_path.iterdir()) == []


def test_a_trace_that_another_one_keeps_out_leaves_its_study(
    tiny: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both began at once, and the other one has its shards, but has not created its cache yet."""
    path, spec = tmp_path / "study", study_spec(tiny)
    create = Study.create
    with ExitStack() as other:

        def created(*args: Any) -> Study:
            study = create(*args)
            claim = open_storage(study.cache_location).claim(0, cache_plan(spec, tiny).n_shards - 1)
            other.enter_context(closing(claim))
            return study

        monkeypatch.setattr(Study, "create", created)
        with pytest.raises(CacheBusy, match="another writer"):
            trace_study(path, spec, tiny)
        assert Study.open(path).spec == spec


def test_a_store_of_another_study_stays_and_no_study_is_left(tiny: AceStep15, tmp_path: Path) -> None:
    store = f"file://{tmp_path}/far.zarr"
    first = trace_study(tmp_path / "first", study_spec(tiny), tiny, store=store)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="has a different plan"):
        trace_study(tmp_path / "second", study_spec(tiny, seed=9), tiny, store=store)
    assert contents(tmp_path) == before
    assert not (tmp_path / "second").exists()
    assert first.cache.sites == ["tf0.cross_attn", "tf1.block"]


def test_what_else_lies_in_the_study_stays(tiny: AceStep15, tmp_path: Path, break_at: Break) -> None:
    study = Study.create(tmp_path / "study", study_spec(tiny), tiny.describe(), str)
    (study.path / "results").mkdir()
    (study.path / "results" / "patching-blocks.nc").touch()
    break_at(range(8))
    fails(study.path, tiny)
    assert study.is_there
    assert (study.path / "results" / "patching-blocks.nc").exists()


def test_a_trace_whose_study_was_removed_meanwhile_says_so(
    tiny: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = CacheWriter.__enter__

    def enter(self: CacheWriter) -> CacheWriter:
        (tmp_path / "study" / "study.json").unlink()
        return opened(self)

    monkeypatch.setattr(CacheWriter, "__enter__", enter)
    with pytest.raises(UserError, match=r"failed and removed it. Run this one again"):
        trace_study(tmp_path / "study", study_spec(tiny), tiny)
    assert list(tmp_path.iterdir()) == []
