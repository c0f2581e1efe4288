"""Distances against other implementations: numbers that `make_distance_fixtures.py` wrote, and laion-clap's network."""

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.oracles.distance_clips import RATE, two_clips
from tests.tolerances import assert_close
from tests.workbench.scorers.tiny_clap import TINY_HTSAT, notes, save_checkpoint, tiny_state
from workbench.scorers.clap_laion import import_laion_clap
from workbench.scorers.distances import load_distance
from workbench.scorers.windows import cut_windows

FIXTURE = Path(__file__).parent / "fixtures" / "distances.json"


def test_the_multi_resolution_stft_distance_is_auralosss() -> None:
    one, other = two_clips()
    found = load_distance("mr-stft").compare(np.stack([one, other]), np.stack([other, one]), RATE)
    assert_close(found, json.loads(FIXTURE.read_text())["mr-stft"])


@pytest.mark.skipif(find_spec("laion_clap") is None, reason="the extra 'clap' is not installed")
@torch.inference_mode()
def test_lpaps_is_that_of_the_package_s_stages(tmp_path: Path) -> None:
    """As in the authors' code, outputs (window, position, channel) are normalised and summed along axis 1."""
    state = tiny_state()
    import_laion_clap()
    from clap_module.htsat import HTSAT_Swin_Transformer

    front_end = SimpleNamespace(
        window_size=1024, hop_size=480, sample_rate=48_000, mel_bins=64, fmin=50, fmax=14_000, class_num=2
    )
    branch = HTSAT_Swin_Transformer(
        num_classes=2,
        embed_dim=TINY_HTSAT["patch_embeds_hidden_size"],
        depths=TINY_HTSAT["depths"],
        num_heads=TINY_HTSAT["num_attention_heads"],
        config=front_end,
    ).eval()
    mine = {
        key.removeprefix("audio_branch."): tensor
        for key, tensor in state.items()
        if key.startswith("audio_branch.") and not key.startswith(("audio_branch.tscam", "audio_branch.head"))
    }
    del mine["layers.0.blocks.1.attn_mask"]
    assert not branch.load_state_dict(mine, strict=False).unexpected_keys
    stages, clips = [], notes(220, 1760, seconds=4).mean(axis=1, keepdims=True)
    for clip in clips:
        mel = branch.logmel_extractor(branch.spectrogram_extractor(torch.from_numpy(cut_windows(clip[0])[0])))
        outputs = branch.patch_embed(branch.reshape_wav2img(branch.bn0(mel.transpose(1, 3)).transpose(1, 3)))
        stages.append([outputs := layer(outputs)[0] for layer in branch.layers])
    expected = 0.0
    for one, other in zip(*stages, strict=True):
        apart = torch.nn.functional.normalize(one, dim=1) - torch.nn.functional.normalize(other, dim=1)
        expected += apart.square().sum(dim=1).mean().item()
    lpaps = load_distance("lpaps", checkpoint=save_checkpoint(tmp_path / "clap.pt", state))
    assert expected > 0.01
    assert_close(lpaps.compare(clips[:1], clips[1:], 48_000)[0], np.float32(expected))
