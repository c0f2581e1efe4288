"""A small but complete study made without a model: sine tones for audio, numbers by formula for results."""

import json
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel

from analyses.sae.topk import TopKConfig, TopKSAE
from cache import CachePlan, CacheWriter
from workbench.audio import write_flac
from workbench.models.protocol import GenerationSettings
from workbench.prompts import load_prompt_set
from workbench.study import Study, StudySpec

SAMPLE_RATE = 8000
SECONDS = 2.0
BLOCKS = 8
STEPS = (0, 2, 4, 6)
SIGMAS = (1.0, 0.9, 0.75, 0.5)
TOKENS = 25
CHANNELS = 16
FEATURES = 48
SAE_SITES = ("tf3.cross_attn", "tf4.cross_attn")
CONCEPTS = ("instrument", "tempo", "mood", "drums")
PLANTED = {"instrument": [3, 4], "tempo": [3], "mood": [4], "drums": [3]}
UNDEFINED = "mood"
ARMS = ("clean", "corrupt", *(f"tf{block}" for block in range(BLOCKS)), "tf3+tf4", "all")
IMPACT = {
    "instrument": {"tf3": 0.68, "tf4": 0.33},
    "tempo": {"tf3": 0.93},
    "mood": {"tf4": 0.76},
    "drums": {"tf3": 0.98},
}


class _Spec(BaseModel, frozen=True):
    """Stands in for an analysis' spec."""

    note: str


def make_study(folder: Path, results: bool = True) -> Study:
    """Write a study into `folder / "study"`, with its results or, with `results=False`, without any."""
    model = folder / "model"
    model.mkdir(parents=True)
    (model / "model_index.json").write_text("{}")
    card = {
        "organism": "synthetic",
        "concepts": PLANTED,
        "blocks": {"3": ["instrument"], "4": ["instrument", "mood"]},
    }
    (model / "truth.json").write_text(json.dumps(card))
    spec = StudySpec(
        model=str(model),
        prompts=load_prompt_set("organism"),
        settings=GenerationSettings(duration=SECONDS, num_steps=8),
        n_prompts=6,
        seeds=2,
        sites=tuple(f"tf{block}.cross_attn" for block in range(BLOCKS)),
        steps=STEPS,
        passes=("cond",),
    )
    described = {
        "model": "synthetic",
        "weights_hash": "0123456789abcdef",
        "device": "cpu",
        "dtype": "float32",
    }
    study = Study.create(folder / "study", spec, described)
    for clip in study.clips["clip"]:
        write_flac(study.audio_path(int(clip)), _tone(220.0 + 30.0 * clip), SAMPLE_RATE)
    _write_cache(study)
    if results:
        study.save_result("patching", _patching(study), _Spec(note="patching"), seconds=1.0)
        study.save_result("probes", _probes(), _Spec(note="probes"), seconds=1.0)
        for site in SAE_SITES:
            study.save_result(f"sae-{site}", _sae(site, len(study.clips)), _Spec(note=site), seconds=1.0)
            _write_weights(study, site)
    return study


def _tone(frequency: float) -> np.ndarray:
    """Plucked notes twice a second, with three partials; (channel, sample)."""
    time = np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    partials = sum(np.sin(2 * np.pi * frequency * k * time) / k for k in (1, 2, 3))
    return (0.3 * partials * np.exp(-5 * (time % 0.5)))[None].astype(np.float32)


def _write_cache(study: Study) -> None:
    plan = CachePlan(
        sites=dict.fromkeys(SAE_SITES, CHANNELS),
        n_clips=len(study.clips),
        steps=STEPS,
        sigmas=SIGMAS,
        passes=("cond",),
        tokens=TOKENS,
        token_seconds=SECONDS / TOKENS,
        dtypes="float16",
        clips_per_shard=len(study.clips),
        identity={"model": "synthetic"},
    )
    clip, step, token, channel = np.ogrid[: plan.n_clips, : len(STEPS), :TOKENS, :CHANNELS]
    beat = np.exp(-((token % 6) / 2.0)) * (1 + np.cos(2 * np.pi * (token / TOKENS + channel / CHANNELS)))
    values = beat * (1 + step) * (1 + 0.2 * np.cos(clip * (1 + channel)))
    with CacheWriter(study.cache_location, plan, study.clips) as writer:
        for shard in writer.missing():
            writer.write_shard(shard, {site: values[:, :, None].astype(np.float32) for site in SAE_SITES})


def _write_weights(study: Study, site: str) -> None:
    sae = TopKSAE(
        TopKConfig(d_in=CHANNELS, d_sae=FEATURES, k=8, metadata={"hook_name": site, "pass_name": "cond"})
    )
    weights = np.tile(np.eye(CHANNELS, dtype=np.float32), (1, FEATURES // CHANNELS))
    with torch.no_grad():
        sae.W_enc.copy_(torch.from_numpy(weights))
        sae.W_dec.copy_(torch.from_numpy(weights.T))
    sae.save(study.path / "sae" / site)


def _patching(study: Study) -> xr.Dataset:
    """Two pairs and two seeds of each concept; `mood` has no clear difference and is undefined."""
    pairs, seeds = 2, (100, 101)
    shape = (len(CONCEPTS), pairs, len(seeds), len(ARMS))
    impact, score = np.full((len(CONCEPTS), len(ARMS)), np.nan), np.zeros(shape)
    low, high = impact.copy(), impact.copy()
    audio = np.empty(shape, dtype=object)
    texts = {name: np.empty((len(CONCEPTS), pairs), dtype=object) for name in _TEXTS}
    for c, concept in enumerate(CONCEPTS):
        for p, pair in enumerate(study.spec.prompts.pairs(concept, pairs, seed=0)):
            told = (pair.clean.text, pair.corrupt.text, pair.clean_value, pair.corrupt_value, pair.text)
            for name, text in zip(_TEXTS, told, strict=True):
                texts[name][c, p] = text
        for a, arm in enumerate(ARMS):
            value = _impact(concept, arm)
            score[c, :, :, a] = 0.2 + 0.6 * value + 0.01 * np.arange(pairs)[:, None]
            for p in range(pairs):
                for s, seed in enumerate(seeds):
                    heard = arm if arm == "clean" or value > 0 else "corrupt"
                    audio[c, p, s, a] = f"audio/patching/{concept}/{p:03d}-{seed}/{heard}.flac"
                    file = study.path / audio[c, p, s, a]
                    if not file.exists():
                        write_flac(file, _tone(200.0 + 150.0 * value + 20 * c + 10 * p), SAMPLE_RATE)
            if concept != UNDEFINED:
                impact[c, a], low[c, a], high[c, a] = value, value - 0.06, value + 0.05
    defined = np.array([concept != UNDEFINED for concept in CONCEPTS])
    return xr.Dataset(
        {
            "score": (("concept", "pair", "seed", "arm"), score),
            "audio": (("concept", "pair", "seed", "arm"), audio),
            **{name: (("concept", "pair"), values) for name, values in texts.items()},
            "impact": (("concept", "arm"), impact),
            "impact_lo": (("concept", "arm"), low),
            "impact_hi": (("concept", "arm"), high),
            "denominator": ("concept", np.where(defined, 0.6, 0.02)),
            "denominator_lo": ("concept", np.where(defined, 0.5, -0.05)),
            "denominator_hi": ("concept", np.where(defined, 0.7, 0.09)),
            "n": ("concept", np.full(len(CONCEPTS), pairs * len(seeds))),
            "defined": ("concept", defined),
        },
        coords={"concept": list(CONCEPTS), "pair": range(pairs), "seed": list(seeds), "arm": list(ARMS)},
        attrs={
            "kind": "patching",
            "schema_version": 1,
            "mode": "conditioning",
            "part": "cross_attn",
            "scorer": "embedded",
            "confidence": 0.95,
        },
    )


_TEXTS = ("clean_prompt", "corrupt_prompt", "clean_value", "corrupt_value", "text")


def _impact(concept: str, arm: str) -> float:
    if arm in ("clean", "all", "tf3+tf4"):
        return 1.0
    return IMPACT[concept].get(arm, 0.0)


def _probes() -> xr.Dataset:
    """Accuracy rises from the planted block on and with the step; blocks before it are at chance."""
    sites = [f"tf{block}.{part}" for part in ("cross_attn", "mlp") for block in range(BLOCKS)]
    chance = np.array([1 / 7, 1 / 2, 1 / 2, 1 / 2])
    folds = np.arange(5)
    block = np.array([int(site[2]) for site in sites])[None, :, None]
    first = np.array([PLANTED[concept][0] for concept in CONCEPTS])[:, None, None]
    step = np.linspace(0.6, 1.0, len(STEPS))[None, None, :]
    mean = chance[:, None, None] + (1 - chance)[:, None, None] * np.where(block >= first, step, 0.0)
    wobble = 0.02 * (folds - 2)
    accuracy = np.clip(mean[..., None] + wobble, 0, 1)
    control = np.broadcast_to(chance[:, None, None, None] + wobble / 2, accuracy.shape).copy()
    dims = ("concept", "site", "step")
    mean, control_mean = accuracy.mean(-1), control.mean(-1)
    return xr.Dataset(
        {
            "accuracy": ((*dims, "fold"), accuracy),
            "control": ((*dims, "fold"), control),
            "accuracy_mean": (dims, mean),
            "accuracy_lo": (dims, mean - 0.03),
            "accuracy_hi": (dims, np.minimum(mean + 0.03, 1)),
            "control_mean": (dims, control_mean),
            "selectivity": (dims, mean - control_mean),
            "p_value": (dims, np.where(np.broadcast_to(block >= first, mean.shape), 0.005, 0.6)),
            "chance": ("concept", chance),
            "n": ("concept", [12] * len(CONCEPTS)),
            "groups": ("concept", [6] * len(CONCEPTS)),
        },
        coords={
            "concept": list(CONCEPTS),
            "site": sites,
            "step": list(STEPS),
            "fold": folds,
            "sigma": ("step", list(SIGMAS)),
        },
        attrs={"kind": "probes", "schema_version": 1, "pass": "cond", "probe": "logistic regression"},
    )


def _sae(site: str, n_clips: int) -> xr.Dataset:
    """Feature f prefers concept value f mod 13; the last four features are dead."""
    values = [
        f"{concept}={value}"
        for concept, names in load_prompt_set("organism").concepts.items()
        for value in names
    ]
    feature, rank, bins, curve = np.arange(FEATURES), np.arange(5), np.arange(12), np.arange(0, 2001, 100)
    alive = feature < FEATURES - 4
    strength = np.where(alive, 1.0 + (feature % 9) / 3, 0.0)
    auroc = 0.5 + 0.1 * np.cos(feature[:, None] + np.arange(len(values)))
    auroc[feature, feature % len(values)] = 0.97
    auroc[~alive] = np.nan
    edges = strength[:, None] * bins / len(bins)
    top = np.where(alive[:, None], (feature[:, None] + rank) % n_clips, -1)
    return xr.Dataset(
        {
            "loss": ("train_step", 0.1 + np.exp(-curve / 400)),
            "explained_variance": ("train_step", 0.93 * (1 - np.exp(-curve / 300))),
            "l0": ("train_step", np.full(len(curve), 8.0)),
            "dead_share": ("train_step", 0.08 * np.exp(-curve / 900)),
            "final_loss": 0.108,
            "final_explained_variance": 0.921,
            "final_l0": 8.0,
            "final_dead_share": 4 / FEATURES,
            "density": ("feature", np.where(alive, 0.002 * (1 + feature % 17), 0.0)),
            "max_activation": ("feature", strength),
            "mean_activation": ("feature", strength / 3),
            "alive": ("feature", alive),
            "top_clip": (("feature", "rank"), top),
            "top_activation": (("feature", "rank"), strength[:, None] * (1 - 0.1 * rank)),
            "top_second": (("feature", "rank"), np.broadcast_to(0.24 * rank, top.shape).copy()),
            "top_step": (("feature", "rank"), np.full(top.shape, STEPS[-1])),
            "hist_count": (
                ("feature", "bin"),
                np.where(alive[:, None], (400 * np.exp(-bins / 3)).astype(int), 0),
            ),
            "hist_edge": (("feature", "bin"), edges),
            "step_profile": (("feature", "step"), strength[:, None] * np.linspace(0.1, 0.6, len(STEPS))),
            "auroc": (("feature", "value"), auroc),
        },
        coords={
            "train_step": curve,
            "feature": feature,
            "rank": rank,
            "bin": bins,
            "step": list(STEPS),
            "value": values,
        },
        attrs={
            "kind": "sae",
            "schema_version": 1,
            "site": site,
            "k": 8,
            "d_sae": FEATURES,
            "explained_variance_convention": "1 - sum ||x - x_hat||^2 / sum ||x - mean(x)||^2 over held-out rows",
        },
    )
