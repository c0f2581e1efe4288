"""The most telling tests of the product, on whatever device: a GPU gives what the CPU gives, and equally exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch

from analyses.sae.scaling import Scale
from analyses.sae.stream import Scaled
from analyses.sae.train import Trainer, train_spec
from cache import ActivationCache, CachePlan, CacheWriter
from cache.object_storage import memory_storage
from cache.pipeline import ShardPipeline
from cache.ring import DeviceRing
from cache.storage import Storage
from tests.cache.helpers import make_clips, make_plan
from tests.tolerances import FLOAT32, assert_close, difference
from workbench.engine.edits import Run, ablate, add, patch
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.models import load_model
from workbench.models.base import AudioDiffusionModel
from workbench.sae.bags import bag_dots, bag_sums

CLEAN, CORRUPT = Clip("a slow happy song", 1), Clip("a fast sad song", 1)
SETTINGS = {
    "tiny_folder": GenerationSettings(duration=1.0, num_steps=4, guidance_scale=3.0),
    "tiny_v1_folder": GenerationSettings(duration=1.0, num_steps=4, options={"guidance_interval": 1.0}),
}
SITE = "tf0.cross_attn"


@pytest.fixture(scope="module", params=list(SETTINGS))
def fixture_name(request: pytest.FixtureRequest) -> str:
    """A random model of each architecture."""
    return request.param


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, fixture_name: str) -> Path:
    """Where it is."""
    return request.getfixturevalue(fixture_name)


@pytest.fixture(scope="module")
def settings(fixture_name: str) -> GenerationSettings:
    """Settings with guidance in every step."""
    return SETTINGS[fixture_name]


@pytest.fixture(scope="module")
def model(folder: Path, device: str) -> AudioDiffusionModel:
    """It, in float64: what is compared exactly must not hang on float32's rounding."""
    return load_model(str(folder), device=device, dtype="float64")


def test_traced_equals_untraced(model: AudioDiffusionModel, settings: GenerationSettings) -> None:
    capture = Capture(tuple(model.sites()), (0, 3), ("cond", "null"))
    traced = model.generate_batch([CLEAN, CORRUPT], settings, capture=capture).latents
    untraced = model.output_latents(model.pipeline(**model.pipeline_arguments([CLEAN, CORRUPT], settings)))
    assert traced.device.type == model.device
    assert torch.equal(traced, untraced)


def test_the_device_makes_no_difference(
    folder: Path, model: AudioDiffusionModel, settings: GenerationSettings
) -> None:
    """Norms and rotary embeddings go through float32 in whatever model."""
    on_cpu = load_model(str(folder), dtype="float64")
    capture = Capture(tuple(model.sites()), (3,), ("cond",))
    here, there = (each.generate_batch([CLEAN], settings, capture=capture) for each in (model, on_cpu))
    assert difference(here.latents, there.latents) <= FLOAT32
    for site in model.sites():
        assert difference(here.activations[site], there.activations[site]) <= FLOAT32, site


def test_arms_equal_single_runs(model: AudioDiffusionModel, settings: GenerationSettings) -> None:
    channels = model.channels(model.sites()[0])
    vector = np.linspace(-1, 1, channels)
    edits = [
        patch(SITE, CLEAN),
        patch("tf1.block", CLEAN, target="output", steps=(2, 3)),
        ablate(SITE),
        add(vector, "tf1.cross_attn", strength=3.0),
    ]
    arms = [Run(CORRUPT, (edit,)) for edit in edits]
    together = model.generate_batch([CLEAN, CORRUPT, *arms], settings).latents
    for i, arm in enumerate(arms):
        alone = model.generate_batch([CLEAN, arm], settings).latents
        assert_close(together[2 + i], alone[1], edits[i])
        assert difference(alone[1], together[1]) > FLOAT32, "the edit does something"


PLAN = make_plan(
    sites={SITE: 256, "tf1.mlp": 64},
    dtypes={SITE: "bfloat16", "tf1.mlp": "float16"},
    n_clips=7,
    tokens=300,
)


def values_of(plan: CachePlan, site: str) -> torch.Tensor:
    return torch.randn(plan.shape(site), generator=torch.Generator().manual_seed(len(site)))


def write(device: str) -> Storage:
    """More shards than there are slots, from values that are overwritten as soon as they were added."""
    storage = memory_storage()
    with CacheWriter(storage, PLAN, make_clips(PLAN)) as writer, ShardPipeline(writer, device) as pipeline:
        for shard in writer.missing():
            first, last = PLAN.shard_clips(shard)
            pipeline.begin(shard)
            for site in PLAN.sites:
                for position, step in enumerate(PLAN.steps):
                    values = values_of(PLAN, site)[first : last + 1, position].to(device)
                    pipeline.add(site, step, values)
                    values.fill_(7)
            pipeline.end()
    return storage


def test_what_is_written_from_the_device_is_read_again(device: str) -> None:
    cache = ActivationCache(write(device))
    for site, dtype in PLAN.dtypes.items():
        expected = values_of(PLAN, site).to(getattr(torch, dtype)).float()
        np.testing.assert_array_equal(cache.read(site), expected.numpy())


def test_rounding_is_measured_as_on_the_cpu(device: str) -> None:
    here, there = (ActivationCache(write(where)).manifest.entries for where in (device, "cpu"))
    assert here == there


def test_rows_on_the_device_are_those_of_the_cache(device: str) -> None:
    cache = ActivationCache(write("cpu"))
    batches = [list(cache.shuffled_rows(SITE, 128, seed=0, device=where)) for where in (device, "cpu")]
    assert {batch.device.type for batch in batches[0]} == {device}
    assert torch.equal(torch.cat(batches[0]).cpu(), torch.cat(batches[1]))


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_ring_on_the_device_holds_rows_of_the_cache(device: str, share: float) -> None:
    cache = ActivationCache(write("cpu"))
    rows = values_of(PLAN, SITE).to(torch.bfloat16).flatten(0, -2)
    budget = int(share * rows.numel() * rows.element_size())
    with DeviceRing(cache.shuffled_rows(SITE, 128, seed=0, device=device), budget, device) as ring:
        for _ in range(3):
            drawn = ring.sample(500)
            assert drawn.device.type == device
            known = {row.tobytes() for row in rows.view(torch.int16).numpy()}
            assert {row.tobytes() for row in drawn.cpu().view(torch.int16).numpy()} <= known
            ring.refresh(200)


def test_a_training_step_is_that_of_the_cpu(device: str) -> None:
    """In float64: Adam divides by the gradient's size, and near zero makes much of rounding."""
    spec = train_spec(SITE, expansion=4, k=4, train_steps=3, aux_coefficient=1 / 32)
    rows = torch.randn(3, 256, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    trained = []
    for where in (device, "cpu"):
        trainer = Trainer(spec, [Scale(torch.zeros(1, 24), torch.ones(1, 1), (), np.zeros(1))], where)
        trainer.sae.double()
        trainer.silent_steps[:50] = 1000  # dead ones: the auxiliary loss takes part
        for step, batch in enumerate(rows):
            trainer.step(step, Scaled(batch.to(where), batch.to(where)))
        trained.append(trainer.finish())
    (here, curves), (there, expected) = trained
    for name, parameter in here.named_parameters():
        assert difference(parameter, there.get_parameter(name)) <= FLOAT32, name
    for curve in expected:
        assert difference(curves[curve].values, expected[curve].values) <= FLOAT32, curve


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_products_are_those_of_the_cpu(device: str, dtype: torch.dtype) -> None:
    """Bags without codes, with one, and with more than a program reads at once; channels that fill no block."""
    generator = torch.Generator().manual_seed(0)
    start = torch.tensor([0, 0, 1, 40, 41, 41, 60])
    index = torch.randint(30, (60,), generator=generator)
    table, rows, value = (
        torch.randn(shape, generator=generator, dtype=dtype) for shape in ((30, 700), (6, 700), (60,))
    )
    for product, given in ((bag_sums, value), (bag_dots, rows)):
        here = product(table.to(device), index.to(device), given.to(device), start.to(device))
        assert here.device.type == device
        assert_close(here, product(table, index, given, start))
