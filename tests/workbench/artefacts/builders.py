"""Small files in the published formats, with made-up numbers."""

import json
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

STEPS, WIDTH, BLOCKS = 3, 8, 2
FEATURES = 12


def unit(rng: np.random.Generator, width: int = WIDTH) -> np.ndarray:
    vector = rng.normal(size=width).astype(np.float32)
    return vector / np.linalg.norm(vector)


def caa_vectors(
    sites: dict[str, int] | None = None, passes: tuple[int, ...] = (0, 1)
) -> dict[tuple[int, int], Any]:
    """Vectors in the layout of `sv.pkl`."""
    rng = np.random.default_rng(0)
    widths = sites or {f"tf{block}": WIDTH for block in range(BLOCKS)}
    vectors: dict[tuple[int, int], Any] = {}
    for step in range(STEPS):
        for number in passes:
            of_sites: Any = defaultdict(list)
            for site, width in widths.items():
                of_sites[site].append(unit(rng, width))
            vectors[step, number] = of_sites
    return vectors


CAA_CONFIG = {
    "concept": "rock_genre",
    "lyrics": "[inst]",
    "num_cfg_passes": 2,
    "save_all_cfg_passes": True,
    "audio_duration": 30,
    "num_inference_steps": STEPS,
    "seed": 10,
    "guidance_scale": 5.0,
}


def write_json(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")


def write_pickle(file: Path, value: object, protocol: int = 4) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(value, protocol))


def write_caa(folder: Path, vectors: object = None, protocol: int = 4, **settings: object) -> Path:
    write_pickle(folder / "sv.pkl", caa_vectors() if vectors is None else vectors, protocol)
    write_json(folder / "config.json", {**CAA_CONFIG, **settings})
    return folder


def score_tables(steps: int = STEPS) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    names = ("tfidf", "diff", "mean_pos")
    tables: dict[str, Any] = {name: torch.randn(steps, FEATURES, generator=generator) for name in names}
    return {**tables, "concept": "piano"}


def write_scores(folder: Path, tables: object = None) -> Path:
    write_pickle(folder / "tf6_scores.pkl", score_tables() if tables is None else tables)
    return folder


def austeer_scores() -> dict[int, Any]:
    rng = np.random.default_rng(1)
    made: dict[int, Any] = {}
    for step in range(STEPS):
        betas = {f"tf{block}": rng.integers(-20, 21, WIDTH) / 20 for block in range(BLOCKS)}
        made[step] = {site: {"betas": beta, "scores": np.abs(beta)} for site, beta in betas.items()}
    return made


def write_austeer(folder: Path, scores: object = None) -> Path:
    write_pickle(folder / "austeer.pkl", austeer_scores() if scores is None else scores)
    settings = {"concept": "tempo", "layers": "tf6tf7", "layers_collected": ["tf6", "tf7"]}
    write_json(folder / "config.json", settings)
    return folder


def lora_weights(rank: int = 4, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    weights = {}
    for block in (6, 7):
        for module, (out, width) in {"to_q": (10, 8), "to_out.0": (8, 10)}.items():
            name = f"transformer_blocks.{block}.cross_attn.{module}"
            weights[f"{name}.lora_A.weight"] = torch.randn(rank, width, generator=generator).to(dtype)
            weights[f"{name}.lora_B.weight"] = torch.randn(out, rank, generator=generator).to(dtype)
    return weights


def write_lora(folder: Path, weights: dict[str, torch.Tensor] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights or lora_weights(), folder / "pytorch_lora_weights.safetensors")
    config = {"concept": "mood", "layers": "tf6tf7", "lora_config": {"r": 4, "lora_alpha": 1}, "eta": 7}
    write_json(folder / "train_config.json", config)
    return folder


def direction(dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    values = torch.linspace(-1, 1, 16, dtype=dtype)
    return {"direction": values, "concept": "piano", "hidden_dim": 16}


def write_direction(folder: Path, held: object = None, name: str = "piano_direction.pt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(direction() if held is None else held, folder / name)
    return folder


SAE_CONFIG = {
    "expansion_factor": 3,
    "normalize_decoder": True,
    "num_latents": 0,
    "k": 4,
    "batch_topk": True,
    "sample_topk": False,
    "input_unit_norm": False,
    "multi_topk": False,
    "d_in": WIDTH,
}


def sae_weights(features: int = 3 * WIDTH, width: int = WIDTH) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    decoder = torch.nn.functional.normalize(torch.randn(features, width, generator=generator), dim=1)
    return {
        "encoder.weight": decoder.clone() + 0.01,
        "encoder.bias": 0.1 * torch.randn(features, generator=generator),
        "W_dec": decoder,
        "b_dec": torch.randn(width, generator=generator),
    }


def write_sae(
    folder: Path, weights: dict[str, torch.Tensor] | None = None, hookpoint: str = "", **settings: object
) -> Path:
    at = folder / hookpoint
    at.mkdir(parents=True, exist_ok=True)
    save_file(weights or sae_weights(), at / "sae.safetensors")
    write_json(at / "cfg.json", {**SAE_CONFIG, **settings})
    return folder
