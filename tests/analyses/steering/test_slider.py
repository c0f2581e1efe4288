"""A slider's edits, its file, and published LoRAs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from analyses.steering.header import content_of
from analyses.steering.slider import Factors, Slider, linear_sites, load_slider, published_slider
from cache.errors import UserError
from tests.tolerances import assert_close, difference
from tests.workbench.artefacts.builders import write_lora
from tests.workbench.models.architectures import ARCHITECTURES, Subject
from workbench.engine.edits import Run
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.engine.tensors import HashedTensor
from workbench.models.ace_step import AceStep15
from workbench.models.base import AudioDiffusionModel
from workbench.tensor_files import load_tensors

SETTINGS = GenerationSettings(duration=1.0, num_steps=3, guidance_scale=3.0)
CLIP = Clip("a slow sad song", 3)
(V1,) = (each for each in ARCHITECTURES if each.name == "ACE-Step v1")
ENDS = {"tf1.cross_attn.k": "layers.1.cross_attn.to_k", "tf0.self_attn": "layers.0.self_attn.to_out.0"}


def slider_of(model: AudioDiffusionModel) -> Slider:
    draws = torch.Generator().manual_seed(0)
    factors = {}
    for site, module in ENDS.items():
        linear = model.linear(Site.parse(site))
        down = torch.randn(2, linear.in_features, generator=draws)
        up = torch.randn(linear.out_features, 2, generator=draws)
        factors[site] = Factors(module, HashedTensor.of(down), HashedTensor.of(up))
    return Slider(
        concept="Stimmung",
        positive="fröhlich",
        negative="traurig",
        factors=factors,
        alpha=3.0,
        model=model.describe(),
        settings=SETTINGS,
        sigmas=tuple(model.sigmas(SETTINGS)),
        training={"losses": [1.0, 0.5], "prompts": [["a", "b"]]},
    )


# Edits


def test_its_edits_are_scaled_like_a_lora(tiny64: AceStep15) -> None:
    slider = slider_of(tiny64)
    edits = slider.at(2.0)
    assert [edit.sites for edit in edits] == [(site,) for site in ENDS]
    assert [edit.parameters.strength for edit in edits] == [2.0 * 3.0 / 2] * 2
    assert all(edit.made_on == (tiny64.name, tiny64.weights_hash) for edit in edits)
    assert all(edit.made_at is None and not edit.window.options for edit in edits)
    assert slider.at(0.0) == ()


def test_schedules_and_passes_are_windows(tiny64: AceStep15) -> None:
    slider = slider_of(tiny64)
    late = slider.at(1.0, start_step=1, passes=["cond"])
    assert [edit.window.options for edit in late] == [{"steps": (1, 2), "passes": ("cond",)}] * 2
    weighted = slider.at(1.0, schedule=[0.0, 1.0, 2.0])[:2]
    assert [(edit.window.steps, edit.parameters.strength) for edit in weighted] == [
        ((1, 1), 1.5),
        ((2, 2), 3.0),
    ]
    assert all(edit.made_at == slider.sigmas for edit in (*late, *weighted))
    with pytest.raises(UserError, match="Unknown schedule"):
        slider.at(1.0, schedule="sometimes")
    for passes in ("cond", ("conditional",)):
        with pytest.raises(UserError, match="passes"):
            Slider.at.__wrapped__(slider, 1.0, passes=passes)
    with pytest.raises(UserError, match="strength must be a finite number"):
        slider.at(float("nan"))


def test_a_model_with_other_weights_refuses_it(tiny64: AceStep15) -> None:
    slider = slider_of(tiny64)
    other = replace(slider, model={**tiny64.describe(), "weights_hash": "0" * 16})
    tiny64.plan([Run(CLIP, slider.at(1.0))], SETTINGS)
    with pytest.raises(UserError, match="was made on"):
        tiny64.plan([Run(CLIP, other.at(1.0))], SETTINGS)


# Its file


def test_it_comes_back_as_it_was(tiny64: AceStep15, tmp_path: Path) -> None:
    slider = slider_of(tiny64)
    file = slider.save(tmp_path / "new" / "mood.safetensors")
    back = load_slider(file)
    assert vars(back) == vars(slider)
    assert back.at(-1.5) == slider.at(-1.5)
    arrays, _ = load_tensors(file.parent, file.name)
    assert set(arrays) == {f"{module}.lora_{part}.weight" for module in ENDS.values() for part in "AB"}


@pytest.mark.parametrize(
    ("fields", "arrays", "words"),
    [
        ({"version": 1}, {}, "version must be 2"),
        ({"extra": 1}, {}, "extra is not a known name"),
        ({"concept": ""}, {}, "concept must not be empty"),
        ({"positive": "a\nb"}, {}, "positive: must be one line"),
        ({"positive": "traurig"}, {}, "positive and negative must differ"),
        ({"model": {"model": "tiny"}}, {}, "must have a weights_hash"),
        ({"model": {"model": "tiny", "weights_hash": "ab", "block_names": "a"}}, {}, "block_names must be"),
        ({"alpha": float("inf"), "content": ""}, {}, "alpha must be|Infinity"),
        ({"alpha": 0}, {}, "alpha must be above 0"),
        ({"rank": 3}, {}, "has rank 2, not 3"),
        ({"modules": {"tf1.cross_attn.k": "layers.1.cross_attn.to_k"}}, {}, "not those of its modules"),
        ({"modules": {**ENDS, "tf0.cross_attn": ENDS["tf0.self_attn"]}}, {}, "is given twice"),
        (
            {"modules": {"tf1.cross_attn.k": ENDS["tf1.cross_attn.k"], "tf0.mlp": ENDS["tf0.self_attn"]}},
            {},
            "not the output of one linear module",
        ),
        ({"settings": {"num_steps": 0}}, {}, "settings.num_steps"),
        ({"settings": {"num_steps": 20}}, {}, "3 sigmas, but settings.num_steps is 20"),
        ({"sigmas": [1.0, 1.0, 0.5]}, {}, "fall from step to step"),
        ({"sigmas": [1.0, 0.5, -0.5]}, {}, "fall from step to step"),
        ({"training": {"prompts": 3}}, {}, "prompts must be pairs of texts"),
        ({"training": {"prompts": [["a", 3]]}}, {}, "prompts must be pairs of texts"),
        ({"training": {"iterations": "many"}}, {}, "iterations must be a whole number"),
        ({"training": {"iterations": True}}, {}, "iterations must be a whole number"),
        ({"content": "0" * 16}, {}, "content is not what was written"),
        ({}, {"more": torch.zeros(2)}, "not those of its modules"),
    ],
)
def test_other_files_are_refused(
    tiny64: AceStep15, tmp_path: Path, fields: dict[str, Any], arrays: dict[str, torch.Tensor], words: str
) -> None:
    file = slider_of(tiny64).save(tmp_path / "mood.safetensors")
    old, texts = load_tensors(tmp_path, file.name)
    header = {**json.loads(texts["concept_slider"]), **fields}
    tensors = {**{name: torch.from_numpy(array) for name, array in old.items()}, **arrays}
    if "content" not in fields:
        header["content"] = content_of(header, {name: value.numpy() for name, value in tensors.items()})
    save_file(tensors, file, {"concept_slider": json.dumps(header)})
    with pytest.raises(UserError, match=words) as raised:
        load_slider(file)
    assert "not a slider, or is damaged" in str(raised.value)


@pytest.mark.parametrize("from_end", [1, 40])
def test_a_changed_number_is_noticed(tiny64: AceStep15, tmp_path: Path, from_end: int) -> None:
    file = slider_of(tiny64).save(tmp_path / "mood.safetensors")
    data = bytearray(file.read_bytes())
    data[-from_end] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match="content is not what was written"):
        load_slider(file)


def test_sliders_that_could_not_be_read_again_are_not_written(tiny64: AceStep15, tmp_path: Path) -> None:
    slider = slider_of(tiny64)
    for wrong in (
        {"positive": slider.negative},
        {"concept": "a\nb"},
        {"alpha": float("nan")},
        {"sigmas": slider.sigmas[:2]},
    ):
        with pytest.raises(UserError, match=r"The slider cannot be written to .*mood"):
            replace(slider, **wrong).save(tmp_path / "mood")
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_sliders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    for name, words in [("text", "damaged"), ("plain.safetensors", "no slider"), ("none", "cannot be read")]:
        with pytest.raises(UserError, match=words):
            load_slider(tmp_path / name)
    with pytest.raises(UserError, match=r"is a folder. Give the file of a slider.$"):
        load_slider(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "vector", {"steering_vector": "{}"})
    with pytest.raises(UserError, match="is a steering vector; `workbench steer apply --pack` uses it"):
        load_slider(tmp_path / "vector")


# Published LoRAs


def lora_of(model: AudioDiffusionModel, modules: list[str], prefix: str = "") -> dict[str, torch.Tensor]:
    """Random factors of rank 4 for modules, under published names."""
    draws, weights = torch.Generator().manual_seed(1), {}
    for module in modules:
        linear = model.denoiser.get_submodule(module)
        down, up = (
            torch.randn(4, linear.in_features, generator=draws),
            torch.randn(linear.out_features, 4, generator=draws),
        )
        weights |= {f"{prefix}{module}.lora_A.weight": down, f"{prefix}{module}.lora_B.weight": up}
    return weights


@pytest.mark.parametrize("prefix", ["transformer.", "unet.", "base_model.model."])
def test_a_lora_may_name_its_network(tiny64: AceStep15, tmp_path: Path, prefix: str) -> None:
    module = "layers.1.cross_attn.to_q"
    folder = write_lora(tmp_path / "lora", lora_of(tiny64, [module], prefix))
    assert (
        published_slider(tiny64, str(folder), settings=SETTINGS).factors["tf1.cross_attn.q"].module == module
    )


def test_a_published_lora_steers_like_merged_weights(subject: Subject, tmp_path: Path) -> None:
    model, strength = subject.exact, 1.5
    modules = [name for name, site in linear_sites(model).items() if site.block == subject.block]
    assert len(modules) == 8
    weights = lora_of(model, modules)
    slider = published_slider(model, str(write_lora(tmp_path / "lora", weights)), settings=subject.settings)
    assert (slider.concept, slider.positive, slider.negative) == ("mood", "happy", "sad")
    assert (slider.rank, slider.alpha, len(slider.factors), slider.model) == (4, 1.0, 8, None)
    run = Run(CLIP, slider.at(strength))
    plain, made = model.generate_batch([CLIP, run], subject.settings).latents
    kept = {module: model.denoiser.get_submodule(module).weight.detach().clone() for module in modules}
    try:
        for module in modules:
            down, up = (weights[f"{module}.lora_{part}.weight"].double() for part in "AB")
            model.denoiser.get_submodule(module).weight.data += strength / 4 * up @ down
        merged = model.generate_batch([CLIP], subject.settings).latents[0]
    finally:
        for module, weight in kept.items():
            model.denoiser.get_submodule(module).weight.data.copy_(weight)
    assert_close(made, merged)
    assert difference(made, plain) > 1e-3


def test_a_saved_published_lora_has_no_model(tiny64: AceStep15, tmp_path: Path) -> None:
    weights = lora_of(tiny64, ["layers.1.cross_attn.to_q"])
    slider = published_slider(tiny64, str(write_lora(tmp_path / "lora", weights)), settings=SETTINGS)
    assert load_slider(slider.save(tmp_path / "s.safetensors")).at(2.0) == slider.at(2.0)
    assert all(edit.made_on is None for edit in slider.at(2.0))
    assert "unknown weights" in repr(slider)


def test_the_configuration_in_the_file_has_precedence(tiny64: AceStep15, tmp_path: Path) -> None:
    weights = lora_of(tiny64, ["layers.1.cross_attn.to_q"])
    folder = write_lora(tmp_path / "lora", weights)
    file = folder / "pytorch_lora_weights.safetensors"
    for text, alpha in [('{"r": 4, "lora_alpha": 8}', 8.0), ('{"r": 4}', 1.0)]:
        save_file(weights, file, {"lora_adapter_metadata": text})
        assert published_slider(tiny64, str(folder), settings=SETTINGS).alpha == alpha
    for text, words in [
        ('{"r": 5}', "another rank"),
        ("[", "damaged configuration"),
        ("[1]", "damaged configuration"),
        ('{"use_rslora": true}', "plain LoRA with one scale"),
        ('{"alpha_pattern": {"to_q": 2}}', "has alpha_pattern"),
    ]:
        save_file(weights, file, {"lora_adapter_metadata": text})
        with pytest.raises(UserError, match=words):
            published_slider(tiny64, str(folder), settings=SETTINGS)


def wider(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: torch.cat([value, value], dim=-1 if "lora_A" in name else 0) for name, value in weights.items()
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda own: {name.replace("layers", "blocks"): value for name, value in own.items()},
            "no module of",
        ),
        (
            lambda own: {name.replace("to_q", "add_q_proj"): value for name, value in own.items()},
            "no module of",
        ),
        (
            lambda own: {
                **own,
                **{name.replace("layers.1", "layers.7"): value for name, value in own.items()},
            },
            r"changes 1 modules that .* lacks .* layers\.7\.cross_attn\.to_q",
        ),
        (
            lambda own: {
                **own,
                **{name.replace("cross_attn.to_q", "mlp.up_proj"): v for name, v in own.items()},
            },
            r"such as layers\.1\.mlp\.up_proj",
        ),
        (wider, r"must be of a weight with .* outputs and .* inputs"),
    ],
)
def test_loras_of_other_models_are_refused(
    tiny64: AceStep15, tmp_path: Path, change: Any, words: str
) -> None:
    weights = change(lora_of(tiny64, ["layers.1.cross_attn.to_q"]))
    folder = write_lora(tmp_path / "lora", {name: value.clone() for name, value in weights.items()})
    with pytest.raises(UserError, match=words):
        published_slider(tiny64, str(folder), settings=SETTINGS)


@pytest.mark.parametrize("subject", [V1], indirect=True, ids=["ACE-Step v1"])
def test_modules_that_compute_nothing_are_left_out(tmp_path: Path, subject: Subject) -> None:
    modules = [f"transformer_blocks.1.cross_attn.{name}" for name in ("to_k", "add_k_proj", "to_add_out")]
    folder = write_lora(tmp_path / "lora", lora_of(subject.single, modules))
    slider = published_slider(subject.single, str(folder), settings=subject.settings)
    assert slider.sites == ("tf1.cross_attn.k",)
    weights = lora_of(subject.single, modules[1:])
    with pytest.raises(UserError, match="no module of"):
        published_slider(
            subject.single, str(write_lora(tmp_path / "none", weights)), settings=subject.settings
        )
