"""What a trace is said to cost, against what it then costs; and the refusal where there is no room."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cache import CachePlan, UserError
from cache.local_storage import LocalStorage
from tests.workbench.studies.test_study import interrupted, study_spec
from workbench.cli.main import app
from workbench.cli.pricing_table import price_table
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.studies.pricing import _full_calls, check_price, missing_shards, price, ways_to_shrink
from workbench.studies.selection import stratified_steps
from workbench.studies.tracing import cache_plan, trace_study


def big_plan(**changes: object) -> CachePlan:
    sigmas = np.linspace(1, 0.02, 60).tolist()
    fields = {
        "sites": {f"tf{block}.cross_attn": 2048 for block in range(24)},
        "dtypes": "bfloat16",
        "n_clips": 64,
        "steps": tuple(range(60)),
        "sigmas": tuple(sigmas),
        "passes": ("cond", "null"),
        "tokens": 128,
        "token_seconds": 0.08,
        "clips_per_shard": 8,
        "identity": {},
    }
    return CachePlan.model_validate(fields | changes)


def with_room(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free})())


def test_the_price_is_what_is_then_written(tiny: AceStep15, tmp_path: Path) -> None:
    spec = study_spec(tiny)
    storage = LocalStorage(tmp_path / "study" / "activations.zarr")
    asked = price(spec, cache_plan(spec, tiny), tiny, storage)
    assert not (tmp_path / "study").exists()
    study = trace_study(tmp_path / "study", spec, tiny)
    written = sum(path.stat().st_size for path in storage.folder.rglob("c.*"))
    assert asked.total_bytes == written
    assert (asked.clips, asked.calls) == (8, 3 * 3)
    assert asked.seconds > asked.calls * asked.trial.call_seconds > 0
    rounding = asked.trial.rounding["tf0.cross_attn"]
    assert rounding["float32"]["rms_error"] == 0
    recorded = study.cache.manifest.entries[0].files["tf0.cross_attn"]
    assert rounding["float16"]["rms_error"] == pytest.approx(recorded.rms_error, rel=0.1)


def test_only_what_is_missing_is_priced(tiny: AceStep15, tmp_path: Path) -> None:
    spec = study_spec(tiny)
    trace_study(tmp_path / "study", spec, tiny, job=(1, 3))
    storage = LocalStorage(tmp_path / "study" / "activations.zarr")
    plan = cache_plan(spec, tiny)
    assert missing_shards(plan, storage) == [1, 2]
    asked = price(spec, plan, tiny, storage)
    assert (asked.clips, asked.total_bytes) == (5, sum(plan.bytes_of([1, 2]).values()))


def test_calls_without_guidance_count_half(tiny: AceStep15) -> None:
    settings = GenerationSettings(
        num_steps=4, options={"shift": 1.0, "cfg_interval_start": 0.5, "cfg_interval_end": 1.0}
    )
    assert tiny.sigmas(settings) == [1.0, 0.75, 0.5, 0.25]
    assert _full_calls(tiny, settings) == 0.5 + 0.5 + 1 + 1
    assert _full_calls(tiny, GenerationSettings(num_steps=4, guidance_scale=1.0)) == 4


def test_no_room_is_refused_with_three_ways_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = big_plan()
    with_room(monkeypatch, plan.total_bytes() // 4)
    with pytest.raises(UserError) as refusal:
        check_price(plan, LocalStorage(tmp_path / "cache"))
    sentence = str(refusal.value)
    assert '--steps "14 stratified"' in sentence
    assert '--tokens "every 5"' in sentence
    assert "5 of the 24 sites" in sentence


def test_each_way_is_the_largest_of_its_kind_that_fits() -> None:
    plan = big_plan()
    for share in (0.9, 0.5, 0.1, 0.03):
        room = int(plan.total_bytes() * share)
        ways = dict(ways_to_shrink(plan, room))
        assert all(size <= room for size in ways.values())
        assert list(ways.values()) == sorted(ways.values(), reverse=True)
        steps = next(int(re.search(r"(\d+) strat", way)[1]) for way in ways if "stratified" in way)
        kept = stratified_steps(plan.sigmas, steps + 1) if steps + 1 < 60 else tuple(range(60))
        one_more = plan.model_copy(
            update={"steps": kept, "sigmas": tuple(plan.sigmas[step] for step in kept)}
        )
        assert one_more.total_bytes() > room


def test_a_plan_that_fits_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = big_plan()
    with_room(monkeypatch, plan.total_bytes() + 64 * 2**20)
    check_price(plan, LocalStorage(tmp_path / "cache"))
    with_room(monkeypatch, plan.total_bytes() + 64 * 2**20 - 1)
    with pytest.raises(UserError, match="Options that fit"):
        check_price(plan, LocalStorage(tmp_path / "cache"))


def test_the_command_prints_the_price_and_writes_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    command = ["trace", str(tiny_folder), "--out", str(tmp_path / "study"), "--dry-run", "--duration", "1"]
    options = ["--steps", "3 stratified", "--tokens", "mean 5", "--site-dtype", "*.block=float32"]
    result = CliRunner().invoke(app, [*command, "--n-prompts", "4", *options])
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "study").exists()
    for text in ("tf1.block", "float32", "bfloat16", "12 of 12", "means of 5", "free disk", "estimated time"):
        assert text in result.output


@pytest.mark.parametrize("job", ["a", "0/1", "2/1", "1/99999999999999999"])
def test_a_price_needs_a_job_that_exists(tiny_folder: Path, tmp_path: Path, job: str) -> None:
    command = ["trace", str(tiny_folder), "--out", str(tmp_path / "study"), "--dry-run", "--job", job]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, UserError)
    assert "job" in str(result.exception)


def test_the_command_says_what_it_measures_before_it_does(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AceStep15, "generate_batch", interrupted)
    for options, clips in (((), "16 clips of 0.5 s"), (("--clips-per-shard", "1"), "1 clip of 0.5 s")):
        command = [
            "trace",
            str(tiny_folder),
            "--out",
            str(tmp_path / "study"),
            "--dry-run",
            "--duration",
            "0.5",
        ]
        result = CliRunner().invoke(app, [*command, *options])
        assert result.exit_code != 0
        assert f"Measuring: 2 denoiser calls with {clips} as one batch" in result.output


def test_the_table_says_what_does_not_fit_float16(tiny: AceStep15, tmp_path: Path) -> None:
    spec = study_spec(tiny)
    asked = price(spec, cache_plan(spec, tiny), tiny, LocalStorage(tmp_path))
    asked.trial.rounding["tf1.block"]["float16"]["largest"] = 70000.0
    printed = io.StringIO()
    Console(width=120, file=printed).print(price_table(asked))
    row = next(line for line in printed.getvalue().splitlines() if "tf1.block" in line)
    assert "too large" in row
