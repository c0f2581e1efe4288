"""Devices that are not there are refused, in one sentence."""

import pytest
import torch

from cache.errors import UserError
from workbench.devices import check_device
from workbench.models import load_model


def test_the_processor_is_there() -> None:
    assert check_device("cpu") == "cpu"
    assert check_device("cpu:0") == "cpu:0"


@pytest.mark.parametrize(
    "name", ["gpu", "meta", "", "cuda:", "cuda:x", "cuda:-1", "CUDA", "cpu:²", "cuda:0:1", "[/x]"]
)
def test_what_is_no_device(name: str) -> None:
    with pytest.raises(UserError, match="Give one of cpu, cuda, mps, xpu"):
        check_device(name)


@pytest.mark.parametrize(
    ("name", "count"), [("cuda", 0), ("cuda:2", 2), ("mps", 0), ("xpu:1", 1), ("cpu:1", 1)]
)
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> None:
    kind = name.partition(":")[0]
    if kind != "cpu":
        monkeypatch.setattr(getattr(torch, kind), "device_count", lambda: count)
    with pytest.raises(UserError, match=f"'{name}' not found: this machine has {count or 'no'} {kind}"):
        check_device(name)


def test_one_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert check_device("cuda") == "cuda"
    assert check_device("cuda:1") == "cuda:1"


def test_a_model_is_not_loaded_for_it() -> None:
    with pytest.raises(UserError, match="Unknown device 'gpu'"):
        load_model("organism-shared", device="gpu")
