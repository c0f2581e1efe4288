"""Seeds beyond 2³², as ComfyUI and ACE-Step give them."""

import numpy as np
import pytest
from pydantic import ValidationError

from analyses.probes.spec import ProbeSpec
from analyses.sae.train import TrainSpec
from cache.errors import UserError
from tests.workbench.studies.test_study import study_spec
from workbench.engine.runs import Clip
from workbench.models.ace_step import AceStep15
from workbench.models.noise import seeded_noise
from workbench.sae.topk import TopKObjective
from workbench.seeds import LARGEST_SEED, consecutive_seeds, random_state
from workbench.studies.study import clip_table


@pytest.mark.parametrize("first", [0, 2**32 - 1, 2**53 + 1, 2**63 - 3, 2**63 - 1, 2**63, LARGEST_SEED - 2])
def test_consecutive_seeds_are_whole_numbers(first: int) -> None:
    seeds = consecutive_seeds(first, 3)
    assert seeds.dtype.kind in "iu"
    assert seeds.tolist() == [first, first + 1, first + 2]
    seeded_noise([Clip("a song", seed) for seed in seeds.tolist()], (2,))


def test_seeds_beyond_the_largest_are_refused() -> None:
    with pytest.raises(UserError, match="at most 18446744073709551615"):
        consecutive_seeds(LARGEST_SEED, 2)


@pytest.mark.parametrize("seed", [-1, LARGEST_SEED + 1])
def test_specs_refuse_other_seeds(seed: int) -> None:
    with pytest.raises(ValidationError):
        ProbeSpec(seed=seed)
    with pytest.raises(ValidationError):
        TrainSpec(site="tf0.block", objective=TopKObjective(), seed=seed)


def test_random_states_are_those_of_scikit_learn_and_differ() -> None:
    assert (
        random_state(7).randint(1000, size=5).tolist()
        == np.random.RandomState(7).randint(1000, size=5).tolist()
    )
    draws = {
        tuple(random_state(seed).randint(1000, size=5))
        for seed in (0, 2**32, 2**32 + 1, 2**53 + 1, LARGEST_SEED)
    }
    assert len(draws) == 5


@pytest.mark.parametrize("seed", [2**53 + 1, LARGEST_SEED - 3])
def test_clips_have_large_seeds(tiny: AceStep15, seed: int) -> None:
    spec = study_spec(tiny, n_prompts=2, seeds=2, seed=seed)
    assert clip_table(spec, str)["seed"].tolist() == [seed + place for place in range(4)]
    with pytest.raises(UserError, match="Seeds must be at most"):
        clip_table(study_spec(tiny, n_prompts=2, seeds=2, seed=LARGEST_SEED), str)
