"""Models by name: folders wherever a command is run, hub ids, and what is neither."""

from pathlib import Path

import huggingface_hub
import pytest

from cache.errors import UserError
from tests.workbench.studies.test_study import study_spec
from workbench.artefacts.sources import open_source
from workbench.hub import is_hub_id
from workbench.models import load_model, located, model_source
from workbench.models.ace_step import AceStep15
from workbench.prompts.pair_files import read_source
from workbench.studies.tracing import trace_study

GONE = (
    *(
        "/gone/model",
        "./gone",
        "../gone",
        "~/gone/model",
        "a/b/c",
        "models/gone",
        "models/two words",
        "models/",
    ),
    f"{'x' * 5000}/y",
)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks the hub fails the test."""

    def asked(*args: object, **options: object) -> str:
        raise AssertionError(f"the hub was asked for {args} {options}")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", asked)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", asked)


def test_a_study_keeps_the_absolute_path_of_its_model(
    tiny: AceStep15, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny").symlink_to(tiny_folder)
    monkeypatch.chdir(tmp_path)
    spec = study_spec(tiny, n_prompts=2, seeds=1).model_copy(update={"model": "models/tiny"})
    study = trace_study(Path("study"), spec, tiny)
    assert study.spec.model == str(tmp_path / "models" / "tiny")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert model_source(study.spec.model) == study.spec.model
    again = trace_study(Path("../study"), spec.model_copy(update={"model": "../models/tiny"}), tiny)
    assert again.spec == study.spec


def test_names_of_organisms_and_the_hub_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "organism-shared").mkdir()
    assert located("organism-shared") == "organism-shared"
    assert located("ACE-Step/acestep-v15-base") == "ACE-Step/acestep-v15-base"
    assert model_source("ACE-Step/acestep-v15-base") == "ACE-Step/acestep-v15-base"


@pytest.mark.parametrize(
    "name",
    GONE,
)
@pytest.mark.usefixtures("no_hub")
def test_a_path_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(UserError, match=r"does not exist|is not a pipeline") as error:
        load_model(name)
    assert name in str(error.value)


@pytest.mark.usefixtures("no_hub")
def test_files_of_a_folder_that_is_here_are_not_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs").mkdir()
    assert not is_hub_id("pairs/missing.csv")
    assert is_hub_id("owner/name")
    with pytest.raises(UserError, match=r"There is no file pairs/missing\.csv"):
        read_source("pairs/missing.csv")
    with pytest.raises(UserError, match="pairs/missing is neither an existing file"):
        open_source("pairs/missing", ["*.csv"])
