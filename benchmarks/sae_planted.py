"""How well autoencoders find planted features: ours and SAELens', trained on the same rows with equal settings.

Run as `python -m benchmarks.sae_planted PYTHON`, with the interpreter of an environment that has sae-lens 6.54.12; it
writes results/sae_planted.json and the tables of docs/sae-planted.md. `planted_features` says what is planted,
`planted_metrics` what is measured. SAELens trains in a process of its own, at the same time. Both sides start from the
same directions. A coefficient that decides how many features are active is chosen for each side, by the same rule.
"""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analyses.sae.scaling import measure
from analyses.sae.train import TrainSpec, initial_sae, train_sae, train_spec
from benchmarks._result import write_result
from benchmarks._tables import write_table
from benchmarks.planted_features import CHANNELS, FEATURES, PlantedFeatures
from benchmarks.planted_metrics import planted_metrics
from benchmarks.planted_report import below, by_side, differences, differences_table
from workbench.sae.folder import load_folder
from workbench.sae.settings import MatryoshkaSettings

VERSION = "6.54.12"
PEER = Path(__file__).parent / "peers" / "saelens_training.py"
SEEDS = (0, 1, 2, 3, 4)
EXPANSION, STEPS, BATCH, LEARNING_RATE = 2, 2000, 1024, 3e-3
K, L1, WARM_UP, DECAY = 4, 1.0, 0.1, 0.2
TRIAL_SEED, TRIALS = 5, (0.7, 1.0)
"""Seed and coefficients of the trainings from which a coefficient is chosen."""
HELD_OUT_ROWS = 10_000
HELD_OUT_BATCHES, TRIAL_BATCHES = 10, 2
SIDES = ("ours", "SAELens")
Batches = Sequence[tuple[Tensor, Tensor]]


class Kind(NamedTuple):
    """An architecture with equal settings on both sides."""

    ours: dict[str, Any]
    theirs: dict[str, Any]
    free_decoder: bool = False  # on SAELens' side: the norms of its rows are folded at the end, as ours are
    tuned: str = (
        ""  # the coefficient, of the same name on both sides, with which K features are active on a row
    )


class Training(NamedTuple):
    """A training that both sides can do."""

    kind: str
    seed: int
    coefficient: float | None = None

    @property
    def tuned(self) -> dict[str, Any]:
        """The option that is chosen for each side."""
        return {} if self.coefficient is None else {KINDS[self.kind].tuned: self.coefficient}

    @property
    def label(self) -> str:
        """Name of its folder."""
        return f"{self.kind}-{self.seed}-{self.coefficient}"


D_SAE = EXPANSION * CHANNELS
WIDTHS = MatryoshkaSettings().prefixes(D_SAE)
_TOPK = {"k": K, "aux_loss_coefficient": 1.0}
_L1 = {"l1_coefficient": L1, "l1_warm_up_steps": round(WARM_UP * STEPS)}
_JUMPRELU = {
    "l0_warm_up_steps": round(WARM_UP * STEPS),
    "jumprelu_bandwidth": 0.1,
    "jumprelu_init_threshold": 1.0,
    "decoder_init_norm": 0.5,
    "pre_act_loss_coefficient": 3e-6,
}
KINDS = {
    "topk": Kind({"k": K}, _TOPK),
    # Decoder rows are free as in SAELens: settings are equal, not defaults.
    "batchtopk": Kind({"k": K, "decoder_norm": "free"}, _TOPK),
    "matryoshka_batchtopk": Kind(
        {"k": K, "widths": tuple(WIDTHS), "decoder_norm": "free"},
        {**_TOPK, "matryoshka_widths": [*WIDTHS, D_SAE], "use_matryoshka_aux_loss": True},
    ),
    "jumprelu": Kind({"bandwidth": 0.1, "threshold": 1.0}, _JUMPRELU, True, "l0_coefficient"),
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
    """Write a row for each place in a training, scaled as ours scales its inputs; returns the factor."""
    generator = torch.Generator().manual_seed(1)
    rows = np.lib.format.open_memmap(file, "w+", np.float32, (STEPS * BATCH, CHANNELS))
    for first in range(0, len(rows), BATCH):
        rows[first : first + BATCH] = planted.activations(planted.magnitudes(BATCH, generator)).numpy()
    unused = torch.zeros(0, dtype=torch.int64)
    factor = measure(((batch, unused) for batch in Rows(file)), "uncentred", ()).factor.item()
    rows *= np.float32(factor)
    rows.flush()
    return factor


def held_out(planted: PlantedFeatures, factor: float, seed: int, batches: int) -> Batches:
    """Return other rows, scaled alike, with the magnitudes of their features."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [planted.magnitudes(HELD_OUT_ROWS, generator) for _ in range(batches)]
    return [(factor * planted.activations(each), each) for each in drawn]


def spec_of(training: Training) -> TrainSpec:
    """Return the spec of a training on our side."""
    return train_spec(
        "planted",
        training.kind,
        expansion=EXPANSION,
        train_steps=STEPS,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        seed=training.seed,
        input_scale="uncentred",  # as SAELens
        **KINDS[training.kind].ours,
        **training.tuned,
    )


def start_saelens(python: str, rows: Path, trainings: Sequence[Training]) -> subprocess.Popen[str]:
    """Start SAELens' trainings, each into `<folder of the rows>/<label>`, from the directions that ours start from."""
    trainer = {
        "lr": LEARNING_RATE,
        "lr_end": LEARNING_RATE,
        "lr_decay_steps": round(DECAY * STEPS),
        "dead_feature_window": 100,
    }
    folder, settings = rows.parent, {}
    for training in trainings:
        kind, start = KINDS[training.kind], folder / f"start-{training.seed}.npy"
        directions = initial_sae(spec_of(Training("topk", training.seed)), CHANNELS, CHANNELS).W_dec
        np.save(start, directions.detach().numpy())
        settings[str(folder / training.label)] = {
            "architecture": training.kind,
            "options": {"d_sae": D_SAE, **kind.theirs, **training.tuned},
            "directions": str(start),
            "batch_size": BATCH,
            "train_steps": STEPS,
            "trainer": trainer,
            "fold_norms": kind.free_decoder,
        }
    plan = folder / "settings.json"
    plan.write_text(json.dumps(settings), encoding="utf-8")
    command = [python, str(PEER), str(rows), str(plan)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def train_both(
    python: str, rows: Path, trainings: Mapping[str, Sequence[Training]], batches: Batches
) -> list[dict[str, Any]]:
    """Train on both sides, and return the metrics of each autoencoder.

    Args:
        python: the interpreter of the environment with sae-lens.
        rows: file of the training rows.
        trainings: those of each side, "ours" and "SAELens".
        batches: the rows that are measured on.
    """
    theirs = start_saelens(python, rows, trainings["SAELens"])
    made = [("ours", each, train_sae(Rows(rows), spec_of(each))[0]) for each in trainings["ours"]]
    _, errors = theirs.communicate()
    if theirs.returncode:
        sys.exit(f"SAELens did not train:\n{errors}")
    made += [("SAELens", each, load_folder(rows.parent / each.label)) for each in trainings["SAELens"]]
    planted = PlantedFeatures.draw(0)
    return [
        {
            "kind": training.kind,
            "side": side,
            "seed": training.seed,
            "coefficient": training.coefficient,
            **planted_metrics(sae, planted.directions, batches),
        }
        for side, training, sae in made
    ]


def chosen(trials: pd.DataFrame) -> float:
    """Return the coefficient with which K features should be active: their number is a power of it in between."""
    coefficient, l0 = np.log(trials["coefficient"]), np.log(trials["l0"])
    slope, _ = np.polyfit(l0, coefficient, 1)
    return float(np.exp(coefficient.mean() + slope * (np.log(K) - l0.mean())))


def compare(python: str, folder: Path) -> tuple[pd.DataFrame, dict[str, float]]:
    """Train all on both sides; return the metrics by kind, side and seed, and facts of the planted features."""
    planted, rows = PlantedFeatures.draw(0), folder / "rows.npy"
    factor = write_rows(planted, rows)
    tuned = [name for name, kind in KINDS.items() if kind.tuned]
    trials = [Training(name, TRIAL_SEED, value) for name in tuned for value in TRIALS]
    tried = train_both(
        python, rows, dict.fromkeys(SIDES, trials), held_out(planted, factor, 3, TRIAL_BATCHES)
    )
    groups = pd.DataFrame(tried).groupby(["side", "kind"])
    coefficients = {key: chosen(group) for key, group in groups}
    trainings = {
        side: [Training(name, seed, coefficients.get((side, name))) for name in KINDS for seed in SEEDS]
        for side in SIDES
    }
    batches = held_out(planted, factor, 2, HELD_OUT_BATCHES)
    found = train_both(python, rows, trainings, batches)
    cosines = (planted.directions @ planted.directions.T).fill_diagonal_(0)
    facts = {
        "active_features": sum((magnitudes > 0).sum(1).double().mean().item() for _, magnitudes in batches)
        / HELD_OUT_BATCHES,
        "largest_cosine": cosines.abs().amax(1).mean().item(),
        **{f"{name}_coefficient_{side}": value for (side, name), value in coefficients.items()},
    }
    return pd.DataFrame(found), facts


def cpu_minutes() -> dict[str, float]:
    """Return the processor time of this process and of SAELens', which has ended, in minutes."""
    sides = zip(SIDES, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN), strict=True)
    used = {side: resource.getrusage(who) for side, who in sides}
    return {f"cpu_minutes_{side}": (each.ru_utime + each.ru_stime) / 60 for side, each in used.items()}


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
    """Compare, and write results/sae_planted.json and the tables in docs/sae-planted.md."""
    if len(sys.argv) < 2:
        sys.exit("Give the Python of an environment with sae-lens: python -m benchmarks.sae_planted PYTHON")
    check_environment(sys.argv[1])
    with tempfile.TemporaryDirectory() as temporary:
        found, facts = compare(sys.argv[1], Path(temporary))
    write_table("sae-planted.md", "planted", by_side(found))
    write_table("sae-planted.md", "differences", differences_table(found))
    settings = {"planted": FEATURES, "channels": CHANNELS, "features": D_SAE, "k": K, "seeds": len(SEEDS)}
    metrics = {
        **settings,
        **facts,
        **cpu_minutes(),
        "below": below(found),
        "differences": differences(found).to_dict("records"),
        "runs": found.astype(object).where(found.notna(), None).to_dict("records"),
    }
    print(write_result("sae_planted", metrics).read_text())


if __name__ == "__main__":
    main()
