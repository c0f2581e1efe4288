"""`workbench sae train` hands every field of a training's spec on."""

import json
from pathlib import Path

import pytest

from analyses.sae.names import load_sae
from cache.errors import UserError
from dashboards.numbers import significant
from tests.analyses.planted_study import make_planted_study
from workbench.cli.main import app
from workbench.studies.study import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_planted_study(tmp_path_factory.mktemp("cli") / "study")


def run(study: Study, *options: object) -> None:
    app(
        ["sae", "train", str(study.path), "--site", "tf0.cross_attn", *map(str, options)],
        standalone_mode=False,
    )


def test_every_option_reaches_the_spec(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    given = {
        "pass_name": "null",
        "expansion": 2,
        "k": 3,
        "aux_coefficient": 0.5,
        "train_steps": 4,
        "batch_size": 32,
        "learning_rate": 0.01,
        "held_out_fraction": 0.25,
        "input_scale": "channel",
        "precision": "bfloat16",
        "seed": 7,
        "data_seed": 8,
        "source": "cache",
    }
    options = [
        part
        for name, value in given.items()
        for part in ("--" + name.removesuffix("_name").replace("_", "-"), value)
    ]
    run(study, *options, "--device", "cpu")
    result = study.result("sae-tf0.cross_attn")
    spec = json.loads(result.attrs["spec"])
    objective = spec.pop("objective")
    assert objective.pop("architecture") == "topk"
    assert {**spec, **objective} == {"site": "tf0.cross_attn", "target_site": "", **given}
    assert load_sae(study, "tf0.cross_attn").config.metadata["pass_name"] == "null"
    ratio = significant(result.mean_to_spread.max().item())
    said = " ".join(capsys.readouterr().err.split())
    assert f"The mean of the inputs at tf0.cross_attn (null pass) has {ratio} times the norm" in said
    run(study, *options)
    shown = capsys.readouterr()
    assert "Trained already" in " ".join(shown.err.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--learning-rate", 0), "learning_rate must be above 0"),
        (("--learning-rate", "inf"), "learning_rate must be a finite number"),
        (("--held-out-fraction", 1), "held_out_fraction must be below 1"),
        (("--pass", "text"), "no pass 'text'"),
        (("--device", "tpu"), "Unknown device 'tpu'"),
    ],
    ids=str,
)
def test_values_that_cannot_be_are_refused(tmp_path: Path, options: tuple[object, ...], message: str) -> None:
    study = make_planted_study(tmp_path / "study")
    with pytest.raises(UserError, match=message):
        run(study, *options)
    assert not (study.path / "sae").exists()
    assert study.result_names() == []


def test_features_are_shown_with_their_scores(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    run(study, "--expansion", 2, "--k", 2, "--train-steps", 3, "--name", "small")
    capsys.readouterr()
    app(["sae", "features", str(study.path), "small", "--top", "3"], standalone_mode=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "3 of the 16 features of small" in shown
    for column in ("feature", "label", "best value", "AUROC", "tf-idf", "density", "nearest"):
        assert column in shown
    with pytest.raises(UserError, match=r"no sparse autoencoder named 'other' \(it has .*small"):
        app(["sae", "features", str(study.path), "other"], standalone_mode=False)
