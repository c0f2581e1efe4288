"""Write `fixtures/distances.json` with auraloss, for the recipe in README.md."""

import json
import sys
from pathlib import Path

import auraloss
import torch

from tests.oracles.distance_clips import RATE, two_clips
from workbench.scorers.stft_distance import FLOOR, RESOLUTIONS


def main(folder: Path) -> None:
    """Compare each clip with the other at 24 kHz, in float64."""
    lengths, hops, windows = zip(*RESOLUTIONS, strict=True)
    loss = auraloss.freq.MultiResolutionSTFTLoss(lengths, hops, windows, eps=FLOOR)
    loss.double()
    for part in loss.stft_losses:
        part.window = torch.hann_window(part.win_length, dtype=torch.float64)  # it had rounded it
    waves = [torch.from_numpy(clip.mean(axis=0, dtype="float64"))[None, None] for clip in two_clips()]
    both = [loss(waves[0], waves[1]).item(), loss(waves[1], waves[0]).item()]
    text = json.dumps({"mr-stft": both, "sample_rate": RATE}, indent=2)
    (folder / "distances.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
