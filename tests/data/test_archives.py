"""Archives of several files are read as the folder that they are, and nothing else is written."""

from __future__ import annotations

import contextlib
import io
import tarfile
import zipfile

import pytest

from rankwise import config, data
from rankwise.data import sources
from rankwise.errors import UserError

TEXTS = {"pos": ["a gem", "fine work", "so good"], "neg": ["dull", "a waste", "too long"]}
TABLE = "text,label\n" + "".join(f"{text},{label}\n" for label, texts in TEXTS.items() for text in texts)
FOLDERS = {f"set/{label}/{n}.txt": text for label, texts in TEXTS.items() for n, text in enumerate(texts)}


def read(path, role="train", **given):
    return sources.read(str(path), config.from_dict({"data": given}).data, role)


def pack(path, files):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return path
    with tarfile.open(
        path, {"": "w", ".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    ) as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz", "set.tgz", "set.tar.bz2", "set.tar.xz"])
def test_class_folders_and_tables_in_archives(tmp_path, name):
    source = read(pack(tmp_path / name, {**FOLDERS, "set/README": "about"}))
    assert sorted(zip(source.texts, source.labels, strict=True)) == sorted(
        (text, (label,)) for label, texts in TEXTS.items() for text in texts
    )
    assert str(tmp_path / name) in source.line
    (tmp_path / "one").mkdir()
    assert len(read(pack(tmp_path / "one" / name, {"x/rows.csv": TABLE, "x/readme.md": "about"})).texts) == 6


def test_each_role_has_its_own_file_of_an_archive(tmp_path):
    files = {"train.csv": TABLE, "test.csv": TABLE.replace("gem", "stone"), "sample_submission.csv": "id,label\n1,x\n"}
    path = pack(tmp_path / "competition.zip", files)
    assert "a gem" in read(path).texts
    assert "a stone" in read(path, "test").texts
    roles = data.load(config.from_dict({"data": {"train": str(path), "test": str(path)}}).data, ("train", "test"))
    assert len(roles.test) == 6
    assert read(f"{path}[test.csv]").texts[0] == "a stone"


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_a_file_that_an_archive_has_not_is_told_with_those_that_it_has(tmp_path, name):
    path = pack(tmp_path / name, {"train.csv": TABLE, "test.csv": TABLE})
    with pytest.raises(UserError, match=r"has no file 'nope\.csv' inside \(.*train\.csv.*\): name one, as in"):
        read(f"{path}[nope.csv]")


def test_the_rows_of_one_table_are_not_two_roles(tmp_path):
    path = str(pack(tmp_path / "one.tgz", {"rows.csv": TABLE}))
    with pytest.raises(UserError, match="the same rows"):
        data.load(config.from_dict({"data": {"train": path, "test": path}}).data, ("train", "test"))


def test_nothing_is_written_outside_and_no_link_followed(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("../../out.txt", "/abs/pos/1.txt", "set/pos/1.txt", "set/neg/1.txt"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("set/neg/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    with contextlib.suppress(UserError):
        read(path)
    written = [p for p in tmp_path.rglob("*") if p.name in ("out.txt", "link.txt")]
    assert all((tmp_path / "cache") in p.parents for p in written)
    assert not any(p.is_symlink() for p in tmp_path.rglob("*"))


def test_filler_in_an_archive_of_several_files_is_refused(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("a.csv", "a" * 50_000_000)
        archive.writestr("b.csv", "b" * 50_000_000)
    with pytest.raises(UserError, match="300 times its bytes"):
        read(path)


def test_a_damaged_archive_is_told(tmp_path):
    path = pack(tmp_path / "set.tar.gz", FOLDERS)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="unpacked"):
        read(path)


def test_a_folder_of_tables_asks_for_one_and_a_pattern_takes_all(tmp_path):
    (tmp_path / "a.csv").write_text(TABLE)
    assert len(read(tmp_path).texts) == 6
    (tmp_path / "b.csv").write_text(TABLE)
    with pytest.raises(UserError, match=r"several tables \(a\.csv, b\.csv\)"):
        read(tmp_path)


def test_one_folder_around_class_folders(tmp_path):
    for name, text in FOLDERS.items():
        (tmp_path / "around" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "around" / name).write_text(text)
    assert len(read(tmp_path).texts) == 6


def test_texts_and_labels_in_files_of_one_name(tmp_path):
    lines = [f"text number {n} of many words" for n in range(40)]
    for ending in ("src", "tgt"):
        content = lines if ending == "src" else ["ab"[n % 2] for n in range(40)]
        (tmp_path / f"train.{ending}").write_text("\n".join(content) + "\n")
    source = read(tmp_path / "train.src")
    assert (source.texts[1], source.labels[1]) == (lines[1], ("b",))
    assert "labels from train.tgt" in source.line
