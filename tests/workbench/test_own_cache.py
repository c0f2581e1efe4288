"""A study reads its own activations, and no others that lie in their place."""

import shutil
from pathlib import Path

import pytest

from cache.errors import UserError
from cache.local_storage import LocalStorage
from tests.workbench.studies.test_study import PROMPTS, study_spec
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import PromptSet
from workbench.studies.study import Study
from workbench.studies.tracing import trace_study


@pytest.fixture(scope="module")
def study(tiny: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return trace_study(tmp_path_factory.mktemp("own") / "study", study_spec(tiny), tiny)


def swapped(study: Study, other: Study, folder: Path) -> Study:
    """A copy of a study with the cache of another one."""
    shutil.copytree(study.path, folder, ignore=shutil.ignore_patterns("activations.zarr"))
    shutil.copytree(other.path / "activations.zarr", folder / "activations.zarr")
    return Study.open(folder)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"sites": ("tf0.cross_attn",)}, "other sites"),
        ({"sites": ("tf0.cross_attn", "tf1.mlp")}, "other sites"),
        ({"cache_dtype": "float32"}, "other dtypes"),
        ({"site_dtypes": {"tf1.block": "bfloat16"}}, "other dtypes"),
        ({"steps": (0, 1)}, "other steps"),
        ({"passes": ("null",)}, "other passes"),
        ({"seed": 5}, "other model, prompts or settings, clips"),
        ({"lyrics": "a song"}, "other model, prompts or settings, clips"),
        ({"n_prompts": 3}, "other clips"),
        (
            {"prompts": PROMPTS.model_copy(update={"templates": ("the {tempo} song {drums}",)})},
            "other model, prompts",
        ),
    ],
)
def test_the_cache_of_another_study_is_refused(
    study: Study, tiny: AceStep15, tmp_path: Path, changes: dict[str, object], what: str
) -> None:
    other = trace_study(tmp_path / "other", study_spec(tiny, **changes), tiny)
    mixed = swapped(study, other, tmp_path / "mixed")
    with pytest.raises(UserError, match=f"does not have the activations of .* [(]({what})"):
        _ = mixed.cache


def test_the_same_clips_in_another_order_are_another_study(
    study: Study, tiny: AceStep15, tmp_path: Path
) -> None:
    """Prompts that were added later come later, so that the labels of one would be those of the other's clips."""
    trace_study(tmp_path / "grown", study_spec(tiny, n_prompts=2), tiny)
    grown = trace_study(tmp_path / "grown", study_spec(tiny), tiny)
    assert grown.spec == study.spec
    assert grown.cache.plan == study.cache.plan
    with pytest.raises(UserError, match="other clips"):
        _ = swapped(study, grown, tmp_path / "mixed").cache


def test_other_weights_are_another_study(study: Study, tmp_path: Path) -> None:
    own = swapped(study, study, tmp_path / "copy")
    assert own.cache.sites == study.cache.sites
    own.model["weights_hash"] = "another"
    with pytest.raises(UserError, match="other model"):
        _ = own.cache


def test_sites_may_be_given_in_any_way(tiny: AceStep15, tmp_path: Path) -> None:
    asked = ("*.cross_attn", "tf1.block", "tf0.cross_attn.q")
    cache = trace_study(tmp_path / "study", study_spec(tiny, sites=asked, n_prompts=1, seeds=1), tiny).cache
    assert sorted(cache.sites) == ["tf0.cross_attn", "tf0.cross_attn.q", "tf1.block", "tf1.cross_attn"]


def test_no_shard_is_read_to_tell(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise AssertionError("a shard is read")

    for name in ("read_into", "pieces"):
        monkeypatch.setattr(LocalStorage, name, refused)
    assert Study.open(study.path).cache.plan.n_clips == 8


def test_prompts_that_are_the_same_to_the_model_have_one_encoding(tiny: AceStep15, tmp_path: Path) -> None:
    moods = {"happy": "happy", "zesty": "zesty", "zippy": "zippy"}
    prompts = PromptSet.model_validate(
        {
            "templates": ["a {tempo} {mood} song"],
            "concepts": {"tempo": {"slow": "slow", "fast": "fast"}, "mood": moods},
        }
    )
    study = trace_study(tmp_path / "study", study_spec(tiny, prompts=prompts, n_prompts=4), tiny)
    grown = trace_study(study.path, study_spec(tiny, prompts=prompts, n_prompts=6), tiny)
    for clips in (study.clips, grown.clips):
        read = clips["prompt"].str.replace("zesty", "zippy")
        assert read.nunique() < clips["prompt"].nunique()
        assert clips["encoding"].groupby(read).nunique().eq(1).all()
        assert clips["encoding"].nunique() == read.nunique()
