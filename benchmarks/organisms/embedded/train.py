"""The whole recipe: autoencoder, latents, denoiser, pipeline folder; finished stages are kept and reused."""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderOobleck
from jaxtyping import Float
from rich.progress import track
from torch import Tensor

from benchmarks.organisms.checkpoint import restoring
from benchmarks.organisms.embedded.train_dit import DitRecipe, make_transformer, train_transformer
from benchmarks.organisms.embedded.train_vae import VAE, VaeRecipe, train_vae
from benchmarks.organisms.labels import Labels
from benchmarks.organisms.pipeline import make_pipeline, save_pipeline
from benchmarks.organisms.planting import Plan, plan_truth
from benchmarks.organisms.synth import clip_labels, dataset
from benchmarks.organisms.vae import LATENT_CHANNELS, FastCodec
from cache.errors import UserError
from workbench.files import file_name, replacing

_LOG = logging.getLogger(__name__)
_ENCODE_BATCH = 50


@dataclass(frozen=True)
class Recipe:
    """Everything that determines an organism besides its plan."""

    seed: int = 0
    clips: int = 8000
    """Clips that the denoiser is trained on."""
    vae: VaeRecipe = field(default_factory=VaeRecipe)
    dit: DitRecipe = field(default_factory=DitRecipe)

    @property
    def data_seed(self) -> int:
        """Seed of the denoiser's clips, none of which the autoencoder was trained on."""
        return self.seed + 1_000_000


def _claim(path: Path, settings: dict[str, Any]) -> None:
    """Write `settings` to `path`; UserError if a training with other settings began there."""
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    if path.exists():
        if path.read_bytes() != text.encode():
            raise UserError(
                f"{path.parent} holds a training with other settings (see {path.name}); choose another --out"
            )
        return
    with replacing(path) as partial:
        partial.write_text(text)


@torch.no_grad()
def encode_dataset(
    vae: AutoencoderOobleck, clips: int, seed: int, path: Path
) -> Float[Tensor, "clip frame channel"]:
    """Latents of the first `clips` clips of the data set `seed`, half precision, kept in the file `path`.

    Raises:
        UserError: when that file is damaged.
    """
    if not path.exists():
        codec, encoded = FastCodec(vae), []
        for first in track(range(0, clips, _ENCODE_BATCH), description="latents"):
            audio, _ = dataset(min(_ENCODE_BATCH, clips - first), seed, first)
            latents = codec.encode(torch.from_numpy(audio)[:, None].to(vae.device))
            encoded.append(latents.transpose(1, 2).half().cpu().numpy())
        with replacing(path) as partial:
            np.save(partial, np.concatenate(encoded))
    with restoring(path):
        stored = np.lib.format.open_memmap(path, mode="r")
        if stored.dtype != np.float16 or stored.ndim != 3 or stored.shape[::2] != (clips, LATENT_CHANNELS):
            raise ValueError(f"latents of shape {stored.shape} in {stored.dtype}")
        return torch.from_numpy(np.array(stored)).to(vae.device)


def train(out: Path, name: str, plan: Plan, recipe: Recipe, device: torch.device) -> Path:
    """Train the organism `name` with its circuit planted as in `plan`; gives its folder in `out`.

    The folder has the organism's name, or a slug and a hash where that cannot be a folder's (see `file_name`).

    The autoencoder and the latents in `out` serve every organism that is trained there. A killed training
    continues where its last checkpoint was written. Raises UserError if `out` holds a training with other
    settings, or a damaged stage, and for the name of the autoencoder's folder.
    """
    stem = file_name(name)
    if stem == VAE:
        raise UserError(f"'{name}' is the name of the autoencoder's folder in --out: give another --name.")
    out.mkdir(parents=True, exist_ok=True)
    shared = {"seed": recipe.seed, "clips": recipe.clips, "vae": asdict(recipe.vae)}
    _claim(out / "recipe.json", shared)
    planted = {"blocks": plan_truth(name, plan)["blocks"], "dit": asdict(recipe.dit)}
    _claim(out / f"{stem}.recipe.json", planted)
    folder = out / stem
    if (folder / "model_index.json").exists():
        _LOG.info("%s is already trained", folder)
        return folder
    vae = train_vae(out, recipe.vae, recipe.seed, device)
    latents = encode_dataset(vae, recipe.clips, recipe.data_seed, out / "latents.npy")
    labels: list[Labels] = [clip_labels(recipe.data_seed, index) for index in range(recipe.clips)]
    pipeline = make_pipeline(vae.cpu(), make_transformer(recipe.seed), recipe.seed).to(device)
    average = train_transformer(pipeline, latents, labels, plan, recipe.dit, recipe.seed, out / f"{stem}.pt")
    pipeline.register_modules(transformer=average)
    notes = {"truth.json": plan_truth(name, plan), "recipe.json": {**shared, **planted}}
    save_pipeline(pipeline.to("cpu"), folder, notes)
    return folder
