"""Autoencoders that are trained while the model generates: the rows, shared by sites, and trainings that go on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analyses.evaluation.sae import asked_evaluation, evaluate_sae
from analyses.sae import generated
from analyses.sae.distributed import ALONE
from analyses.sae.generated import GeneratedClips, reader_at
from analyses.sae.names import sae_names
from analyses.sae.run import asked_trainings, run_saes, training_rows
from analyses.sae.train import TrainSpec
from analyses.sae.training import Training
from analyses.sae.training_state import TrainingState
from cache.errors import UserError
from tests.tolerances import assert_close
from tests.workbench.studies.test_study import study_spec
from workbench.models.ace_step import AceStep15
from workbench.studies.study import Study
from workbench.studies.tracing import trace_study

CACHED, OTHER, MISSING = "tf0.cross_attn", "tf1.block", "tf1.mlp"
OPTIONS: dict[str, Any] = {"k": 2, "expansion": 1, "train_steps": 9, "batch_size": 8, "source": "generation"}


@pytest.fixture(scope="module")
def study(tiny: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Of 4 prompts with 2 clips each, every second token of which is stored."""
    spec = study_spec(tiny, tokens={"kind": "stride", "size": 2}, cache_dtype="float32")
    return trace_study(tmp_path_factory.mktemp("generated") / "study", spec, tiny)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch, tiny: AceStep15) -> None:
    """Three groups of two clips in a pass, of the model that is loaded already."""
    monkeypatch.setattr(generated, "GROUP_ROWS", 9)
    monkeypatch.setattr(Study, "load_model", lambda *_: tiny)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tiny: AceStep15) -> list[list[tuple[str, int]]]:
    """Prompts and seeds of each batch that the model generates."""
    made: list[list[tuple[str, int]]] = []
    generate = AceStep15.generate_batch

    def counted(self: AceStep15, clips: Any, *args: Any, **options: Any) -> Any:
        made.append([(clip.prompt, clip.seed) for clip in clips])
        return generate(self, clips, *args, **options)

    monkeypatch.setattr(AceStep15, "generate_batch", counted)
    return made


def specs(study: Study, *sites: str, **changes: Any) -> list[TrainSpec]:
    return asked_trainings(study, sites, **{**OPTIONS, **changes})


def test_the_rows_of_the_first_pass_are_those_of_the_cache(study: Study, tiny: AceStep15) -> None:
    spec = specs(study, CACHED)[0]
    clips = GeneratedClips(study, tiny, [spec])
    rows, held_out = training_rows(study, spec, "cpu", clips)
    ours, cached = rows(CACHED, "cond"), training_rows(study, spec, "cpu")[0](CACHED, "cond")
    passes = [[pair for _ in range(clips.groups) for pair in ours.with_steps()] for _ in range(2)]
    first, second, stored = (
        [torch.cat(part).numpy() for part in zip(*each, strict=True)]
        for each in (*passes, list(cached.with_steps()))
    )
    assert (clips.groups, len(held_out), len(first[0])) == (3, 2, cached.n_rows)

    def in_order(values: list[np.ndarray]) -> np.ndarray:
        return np.stack(
            [values[0][values[1] == step][np.argsort(values[0][values[1] == step, 0])] for step in (0, 1)]
        )

    assert_close(in_order(first), in_order(stored))
    assert np.abs(in_order(second) - in_order(stored)).max() > 0.01, "later passes have new noise"
    assert not np.array_equal(first[1], np.sort(first[1])), "rows are shuffled"
    described = np.stack(list(clips.by_clip(CACHED, "cond", [1, 6])))
    assert_close(described, study.cache.read(CACHED, clips=[1, 6], passes=["cond"])[:, :, 0])


def test_sites_share_what_is_generated_and_none_is_generated_twice(
    study: Study, tiny: AceStep15, runs: list[list[tuple[str, int]]]
) -> None:
    asked, clips = specs(study, CACHED, OTHER), GeneratedClips(study, tiny, specs(study, CACHED, OTHER))
    Training(
        asked, training_rows(study, asked[0], "cpu", clips)[0], clips.plan.steps, None, "cpu", ALONE
    ).run(asked)
    made = [clip for batch in runs for clip in batch]
    own = set(zip(study.clips["prompt"], study.clips["seed"], strict=True))
    assert len(made) == len(set(made)) == clips.needed(9, 8)
    assert len(own & set(made)) == min(len(made), clips.training_clips)


def weights_after(
    study: Study, asked: list[TrainSpec], stops: list[int], tiny: AceStep15
) -> list[torch.Tensor]:
    """Train in processes that end at these steps, and one that finishes."""
    state = TrainingState(study, asked, pytest.fail)
    state.is_due = lambda: True  # type: ignore[method-assign]
    for stop in [*stops, -1]:

        def progress(done: int, _: int, stop: int = stop) -> None:
            if done == stop:
                raise InterruptedError

        clips = GeneratedClips(study, tiny, asked)
        rows = training_rows(study, asked[0], "cpu", clips)[0]
        training = Training(asked, rows, clips.plan.steps, state, "cpu", ALONE)
        try:
            done = training.run(asked, progress)
        except InterruptedError:
            continue
    state.remove()
    return [value for each in done for value in each.sae.state_dict().values()]


def test_an_interrupted_training_ends_with_the_same_bytes(study: Study, tiny: AceStep15) -> None:
    asked = specs(study, CACHED, OTHER, input_scale="step")
    whole = weights_after(study, asked, [], tiny)
    resumed = weights_after(study, asked, [1, 4, 8], tiny)
    alone = weights_after(study, asked[:1], [], tiny)
    assert all(map(torch.equal, whole, resumed))
    assert all(map(torch.equal, whole, alone)), "a site gets the rows that it gets alone"


def test_a_site_that_is_not_in_the_cache_is_trained_and_described(
    study: Study, tiny: AceStep15, runs: list[list[tuple[str, int]]]
) -> None:
    said: list[str] = []
    asked = specs(study, MISSING)
    (result,) = run_saes(study, asked, note=said.append)
    needed = GeneratedClips(study, tiny, asked).needed(9, 8)
    assert said[0] == (
        f"{needed} clips are generated for 9 training steps of 8 activation vectors, and the 8 clips of the study to "
        "describe the features."
    )
    assert sum(map(len, runs)) == needed + 8
    assert sae_names(study, MISSING) == [MISSING]
    assert result.attrs["held_out_clips"] and np.isfinite(result["final_explained_variance"])
    assert not (Path(study.cache_location) / MISSING).exists()


def test_a_site_that_is_not_in_the_cache_is_evaluated(study: Study, tiny: AceStep15) -> None:
    said: list[str] = []
    (trained,) = run_saes(study, specs(study, MISSING), note=said.append)
    asked = asked_evaluation(study, trained.attrs["name"], pairs=0, clips=1)
    result = evaluate_sae(study, tiny, asked, note=said.append)
    assert (
        said[-1] == f"The study's cache has no {MISSING} (cond pass): clips of the study are generated again."
    )
    assert (result["velocity_error"].sel(replacement="mean") > 0).all()


def test_clips_that_are_generated_again_are_those_of_the_cache(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = list(reader_at(study, tiny, CACHED, "cond", pytest.fail)(CACHED, "cond", [1, 6]))
    monkeypatch.setattr(generated, "is_cached", lambda *_: False)
    again = list(reader_at(study, tiny, CACHED, "cond", lambda _: None)(CACHED, "cond", [1, 6]))
    assert_close(np.stack(again), np.stack(cached))


@pytest.mark.parametrize(
    ("site", "changes", "sentence"),
    [
        (MISSING, {"source": "cache"}, "has no site 'tf1.mlp'"),
        ("tf9.mlp", {}, "tf9"),
        (CACHED, {"pass_name": "other"}, "Passes must be among"),
    ],
)
def test_what_the_model_does_not_have_is_refused(
    study: Study, site: str, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        run_saes(study, specs(study, site, **changes))


def test_more_than_fits_into_memory_is_refused(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated, "BUFFER_BYTES", 1000)
    with pytest.raises(UserError, match="Train fewer sites together"):
        GeneratedClips(study, tiny, specs(study, CACHED))
