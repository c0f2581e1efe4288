"""Train autoencoders in child processes that are killed at random moments, until one finishes.

usage: STUDY KILLS SEED. Forks before torch has computed anything, so that a start costs nothing.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from analyses.sae.run import asked_trainings, run_saes
from analyses.sae.training_state import TrainingState
from workbench.studies.study import Study

SITES = ("tf0.cross_attn", "tf1.cross_attn")
OPTIONS = {"expansion": [1, 2], "k": 2, "train_steps": 60, "batch_size": 64, "input_scale": "step"}


def train(folder: Path) -> list[str]:
    """Train, or continue; return what was said of the state."""
    TrainingState.is_due = lambda self: True  # type: ignore[method-assign]
    study, said = Study.open(folder), list[str]()
    run_saes(study, asked_trainings(study, SITES, **OPTIONS), note=said.append)
    return [sentence for sentence in said if "starts anew" in sentence]


def main(folder: Path, kills: int, seed: int) -> None:
    """Kill `kills` children, each after more of what a whole training takes, then let one finish."""
    draw = random.Random(seed)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # to wait for
    killed, lasted = 0, 0.5
    while True:
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            os._exit(len(train(folder)))
        if killed < kills:
            signal.sigtimedwait({signal.SIGCHLD}, draw.uniform(0, lasted))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
            continue
        if killed < kills:  # it had finished before it was to be killed: begin anew, and kill sooner
            lasted = (time.monotonic() - started) / 2
            for file in [*folder.glob("results/sae-*"), *folder.glob("sae/*/*")]:
                file.unlink()
            continue
        sys.stdout.write(f"{killed} {os.waitstatus_to_exitcode(status)}")
        return


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
