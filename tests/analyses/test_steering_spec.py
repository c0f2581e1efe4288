"""Names that are kept apart, so that `--help` imports nothing slow, are those of what they name."""

from typing import get_args

import pytest

from analyses import steering_spec
from analyses.sae.feature_scores import SCORES
from analyses.steering import asking
from analyses.steering.descriptor import UNITS, DescriptorMethod
from analyses.steering.vector import PASS_MODES, Operation, PassMode
from cache.errors import UserError


def test_every_method_is_called_after_its_class() -> None:
    assert tuple(asking.CLASSES) == steering_spec.METHODS
    for name, made_by in asking.CLASSES.items():
        assert made_by.__name__.lower() == name.replace("-", "")


@pytest.mark.parametrize(
    ("method", "own", "words"),
    [
        (
            "sae-features",
            {"score": "diff"},
            r"needs k, the number of features of each site\. Give it \(--k\)",
        ),
        ("sae-features", {"k": 0}, "Invalid options of sae-features: k must be at least 1"),
        ("austeer", {}, r"needs k, the number of channels that are moved\. Give it \(--k\)"),
        ("caa", {"k": 4}, r"Invalid options of caa: k is not a known name \(known: time\)"),
    ],
)
def test_options_are_checked_without_a_model(method: str, own: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        asking.check_options(method, own)


def test_every_prompt_method_is_called_after_its_function() -> None:
    assert tuple(asking._PROMPT_METHODS) == steering_spec.PROMPT_METHODS
    for name, made_by in asking._PROMPT_METHODS.items():
        assert made_by.__name__ == name.replace("-", "_")


def test_descriptors_and_their_methods_are_those_of_the_code() -> None:
    assert get_args(DescriptorMethod) == tuple(UNITS) == steering_spec.DESCRIPTOR_METHODS


def test_pass_modes_and_scores_are_those_of_the_code() -> None:
    assert get_args(Operation) == steering_spec.OPERATIONS
    assert steering_spec.PASS_MODES == tuple(PASS_MODES) == get_args(PassMode)
    assert tuple(SCORES) == steering_spec.SCORES
