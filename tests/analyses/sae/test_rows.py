"""Which clips train, and clips one by one."""

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.sae.rows import by_clip, split_by_prompt
from analyses.sae.run import training_rows
from analyses.sae.train import train_spec
from cache.errors import UserError
from workbench.studies.study import Study

SITE = "tf0.cross_attn"


def clip_table(prompts: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"clip": range(3 * prompts), "encoding": np.repeat(np.arange(prompts), 3).astype(str)}
    )


def test_prompts_are_held_out_whole() -> None:
    clips = clip_table(20)
    training, held_out = split_by_prompt(clips, 0.1, seed=0)
    assert sorted(training + held_out) == list(range(60))
    assert len(held_out) == 6
    assert not set(clips.encoding[training]) & set(clips.encoding[held_out])
    assert split_by_prompt(clips, 0.1, seed=1)[1] != held_out
    assert len(split_by_prompt(clips, 0.5, seed=0)[1]) == 30


def test_held_out_prompts_have_every_value_that_several_prompts_have() -> None:
    values = ["violin"] * 30 + ["piano"] * 4 + ["flute"] * 2 + ["horn", "", ""]
    clips = clip_table(len(values)).assign(label_instrument=np.repeat(values, 3))
    for seed in range(20):
        held_out = split_by_prompt(clips, 0.1, seed)[1]
        assert len(held_out) == 12
        found = set(clips.label_instrument[held_out])
        assert {"violin", "piano", "flute"} <= found
        assert set(clips.label_instrument) - set(clips.label_instrument.drop(held_out)) == set()
        assert len(set(clips.encoding[held_out])) == 4


def test_one_prompt_is_held_out_and_one_trains_at_least() -> None:
    assert len(split_by_prompt(clip_table(2), 0.01, seed=0)[1]) == 3
    assert len(split_by_prompt(clip_table(2), 0.99, seed=0)[0]) == 3
    with pytest.raises(UserError, match="at least two prompts"):
        split_by_prompt(clip_table(1), 0.5, seed=0)


def test_clips_come_one_by_one_in_order(planted_study: Study) -> None:
    cache = planted_study.cache
    clips = list(range(40, 4, -1))
    acts = np.stack(list(by_clip(cache, SITE, "null", clips)))
    np.testing.assert_array_equal(acts, cache.read(SITE, clips=clips, passes=["null"])[:, :, 0])


def test_the_training_sees_every_row_of_its_clips_and_no_other(planted_study: Study) -> None:
    spec = train_spec(SITE, pass_name="null", held_out_fraction=0.3, batch_size=50, data_seed=4)
    of_site, held_out = training_rows(planted_study, spec, "cpu")
    rows_of_training = of_site(SITE, "null")
    passes = [torch.cat(list(rows_of_training)).numpy() for _ in range(2)]
    training, rest = split_by_prompt(planted_study.clips, 0.3, spec.data_seed)
    assert held_out == rest
    wanted = planted_study.cache.read(SITE, clips=training, passes=["null"])
    wanted = wanted.reshape(-1, wanted.shape[-1])
    for rows in passes:
        assert sorted(rows.tolist()) == sorted(wanted.tolist())
    assert not np.array_equal(*passes)
