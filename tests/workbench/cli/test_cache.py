"""`workbench cache ...`: what is printed, the exit codes, and one sentence for each mistake."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from cache import ActivationCache, CacheWriter
from tests.cache.faults import flip
from tests.cache.helpers import make_plan
from workbench.cli.cache import app
from workbench.cli.main import main
from workbench.engine.settings import GenerationSettings
from workbench.prompts.prompt_sets import PromptSet
from workbench.studies.study import Study, StudySpec

SHARD_FILE = "tf1.mlp/c.1.0.0.0.0"


def write(folder: Path, shards: tuple[int, ...] = (0, 1, 2), tokens: int = 4, scale: float = 1) -> Path:
    """A cache of five clips in three shards, or some shards of it."""
    plan = make_plan(steps=(0, 7), sigmas=(1.0, 0.25), passes=("cond",), tokens=tokens)
    with CacheWriter(folder, plan, pd.DataFrame({"clip": range(5)})) as writer:
        for shard in sorted(set(shards) & set(writer.missing())):
            first, last = plan.shard_clips(shard)
            values = {
                site: np.full((last - first + 1, *plan.shape(site)[1:]), scale * (shard + 1), np.float32)
                for site in plan.sites
            }
            writer.write_shard(shard, values)
    return folder


def run(*words: Any, answer: str | None = None) -> Result:
    """Run a command of `workbench cache` as typer does."""
    return CliRunner().invoke(app, [str(word) for word in words], input=answer)


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """The sentence with which the whole program refuses a command line with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["workbench", "cache", *map(str, words)])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2
    return capsys.readouterr().err


def make_study(folder: Path, store: str | None = None) -> Path:
    """A study folder without a cache in it."""
    prompts = PromptSet.model_validate(
        {"templates": ["a {tempo} song"], "concepts": {"tempo": {"slow": "slow", "fast": "fast"}}}
    )
    spec = StudySpec(
        model="made up",
        prompts=prompts,
        settings=GenerationSettings(duration=1.0, num_steps=2),
        n_prompts=2,
        seeds=1,
        sites=("tf1.mlp",),
        steps=(0,),
        passes=("cond",),
    )
    return Study.create(
        folder, spec, {"model": "made up", "weights_hash": "", "dtype": "float32"}, str, store
    ).path


def damage(folder: Path) -> None:
    """Flip a bit of a shard file."""
    (folder / SHARD_FILE).write_bytes(flip((folder / SHARD_FILE).read_bytes(), 9, 2))


def test_verify_tells_damage_and_repairs_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    intact = run("verify", folder)
    assert (intact.exit_code, intact.stdout) == (0, f"{folder} is intact.\n")
    damage(folder)
    found = run("verify", folder)
    assert found.exit_code == 1
    assert found.stdout.splitlines() == [
        f"{SHARD_FILE} differs from its checksum (shard 1, clips 2 to 3)",
        f"{folder} is damaged. Run `workbench cache verify --repair` on it to remove the damaged parts.",
    ]
    repaired = run("verify", folder, "--repair")
    assert repaired.exit_code == 0
    assert repaired.stdout.splitlines()[1:] == [
        "Repaired: 2 of 3 shards are intact. Run `workbench trace` again with the same options to write the "
        "missing shards."
    ]
    assert run("verify", folder).exit_code == 0


def test_repaired_metadata_needs_no_capture_unless_it_is_the_clip_table(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / "calls.parquet").unlink()
    assert "3 of 3 shards are intact; nothing needs" in run("verify", folder, "--repair").stdout
    (folder / "clips.parquet").unlink()
    assert "3 of 3 shards are intact. Run `workbench trace`" in run("verify", folder, "--repair").stdout


def test_info_of_a_study_as_tables_and_json(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    folder = write(study / "activations.zarr", (0, 2))
    printed = run("info", study)
    assert printed.exit_code == 0
    words = " ".join(printed.stdout.split())
    plan = ActivationCache(folder, allow_partial=True).plan
    for text in (
        plan.hash[:40],
        "2 of 3, 2 clips each",
        "0 (1), 7 (0.25)",
        "4, one every 0.04 s",
        "tf1.mlp",
        "float16",
    ):
        assert text in words
    described = json.loads(run("info", study, "--json").stdout)
    assert described["plan_hash"] == plan.hash
    assert (described["committed"], described["shards"]) == (2, 3)
    assert described["sites"]["tf1.mlp"]["largest"] == 3


def test_a_study_may_keep_its_cache_elsewhere(tmp_path: Path) -> None:
    folder = write(tmp_path / "bucket")
    study = make_study(tmp_path / "study", store=f"file://{folder}")
    assert run("verify", study).stdout == f"file://{folder} is intact.\n"


def test_caches_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "a", (0,))
    write(tmp_path / "b")
    lines = run("ls", tmp_path).stdout.splitlines()
    assert [line.split()[2:4] + line.split()[5:] for line in lines] == [
        ["3/3", "shards", "2", "sites", f"{tmp_path}/b"],
        ["1/3", "shards", "2", "sites", f"{tmp_path}/deep/a"],
    ]
    (tmp_path / "b" / "zarr.json").write_text('{"attributes":{"protocol":"activation-cache","version":1}}')
    listed = run("ls", tmp_path)
    assert "unreadable" in listed.stdout.splitlines()[0]
    assert "b has activation-cache version 1" in listed.stderr
    (tmp_path / "empty").mkdir()
    assert run("ls", tmp_path / "empty").stdout == f"There is no cache in {tmp_path}/empty.\n"


def test_removal_asks_first(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    for answer in ("n\n", ""):
        refused = run("rm", folder, answer=answer)
        assert refused.exit_code == 1
        assert f"Remove {folder} (" in refused.stdout
        assert ActivationCache(folder).sites
    assert run("rm", folder, answer="y\n").exit_code == 0
    assert not folder.exists()
    assert run("rm", write(tmp_path / "b"), "--yes").exit_code == 0
    assert not (tmp_path / "b").exists()


def test_single_shards_are_removed(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    removed = run("rm", folder, "--shard", 0, "--shard", 2, "--yes")
    assert (removed.exit_code, removed.stdout) == (0, f"Removed shards 0, 2 of {folder}.\n")
    assert list(ActivationCache(folder, allow_partial=True).manifest.entries) == [1]


def test_caches_are_merged(tmp_path: Path) -> None:
    parts = [write(tmp_path / "a", (0, 1)), write(tmp_path / "b", (1, 2))]
    merged = run("merge", *parts, "--out", tmp_path / "c")
    assert (merged.exit_code, merged.stdout) == (0, f"{tmp_path}/c has 3 of 3 shards.\n")
    assert run("verify", tmp_path / "c").exit_code == 0


def test_caches_are_exported(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    exported = run(
        "export",
        folder,
        "--out",
        tmp_path / "out",
        "--format",
        "npy",
        "--site",
        "tf1.mlp",
        "--dtype",
        "float32",
    )
    assert (exported.exit_code, exported.stdout) == (0, f"{tmp_path}/out\n")
    assert {path.name for path in (tmp_path / "out").glob("*.npy")} == {"tf1.mlp.npy"}
    np.testing.assert_array_equal(
        np.load(tmp_path / "out" / "tf1.mlp.npy"), ActivationCache(folder).read("tf1.mlp")
    )
    assert run("export", folder, "--out", tmp_path / "rows").exit_code == 0
    assert len(list((tmp_path / "rows").glob("*/*.safetensors"))) == 2


def test_mistakes_get_one_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: Any) -> str:
        return refusal(monkeypatch, capsys, *words)

    folder, nowhere = write(tmp_path / "a"), tmp_path / "nowhere"
    for words in (
        ("verify", nowhere),
        ("verify", nowhere, "--repair"),
        ("info", nowhere),
        ("rm", nowhere, "--yes"),
        ("rm", nowhere, "--yes", "--shard", 0),
        ("export", nowhere, "--out", tmp_path / "out"),
        ("merge", nowhere, "--out", tmp_path / "out"),
    ):
        assert f"{nowhere} is not an activation cache" in refused(*words)
    assert "nowhere is not a folder" in refused("ls", nowhere)
    assert "not the URL of an object store" in refused("verify", "nonsense://bucket/x.zarr")
    assert "has no shard 7; its shards are 0 to 2" in refused("rm", folder, "--shard", 7, "--yes")
    assert "has no site 'tf9.mlp'" in refused(
        "export", folder, "--out", tmp_path / "out", "--site", "tf9.mlp"
    )
    assert "already exists" in refused("export", folder, "--out", folder)
    other = write(tmp_path / "other", tokens=3)
    assert "differs from the first in tokens" in refused("merge", folder, other, "--out", tmp_path / "out")
    different = write(tmp_path / "different", (1,), scale=2)
    assert "Shard 1 differs" in refused("merge", folder, different, "--out", tmp_path / "out")
    with CacheWriter(folder, ActivationCache(folder).plan, pd.DataFrame({"clip": range(5)})):
        assert "being written by another writer" in refused("rm", folder, "--yes")
        assert "being written by another writer" in refused("verify", folder, "--repair")
    assert not (tmp_path / "out").exists()
    assert run("verify", folder).exit_code == 0


def test_what_the_system_refuses_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "a")
    (tmp_path / "file").touch()
    sentence = refusal(monkeypatch, capsys, "export", folder, "--out", tmp_path / "file" / "out")
    assert "/file cannot be used (Not a directory). Give another path" in " ".join(sentence.split())
