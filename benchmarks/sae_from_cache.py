"""Speed of training a sparse autoencoder of real width from the cache, compared with rows already on the device.

Run as `python -m benchmarks.gpu sae_training`; on a CPU, this width takes long.
"""

import time
from collections.abc import Iterable
from pathlib import Path

import torch

from analyses.sae.train import TrainSpec, train_sae, train_spec
from benchmarks._result import synchronize
from benchmarks.cache_io import PLAN, SITE
from cache import ActivationCache

CHANNELS = 2560
SPEC = train_spec(SITE, expansion=16, k=32, train_steps=100, batch_size=4096, precision="bfloat16")
WIDE_PLAN = PLAN.model_copy(update={"sites": {SITE: CHANNELS}})


def seconds(rows: Iterable[torch.Tensor], spec: TrainSpec, device: str) -> float:
    """Seconds of a training run, including measuring the scale."""
    started = time.perf_counter()
    train_sae(rows, spec, device)
    synchronize(device)
    return time.perf_counter() - started


def measure(folder: Path, device: str, spec: TrainSpec = SPEC) -> dict[str, float | str]:
    """Rows per second of both, and their ratio, on an existing cache."""
    rows = ActivationCache(folder).shuffled_rows(SITE, spec.batch_size, seed=0, device=device)
    resident = [batch for batch, _ in zip(rows, range(4), strict=False)]
    seconds(resident, spec.model_copy(update={"train_steps": 3}), device)  # warms up
    from_cache, from_device = seconds(rows, spec, device), seconds(resident, spec, device)
    trained = spec.train_steps * spec.batch_size
    return {
        "channels": rows.channels,
        "features": spec.expansion * rows.channels,
        "precision": spec.precision,
        "rows_per_s": trained / from_cache,
        "rows_on_the_device_per_s": trained / from_device,
        "ratio_to_rows_on_the_device": from_device / from_cache,
    }
