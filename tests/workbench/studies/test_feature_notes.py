"""Labels, notes, stars and sets of features in a study's SQLite file."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cache.errors import UserError
from workbench.sae.stored import WEIGHTS_FILE
from workbench.studies import feature_notes as notes
from workbench.studies.feature_notes_csv import import_notes, notes_csv

SAE = "tf3.cross_attn"
SAES = {SAE: 48}
HOSTILE = '=HYPERLINK("http://a")'


def test_nothing_is_made_before_something_is_written(tmp_path: Path) -> None:
    assert notes.read_feature(tmp_path, SAE, 3)["label"] == notes.Entry()
    assert (notes.read_all(tmp_path, SAE), notes.set_names(tmp_path)) == ({}, [])
    assert (notes.read_everything(tmp_path), notes.read_predecessors(tmp_path, SAE)) == ([], (0, {}))
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_read(tmp_path: Path) -> None:
    first = notes.write(tmp_path, SAE, 3, "label", " drums ", read=0).entry
    assert (first.value, first.revision) == ("drums", 1)
    notes.write(tmp_path, SAE, 3, "note", "<b>loud</b>\nand late")
    notes.write(tmp_path, SAE, 5, "star", "1")
    assert notes.read_feature(tmp_path, SAE, 3)["note"].value == "<b>loud</b>\nand late"
    assert notes.read_all(tmp_path, SAE) == {
        3: {"label": "drums", "note": "<b>loud</b>\nand late"}, 5: {"star": "1"}
    }  # fmt: skip
    notes.write(tmp_path, SAE, 5, "star", "", read=1)
    assert notes.read_all(tmp_path, SAE).keys() == {3}


def test_of_two_labels_the_last_stays_and_the_other_is_told_and_kept(tmp_path: Path) -> None:
    theirs = notes.write(tmp_path, SAE, 3, "label", "drums", read=0)
    mine = notes.write(tmp_path, SAE, 3, "label", "hi-hat", read=0)
    assert theirs.unread is None
    assert mine.unread == theirs.entry
    assert mine.entry.value == "hi-hat"
    assert notes.read_earlier(tmp_path, SAE, 3) == [("label", theirs.entry)]
    again = notes.write(tmp_path, SAE, 3, "label", "snare", read=mine.entry.revision)
    assert again.unread is None, "it had been read"


def test_of_two_notes_both_stay(tmp_path: Path) -> None:
    notes.write(tmp_path, SAE, 3, "note", "theirs", read=0)
    written = notes.write(tmp_path, SAE, 3, "note", "mine", read=0)
    assert written.unread is not None
    kept = notes.read_feature(tmp_path, SAE, 3)["note"].value
    assert kept == written.entry.value
    assert kept.startswith("mine\n")
    assert kept.endswith("\ntheirs")


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: notes.write(tmp_path, SAE, 3, "note", f"note {n};", read=0), range(12)))
    kept = notes.read_feature(tmp_path, SAE, 3)["note"].value
    assert [f"note {n};" in kept for n in range(12)] == [True] * 12


def test_earlier_values_are_bounded(tmp_path: Path) -> None:
    for number in range(notes.KEPT + 5):
        notes.write(tmp_path, SAE, 3, "label", f"label {number}")
    assert len(notes.read_earlier(tmp_path, SAE, 3)) == notes.KEPT
    assert notes.read_earlier(tmp_path, SAE, 3)[0][1].value == f"label {notes.KEPT + 3}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("label", "x" * (notes.LONGEST["label"] + 1)),
        ("label", "two\nlines"),
        ("note", "bell \x07"),
        ("note", "\ud800"),
        ("star", "2"),
    ],
)
def test_what_is_too_long_or_has_control_characters_is_refused(
    tmp_path: Path, field: notes.NoteField, value: str
) -> None:
    with pytest.raises(UserError, match=field):
        notes.write(tmp_path, SAE, 3, field, value)


def test_sets_have_features_of_autoencoders(tmp_path: Path) -> None:
    notes.change_set(tmp_path, "loud", SAE, add=[5, 3, 5])
    notes.change_set(tmp_path, "loud", "other", add=[1])
    notes.change_set(tmp_path, "late", SAE, add=[3])
    assert notes.read_set(tmp_path, "loud", SAE) == [3, 5]
    assert notes.sets_of(tmp_path, SAE, 3) == ["late", "loud"]
    notes.change_set(tmp_path, "late", SAE, remove=[3])
    assert notes.set_names(tmp_path) == ["loud"]
    for name in (" ", "loud;late"):
        with pytest.raises(UserError, match="1 to 100"):
            notes.change_set(tmp_path, name, SAE, add=[1])
    with pytest.raises(UserError, match="at most"):
        notes.change_set(tmp_path, "loud", SAE, add=range(notes.MOST_IN_SET + 1))
    assert notes.read_set(tmp_path, "loud", SAE) == [3, 5], "undone"


def test_a_file_that_is_being_made_has_nothing_yet(tmp_path: Path) -> None:
    with notes._writing(tmp_path):
        assert (tmp_path / notes.FILE).exists()
        assert notes.read_feature(tmp_path, SAE, 5)["label"] == notes.Entry()
        assert notes.read_everything(tmp_path) == []
    assert notes.read_everything(tmp_path) == []


def test_notes_go_to_csv_and_back(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    texts = [HOSTILE, f"'{HOSTILE}", "'tis", 'a "quoted", one', "<script>alert(1)</script>", "-1"]
    for number, text in enumerate(texts):
        notes.write(first, SAE, number, "label", text)
        notes.write(first, SAE, number, "note", f"{text}\nsecond line")
    notes.write(first, SAE, 0, "star", "1")
    for name in ("=late", "loud"):
        notes.change_set(first, name, SAE, add=[0, 9])
    content = notes_csv(first)
    assert f"\n{SAE},0,\"'=HYPERLINK" in content, "no formula"
    assert f"\n{SAE},9,,,,'=late; loud,\n" in content
    assert notes_csv(first, "another") == content.partition("\n")[0] + "\n"
    assert import_notes(second, content.encode(), SAES) == (2 * len(texts) + 1 + 4, 0)
    assert notes.read_everything(second) == notes.read_everything(first)
    assert import_notes(second, content.encode(), SAES) == (0, 0)
    with pytest.raises(UserError, match="at most"):
        import_notes(second, f"sae,feature,sets\n{SAE},7,{';'.join(map(str, range(201)))}\n".encode(), SAES)


def train_again(study: Path, weights: bytes) -> None:
    (study / "sae" / SAE).mkdir(parents=True, exist_ok=True)
    (study / "sae" / SAE / WEIGHTS_FILE).write_bytes(weights)


def test_an_autoencoder_that_was_trained_again_has_notes_of_its_own(tmp_path: Path) -> None:
    train_again(tmp_path, b"first")
    notes.write(tmp_path, SAE, 3, "label", "drums")
    notes.change_set(tmp_path, "loud", SAE, add=[3, 5])
    assert notes.read_predecessors(tmp_path, SAE) == (0, {})
    train_again(tmp_path, b"second")
    assert (notes.read_all(tmp_path, SAE), notes.read_set(tmp_path, "loud", SAE)) == ({}, [])
    assert notes.read_feature(tmp_path, SAE, 3)["label"] == notes.Entry()
    assert notes.sets_of(tmp_path, SAE, 3) == []
    assert notes.read_predecessors(tmp_path, SAE) == (2, {"loud": 2})
    notes.write(tmp_path, SAE, 3, "label", "snare")
    notes.change_set(tmp_path, "loud", SAE, add=[5], remove=[3])
    assert [each.fields.get("label") for each in notes.read_everything(tmp_path)].count("drums") == 1
    train_again(tmp_path, b"first")
    assert (notes.read_all(tmp_path, SAE), notes.read_set(tmp_path, "loud", SAE)) == (
        {3: {"label": "drums"}},
        [3, 5],
    )


def test_notes_from_csv_are_of_the_weights_in_it(tmp_path: Path) -> None:
    train_again(tmp_path, b"first")
    notes.write(tmp_path, SAE, 3, "label", "drums")
    notes.change_set(tmp_path, "loud", SAE, add=[3])
    content, had = notes_csv(tmp_path), notes.weights_of(tmp_path, SAE)
    assert f"{SAE},3,drums,,,loud,{had}\n" in content
    train_again(tmp_path, b"second")
    (tmp_path / notes.FILE).unlink()
    assert import_notes(tmp_path, content.encode(), SAES) == (2, 1)
    assert (notes.read_all(tmp_path, SAE), notes_csv(tmp_path)) == ({}, content)
    taken_over = content.replace(had, "")
    assert import_notes(tmp_path, taken_over.encode(), SAES) == (2, 0)
    assert (notes.read_all(tmp_path, SAE), notes.read_set(tmp_path, "loud", SAE)) == (
        {3: {"label": "drums"}},
        [3],
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_spreadsheet_may_separate_cells_as_its_country_does(tmp_path: Path, separator: str) -> None:
    rows = [["sae", "feature", "label", "sets"], [SAE, "3", '"low, slow; deep"', '"one; two"']]
    content = "".join(separator.join(row) + "\r\n" for row in rows)
    assert import_notes(tmp_path, content.encode(), SAES) == (3, 0)
    assert notes.read_all(tmp_path, SAE) == {3: {"label": "low, slow; deep"}}
    assert notes.sets_of(tmp_path, SAE, 3) == ["one", "two"]


def test_a_star_that_is_none_is_told_what_a_star_is() -> None:
    for value in ("2", "yes"):
        with pytest.raises(UserError, match=rf"^A star is 1, or 0 for none, not '{value}'\.$"):
            notes.checked("star", value)
    with pytest.raises(UserError, match=r"not 'y{60}…'"):
        notes.checked("star", 5000 * "y")


def test_a_star_of_0_is_none(tmp_path: Path) -> None:
    notes.write(tmp_path, SAE, 3, "star", "1")
    notes.write(tmp_path, SAE, 5, "star", "1")
    rows = b"sae,feature,star\ntf3.cross_attn,3,0\ntf3.cross_attn,4,1\ntf3.cross_attn,5,\n"
    assert import_notes(tmp_path, rows, SAES) == (2, 0)
    assert notes.read_all(tmp_path, SAE) == {4: {"star": "1"}, 5: {"star": "1"}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b\n1,2\n", "columns"),
        (b"", "columns.*none"),
        (b"\n\n", "columns.*none"),
        (b"sae,feature,label\ntf3.cross_attn,1,fine\nother,1,x\n", "Line 3.*'other'"),
        (b"sae,feature,label\ntf3.cross_attn,-1,x\n", "Line 2.*'-1'"),
        (b"sae,feature,label\ntf3.cross_attn,47,x\ntf3.cross_attn,48,x\n", "Line 3.*48; .* from 0 to 47"),
        (b"sae,feature,label\ntf3.cross_attn,1,x\ntf3.cross_attn,1\n", "Line 3.*cells"),
        (b"sae,feature,label\ntf3.cross_attn,1,a\x01\n", "Line 2.*control"),
        (b"sae,feature,note\ntf3.cross_attn,1," + b"x" * 200_000 + b"\n", "Line 2"),
        (b"sae,feature,sets\ntf3.cross_attn,1," + b"x" * 101 + b"\n", "Line 2.*1 to 100"),
        (b"sae,feature,label,weights\ntf3.cross_attn,1,x,123\n", "Line 2.*'123'"),
        (b"sae,feature,star\ntf3.cross_attn,1,2\n", "Line 2.*star is 1.*'2'"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_a_wrong_csv_file_writes_nothing(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        import_notes(tmp_path, content, SAES)
    assert notes.read_everything(tmp_path) == []


def with_trigger(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("CREATE TRIGGER t AFTER INSERT ON entry BEGIN DELETE FROM entry; END")


def with_noise(file: Path) -> None:
    file.write_bytes(b"no database" * 100)


def as_link(file: Path) -> None:
    file.rename(file.with_suffix(".moved"))
    file.symlink_to(file.with_suffix(".moved"))


@pytest.mark.parametrize("change", [with_trigger, with_noise, as_link])
def test_a_file_from_elsewhere_is_refused(tmp_path: Path, change: Callable[[Path], None]) -> None:
    notes.write(tmp_path, SAE, 3, "label", "drums")
    change(tmp_path / notes.FILE)
    with pytest.raises(UserError, match=r"notes\.sqlite"):
        notes.read_feature(tmp_path, SAE, 3)
    with pytest.raises(UserError, match=r"notes\.sqlite"):
        notes.write(tmp_path, SAE, 3, "label", "snare")
