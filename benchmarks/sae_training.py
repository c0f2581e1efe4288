"""Speed of training a TopK autoencoder of real width on a CPU, compared with other libraries and with a limit.

Run as `python -m benchmarks.sae_training [--peers PYTHON]`, with the interpreter of an environment that has sae-lens
and eai-sparsify. All take whole training steps with Adam on the same rows, with the same number of threads, while no
feature is dead. `plain` is dense activations with autograd. `limit` is only the product of the encoder, which is dense
in all.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from analyses.sae.scaling import Scale
from analyses.sae.stream import Scaled
from analyses.sae.train import Trainer, train_spec
from benchmarks._result import write_result

CHANNELS, EXPANSION, K = 2048, 8, 32
FEATURES = EXPANSION * CHANNELS
PEERS = ("saelens", "saelens_sparse", "sparsify")
SCRIPT = Path(__file__).parent / "peers" / "sae_steps.py"

Step = Callable[[], object]


def ours(rows: torch.Tensor) -> Step:
    """Return the step that `workbench sae train` takes, with the rows scaled."""
    spec = train_spec("tf0.mlp", expansion=EXPANSION, k=K, train_steps=10**6, batch_size=len(rows))
    unscaled = Scale(torch.zeros(1, CHANNELS), torch.ones(1, 1), (), np.ones(1))
    trainer = Trainer(spec, [unscaled])
    return lambda: trainer.step(1, Scaled(rows, rows))


def plain(rows: torch.Tensor) -> Step:
    """Return the step of a loop as one writes it without a library."""
    decoder = torch.nn.functional.normalize(torch.randn(FEATURES, CHANNELS))
    w_enc, w_dec = (torch.nn.Parameter(each.contiguous()) for each in (decoder.T, decoder))
    b_enc, b_dec = (torch.nn.Parameter(torch.zeros(size)) for size in (FEATURES, CHANNELS))
    optimiser = torch.optim.Adam([w_enc, w_dec, b_enc, b_dec])

    def step() -> None:
        top = ((rows - b_dec) @ w_enc + b_enc).topk(K, sorted=False)
        acts = rows.new_zeros(len(rows), FEATURES).scatter(1, top.indices, top.values.relu())
        (acts @ w_dec + b_dec - rows).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            w_dec.div_(w_dec.norm(dim=1, keepdim=True))

    return step


def limit(rows: torch.Tensor) -> Step:
    """Return the product of the encoder alone."""
    w_enc, b_enc = torch.randn(CHANNELS, FEATURES), torch.zeros(FEATURES)
    return lambda: torch.addmm(b_enc, rows, w_enc)


HERE = {"ours": ours, "plain": plain, "limit": limit}


def seconds_here(make: Callable[[torch.Tensor], Step], rows: torch.Tensor, steps: int) -> list[float]:
    """Return the seconds of steps, after one that warms up."""
    step, seconds = make(rows), []
    for _ in range(1 + steps):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def seconds_of_peer(python: str, name: str, file: Path, steps: int) -> list[float]:
    """Return the same of another library, in a process of its own."""
    sizes = map(str, (FEATURES, K, steps, torch.get_num_threads()))
    run = subprocess.run(
        [python, str(SCRIPT), name, str(file), *sizes], stdout=subprocess.PIPE, text=True, check=True
    )
    return list(json.loads(run.stdout.splitlines()[-1]))


def measure(batch_size: int, steps: int, rounds: int, python: str | None) -> dict[str, float]:
    """Return the seconds of the fastest step of each, from rounds in which all take turns."""
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npy"
        np.save(file, np.random.default_rng(0).standard_normal((batch_size, CHANNELS), dtype=np.float32))
        rows = torch.from_numpy(np.load(file))
        for _ in range(rounds):
            taken = {name: seconds_here(make, rows, steps) for name, make in HERE.items()}
            if python:
                taken |= {name: seconds_of_peer(python, name, file, steps) for name in PEERS}
            best = {name: min([*seconds, best.get(name, np.inf)]) for name, seconds in taken.items()}
    return best


def main() -> None:
    """Measure and write results/sae_training.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter with sae-lens and eai-sparsify")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=2, help="steps that each takes in a round")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    if not given.peers:
        print(
            "Without --peers PYTHON the other libraries are left out: benchmarks/README.md says how to install them."
        )
    best = measure(given.batch_size, given.steps, given.rounds, given.peers)
    others = {name: seconds for name, seconds in best.items() if name not in ("ours", "limit")}
    fastest = min(others, key=others.__getitem__)
    metrics = {
        "channels": CHANNELS,
        "features": FEATURES,
        "k": K,
        "batch_size": given.batch_size,
        "steps": given.steps,
        "rounds": given.rounds,
        "rows_per_s": {name: given.batch_size / seconds for name, seconds in best.items()},
        "fastest_other": fastest,
        "ratio_to_fastest_other": others[fastest] / best["ours"],
        "fraction_of_limit": best["limit"] / best["ours"],
    }
    print(write_result("sae_training", metrics, "cpu").read_text())


if __name__ == "__main__":
    main()
