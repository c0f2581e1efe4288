"""One synthetic study for all tests that only read it."""

import shutil
from pathlib import Path

import dash
import pytest

from dashboards.app import create_app
from tests.dashboards.synthetic_study import make_study, save_changed
from workbench.studies.study import Study


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A complete study."""
    return make_study(tmp_path_factory.mktemp("complete"))


@pytest.fixture(scope="session")
def other_study(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study like the first, with other impacts."""
    folder = tmp_path_factory.mktemp("other") / "other"
    other = Study.open(shutil.copytree(study.path, folder))
    save_changed(other, "patching-blocks", 0.5)
    return other


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published table of two models: one as deep as the study's model, one deeper."""
    rows = [
        f"{model},clap,{concept},tf{block},cross,{0.9 if block == 3 else 0.01 * block:g}"
        for model, blocks in (("tiny", 8), ("deep", 12))
        for concept in ("tempo", "drums", "jazz")
        for block in range(blocks)
    ]
    file = tmp_path_factory.mktemp("published") / "paper.csv"
    file.write_text("\n".join(["model,metric,concept,block,attn,impact", *rows]) + "\n")
    return file


@pytest.fixture(scope="session")
def bare_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study without results."""
    return make_study(tmp_path_factory.mktemp("bare"), results=False)


@pytest.fixture(scope="session")
def app(study: Study) -> dash.Dash:
    """The dashboard of the complete study."""
    return create_app(study.path)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """An audio file outside any study."""
    file = tmp_path / "secret.flac"
    file.write_bytes(b"fLaC secret")
    return file
