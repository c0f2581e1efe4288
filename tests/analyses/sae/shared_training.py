"""Train autoencoders in two processes that share every batch, interrupt them, and let them go on.

usage: STUDY PORT PORT, one for each time that they join. Forks both before torch has computed anything, so that the
second costs no start.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

from analyses.sae import train
from analyses.sae.run import asked_trainings, run_saes
from analyses.sae.train import Trainer, TrainSpec
from analyses.sae.training_state import TrainingState
from tests.analyses.planted_study import PLANTED
from workbench.studies.study import Study

OPTIONS = {"k": 2, "train_steps": 40, "batch_size": 64, "expansion": 4}
INTERRUPTED_AT = 15
DEAD_AFTER = 2  # so that there are dead features, and the auxiliary loss acts


class Interrupted(Exception):
    """Ends a training that is to be continued."""


def specs(study: Study) -> list[TrainSpec]:
    """One that selects features by row, and one that selects them by batch; both with an auxiliary loss."""
    return [
        *asked_trainings(study, PLANTED[0], "topk", **OPTIONS),
        *asked_trainings(study, PLANTED[0], "batchtopk", **OPTIONS),
    ]


def main(folder: Path, ports: list[str], rank: int) -> None:
    """Train as one of two processes, once interrupted, and keep what each has at the end as `rank<n>.pt`."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "RANK": str(rank), "WORLD_SIZE": "2"}
    train.DEAD_AFTER = DEAD_AFTER
    TrainingState.is_due = lambda self: True  # type: ignore[method-assign]
    study, seen, finish, step = Study.open(folder), list[object](), Trainer.finish, Trainer.step

    def step_or_stop(self: Trainer, number: int, rows: object) -> None:
        if number == INTERRUPTED_AT and not seen:
            seen.append("interrupted")
            raise Interrupted
        step(self, number, rows)  # type: ignore[arg-type]

    def watched(self: Trainer) -> object:
        weights = {name: value.clone() for name, value in self.sae.state_dict().items()}
        seen.append({"silent_steps": self.silent_steps, **weights})
        return finish(self)  # changes the weights

    Trainer.step, Trainer.finish = step_or_stop, watched  # type: ignore[assignment, method-assign]
    os.environ["MASTER_PORT"] = ports[0]
    with suppress(Interrupted):
        run_saes(study, specs(study))
    os.environ["MASTER_PORT"] = ports[1]
    results = run_saes(study, specs(study))
    torch.save((len(results), seen), folder.parent / f"rank{rank}.pt")


if __name__ == "__main__":
    child = os.fork()
    main(Path(sys.argv[1]), sys.argv[2:], 0 if child else 1)
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
