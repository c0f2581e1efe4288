"""Two processes that share every batch train what one process trains on the whole batch."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from analyses.sae.distributed import Ranks
from analyses.sae.names import load_sae, sae_names
from analyses.sae.run import training_rows
from analyses.sae.stream import Stream
from analyses.sae.train import Trainer
from analyses.sae.training_state import FOLDER
from tests.analyses.planted_study import PLANTED, make_planted_study
from tests.analyses.sae import shared_training
from tests.analyses.sae.shared_training import specs
from tests.tolerances import assert_close
from workbench.studies.study import Study

SITE = PLANTED[0]


def free_ports() -> list[str]:
    with socket.socket() as one, socket.socket() as other:
        for listener in (one, other):
            listener.bind(("127.0.0.1", 0))
        return [str(listener.getsockname()[1]) for listener in (one, other)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_planted_study(tmp_path_factory.mktemp("distributed") / "study")


@pytest.fixture(scope="module")
def shared(study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, list[Any]]:
    """The study trained by both, and what each process had at the end."""
    folder = Path(shutil.copytree(study.path, tmp_path_factory.mktemp("shared") / "study"))
    done = subprocess.run(
        [sys.executable, "-m", shared_training.__name__, str(folder), *free_ports()],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return Study.open(folder), [torch.load(folder.parent / f"rank{rank}.pt") for rank in (0, 1)]


def alone(study: Study, number: int) -> Trainer:
    """Train in one process on whole batches."""
    spec = specs(study)[number]
    stream = Stream(training_rows(study, spec, "cpu")[0](spec.site, spec.pass_name))
    trainer = Trainer(spec, stream.scales)
    for step in range(spec.train_steps):
        trainer.step(step, stream.next())
    stream.close()
    return trainer


@pytest.mark.parametrize("number", [0, 1], ids=["topk", "batchtopk"])
def test_they_end_with_the_weights_and_counts_of_one_process(
    number: int, study: Study, shared: tuple[Study, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analyses.sae.train.DEAD_AFTER", shared_training.DEAD_AFTER)
    one, both = alone(study, number), shared[1][0][1][1 + number]
    for name, value in one.sae.state_dict().items():
        assert_close(both[name], value, name)
    assert torch.equal(both["silent_steps"], one.silent_steps)


def test_all_have_the_same_weights_thresholds_and_counts(shared: tuple[Study, list[Any]]) -> None:
    (_, first), (_, second) = shared[1]
    assert first[0] == second[0] == "interrupted"
    for ours, theirs in zip(first[1:], second[1:], strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert first[2]["threshold"][0] > 0


def test_only_the_first_writes(shared: tuple[Study, list[Any]]) -> None:
    trained, ((results, _), (others, _)) = shared
    assert (results, others) == (2, 0)
    assert sae_names(trained) == [SITE, f"{SITE}-2"]
    assert load_sae(trained, f"{SITE}-2").config.metadata["training_k"] == 2
    assert list((trained.path / FOLDER).iterdir()) == []


def test_each_row_of_a_batch_goes_to_one_process(study: Study) -> None:
    spec = specs(study)[0].model_copy(update={"batch_size": 17})

    def batch(ranks: Ranks) -> torch.Tensor:
        stream = Stream(training_rows(study, spec, "cpu")[0](SITE, "cond"), ranks=ranks)
        try:
            return stream.next().x
        finally:
            stream.close()

    whole, shares = batch(Ranks()), [batch(Ranks(rank, 2)) for rank in (0, 1)]
    assert [len(share) for share in shares] == [8, 8]
    assert torch.equal(torch.stack(shares, 1).flatten(0, 1), whole[:16])
