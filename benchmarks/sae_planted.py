"""How well autoencoders find planted features: ours and SAELens', trained on the same rows with equal settings.

Run as `python -m benchmarks.sae_planted PYTHON`, with the interpreter of an environment that has sae-lens 6.54.12; it
writes results/sae_planted.json and the tables of docs/sae-planted.md. `planted_features` says what is planted,
`planted_metrics` what is measured. SAELens trains in a process of its own, at the same time.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analyses.sae.train import train_sae, train_spec
from benchmarks._result import write_result
from benchmarks._tables import write_table
from benchmarks.planted_features import CHANNELS, FEATURES, PlantedFeatures
from benchmarks.planted_metrics import planted_metrics
from workbench.sae.base import SAE
from workbench.sae.folder import load_folder
from workbench.sae.settings import MatryoshkaSettings

VERSION = "6.54.12"
PEER = Path(__file__).parent / "peers" / "saelens_training.py"
SEEDS = (0, 1, 2)
EXPANSION, STEPS, BATCH, LEARNING_RATE = 2, 2000, 1024, 3e-3
K, L0, L1, WARM_UP, DECAY = 4, 1.0, 1.0, 0.1, 0.2
HELD_OUT_BATCHES, HELD_OUT_ROWS = 10, 10_000
METRICS = ("f1", "mcc", "uniqueness", "explained_variance")
"""Those in which ours should not be below theirs."""
MARGIN = 0.01


class Kind(NamedTuple):
    """An architecture with equal settings on both sides."""

    ours: dict[str, Any]
    theirs: dict[str, Any]
    free_decoder: bool = False  # on SAELens' side: the norms of its rows are folded at the end, as ours are


D_SAE = EXPANSION * CHANNELS
WIDTHS = MatryoshkaSettings().prefixes(D_SAE)
_TOPK = {"k": K, "aux_loss_coefficient": 1.0}
_L1 = {"l1_coefficient": L1, "l1_warm_up_steps": round(WARM_UP * STEPS)}
_JUMPRELU = {
    "l0_coefficient": L0,
    "l0_warm_up_steps": round(WARM_UP * STEPS),
    "jumprelu_bandwidth": 0.1,
    "jumprelu_init_threshold": 1.0,
    "decoder_init_norm": 0.5,
    "pre_act_loss_coefficient": 3e-6,
}
KINDS = {
    "topk": Kind({"k": K}, _TOPK),
    "batchtopk": Kind({"k": K}, _TOPK),
    "matryoshka_batchtopk": Kind(
        {"k": K, "widths": tuple(WIDTHS)},
        {**_TOPK, "matryoshka_widths": [*WIDTHS, D_SAE], "use_matryoshka_aux_loss": True},
    ),
    "jumprelu": Kind({"l0_coefficient": L0, "bandwidth": 0.1, "threshold": 1.0}, _JUMPRELU, True),
    "standard": Kind({"l1_coefficient": L1}, _L1, True),
    "gated": Kind({"l1_coefficient": L1}, _L1, True),
}


class Rows:
    """The training rows, of a file, in batches."""

    def __init__(self, file: Path) -> None:
        self._rows = np.load(file, mmap_mode="c")

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the batches in their order."""
        for first in range(0, len(self._rows), BATCH):
            yield torch.from_numpy(self._rows[first : first + BATCH])


def write_rows(planted: PlantedFeatures, file: Path) -> float:
    """Write a row for each place in a training, scaled to a mean variance of 1 a channel; returns the factor."""
    generator = torch.Generator().manual_seed(1)
    rows = np.lib.format.open_memmap(file, "w+", np.float32, (STEPS * BATCH, CHANNELS))
    factor = 0.0
    for first in range(0, len(rows), BATCH):
        activations = planted.activations(planted.magnitudes(BATCH, generator))
        factor = factor or activations.var(0).mean().item() ** -0.5
        rows[first : first + BATCH] = (factor * activations).numpy()
    rows.flush()
    return factor


def start_saelens(python: str, file: Path, folder: Path) -> subprocess.Popen[str]:
    """Start to train SAELens' autoencoders of all kinds and seeds, each into `<folder>/<kind>-<seed>`."""
    trainer = {
        "lr": LEARNING_RATE,
        "lr_end": LEARNING_RATE,
        "lr_decay_steps": round(DECAY * STEPS),
        "dead_feature_window": 100,
    }
    settings = {
        str(folder / f"{name}-{seed}"): {
            "architecture": name,
            "options": {"d_sae": D_SAE, **kind.theirs},
            "seed": seed,
            "batch_size": BATCH,
            "train_steps": STEPS,
            "trainer": trainer,
            "fold_norms": kind.free_decoder,
        }
        for name, kind in KINDS.items()
        for seed in SEEDS
    }
    plan = folder / "settings.json"
    plan.write_text(json.dumps(settings), encoding="utf-8")
    command = [python, str(PEER), str(file), str(plan)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def train_ours(name: str, seed: int, file: Path) -> SAE:
    """Train one of ours."""
    spec = train_spec(
        "planted",
        name,
        expansion=EXPANSION,
        train_steps=STEPS,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        seed=seed,
        input_scale="uncentred",  # as SAELens
        **KINDS[name].ours,
    )
    return train_sae(Rows(file), spec)[0]


def compare(python: str, folder: Path) -> tuple[pd.DataFrame, dict[str, float]]:
    """Train all on both sides; return the metrics by kind, side and seed, and facts of the planted features."""
    planted = PlantedFeatures.draw(0)
    rows = folder / "rows.npy"
    factor = write_rows(planted, rows)
    peer = start_saelens(python, rows, folder)
    generator = torch.Generator().manual_seed(2)
    held_out = [planted.magnitudes(HELD_OUT_ROWS, generator) for _ in range(HELD_OUT_BATCHES)]
    batches = [(factor * planted.activations(each), each) for each in held_out]
    found = [
        {"kind": name, "side": "ours", "seed": seed, **planted_metrics(sae, planted.directions, batches)}
        for name in KINDS
        for seed in SEEDS
        for sae in [train_ours(name, seed, rows)]
    ]
    _, errors = peer.communicate()
    if peer.returncode:
        sys.exit(f"SAELens did not train:\n{errors}")
    found += [
        {"kind": name, "side": "SAELens", "seed": seed, **planted_metrics(sae, planted.directions, batches)}
        for name in KINDS
        for seed in SEEDS
        for sae in [load_folder(folder / f"{name}-{seed}")]
    ]
    cosines = (planted.directions @ planted.directions.T).fill_diagonal_(0)
    facts = {
        "active_features": torch.cat(held_out).count_nonzero().item() / (HELD_OUT_BATCHES * HELD_OUT_ROWS),
        "largest_cosine": cosines.abs().amax(1).mean().item(),
    }
    return pd.DataFrame(found), facts


def below(found: pd.DataFrame) -> list[str]:
    """Return where the mean of ours is below that of SAELens by more than the margin: `<kind> <metric>`."""
    means = found.groupby(["kind", "side"])[list(METRICS)].mean()
    return [
        f"{kind} {metric}"
        for kind in found["kind"].unique()
        for metric in METRICS
        if means.loc[(kind, "ours"), metric] < means.loc[(kind, "SAELens"), metric] - MARGIN
    ]


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table of the docs: mean and range over seeds."""
    names = {"f1": "F1", "mcc": "MCC", "explained_variance": "explained variance", "l0": "L0"}
    columns = [*METRICS, "l0", "dead"]
    groups = found.groupby(["kind", "side"], sort=False)[columns]
    cells = groups.agg(lambda values: f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})")
    order = [(kind, side) for kind in KINDS for side in ("ours", "SAELens")]
    return cells.loc[order].reset_index().rename(columns=names)


def check_environment(python: str) -> None:
    """Exit with one sentence if the interpreter does not have the version of sae-lens that is compared with."""
    script = "from importlib.metadata import version; print(version('sae-lens'))"
    try:
        run = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        run = None
    if run is None or run.stdout.strip() != VERSION:
        sys.exit(f"{python} has no sae-lens {VERSION}: give the Python of an environment that has it.")


def main() -> None:
    """Compare, and write results/sae_planted.json and the table in docs/sae-planted.md."""
    if len(sys.argv) < 2:
        sys.exit("Give the Python of an environment with sae-lens: python -m benchmarks.sae_planted PYTHON")
    check_environment(sys.argv[1])
    with tempfile.TemporaryDirectory() as temporary:
        found, facts = compare(sys.argv[1], Path(temporary))
    write_table("sae-planted.md", "planted", table(found))
    settings = {"planted": FEATURES, "channels": CHANNELS, "features": D_SAE, "k": K, "seeds": len(SEEDS)}
    metrics = {**settings, **facts, "below": below(found), "runs": found.to_dict("records")}
    print(write_result("sae_planted", metrics).read_text())


if __name__ == "__main__":
    main()
