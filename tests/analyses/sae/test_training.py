"""Several autoencoders in one pass, and trainings that are killed and go on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from analyses.sae.distributed import ALONE
from analyses.sae.names import load_sae, sae_folder, sae_names
from analyses.sae.run import asked_trainings, run_saes, training_rows
from analyses.sae.train import Trainer, TrainSpec
from analyses.sae.training import Training
from analyses.sae.training_state import FOLDER, TrainingState
from cache.errors import UserError
from dashboards.summaries import sae_line
from tests.analyses.planted_study import make_planted_study
from tests.analyses.sae import killed_training
from workbench.sae.settings import ARCHITECTURES
from workbench.sae.stored import WEIGHTS_FILE
from workbench.studies.study import Study

SITES = killed_training.SITES


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_planted_study(tmp_path_factory.mktemp("training") / "study").path


@pytest.fixture
def study(untrained: Path, tmp_path: Path) -> Study:
    return Study.open(Path(shutil.copytree(untrained, tmp_path / "study")))


@pytest.fixture(scope="module")
def whole(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Trained without an interruption."""
    folder = Path(shutil.copytree(untrained, tmp_path_factory.mktemp("whole") / "study"))
    killed_training.train(folder)
    return Study.open(folder)


def specs(study: Study, **changes: object) -> list[TrainSpec]:
    options = {"k": [2, 3], "train_steps": 12, "batch_size": 64, "expansion": 1, **changes}
    return asked_trainings(study, SITES, **options)


def run(
    study: Study, asked: list[TrainSpec], progress: object = None, note: object = None
) -> dict[str, list[torch.Tensor]]:
    """Train without describing the features; returns the weights by spec."""
    state = TrainingState(study, asked, note or pytest.fail)  # type: ignore[arg-type]
    state.is_due = lambda: True  # type: ignore[method-assign]
    rows, _ = training_rows(study, asked[0], "cpu")
    training = Training(asked, rows, study.cache.plan.steps, state, "cpu", ALONE)
    done = training.run(asked, progress)  # type: ignore[arg-type]
    return {each.spec.model_dump_json(): list(each.sae.state_dict().values()) for each in done}


def assert_same_bytes(ours: dict[str, list[torch.Tensor]], theirs: dict[str, list[torch.Tensor]]) -> None:
    assert ours.keys() <= theirs.keys()
    for name, values in ours.items():
        assert all(map(torch.equal, values, theirs[name]))


def weights(study: Study) -> dict[str, bytes]:
    return {name: (sae_folder(study, name) / WEIGHTS_FILE).read_bytes() for name in sae_names(study)}


def states(study: Study) -> list[Path]:
    return list((study.path / FOLDER).glob("*"))


def test_a_grid_gets_a_name_each_in_the_order_asked_for(whole: Study) -> None:
    names = [f"{site}{end}" for site in SITES for end in ("", "-2")]
    assert sorted(sae_names(whole)) == sorted(names)
    made = [(load_sae(whole, name).config.d_sae, whole.result(f"sae-{name}").attrs["site"]) for name in names]
    assert made == [(size, site) for site in SITES for size in (8, 16)]
    assert states(whole) == []


def test_trained_together_is_trained_alone(study: Study) -> None:
    asked = specs(study, seed=[0, 1])
    together = run(study, asked)
    assert len(together) == 8
    assert_same_bytes(run(study, asked[5:6]), together)
    first, second = (together[spec.model_dump_json()] for spec in asked[:2])
    assert not torch.equal(first[0], second[0]), "they differ in their seed"


def test_jobs_make_the_files_of_one_command(study: Study, whole: Study) -> None:
    asked = asked_trainings(study, SITES, **killed_training.OPTIONS)
    made = [[each.attrs["name"] for each in run_saes(study, asked, job=(job, 3))] for job in (3, 1, 2)]
    names = [f"{site}{end}" for site in SITES for end in ("", "-2")]
    assert made == [names[2:], names[:1], names[1:2]]
    assert weights(study) == weights(whole)
    assert states(study) == []


@pytest.mark.parametrize("job", [(0, 2), (3, 2), (1, 5)])
def test_jobs_that_do_not_exist_are_refused(study: Study, job: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="1 ≤ k ≤ n ≤ 4, the number of autoencoders"):
        run_saes(study, specs(study), job=job)
    assert not (study.path / "sae").exists()


def test_those_that_exist_are_not_trained_again(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    run_saes(study, specs(study, k=[2])[:1])
    trained: list[str] = []
    finish = Trainer.finish
    monkeypatch.setattr(
        Trainer, "finish", lambda self: (trained.append(str(self.spec.objective)), finish(self))[1]
    )
    results = run_saes(study, specs(study)[:2])
    assert len(trained) == 1 and "k=3" in trained[0]
    assert [result.attrs["k"] for result in results] == [2, 3]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"train_steps": 13}, "share their train_steps; got 12 and 13"),
        ({"batch_size": 65}, "share their batch_size; got 64 and 65"),
        ({"data_seed": 1}, "share their data_seed; got 0 and 1"),
        ({}, "Two of the autoencoders are the same"),
    ],
    ids=str,
)
def test_specs_that_cannot_share_a_pass_are_refused(
    study: Study, change: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        run_saes(study, [*specs(study), *specs(study, **change)])
    assert not (study.path / "sae").exists()


class Killed(BaseException):
    """Ends a process at once."""


def killed_at(step: int) -> object:
    def progress(done: int, total: int) -> None:
        if done == step:
            raise Killed

    return progress


@pytest.mark.parametrize("step", [1, 7, 12])
@pytest.mark.parametrize(
    "changes", [{"architecture": "batchtopk"}, {"input_scale": "step"}, {"batch_size": 4096}], ids=str
)
def test_a_training_goes_on_where_it_was(study: Study, step: int, changes: dict[str, object]) -> None:
    asked, steps = specs(study, **changes), list[int]()
    with pytest.raises(Killed):
        run(study, asked, killed_at(step))
    assert len(states(study)) == 1
    resumed = run(study, asked, lambda done, _: steps.append(done))
    assert steps[0] == step
    states(study)[0].unlink()
    assert_same_bytes(resumed, run(study, asked))


def test_killed_at_random_moments_it_ends_with_the_same_bytes(study: Study, whole: Study) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.analyses.sae.killed_training", str(study.path), "20", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["20", "0"], done.stderr
    assert weights(study) == weights(whole)
    assert states(study) == []


def test_a_damaged_state_is_told_and_not_used(study: Study) -> None:
    with pytest.raises(Killed):
        run(study, specs(study), killed_at(5))
    (file,) = states(study)
    content = bytearray(file.read_bytes())
    content[-10] ^= 1
    file.write_bytes(content)
    said: list[str] = []
    steps: list[int] = []
    run(study, specs(study), lambda done, _: steps.append(done), said.append)
    assert "is damaged, or of another study. The training starts anew." in said[0]
    assert steps[0] == 0


@pytest.mark.parametrize("missing", ["0/weights.W_enc", "0/optimiser.W_dec.exp_avg", "0/points", "scale/"])
def test_a_state_that_lacks_something_is_refused(study: Study, missing: str) -> None:
    asked = specs(study)
    with pytest.raises(Killed):
        run(study, asked, killed_at(5))
    state = TrainingState(study, asked, pytest.fail)  # type: ignore[arg-type]
    kept = state.load()
    assert kept is not None
    state.save(
        kept.header, {name: value for name, value in kept.arrays.items() if not name.startswith(missing)}
    )
    with pytest.raises(UserError, match=r"is damaged\. Remove it, and train again"):
        run(study, asked)


@pytest.mark.parametrize("change", [{"done": 13}, {"done": -1}, {"done": "1"}, {"streams": []}], ids=str)
def test_a_state_of_nonsense_is_refused(study: Study, change: dict[str, object]) -> None:
    asked = specs(study)
    with pytest.raises(Killed):
        run(study, asked, killed_at(5))
    state = TrainingState(study, asked, pytest.fail)  # type: ignore[arg-type]
    kept = state.load()
    assert kept is not None
    state.save({**kept.header, **change}, kept.arrays)
    with pytest.raises(UserError, match=r"is damaged\. Remove it, and train again"):
        Training(
            asked, training_rows(study, asked[0], "cpu")[0], study.cache.plan.steps, state, "cpu", ALONE
        ).run(asked[:1])


def test_every_architecture_is_trained_and_judged_by_what_it_reconstructs(study: Study) -> None:
    options = {"train_steps": 20, "batch_size": 256, "expansion": 1}
    asked = [
        spec
        for name in ARCHITECTURES
        for spec in asked_trainings(
            study, SITES[0], name, target_site=SITES[1] if "transcoder" in name else "", **options
        )
    ]
    for name, result in zip(ARCHITECTURES, run_saes(study, asked), strict=True):
        sae, clips = load_sae(study, result.attrs["name"]), result.attrs["held_out_clips"]
        assert sae_line(result)["architecture"].split(", kept as ") == list(
            dict.fromkeys([name, sae.config.architecture])
        )
        x, target = (
            torch.from_numpy(study.cache.read(site, clips=clips, passes=["cond"])[:, :, 0])
            for site in (SITES[0], SITES[1] if "transcoder" in name else SITES[0])
        )
        with torch.no_grad():
            error = (sae(x) - target).double().square().sum()
        spread = (target.double() - target.double().mean((0, 1, 2))).square().sum()
        assert result.final_explained_variance.item() == pytest.approx(
            1 - (error / spread).item(), rel=1e-5
        ), name


def test_how_far_the_mean_is_from_0_is_said_before_training(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    asked = asked_trainings(study, SITES, train_steps=2)
    _, held_out = training_rows(study, asked[0], "cpu")
    monkeypatch.setattr(Trainer, "step", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_saes(study, asked, note=said.append)
    assert [sentence.partition(" has ")[0] for sentence in said] == [
        f"The mean of the inputs at {site} (cond pass)" for site in SITES
    ]
    trained = [clip for clip in study.clips["clip"] if clip not in held_out]
    x = torch.from_numpy(study.cache.read(SITES[0], clips=trained, passes=["cond"])).double().flatten(0, -2)
    ratio = (x.mean(0).norm() / x.var(0, unbiased=False).sum().sqrt()).item()
    shown = float(said[0].split(" has ")[1].split(" times ")[0])
    assert shown == pytest.approx(ratio, rel=5e-3)  # three digits


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("architecture", "options", "sentence"),
    [
        ("topk_transcoder", {}, "A transcoder needs a target site"),
        ("topk", {"target_site": SITES[1]}, "A transcoder needs a target site"),
        ("topk_transcoder", {"target_site": SITES[1], "input_scale": "step"}, "scaled globally"),
        ("topk_transcoder", {"target_site": "tf9.mlp"}, "tf9"),
    ],
)
def test_transcoders_that_cannot_be_are_refused(
    study: Study, architecture: str, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        run_saes(study, asked_trainings(study, SITES[0], architecture, **options))
    assert not (study.path / "sae").exists()


@pytest.mark.parametrize("target", SITES)
def test_a_transcoder_against_the_order_of_computation_is_refused(study: Study, target: str) -> None:
    asked = asked_trainings(study, SITES[1], "topk_transcoder", target_site=target)
    with pytest.raises(UserError, match=f"{target} is not computed from {SITES[1]}"):
        run_saes(study, asked)
    assert not (study.path / "sae").exists()
