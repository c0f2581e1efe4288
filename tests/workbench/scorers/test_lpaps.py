"""LPAPS with a tiny CLAP of random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cache.errors import UserError
from tests.tolerances import assert_close
from tests.workbench.scorers.tiny_clap import notes, save_checkpoint, tiny_state
from workbench.scorers.clap import CHECKPOINT_NAME, CHECKPOINT_VARIABLE
from workbench.scorers.distances import Distance, distance_identity, load_distance
from workbench.scorers.lpaps import LpapsDistance

RATE = 48_000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("clap") / CHECKPOINT_NAME, tiny_state())


@pytest.fixture(scope="module")
def lpaps(checkpoint: Path) -> Distance:
    return load_distance("lpaps", checkpoint=checkpoint)


def test_a_clip_is_0_from_itself_and_as_far_from_another_both_ways(lpaps: Distance) -> None:
    clips = notes(220, 1760, seconds=1)
    itself, there, back = lpaps.compare(clips[[0, 0, 1]], clips[[0, 1, 0]], RATE)
    assert_close(itself, 0.0)
    assert 0.01 < there < 16
    assert_close(there, back)


def test_stages_have_unit_channels_whose_squared_differences_are_summed_over_positions(
    lpaps: LpapsDistance,
) -> None:
    clips = notes(220, 1760, seconds=1).mean(axis=1, dtype=float)
    one, other = (lpaps.features(clip, RATE) for clip in clips)
    assert [stage.shape[1] for stage in one] == [1024, 256, 64, 64]
    expected = 0.0
    for ours, theirs in zip(one, other, strict=True):
        lengths = ours.norm(dim=1)
        assert_close(lengths, torch.ones_like(lengths).float())
        cosines = (ours * theirs).sum(dim=1)
        expected += float((2 - 2 * cosines).mean())
    assert_close(lpaps.between(one, other), np.float32(expected))


def test_windows_of_10_s_begin_every_9_s_and_count_alike(lpaps: LpapsDistance) -> None:
    long, other = notes(220, 1760, seconds=12)
    parts = [
        lpaps.compare(long[None, :, begin:end], other[None, :, begin:end], RATE)[0]
        for begin, end in ((0, 480_000), (432_000, 576_000))
    ]
    # 10 s hold a second window, of the last second
    parts[0] = (
        2 * parts[0] - lpaps.compare(long[None, :, 432_000:480_000], other[None, :, 432_000:480_000], RATE)[0]
    )
    assert_close(lpaps.compare(long[None], other[None], RATE)[0], np.float32(np.mean(parts)))


def test_channels_and_sample_rate_are_made_one_before_the_network(lpaps: Distance) -> None:
    stereo = notes(220, 1760, seconds=1, sample_rate=24_000)
    mono = stereo.mean(axis=1, keepdims=True)
    assert_close(
        lpaps.compare(stereo[:1], stereo[1:], 24_000), np.float32(lpaps.compare(mono[:1], mono[1:], 24_000))
    )


def test_silence_has_no_distance(lpaps: Distance) -> None:
    clip = notes(220, seconds=1)
    assert np.isnan(lpaps.compare(np.zeros_like(clip), clip, RATE)).all()
    assert np.isnan(lpaps.compare(clip[..., :0], clip[..., :0], RATE)).all()


def test_the_identity_is_that_of_the_checkpoint_which_must_be_there_and_whole(
    checkpoint: Path, lpaps: Distance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(checkpoint))
    assert distance_identity("lpaps") == lpaps.identity
    state = tiny_state()
    changed = state | {"audio_branch.norm.bias": state["audio_branch.norm.bias"] + 1}
    assert LpapsDistance.identify(save_checkpoint(tmp_path / "changed.pt", changed)) != lpaps.identity
    del state["audio_branch.patch_embed.proj.weight"]
    with pytest.raises(
        UserError, match=r"partial\.pt is not a LAION-CLAP checkpoint with HTSAT: .* is missing"
    ):
        load_distance("lpaps", checkpoint=save_checkpoint(tmp_path / "partial.pt", state))
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(tmp_path / "none.pt"))
    with pytest.raises(UserError, match=r"no CLAP checkpoint at .*none\.pt: run `hf download"):
        distance_identity("lpaps")
