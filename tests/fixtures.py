"""Shared fixtures: tiny models built on the fly."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.double import compute_in_double
from tests.tiny_ace_step import save_tiny_pipeline
from tests.tiny_ace_step_v1 import save_tiny_v1
from workbench.models import load_model
from workbench.models.ace_step import AceStep15
from workbench.models.ace_step_v1.adapter import AceStepV1
from workbench.models.base import AudioDiffusionModel

compute_in_double()
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # a plugin may have imported torch already


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> Iterator[None]:
    """Turn off syncing, which only matters when power is lost; test_commit_order checks what is synced and when."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder of a random two-block ACE-Step 1.5."""
    return save_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> AceStep15:
    """That pipeline behind its adapter, float32."""
    return load_model(str(tiny_folder))


@pytest.fixture(scope="session")
def tiny64(tiny_folder: Path) -> AceStep15:
    """The same weights in float64, for exact comparisons."""
    return load_model(str(tiny_folder), dtype="float64")


@pytest.fixture(scope="session")
def tiny_turbo(tmp_path_factory: pytest.TempPathFactory) -> AceStep15:
    """A turbo checkpoint (distilled guidance) whose condition encoder is narrower than its transformer, as in XL."""
    folder = save_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "turbo", hidden_size=48, is_turbo=True)
    return load_model(str(folder))


@pytest.fixture(scope="session")
def tiny_v1_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a random two-block ACE-Step v1, in the published layout."""
    return save_tiny_v1(tmp_path_factory.mktemp("tiny") / "v1")


@pytest.fixture(scope="session")
def tiny_v1(tiny_v1_folder: Path) -> AceStepV1:
    """That model behind its adapter, float32."""
    return load_model(str(tiny_v1_folder))


@pytest.fixture(scope="session")
def tiny_v1_64(tiny_v1_folder: Path) -> AceStepV1:
    """The same weights in float64, for exact comparisons."""
    return load_model(str(tiny_v1_folder), dtype="float64")


@pytest.fixture(scope="session", params=["tiny64", "tiny_v1_64"])
def model64(request: pytest.FixtureRequest) -> AudioDiffusionModel:
    """Each architecture with two blocks and four heads, in float64."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def organism_shared() -> AceStep15:
    """The shipped organism whose concepts all enter at the same two blocks."""
    return load_model("organism-shared")


@pytest.fixture(scope="session")
def organism_split() -> AceStep15:
    """The shipped organism whose concepts enter at different blocks."""
    return load_model("organism-split")
