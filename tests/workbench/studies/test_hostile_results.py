"""A result from elsewhere may be made to read other files, or to fill the memory: it is refused before it is read."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from pydantic import BaseModel

from cache.opening import UnsafeFile
from tests.workbench.studies.foreign_study import make_foreign_study
from workbench.studies import result_files
from workbench.studies.result_files import DamagedResult
from workbench.studies.study import Study

MIB = 2**20
SECRET = b"root:x:0:0:a secret"


class Spec(BaseModel):
    """Stands in for an analysis' spec."""

    folds: int = 5


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study with one good result, "probes", beside a file that is none of its business."""
    study = make_foreign_study(tmp_path / "study")
    result = xr.Dataset(
        {
            "accuracy": (("site", "step"), np.array([[0.5, np.nan], [1.0, 0.25]])),
            "audio": ("site", ["audio/clips/00000.flac", "ä" * 40]),
            "alive": ("site", [True, False]),
            "unlabelled": ("fold", np.arange(5)),
        },
        {"site": ["tf0.cross_attn", "tf1.cross_attn"], "step": [0, 2]},
        {"kind": "probes", "schema_version": 1, "held_out_clips": [1, 2, 3], "note": ""},
    )
    study.save_result("probes", result, Spec(), 1.0)
    (tmp_path / "secret").write_bytes(SECRET * 100)
    return study


def result_file(study: Study) -> Path:
    return study.path / "results" / "probes.nc"


def test_the_good_result_is_read_as_it_was(study: Study) -> None:
    """What the others differ from."""
    result = study.result("probes")
    assert result["audio"].values.tolist() == ["audio/clips/00000.flac", "ä" * 40]
    assert result["alive"].values.tolist() == [True, False]
    assert result["unlabelled"].values.tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(result["accuracy"].values[0, 1])
    assert result.attrs["held_out_clips"].tolist() == [1, 2, 3]


def test_a_variable_may_have_attributes_and_no_unit_is_decoded(study: Study) -> None:
    with h5py.File(result_file(study), "r+") as file:
        file["unlabelled"].attrs["units"] = "days since 0000-00-00"
        file["accuracy"].attrs["rows"] = 3
    result = study.result("probes")
    assert result["unlabelled"].values.tolist() == [0, 1, 2, 3, 4]
    assert result["accuracy"].attrs["rows"] == 3


def external(file: h5py.File, outside: Path) -> None:
    del file["accuracy"]
    file.create_dataset("accuracy", (4,), "u1", external=[(str(outside / "secret"), 0, 4)])


def external_link(file: h5py.File, outside: Path) -> None:
    with h5py.File(outside / "other.h5", "w") as other:
        other["numbers"] = np.arange(4.0)
    file["more"] = h5py.ExternalLink(str(outside / "other.h5"), "/numbers")


def soft_link(file: h5py.File, outside: Path) -> None:
    file["more"] = h5py.SoftLink("/accuracy")


def dangling_link(file: h5py.File, outside: Path) -> None:
    file["more"] = h5py.SoftLink("/nothing")


def hard_link(file: h5py.File, outside: Path) -> None:
    """One array under 500 names."""
    file["large"] = np.zeros(MIB, "u1")
    for number in range(500):
        file[f"large{number}"] = file["large"]


def itself(file: h5py.File, outside: Path) -> None:
    file["more"] = file["/"]


def group(file: h5py.File, outside: Path) -> None:
    file.create_group("more")["numbers"] = np.arange(4.0)


def virtual(file: h5py.File, outside: Path) -> None:
    with h5py.File(outside / "other.h5", "w") as other:
        other["numbers"] = np.arange(4.0)
    layout = h5py.VirtualLayout((4,), "<f8")
    layout[:] = h5py.VirtualSource(str(outside / "other.h5"), "numbers", (4,))
    file.create_virtual_dataset("more", layout)


def terabytes(file: h5py.File, outside: Path) -> None:
    file.create_dataset("more", (10**12,), "<f8")


def terabytes_in_pieces(file: h5py.File, outside: Path) -> None:
    file.create_dataset("more", (10**12,), "<f8", chunks=(10**6,))


def gzip_bomb(file: h5py.File, outside: Path) -> None:
    file.create_dataset("more", data=np.zeros(64 * MIB, "u1"), compression="gzip", chunks=(64 * MIB,))


def lzf_bomb(file: h5py.File, outside: Path) -> None:
    file.create_dataset("more", data=np.zeros(64 * MIB, "u1"), compression="lzf", chunks=(64 * MIB,))


def scale_offset(file: h5py.File, outside: Path) -> None:
    file.create_dataset("more", data=np.zeros(64 * MIB, "i4"), scaleoffset=0, chunks=(MIB,))


def checksums(file: h5py.File, outside: Path) -> None:
    file.create_dataset("more", data=np.zeros(10), fletcher32=True)


def plug_in(file: h5py.File, outside: Path) -> None:
    """A filter that HDF5 would look for among the plug-ins of HDF5_PLUGIN_PATH."""
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((10,))
    made.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple((10,))
    h5py.h5d.create(file.id, b"more", h5py.h5t.IEEE_F64LE, space, made)


def compound(file: h5py.File, outside: Path) -> None:
    file["more"] = np.zeros(3, [("a", "<f8"), ("b", "<i4")])


def sequences(file: h5py.File, outside: Path) -> None:
    file.create_dataset("more", (3,), h5py.vlen_dtype(np.int64))[:] = [np.arange(3)] * 3


def array_type(file: h5py.File, outside: Path) -> None:
    file["more"] = np.zeros(3, [("a", "<f8", (1000,))])["a"].view("<f8")
    file.create_dataset("bytes", (3,), np.dtype("V100000"))


def references(file: h5py.File, outside: Path) -> None:
    file.create_dataset("more", (1,), h5py.ref_dtype)[0] = file["accuracy"].ref


def nothing(file: h5py.File, outside: Path) -> None:
    file["more"] = h5py.Empty("f8")


def shared_text(file: h5py.File, outside: Path) -> None:
    """10,000 texts of which each is the same megabyte."""
    kind = h5py.string_dtype()
    file.create_dataset("first", (1,), kind)[0] = "a" * MIB
    file.create_dataset("more", (10_000,), kind)[0] = "placeholder"
    file.flush()
    start, target = (file[name].id.get_offset() for name in ("first", "more"))
    name = file.filename
    file.close()
    content = bytearray(Path(name).read_bytes())
    content[target : target + 160_000] = content[start : start + 16] * 10_000
    Path(name).write_bytes(bytes(content))


def wide_text(file: h5py.File, outside: Path) -> None:
    """NumPy gives each of a million texts the width of the longest."""
    texts = file.create_dataset("more", (MIB,), h5py.string_dtype())
    texts[0] = "a" * 4 * MIB


def scaled(file: h5py.File, outside: Path) -> None:
    file["unlabelled"].attrs["scale_factor"] = 2.0


def unsigned(file: h5py.File, outside: Path) -> None:
    file["unlabelled"].attrs["_Unsigned"] = "true"


def many_variables(file: h5py.File, outside: Path) -> None:
    for number in range(result_files.MAX_VARIABLES + 1):
        file.create_dataset(f"more{number}", (1,), "u1")[0] = 1


def many_attributes(file: h5py.File, outside: Path) -> None:
    for number in range(result_files.MAX_ATTRIBUTES + 1):
        file.attrs[f"more{number}"] = 1


def attribute_of_references(file: h5py.File, outside: Path) -> None:
    file.attrs["more"] = file["accuracy"].ref


def attribute_of_texts(file: h5py.File, outside: Path) -> None:
    file.attrs["more"] = ["a", "b"]


def without(name: str) -> Callable[[h5py.File, Path], None]:
    def remove(file: h5py.File, outside: Path) -> None:
        del file.attrs[name]

    remove.__name__ = f"without_{name}"
    return remove


def with_attribute(name: str, value: object, what: str) -> Callable[[h5py.File, Path], None]:
    def change(file: h5py.File, outside: Path) -> None:
        file.attrs[name] = value

    change.__name__ = f"{name}_{what}"
    return change


ATTACKS = [
    *(external, external_link, soft_link, dangling_link, hard_link, itself, group, virtual),
    *(terabytes, terabytes_in_pieces, gzip_bomb, lzf_bomb, scale_offset, checksums, plug_in),
    *(compound, sequences, array_type, references, nothing, shared_text, wide_text, scaled, unsigned),
    *(many_variables, many_attributes, attribute_of_references, attribute_of_texts),
    *(without(name) for name in ("kind", "schema_version", "spec", "provenance", "result_id")),
    with_attribute("schema_version", "two", "text"),
    with_attribute("kind", 3, "number"),
    with_attribute("spec", "{" * 1000, "brackets"),
    with_attribute("spec", '{"a":' * 100 + "1" + "}" * 100, "nested"),
    with_attribute("provenance", "[1]", "list"),
    with_attribute("provenance", b"\xff\xfe\x01", "binary"),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_what_no_result_has_is_refused_before_it_is_read(
    study: Study, tmp_path: Path, attack: Callable[[h5py.File, Path], None]
) -> None:
    with h5py.File(result_file(study), "r+") as file:
        attack(file, tmp_path)
    tracemalloc.start()
    with pytest.raises(DamagedResult, match="Delete it and compute it again") as refused:
        study.result("probes")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * result_file(study).stat().st_size + 4 * MIB
    told = str(refused.value)
    assert "\n" not in told
    assert len(told) < 500
    assert "secret" not in told


@pytest.mark.parametrize("content", [b"", b"CDF\x01", b"\x89HDF\r\n\x1a\n", b"\0" * 5000, SECRET])
def test_files_that_are_no_results_get_a_sentence(study: Study, content: bytes) -> None:
    result_file(study).write_bytes(content)
    with pytest.raises(DamagedResult, match="is damaged or was not written"):
        study.result("probes")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.95, 0.999])
def test_cut_results_get_a_sentence(study: Study, share: float) -> None:
    content = result_file(study).read_bytes()
    result_file(study).write_bytes(content[: int(share * len(content))])
    with pytest.raises(DamagedResult):
        study.result("probes")


def test_a_result_that_is_larger_than_any_is_not_read(study: Study) -> None:
    with result_file(study).open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(UnsafeFile, match="at most"):
        study.result("probes")


@pytest.mark.parametrize("target", ["secret", "nothing"])
def test_a_result_that_is_a_link_is_refused(study: Study, tmp_path: Path, target: str) -> None:
    result_file(study).unlink()
    result_file(study).symlink_to(tmp_path / target)
    with pytest.raises(UnsafeFile, match="is a link"):
        study.result("probes")


def test_a_result_that_is_a_pipe_is_refused(study: Study) -> None:
    result_file(study).unlink()
    os.mkfifo(result_file(study))
    with pytest.raises(UnsafeFile, match="named pipe"):
        study.result("probes")


def test_a_folder_of_results_that_is_a_link_is_refused(study: Study, tmp_path: Path) -> None:
    (study.path / "results").rename(tmp_path / "elsewhere")
    (study.path / "results").symlink_to(tmp_path / "elsewhere")
    before = sorted(path.name for path in (tmp_path / "elsewhere").iterdir())
    for use in (
        lambda: study.result("probes"),
        lambda: study.result_names(),
        lambda: study.save_result(
            "other", xr.Dataset(attrs={"kind": "probes", "schema_version": 1}), Spec(), 1.0
        ),
    ):
        with pytest.raises(UnsafeFile, match="is a link"):
            use()
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == before
