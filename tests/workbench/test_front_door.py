"""`import workbench as wb`: names that are imported when they are used, as the stub declares them."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import workbench as wb

WRONG = """
import os, sys
import numpy as np, workbench as wb
from workbench.models.generated import Activations, GeneratedClip
os.chdir(sys.argv[1])
clean, other = wb.clips("a", seed=np.arange(2))
assert (clean, other) == (wb.Clip("a", 0), wb.Clip("a", np.int64(1))) and type(other.seed) is int
site, model = "tf3.cross_attn", wb.load("organism-shared")
few = {"n_prompts": 1, "seeds": 1, "settings": wb.GenerationSettings(duration=0.5, num_steps=1), "sites": site}
study = wb.trace(model, out="few", **few)
made = GeneratedClip(clean, np.zeros((1, 8)), 8000, Activations({}))
calls = {
    "load": lambda: wb.load(None),
    "load device": lambda: wb.load("organism-shared", device=None),
    "generate": lambda: model.generate(None),
    "generate text": lambda: model.generate("a song"),
    "generate settings": lambda: model.generate(clean, {"num_steps": 2}),
    "settings": lambda: wb.GenerationSettings(7),
    "batch": lambda: model.generate_batch(None, wb.GenerationSettings()),
    "batch settings": lambda: model.generate_batch([clean], None),
    "capture": lambda: model.generate(clean, capture=3),
    "capture list": lambda: model.generate(clean, capture=[3]),
    "edits": lambda: model.generate(clean, edits=None),
    "patch": lambda: wb.patch(None, clean),
    "patch source": lambda: wb.patch(site, None),
    "ablate": lambda: wb.ablate(site, "mean", None),
    "blend": lambda: wb.blend(site, clean, None),
    "add": lambda: wb.add(None, site),
    "add text": lambda: wb.add("abc", site),
    "add strength": lambda: wb.add([1.0], site, "2"),
    "clamp": lambda: wb.clamp([1.0], site, None),
    "Clip": lambda: wb.Clip(None, 0),
    "Clip seed": lambda: wb.Clip("a", 1.5),
    "Clip lyrics": lambda: wb.Clip("a", 0, None),
    "Run": lambda: wb.Run(None),
    "Run edits": lambda: wb.Run(clean, None),
    "caa": lambda: wb.caa(None, "mood", site),
    "caa settings": lambda: wb.caa(model, "mood", site, settings={}),
    "caa pairs": lambda: wb.caa(model, "mood", site, pairs=1.5),
    "caa sites": lambda: wb.caa(model, "mood", None),
    "caa prompts": lambda: wb.caa(model, "mood", site, prompts=3),
    "pci": lambda: wb.pci(None, "mood"),
    "pci concept": lambda: wb.pci(model, None),
    "pci settings": lambda: wb.pci(model, "mood", settings=3),
    "pci strength": lambda: wb.pci(model, "mood").at("2"),
    "pci clip": lambda: wb.pci(model, "mood").at(2, positive=3),
    "pci passes": lambda: wb.pci(model, "mood").at(2, passes=3),
    "text": lambda: wb.text_embedding(model, "mood", sites=3),
    "text strength": lambda: wb.text_embedding(model, "mood").at("2"),
    "text schedule": lambda: wb.text_embedding(model, "mood").at(2, schedule=3),
    "free sliders": lambda: wb.free_sliders(None, "mood"),
    "free sliders step": lambda: wb.free_sliders(model, "mood").at(1.0, start_step=1.5),
    "token": lambda: wb.token_embedding(model, "mood", pairs=1.5),
    "token word": lambda: wb.token_embedding(model, "mood", word=3),
    "conditioning": lambda: wb.add_to_conditioning([1.0], site, "mask"),
    "conditioning part": lambda: wb.add_to_conditioning([1.0], site, None),
    "velocity": lambda: wb.add_velocity(clean, None),
    "velocity strength": lambda: wb.add_velocity(clean, other, "2"),
    "velocity passes": lambda: wb.add_velocity(clean, other, passes=None),
    "trace": lambda: wb.trace(None, out="study"),
    "trace out": lambda: wb.trace(model, out=None),
    "trace steps": lambda: wb.trace(model, out="study", steps=3),
    "trace passes": lambda: wb.trace(model, out="study", passes=None),
    "trace prompts": lambda: wb.trace(model, prompts=["a song"], out="study"),
    "trace store": lambda: wb.trace(model, out="study", store=3, **few),
    "open": lambda: wb.open(None),
    "capture None": lambda: model.generate(clean, capture=None),
    "edits text": lambda: model.generate(clean, edits="ab"),
    "source": lambda: model.generate(clean, edits=[wb.patch(site, source="a fast song")]),
    "ablate method": lambda: wb.ablate(site, []),
    "Run follows": lambda: wb.Run(clean, (), 3),
    "caa concept": lambda: wb.caa(model, ["mood"], site),
    "save": lambda: made.save(None),
    "activations": lambda: made.activations[None],
    "load_vector": lambda: wb.load_vector(None),
    "study result": lambda: study.result(None),
    "study activations": lambda: study.activations(None),
    "study train_sae": lambda: study.train_sae(None),
    "study probe": lambda: study.probe(None),
    "study probe list": lambda: study.probe([None]),
    "study patch blocks": lambda: study.patch(blocks=3),
    "study patch sets": lambda: study.patch(sets=None),
    "study patch arms": lambda: study.patch(arms=3),
    "study patch pairs": lambda: study.patch(pairs_file=3),
    "study export": lambda: study.export("probes", out=3),
}
from workbench.studies.tracing import trace_study
for job in (None, 3, (1,), (1.0, 1), "11"):
    calls[f"job {job}"] = lambda job=job: trace_study(study.path, study.folder.spec, model, job=job)
for name, call in calls.items():
    try:
        call()
    except wb.UserError as error:
        if "pydantic" in str(error):
            print(name, error)
    except Exception as error:
        print(name, type(error), error)
    else:
        print(name, "passes")
if hasattr(object, "save"):
    print("every object has a save")
"""
STUB = Path(wb.__file__).with_suffix(".pyi")
SLOW = (
    *("torch", "diffusers", "nnsight", "transformers", "numpy", "xarray", "pandas", "zarr", "pydantic"),
    *("sklearn", "dash", "plotly", "matplotlib", "IPython"),
)


def declared() -> dict[str, tuple[str, str]]:
    """Module and name of everything that the stub declares."""
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    found, modules = {}, {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1
            found |= {alias.name: (f"workbench.{node.module}", alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.asname: alias.name for alias in node.names}
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
            found[node.targets[0].id] = (modules[node.value.value.id], node.value.attr)
    return found


def test_the_stub_declares_what_is_there() -> None:
    """What editors and mypy see is what a program gets, the same object."""
    names = declared()
    assert sorted(names) == dir(wb) == wb.__all__
    for name, (module, attribute) in names.items():
        assert getattr(wb, name) is getattr(importlib.import_module(module), attribute), name
    (exported,) = [
        ast.literal_eval(node.value)
        for node in ast.parse(STUB.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    ]
    assert sorted(exported) == wb.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="pathc"):
        _ = wb.pathc


def test_importing_it_imports_nothing_slow() -> None:
    program = f"import sys, workbench as wb; dir(wb); print([name for name in {SLOW} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a process of its own prints, as people have it: the tests' checks of types would be there first."""
    program = [sys.executable, "-c", WRONG, str(tmp_path_factory.mktemp("wrong"))]
    return subprocess.run(program, capture_output=True, text=True, check=True).stdout


def test_no_object_has_a_save_that_writes_no_file(said: str) -> None:
    """nnsight gives every object a method `save`, which only marks values in a trace."""
    assert "every object has a save" not in said


def test_wrong_kinds_of_argument_are_a_user_s_error(said: str) -> None:
    assert said.replace("every object has a save\n", "") == ""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, not 0"),
        ({"duration": float("nan")}, "duration must be a finite number"),
        ({"guidance_scale": 0.5}, "guidance_scale must be at least 1"),
        ({"cfg": 3}, "cfg is not a known name .known: duration, num_steps, guidance_scale, options"),
        ({"options": {"shift": None}}, "options.shift"),
    ],
    ids=str,
)
def test_wrong_settings_are_a_user_s_error(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(wb.UserError, match=f"^Invalid GenerationSettings: {words}"):
        wb.GenerationSettings(**fields)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: wb.patch("tf7.block", wb.Clip("a", 0)),
            'target="output" .--mode output on the command line',
        ),
        (lambda: wb.patch("tf7.cross_attn", wb.Clip("a", 0), tokens=(0, 1)), 'target="output"'),
        (lambda: wb.blend("tf7.block", wb.Clip("a", 0), 1.0), "an edit other than 'blend'"),
        (
            lambda: wb.patch("tf7.cross_attn", wb.Clip("a", 0), step=3),
            r"step is not a known name .known: steps, ",
        ),
        (lambda: wb.clips([]), "^The list of prompts is empty. Give at least one.$"),
        (lambda: wb.clips("a", seed=[]), "list of seeds is empty"),
        (lambda: wb.clips("a", lyrics=[]), "list of lyrics is empty"),
        (lambda: wb.Clip("  ", 0), "prompt must not be empty"),
    ],
)
def test_a_refusal_says_what_to_do(call: Callable[[], object], words: str) -> None:
    with pytest.raises(wb.UserError, match=words):
        call()
