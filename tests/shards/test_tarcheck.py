import io
import tarfile
from pathlib import Path

import pytest
import webdataset

from amn_dist.errors import ShardError
from amn_dist.shards.tarcheck import check_tar


def write_tar(path: Path, members: list[tuple[str, bytes]], form: int, **headers: object) -> None:
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for header, value in headers.items():
                setattr(info, header, value)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated", r"shape_03\.jpg declares {} bytes"),
        ("parent_path", r"evil\.jpg.*parent"),
        ("absolute_path", r"wsss_evil_absolute\.jpg.*absolute"),
        ("symlink", r"shape_03\.jpg is a symbolic link"),
        ("duplicate_keys", "shape_01.*twice"),
        ("missing_part", "shape_02.*fields"),
        ("gnu_sparse", r"shape_02\.jpg is a sparse file"),
        ("huge_declared_size", r"shape_02\.jpg declares 8589934591 bytes"),
    ],
)
def test_bad_tars_are_refused(bad: Path, name: str, message: str) -> None:
    path = bad / "tar" / f"{name}.tar"
    message = message.format((bad / "base" / "JPEGImages" / "shape_03.jpg").stat().st_size)
    with pytest.raises(ShardError, match=message) as caught:
        check_tar(path)
    assert str(path) in str(caught.value)


def test_the_good_tar_is_accepted_at_its_offsets(bad: Path) -> None:
    path = bad / "tar" / "ok.tar"
    members = check_tar(path)
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        for member, info in zip(members, tar, strict=True):
            assert member.name == info.name
            assert content[member.offset : member.offset + member.size] == tar.extractfile(info).read()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_other_writers_are_read(tmp_path: Path, form: int) -> None:
    long = "folder/" + "k" * (80 if form == tarfile.USTAR_FORMAT else 180)
    parts = [(f"{key}.{field}", key.encode()) for key in ("a", long, "z") for field in ("jpg", "txt.gz")]
    write_tar(tmp_path / "x.tar", parts, form, mtime=1.5 if form == tarfile.PAX_FORMAT else 1)
    members = check_tar(tmp_path / "x.tar")
    content = (tmp_path / "x.tar").read_bytes()
    assert [member.name for member in members] == [name for name, _ in parts]
    assert [content[m.offset : m.offset + m.size] for m in members] == [data for _, data in parts]
    assert {(m.key, m.field) for m in members} == {(k, f) for k in ("a", long, "z") for f in ("jpg", "txt.gz")}


def test_the_plain_webdataset_writer_passes(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "x.tar"), encoder=False) as tar:
        for n in range(3):
            tar.write({"__key__": f"s{n}", "jpg": b"1" * n, "cls": b"2"})
    assert [member.size for member in check_tar(tmp_path / "x.tar")] == [1, 0, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("name", "headers", "message"),
    [
        ("a.jpg", {"type": tarfile.LNKTYPE, "size": 0, "linkname": "b"}, "hard link"),
        ("a.jpg", {"type": tarfile.CHRTYPE, "size": 0}, "character device"),
        ("a.jpg", {"type": tarfile.FIFOTYPE, "size": 0}, "pipe"),
        ("a", {"type": tarfile.DIRTYPE, "size": 0}, "folder"),
        ("a.jpg", {"pax_headers": {"GNU.sparse.major": "1"}}, "GNU.sparse"),
        ("a.jpg", {"pax_headers": {"path": "../b.jpg"}}, "parent"),
        ("a.jpg", {"pax_headers": {"path": "/b.jpg"}}, "absolute"),
        ("a\\b.jpg", {}, "path"),
        ("./a.jpg", {}, "more than one spelling"),
        ("b//a.jpg", {}, "more than one spelling"),
        ("b/./a.jpg", {}, "more than one spelling"),
        ("a.jpg/", {}, "more than one spelling|folder"),
        ("a.jpg", {"pax_headers": {"path": "./a.jpg"}}, "more than one spelling"),
        ("a.jpg", {"pax_headers": {"path": "a\x00b.jpg"}}, "unprintable"),
        ("a.jpg", {"pax_headers": {"path": "a\u202eb.jpg"}}, "unprintable"),
        ("a.jpg", {"pax_headers": {"path": "k" * 2000 + ".jpg"}}, "too long"),
        ("a.jpg", {"pax_headers": {"size": "3"}}, "sets 'size'"),
        ("nofield", {}, "KEY.FIELD"),
        (".hidden", {}, "KEY.FIELD"),
    ],
)
def test_strange_members_are_refused(tmp_path: Path, name: str, headers: dict, message: str) -> None:
    write_tar(tmp_path / "x.tar", [(name, b"1")], tarfile.PAX_FORMAT, **headers)
    with pytest.raises(ShardError, match=message):
        check_tar(tmp_path / "x.tar")


@pytest.mark.parametrize("other", ["./a.jpg", "a.JPG", "a.jpg"])
def test_a_member_has_one_name(tmp_path: Path, other: str) -> None:
    write_tar(tmp_path / "x.tar", [("a.jpg", b"1"), (other, b"2")], tarfile.USTAR_FORMAT)
    with pytest.raises(ShardError, match=r"more than one spelling|appears twice") as caught:
        check_tar(tmp_path / "x.tar")
    assert str(caught.value).isprintable()


def block(name: bytes, size: int, kind: bytes) -> bytes:
    """A header of a member of this type."""
    info = tarfile.TarInfo(name.decode())
    info.size, info.type = size, kind
    return info.tobuf(tarfile.USTAR_FORMAT)


def named_by(*headers: tuple[bytes, bytes], member: bool = True) -> bytes:
    """A tar of one member behind extended headers (type and content)."""
    parts = [block(b"x", len(content), kind) + content.ljust(512, b"\0") for kind, content in headers]
    if member:
        parts.append(block(b"a.jpg", 1, tarfile.REGTYPE) + b"1".ljust(512, b"\0"))
    return b"".join(parts) + bytes(1024)


LONG_NAME, PAX = tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([(PAX, b"14 path=b.jpg\n14 path=c.jpg\n")], "sets 'path' twice"),
        ([(PAX, b"11 mtime=1\n11 mtime=2\n")], "sets 'mtime' twice"),
        ([(PAX, b"14 path=b.jpg\n"), (PAX, b"14 path=c.jpg\n")], r"names one member b\.jpg and c\.jpg"),
        ([(LONG_NAME, b"b.jpg\0"), (PAX, b"14 path=c.jpg\n")], r"names one member b\.jpg and c\.jpg"),
        ([(PAX, b"8 path=\n")], "spelling|KEY.FIELD"),
        ([(PAX, b"+14 path=b.jpg\n")], "malformed"),
        ([(PAX, b"1_4 path=b.jpg\n")], "malformed"),
        ([(PAX, b" 14 path=b.jpg\n")], "malformed"),
        ([(PAX, b"0 path=b.jpg\n")], "malformed"),
        ([(PAX, b"9" * 60 + b" path=b.jpg\n")], "malformed"),
    ],
)
def test_a_name_is_said_once(tmp_path: Path, headers: list[tuple[bytes, bytes]], message: str) -> None:
    (tmp_path / "x.tar").write_bytes(named_by((PAX, b"14 path=b.jpg\n")))
    assert [member.name for member in check_tar(tmp_path / "x.tar")] == ["b.jpg"]
    (tmp_path / "x.tar").write_bytes(named_by(*headers))
    with pytest.raises(ShardError, match=message):
        check_tar(tmp_path / "x.tar")


def test_a_name_without_a_member_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(named_by((PAX, b"14 path=b.jpg\n"), member=False))
    with pytest.raises(ShardError, match=r"names the member b\.jpg in an extended header, but there is none"):
        check_tar(tmp_path / "x.tar")


def test_the_fields_of_a_sample_are_bounded(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [(f"a.f{n}", b"") for n in range(101)], tarfile.USTAR_FORMAT)
    with pytest.raises(ShardError, match="key a has more than 100 members"):
        check_tar(tmp_path / "x.tar")


def test_torn_samples_are_refused(tmp_path: Path) -> None:
    parts = [("a.jpg", b"1"), ("b.jpg", b"1"), ("b.png", b"1"), ("a.png", b"1")]
    write_tar(tmp_path / "x.tar", parts, tarfile.USTAR_FORMAT)
    with pytest.raises(ShardError, match="key a appears twice"):
        check_tar(tmp_path / "x.tar")


def test_a_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("a.jpg", b"1" * 700), ("b.jpg", b"2" * 600)], tarfile.USTAR_FORMAT)
    content = (tmp_path / "x.tar").read_bytes()
    end = 512 + 1024 + 512 + 1024
    for cut in (1, 511, 512, 900, 1536, 1537, 2048, 2100, end - 1, end):
        (tmp_path / "cut.tar").write_bytes(content[:cut])
        with pytest.raises(ShardError):
            check_tar(tmp_path / "cut.tar")
    (tmp_path / "cut.tar").write_bytes(content[: end + 512])
    assert len(check_tar(tmp_path / "cut.tar")) == 2


def test_data_behind_the_end_is_noticed(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("a.jpg", b"1")], tarfile.USTAR_FORMAT)
    content = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(content + content)
    with pytest.raises(ShardError, match="after its end"):
        check_tar(tmp_path / "x.tar")


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 2000, b"\x1f\x8b" + b"\0" * 2000])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(ShardError, match=r"x\.tar"):
        check_tar(tmp_path / "x.tar")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="No such file"):
        check_tar(tmp_path / "none.tar")
