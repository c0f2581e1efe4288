"""What `generate` gives: labelled activations, and audio to play and to save."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from cache.errors import UserError
from tests.tolerances import assert_close, difference
from workbench.engine.edits import Edit, Run, ablate, add, add_velocity, all_edits, low_rank, patch
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.ace_step import AceStep15
from workbench.models.base import AudioDiffusionModel
from workbench.models.generated import Activations, GeneratedClip, GeneratedClips

SETTINGS = GenerationSettings(duration=1.0, num_steps=3)
CLIPS = [Clip("a sad song", seed=2**64 - 1), Clip("a happy song", seed=1)]
SITE = "tf1.cross_attn"


@pytest.fixture(scope="module")
def two(model64: AudioDiffusionModel) -> GeneratedClips:
    return model64.generate(CLIPS, SETTINGS, capture=[SITE, "tf0.cross_attn.k"])


def test_activations_are_the_batch_s_with_labels(model64: AudioDiffusionModel, two: GeneratedClips) -> None:
    array = two.activations[SITE]
    assert array.dims == ("clip", "step", "pass", "token", "channel")
    assert array["prompt"].values.tolist() == [clip.prompt for clip in CLIPS]
    assert array["seed"].values.tolist() == [clip.seed for clip in CLIPS]
    assert array["step"].values.tolist() == [0, 1, 2]
    assert array["sigma"].dims == ("step",)
    assert array["sigma"].values.tolist() == model64.sigmas(SETTINGS)
    in_every_step = {"AceStep15": ["cond", "null"], "AceStepV1": ["cond"]}[type(model64).__name__]
    assert array["pass"].values.tolist() == in_every_step
    assert array["seconds"].values.tolist() == [
        token * model64.token_seconds for token in range(model64.tokens(1.0))
    ]
    assert array.sel(step=2)["sigma"] == model64.sigmas(SETTINGS)[2]

    wanted = Capture((Site(1, "cross_attn"),), (0, 1, 2), tuple(in_every_step))
    plain = model64.generate_batch(CLIPS, SETTINGS, capture=wanted)
    assert_close(torch.from_numpy(array.values), plain.activations[Site(1, "cross_attn")].float())


def test_conditioning_tokens_have_no_seconds(two: GeneratedClips) -> None:
    assert "seconds" not in two.activations["tf0.cross_attn.k"].coords


def test_each_clip_has_its_own_part(two: GeneratedClips) -> None:
    assert [clip.clip for clip in two] == CLIPS
    assert len(two) == 2
    last = two[-1]
    assert last.activations[SITE]["prompt"].values.tolist() == ["a happy song"]
    np.testing.assert_array_equal(last.activations[SITE].values, two.activations[SITE].values[1:])
    assert two[1:].activations[SITE].sizes["clip"] == len(two[1:]) == 1


def test_one_clip_gives_one(tiny: AceStep15) -> None:
    alone = tiny.generate(CLIPS[1], SETTINGS)
    assert isinstance(alone, GeneratedClip)
    assert alone.sample_rate == tiny.sample_rate
    assert alone.seconds == 1.0
    audio = tiny.decode(tiny.generate_batch([CLIPS[1]], SETTINGS).latents, 1.0)
    assert_close(torch.from_numpy(alone.samples), audio[0])


def test_the_passes_are_those_of_every_step(tiny: AceStep15) -> None:
    """Where guidance acts in some steps only, the null pass is not in all of them."""
    narrow = SETTINGS.model_copy(update={"options": {"cfg_interval_end": 0.2}})
    of_steps = tiny.step_passes(narrow)
    assert {"null" in names for names in of_steps} == {True, False}
    array = tiny.generate(CLIPS[1], narrow, capture=SITE).activations[SITE]
    assert array["pass"].values.tolist() == ["cond"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"capture": ["tf1.nothing"]}, "not a site"),
        ({"capture": ["tf7.block"]}, "tf0 to tf1"),
        ({"clips": []}, "empty"),
    ],
    ids=["part", "block", "no clips"],
)
def test_what_there_is_not(tiny: AceStep15, asked: dict[str, list[str]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        tiny.generate(asked.pop("clips", CLIPS), SETTINGS, **asked)


def test_activations_that_were_not_asked_for(two: GeneratedClips, tiny: AceStep15) -> None:
    with pytest.raises(UserError, match=re.escape("tf1.cross_attn")):
        _ = two.activations["tf0.block"]
    assert "tf0.block" not in two.activations
    with pytest.raises(UserError, match=re.escape("capture=['tf0.block']")):
        _ = tiny.generate(CLIPS[1], SETTINGS).activations["tf0.block"]


def test_numbers_that_break_are_an_error(tiny: AceStep15, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = tiny.decode
    monkeypatch.setattr(tiny, "decode", lambda *given: decode(*given) * float("nan"))
    with pytest.raises(UserError, match=r"a happy song.*NaN or infinite.*: check the model's weights"):
        tiny.generate(CLIPS[1], SETTINGS)


@pytest.mark.parametrize(
    "edit",
    [
        add(np.ones(32, np.float32), "tf0.cross_attn", 1e39),
        add(np.full(32, 1e20, np.float32), "tf0.cross_attn", 1e20),
        low_rank(np.ones((1, 32)), np.ones((32, 1)), "tf0.cross_attn", 1e39),
        add_velocity(CLIPS[0], CLIPS[1], 1e39),
    ],
    ids=["strength", "product", "low_rank", "velocity"],
)
def test_strengths_are_the_first_suspects_where_numbers_overflow(tiny: AceStep15, edit: Edit) -> None:
    with pytest.raises(UserError, match=r"a happy song.*NaN or infinite.*smaller strengths"):
        tiny.generate(CLIPS[1], SETTINGS, edits=edit)


LOUD = GeneratedClip(Clip("a <b>loud</b> song", 0), np.full((2, 800), 1.5, np.float32), 8000, Activations({}))


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_saving(tmp_path: Path, ending: str) -> None:
    """Samples are cut to what a file can hold, and a file that is there is written over."""
    file = tmp_path / "new" / f"clip.{ending}"
    for _ in range(2):
        assert LOUD.save(str(file)) == file
    samples, rate = soundfile.read(file)
    assert (samples.shape, rate) == ((800, 2), 8000)
    if ending != "ogg":
        assert samples.max() == pytest.approx(1, abs=1e-4)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("name", ["clip", "clip.txt", "clip.opus"])
def test_saving_in_no_format(tmp_path: Path, name: str) -> None:
    odd = GeneratedClip(LOUD.clip, LOUD.samples, 12345, Activations({}))
    with pytest.raises(UserError, match=re.escape(name)):
        odd.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_saving_into_a_file_s_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        LOUD.save(tmp_path / "file" / "clip.wav")


def test_a_player_in_html() -> None:
    html = LOUD._repr_html_()
    assert "&lt;b&gt;loud" in html
    assert '<audio controls src="data:audio/flac;base64,' in html


def test_playing_outside_a_notebook_says_what_to_do() -> None:
    with pytest.warns(UserWarning, match="save"):
        LOUD.play()


IN_A_NOTEBOOK = """
import numpy as np
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from workbench.engine.runs import Clip
from workbench.models.generated import Activations, GeneratedClip, generated_clips

shell = InteractiveShell.instance()
none = Activations({})
two = generated_clips([Clip("one", 0), Clip("two", 0)], np.zeros((2, 1, 800), "float32"), 8000, none)
shell.user_ns["two"] = two
with capture_output() as shown:
    shell.run_cell("two.play(); two[0].play()").raise_error()
for output in shown.outputs:
    print(output.data["text/html"].count("<audio"))
"""


def test_playing_in_a_notebook_shows_players() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_NOTEBOOK], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("2\n1\n", "")


def test_edits_are_of_every_clip(tiny64: AceStep15) -> None:
    """A patch of everything that both cross-attentions read makes the source of each clip, whose noise is its own."""
    source, one, other = Clip("a sad song", 5), Clip("a happy song", 5), Clip("a happy song", 5)
    plain = tiny64.generate(source, SETTINGS)
    edits = [[patch("tf0.cross_attn", source)], patch("tf1.cross_attn", source=source)]
    for clip in tiny64.generate([one, other], SETTINGS, edits=edits):
        assert_close(torch.from_numpy(clip.samples), torch.from_numpy(plain.samples))
    half = tiny64.generate(one, SETTINGS, edits=patch("tf1.cross_attn", source))
    assert difference(half.samples, plain.samples) > 1e-3


def test_activations_are_those_of_the_edited_run(tiny64: AceStep15) -> None:
    run = tiny64.generate(CLIPS[1], SETTINGS, edits=ablate(SITE), capture=SITE)
    assert not run.activations[SITE].values.any()
    assert run.activations[SITE]["prompt"].values.tolist() == ["a happy song"]


NOWHERE = {
    "steps": (ablate(SITE, steps=(5, 9)), "steps 5 to 9, and the run has 3 steps"),
    "sigmas": (ablate(SITE, sigmas=(2.0, 3.0)), r"sigmas 2 to 3, and the run has 3 steps \(sigmas 1, "),
    "passes": (ablate(SITE, passes=("text",)), "passes text, and the run has .* passes cond, null"),
    "both": (ablate(SITE, steps=(0, 0), sigmas=(0.5, 0.8)), "steps 0 to 0, sigmas 0.5 to 0.8"),
    "tokens": (ablate(SITE, tokens=(900, 901)), "tokens 900 to 901, and the site has tokens 0 to"),
    "conditioning": (ablate("tf1.cross_attn.k", tokens=(9000, 9001)), "tokens 9000 to 9001"),
}


@pytest.mark.parametrize(("edit", "words"), NOWHERE.values(), ids=NOWHERE)
def test_an_edit_that_acts_nowhere_is_an_error(tiny: AceStep15, edit: Edit, words: str) -> None:
    of_source = patch(SITE, Run(CLIPS[0], (edit,)), target="output")
    for edits in ([edit], [of_source]):
        with pytest.raises(UserError, match=words):
            tiny.generate(CLIPS[1], SETTINGS, edits=edits)


@pytest.mark.parametrize(
    "window",
    [
        {"steps": (1, 9)},
        {"sigmas": (0.7, 3.0)},
        {"passes": ("cond", "text")},
        {"tokens": (0, 901)},
        {"passes": ("null",)},
    ],
    ids=["steps", "sigmas", "passes", "tokens", "guidance"],
)
def test_an_edit_that_acts_in_part_of_its_window_is_right(tiny: AceStep15, window: dict[str, Any]) -> None:
    """A pass that guidance turns off in some steps, here in all, is one of the run's."""
    off = SETTINGS.model_copy(update={"options": {"cfg_interval_start": 0.9}})
    settings = off if window == {"passes": ("null",)} else SETTINGS
    assert tiny.generate(CLIPS[1], settings, edits=ablate(SITE, **window)).seconds == SETTINGS.duration


def test_an_edit_of_words_that_no_clip_has_is_an_error(tiny: AceStep15) -> None:
    """The first word differs, so that nothing is before it."""
    first, other = (Clip(prompt, 0) for prompt in ("happy song", "sad song"))
    before = patch("tf1.cross_attn", first, segments=("before",))
    with pytest.raises(UserError, match=r"acts on no token: .* segment before"):
        tiny.generate(other, SETTINGS, edits=before)
    after = patch("tf1.cross_attn", first, segments=("before", "after"))
    assert tiny.generate(other, SETTINGS, edits=after).seconds == SETTINGS.duration


def test_it_says_what_it_is(tiny: AceStep15) -> None:
    assert repr(tiny) == f"AceStep15({tiny.name}: 2 blocks, float32 on cpu)"


def test_what_is_no_edit() -> None:
    with pytest.raises(UserError, match=r"patch.*not 'tf1.cross_attn'"):
        all_edits.__wrapped__("tf1.cross_attn")  # without the type check, which users do not have
