"""All methods that steer through the prompt on the pairs of a study, to whose runs their names are bound."""

from pathlib import Path

import numpy as np
import pytest

from analyses.steering import run
from analyses.steering.free_sliders import free_sliders
from analyses.steering.pci import pci
from analyses.steering.run import Way, run_steering
from analyses.steering.text_embedding import text_embedding
from analyses.steering.token_embedding import token_embedding
from analyses.steering_spec import SteeringSpec
from tests.analyses.steering.test_run import PROMPTS, Heard
from tests.tolerances import SCORE
from tests.workbench.studies.test_study import study_spec
from workbench.models.ace_step import AceStep15
from workbench.studies.study import Study


def test_they_are_ways_of_steering(tiny: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "load_scorer", lambda name, device="cpu": Heard())
    spec = study_spec(tiny, prompts=PROMPTS)
    study = Study.create(tmp_path / "study", spec, tiny.describe(), str)
    made = {"positive": "fast", "prompts": PROMPTS, "settings": spec.settings}
    n_steps = spec.settings.num_steps
    ways = [
        Way("pci", pci(tiny, "tempo", **made).at, (float(n_steps),)),
        Way("text embedding", text_embedding(tiny, "tempo", **made).at, (1.0,)),
        Way("FreeSliders", free_sliders(tiny, "tempo", **made).at, (1.0,)),
        Way("FreeSliders at tf1", free_sliders(tiny, "tempo", "tf1.cross_attn", **made).at, (1.0,)),
        Way("token embedding", token_embedding(tiny, "tempo", pairs=2, **made).at, (1.0,)),
    ]
    asked = SteeringSpec(concept="tempo", positive="fast", negatives=("slow",), pairs=1)
    result = run_steering(study, tiny, asked, ways)
    scores = result["score"].squeeze().transpose("arm", "concept").values
    clean, corrupt, switched, blended, *others = scores
    for end in (switched, blended):
        np.testing.assert_allclose(end, clean, rtol=SCORE)  # the corrupt run is the negative one
    assert not np.allclose(corrupt, clean, rtol=10 * SCORE)
    for other in others:
        assert (other != corrupt).any(), "it is no copy of the corrupt run"
