"""Which rows train, and in which order."""

import numpy as np
import pandas as pd
import pytest

from analyses.sae import rows as rows_module
from analyses.sae.rows import by_clip, split_by_prompt, training_rows
from cache.errors import UserError
from tests.analyses.planted_study import CHANNELS, TOKENS
from workbench.study import Study

SITE = "tf0.cross_attn"
ROWS_PER_CLIP = 2 * TOKENS


def clip_table(prompts: int) -> pd.DataFrame:
    return pd.DataFrame({"clip": range(3 * prompts), "prompt_id": np.repeat(np.arange(prompts), 3)})


def test_prompts_are_held_out_whole() -> None:
    clips = clip_table(20)
    training, held_out = split_by_prompt(clips, 0.1, seed=0)
    assert sorted(training + held_out) == list(range(60))
    assert len(held_out) == 6
    assert not set(clips.prompt_id[training]) & set(clips.prompt_id[held_out])
    assert split_by_prompt(clips, 0.1, seed=1)[1] != held_out
    assert len(split_by_prompt(clips, 0.5, seed=0)[1]) == 30


def test_one_prompt_is_held_out_and_one_trains_at_least() -> None:
    assert len(split_by_prompt(clip_table(2), 0.01, seed=0)[1]) == 3
    assert len(split_by_prompt(clip_table(2), 0.99, seed=0)[0]) == 3
    with pytest.raises(UserError, match="at least two prompts"):
        split_by_prompt(clip_table(1), 0.5, seed=0)


def as_set(batches: list[np.ndarray]) -> set[bytes]:
    return {row.tobytes() for batch in batches for row in batch}


@pytest.mark.parametrize("clips_together", [100, 4])
def test_a_pass_gives_every_row_of_the_clips_once(
    planted_study: Study, monkeypatch: pytest.MonkeyPatch, clips_together: int
) -> None:
    monkeypatch.setattr(rows_module, "BUFFER_BYTES", clips_together * 4 * ROWS_PER_CLIP * CHANNELS)
    cache = planted_study.cache
    clips = [5, 70, 2, 40, 17, 33, 8, 61]
    one_pass = training_rows(cache, SITE, "null", clips, batch_size=16)
    batches = list(one_pass(0))
    assert [batch.shape for batch in batches] == [(16, CHANNELS)] * (8 * ROWS_PER_CLIP // 16)
    wanted = cache.read(SITE, clips=clips, passes=["null"]).reshape(-1, CHANNELS)
    assert as_set(batches) == as_set([wanted])
    again, other = list(one_pass(0)), list(one_pass(1))
    np.testing.assert_array_equal(np.concatenate(again), np.concatenate(batches))
    assert as_set(other) == as_set(batches)
    assert not np.array_equal(np.concatenate(other), np.concatenate(batches))


def test_rows_of_different_clips_are_mixed(planted_study: Study) -> None:
    cache = planted_study.cache
    clips = list(range(10))
    clip_of = {
        row.tobytes(): clip
        for clip in clips
        for row in cache.read(SITE, clips=[clip], passes=["cond"]).reshape(-1, CHANNELS)
    }
    first = next(training_rows(cache, SITE, "cond", clips, batch_size=40)(0))
    assert len({clip_of[row.tobytes()] for row in first}) >= 8


def test_clips_are_visited_in_random_order(planted_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "BUFFER_BYTES", 1)  # one clip at a time
    cache, clips = planted_study.cache, list(range(12))
    visited = []
    for batch in training_rows(cache, SITE, "cond", clips, batch_size=ROWS_PER_CLIP)(0):
        (clip,) = (
            clip
            for clip in clips
            if as_set([batch])
            == as_set([cache.read(SITE, clips=[clip], passes=["cond"]).reshape(-1, CHANNELS)])
        )
        visited.append(clip)
    assert sorted(visited) == clips
    assert visited != clips


def test_a_batch_larger_than_all_rows_is_all_rows(planted_study: Study) -> None:
    (batch,) = training_rows(planted_study.cache, SITE, "cond", [3], batch_size=1000)(0)
    assert batch.shape == (ROWS_PER_CLIP, CHANNELS)


def test_clips_come_one_by_one_in_order(planted_study: Study) -> None:
    cache = planted_study.cache
    clips = list(range(40, 4, -1))
    acts = np.stack(list(by_clip(cache, SITE, "null", clips)))
    np.testing.assert_array_equal(acts, cache.read(SITE, clips=clips, passes=["null"])[:, :, 0])
