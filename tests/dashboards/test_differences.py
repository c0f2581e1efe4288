"""Where two prompts differ."""

from dashboards.differences import in_brackets, marked


def test_the_words_that_differ_are_marked() -> None:
    assert marked("a fast happy song", "a slow happy song") == ("a ", "fast", " happy song")
    assert marked("a song", "a song with loud drums") == ("a song ", "", "")
    assert marked("a song with loud drums", "a song") == ("a song ", "with loud drums", "")
    assert marked("x y", "a b") == ("", "x y", "")
    assert marked("a a b", "a b") == ("a ", "a", " b")
    assert marked("same  words", "same words") == ("same words",)


def test_what_differs_is_never_cut_off() -> None:
    start = "word " * 60
    before, differs, after = marked(f"{start}fast song", f"{start}slow song")
    assert (differs, after) == ("fast", " song")
    assert len(before) == 48
    assert before.startswith("…")
    assert before.endswith("word ")


def test_markup_stays_text() -> None:
    assert in_brackets("a <b>fast</b> song", "a slow song") == "a [<b>fast</b>] song"
    assert in_brackets("a song", "a song") == "a song"
