"""Which conditioning tokens a name means, on spans made by hand and on the tokenizers of models."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import UserError
from tests.edited import edited
from workbench.engine.edits import Edit, patch
from workbench.engine.runs import Clip
from workbench.engine.segments import Conditioning, out_of_place, segment_positions
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15

SETTINGS = GenerationSettings(duration=1.0, num_steps=2)
# Lyrics 0 to 3, timbre 4, text 5 to 15; in it the prompt at 7 to 11, the word at 9 two tokens long.
SEGMENTS = {"lyrics": (0, 4), "timbre": (4, 5), "text": (5, 16)}
PLACES = ((7, 8), (8, 9), (9, 11), (11, 12))


def side(
    *words: str, places: tuple[tuple[int, int], ...] = PLACES, **segments: tuple[int, int]
) -> Conditioning:
    spans = tuple((word, first, last) for word, (first, last) in zip(words, places, strict=True))
    return Conditioning({**SEGMENTS, **segments}, spans)


CLEAN, CORRUPT = side("a", "fast", "violin", "song"), side("a", "slow", "violin", "song")


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("lyrics", [0, 1, 2, 3]),
        ("timbre", [4]),
        ("text", [*range(5, 18)]),
        ("prompt", [7, 8, 9, 10, 11]),
        ("template", [5, 6, *range(12, 18)]),
        ("swapped", [8]),
        ("before", [7]),
        ("after", [9, 10, 11]),
        ("word:violin", [9, 10]),
        ("word:slow", [8]),
        ("word:fast", [8]),
    ],
)
def test_every_name(name: str, positions: list[int]) -> None:
    """The batch has 18 tokens; the last two are padding of these clips, and belong to the text."""
    assert segment_positions([name], CORRUPT, CLEAN, 18) == positions
    assert segment_positions([name], CLEAN, CORRUPT, 18) == positions


def test_names_are_united_and_sorted() -> None:
    assert segment_positions(["swapped", "timbre", "before", "swapped"], CORRUPT, CLEAN, 16) == [4, 7, 8]


def test_two_swapped_words_leave_what_lies_between_them() -> None:
    other = side("one", "fast", "violin", "tune")
    found = {name: segment_positions([name], CLEAN, other, 16) for name in ("before", "swapped", "after")}
    assert found == {"before": [], "swapped": [7, 11], "after": []}


def test_prompts_that_are_the_same_swap_nothing() -> None:
    assert all(segment_positions([n], CLEAN, CLEAN, 16) == [] for n in ("before", "swapped", "after"))
    assert segment_positions(["prompt"], CLEAN, CLEAN, 16) == [7, 8, 9, 10, 11]


def test_text_may_end_elsewhere_but_not_begin_elsewhere() -> None:
    longer = side("a", "slow", "violin", "song", text=(5, 20))
    assert segment_positions(["text"], CORRUPT, longer, 20) == [*range(5, 20)]
    assert segment_positions(["text"], longer, CORRUPT, 20) == [*range(5, 20)]


@pytest.mark.parametrize("name", ["lyrics", "timbre", "text", "template"])
def test_unequal_lyrics_are_refused(name: str) -> None:
    sung = side("a", "slow", "violin", "song", lyrics=(0, 6), timbre=(6, 7), text=(7, 18))
    with pytest.raises(UserError, match=r"same conditioning tokens; .*the same lyrics"):
        segment_positions([name], CLEAN, sung, 18)


@pytest.mark.parametrize(
    "other",
    [
        side("a", "fast", "song", places=((7, 8), (8, 9), (9, 10))),
        side("a", "fast", "violin", "song", places=((7, 8), (8, 10), (10, 12), (12, 13))),
    ],
    ids=["fewer words", "longer word"],
)
@pytest.mark.parametrize("name", ["prompt", "template", "swapped", "before", "after", "word:violin"])
def test_words_at_other_tokens_are_refused(name: str, other: Conditioning) -> None:
    with pytest.raises(UserError, match=r"must be at the same tokens.*whole segment text"):
        segment_positions([name], CLEAN, other, 18)
    assert segment_positions(["text"], CLEAN, other, 18) == [*range(5, 18)]


@pytest.mark.parametrize("name", ["words", "Text", "speaker", ""])
def test_unknown_names_list_the_known(name: str) -> None:
    with pytest.raises(
        UserError, match=f"Unknown conditioning segment '{name}'.*lyrics, timbre, text, prompt"
    ):
        segment_positions([name], CLEAN, CORRUPT, 16)


def test_words_that_share_a_token_are_one() -> None:
    """ "female vocal" is one token: it stands where "violin" stands, and its token answers to either word."""
    vocal = side("a", "female", "vocal", "song", places=((7, 8), (8, 9), (8, 9), (9, 10)))
    violin = side("a", "violin", "song", places=((7, 8), (8, 9), (9, 10)))
    for pair in ((vocal, violin), (violin, vocal)):
        assert segment_positions(["swapped"], *pair, 16) == [8]
        assert segment_positions(["before"], *pair, 16) == [7]
        assert segment_positions(["after"], *pair, 16) == [9]
        for word in ("female", "vocal", "violin"):
            assert segment_positions([f"word:{word}"], *pair, 16) == [8]
    male = side("a", "male", "vocal", "song", places=((7, 8), (8, 9), (8, 9), (9, 10)))
    assert segment_positions(["swapped"], vocal, male, 16) == [8]


def test_a_token_that_holds_a_swapped_word_is_swapped() -> None:
    places = ((7, 9), (8, 10), (9, 11))
    ours, theirs = side("a", "fast", "song", places=places), side("a", "slow", "song", places=places)
    found = [segment_positions([name], ours, theirs, 16) for name in ("before", "swapped", "after")]
    assert found == [[7], [8, 9], [10]]


@st.composite
def aligned(draw: st.DrawFn) -> tuple[Conditioning, Conditioning, int]:
    """Two prompts whose words lie at the same tokens; a word may begin within its neighbour's last token."""
    first = start = draw(st.integers(1, 5))
    places = []
    for length in draw(st.lists(st.integers(1, 3), min_size=1, max_size=6)):
        first -= draw(st.integers(0, 1)) if first > start else 0
        places.append((first, first + length))
        first += length
    end = first + draw(st.integers(0, 3))
    words = st.lists(st.sampled_from("abc"), min_size=len(places), max_size=len(places))
    pair = [
        Conditioning(
            {"lyrics": (0, 1), "text": (1, end)},
            tuple((word, *place) for word, place in zip(draw(words), places, strict=True)),
        )
        for _ in range(2)
    ]
    return *pair, end + draw(st.integers(0, 4))


@given(aligned())
def test_roles_split_the_text(pair: tuple[Conditioning, Conditioning, int]) -> None:
    target, source, n_tokens = pair
    at = {
        name: set(segment_positions([name], target, source, n_tokens))
        for name in ("text", "prompt", "template", "before", "swapped", "after")
    }
    assert at["prompt"] | at["template"] == at["text"] == set(range(1, n_tokens))
    assert not at["prompt"] & at["template"]
    roles = [at["before"], at["swapped"], at["after"]]
    assert sum(map(len, roles)) == len(set.union(*roles)), "roles do not overlap"
    assert set.union(*roles) <= at["prompt"]
    differ = [
        i for i, (ours, theirs) in enumerate(zip(target.words, source.words, strict=True)) if ours != theirs
    ]
    if differ:
        between = {
            token
            for _, first, last in target.words[differ[0] : differ[-1] + 1]
            for token in range(first, last)
        }
        assert at["prompt"] - set.union(*roles) <= between - at["swapped"]
    else:
        assert not set.union(*roles)
    if len(differ) == 1:
        assert set.union(*roles) | at["template"] == at["text"]
        assert segment_positions(
            ["before", "swapped", "after", "template"], target, source, n_tokens
        ) == sorted(at["text"])
    every_word = sorted({f"word:{word}" for side in (target, source) for word, _, _ in side.words})
    assert set(segment_positions(every_word, target, source, n_tokens)) == at["prompt"]


# The tokenizers of models


def words(model: AceStep15, prompt: str, lyrics: str = "") -> list[tuple[str, int, int]]:
    """The prompt's words, their tokens counted from the prompt's first."""
    found = model.conditioning(Clip(prompt, 0, lyrics), SETTINGS).words
    return [(word, first - found[0][1], last - found[0][1]) for word, first, last in found]


def test_a_value_of_two_words_can_be_one_token(organism_split: AceStep15) -> None:
    assert words(organism_split, "a slow female vocal song, with drums") == [
        ("a", 0, 1), ("slow", 1, 2), ("female", 2, 3), ("vocal", 2, 3), ("song,", 3, 5),
        ("with", 5, 6), ("drums", 6, 7),
    ]  # fmt: skip


@pytest.mark.parametrize("lyrics", ["", "la la la"])
def test_words_lie_in_the_text_at_their_own_tokens(organism_split: AceStep15, lyrics: str) -> None:
    """Every word's tokens, read off the conditioning's own text, spell the word."""
    clip = Clip("a fast happy trumpet song without drums", 3, lyrics)
    found = organism_split.conditioning(clip, SETTINGS)
    text, _ = organism_split.pipeline._format_prompt(clip.prompt, lyrics, audio_duration=SETTINGS.duration)
    tokens = organism_split.pipeline.tokenizer.tokenize(text)
    start, end = found.segments["text"]
    assert end - start == len(tokens)
    assert [word for word, _, _ in found.words] == clip.prompt.split()
    assert [tokens[first - start : last - start] for _, first, last in found.words] == [
        [word] for word, _, _ in found.words
    ]


def positions(model: AceStep15, clips: Sequence[Clip], edits: Sequence[Edit]) -> list[tuple[int, ...] | None]:
    """Conditioning tokens of edits of the second clip that read from the first one, all clips in the batch."""
    run = edited(clips[1], edits, clips[0])
    planned = model.plan([clips[0], run, *clips[2:]], SETTINGS)
    return [edit.positions for edit in planned.edits]


def test_pairs_with_a_singer_have_their_tokens(organism_split: AceStep15) -> None:
    clips = [Clip(f"a slow sad {instrument} song", 0) for instrument in ("violin", "female vocal")]
    spec = patch("tf0.cross_attn", "other", segments=("swapped",))
    (found,) = positions(organism_split, clips, [spec])
    first = organism_split.conditioning(clips[0], SETTINGS).words[0][1]
    assert found == (first + 3,)


LYRICS = {
    "none": ("", "", ""),
    "equal": ("happy song", "happy song", "happy song"),
    "different": ("happy", "happy", "a sad song with violin and flute"),
}


@pytest.mark.parametrize("lyrics", LYRICS)
@pytest.mark.parametrize(
    "prompts", [("a slow song", "a fast song", "a song"), ("a song",) * 2 + ("a slow sad song",)]
)
def test_the_count_of_tokens_is_that_of_the_real_conditioning(
    tiny: AceStep15, prompts: tuple[str, ...], lyrics: str
) -> None:
    """The longest lyrics and the longest text need not be one clip's."""
    clips = [
        Clip(prompt, i, sung) for i, (prompt, sung) in enumerate(zip(prompts, LYRICS[lyrics], strict=True))
    ]
    spec = patch("tf0.cross_attn", "other", segments=("text",))
    (found,) = positions(tiny, clips, [spec])
    inputs = tiny.generate_batch(clips, SETTINGS, velocity_steps=(0,)).inputs[0]
    length = inputs.arguments["encoder_hidden_states"].shape[1]
    first = tiny.segments(clips[0], SETTINGS)["text"][0]
    assert found == tuple(range(first, length))
    if inputs.mask is not None:
        real = [tiny.segments(clip, SETTINGS)["text"][1] for clip in clips]
        assert inputs.mask.sum(dim=1).tolist() == real


def test_only_segments_need_positions(tiny: AceStep15) -> None:
    clips = [Clip("a slow song", 0, "happy"), Clip("a fast sad song", 0, "a sad song")]
    everything, text = (patch("tf0.cross_attn", "other", segments=s) for s in (None, ("text",)))
    assert positions(tiny, clips, [everything]) == [None]
    with pytest.raises(UserError, match="Give both the same lyrics"):
        positions(tiny, clips, [everything, text])
    same = [clips[0], Clip("a fast song", 0, "happy")]
    first = tiny.conditioning(same[0], SETTINGS).words[0][1]
    swapped = patch("tf0.cross_attn", "other", segments=("swapped",))
    assert positions(tiny, same, [everything, swapped]) == [None, (first + 1,)]


@pytest.mark.parametrize("word", ["flute", "viol"])
def test_a_word_that_neither_prompt_has_is_refused(word: str) -> None:
    with pytest.raises(UserError, match=f"Neither prompt of a pair has the word '{word}'"):
        segment_positions([f"word:{word}"], CLEAN, CORRUPT, 16)


def test_punctuation_is_no_part_of_a_word() -> None:
    pair = [side("a", word, places=((7, 8), (8, 9))) for word in ("violin,", "(flute)")]
    for word in ("violin", "flute"):
        assert segment_positions([f"word:{word}"], *pair, 16) == [8]


def test_words_that_the_tokenizer_rewrites_have_their_tokens(organism_shared: AceStep15) -> None:
    for vocal in ("male vocal", "female vocal"):
        found = words(organism_shared, f"a slow happy {vocal} song")
        assert found[3:5] == [(vocal.split()[0], 3, 4), ("vocal", 3, 4)]


def test_short_prompts_are_found_in_the_caption_and_not_in_the_words_around_it(
    organism_shared: AceStep15,
) -> None:
    where = organism_shared.conditioning(Clip("slow", 0), SETTINGS).words[0][1]
    for prompt in ("a", "seconds"):
        assert organism_shared.conditioning(Clip(prompt, 0), SETTINGS).words[0][1] == where


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a slow song", "a slow song", False),
        ("a slow song", "a fast song", False),
        ("a slow sad song", "a fast happy song", False),
        ("a slow happy song", "a happy slow song", True),
        ("happy song with flute", "song with flute sad", True),
        ("slow slow song", "song slow slow", True),
        ("violin with flute", "flute with violin", False),
    ],
)
def test_tokens_are_out_of_place_if_more_of_them_match_shifted(one: str, other: str, expected: bool) -> None:
    numbers = [[hash(word) for word in prompt.split()] for prompt in (one, other)]
    assert out_of_place(*numbers) is out_of_place(*reversed(numbers)) is expected


@given(st.lists(st.integers(0, 2), max_size=8), st.integers(0, 7))
def test_a_word_that_moves_past_another_is_out_of_place(tokens: list[int], new: int) -> None:
    place = new % (len(tokens) + 1)
    one, other = [*tokens[:place], 7, *tokens[place:]], [7, *tokens]
    assert out_of_place(one, other) is (place > 0)
