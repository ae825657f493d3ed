"""Damaged and malicious archives are refused with a one-line error and removed."""

import io
import os
import random
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest
from archive_server import ArchiveServer, run_script, tar_of, zip_of

sys.path.insert(0, str(Path(__file__).parents[2] / "datasets"))
import archive

SCRIPT = Path(archive.__file__).with_name("download_cut_dataset.sh")

OUTSIDE = str(Path(tempfile.gettempdir()) / f"escaped-{os.getpid()}.jpg")
IMAGES = {f"mini/trainA/{i}.jpg": random.Random(i).randbytes(3_000) for i in range(3)}
SMALL = {name: content[:100] for name, content in IMAGES.items()}
GOOD = zip_of(IMAGES)
SECOND = 512 + 3_072  # where a tar of the images has its second member: behind a header and six blocks


def zip_with(entry: zipfile.ZipInfo) -> bytes:
    file = io.BytesIO(GOOD)
    with zipfile.ZipFile(file, "a") as writer:
        writer.writestr(entry, b"/etc/passwd")
    return file.getvalue()


def special_entry(kind: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("mini/trainA/special.jpg")
    entry.create_system = 3  # Unix, whose file kinds are in the upper half
    entry.external_attr = (kind | 0o777) << 16
    return entry


def tar_with(name: str, kind: bytes, target: str = "/etc/passwd") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as writer:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, target
        writer.addfile(entry)
        writer.addfile(tarfile.TarInfo("mini/trainA/0.jpg"))
    return file.getvalue()


def with_declared_size(data: bytes, size: int) -> bytes:
    """Return a zip that declares `size` for every member."""
    packed, old = struct.pack("<L", size), struct.pack("<L", 3_000)
    return data.replace(old, packed)


def encrypted() -> bytes:
    """Return a zip that declares its last member as encrypted."""
    flags_at = GOOD.rindex(b"PK\1\2") + 8
    return GOOD[:flags_at] + b"\1" + GOOD[flags_at + 1 :]


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def tar_with_size(size: bytes) -> bytes:
    """Return a tar whose second member declares `size`, 12 bytes in tar's own notation."""
    data = bytearray(tar_of(IMAGES))
    header = data[SECOND : SECOND + 512]
    header[124:136] = size
    header[148:156] = b" " * 8  # the checksum counts itself as blanks
    header[148:156] = b"%06o\0 " % sum(header)
    data[SECOND : SECOND + 512] = header
    return bytes(data)


def twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate"):
        return zip_with(zipfile.ZipInfo("mini/trainA/0.jpg"))


HOSTILE = {
    "dots": (lambda: zip_with(zipfile.ZipInfo("mini/../../escaped.jpg")), "an unsafe name"),
    "absolute": (lambda: zip_with(zipfile.ZipInfo(OUTSIDE)), "an unsafe name"),
    "backslashes": (lambda: zip_with(zipfile.ZipInfo("mini\\..\\..\\escaped.jpg")), "an unsafe name"),
    "drive": (lambda: zip_with(zipfile.ZipInfo("C:escaped.jpg")), "an unsafe name"),
    "newline": (lambda: zip_with(zipfile.ZipInfo("mini/a\nerror: b.jpg")), "an unsafe name"),
    "link": (lambda: zip_with(special_entry(stat.S_IFLNK)), "link or a device"),
    "pipe": (lambda: zip_with(special_entry(stat.S_IFIFO)), "link or a device"),
    "twice": (twice, "twice"),
    "file as folder": (lambda: zip_with(zipfile.ZipInfo("mini/trainA/0.jpg/0.jpg")), "twice"),
    "file as folders": (lambda: zip_with(zipfile.ZipInfo("mini/trainA/0.jpg/a/0.jpg")), "twice"),
    "bomb": (lambda: zip_of({"mini/trainA/0.jpg": bytes(20_000_000)}), "unpacks to 0.02 GB, above the limit of 0.01"),
    "understated": (lambda: with_declared_size(GOOD, 100), "damaged"),
    "overstated": (lambda: with_declared_size(GOOD, 4_000), "damaged"),
    "flipped bit": (lambda: flipped(GOOD, 1_000), "damaged"),
    "cut short": (lambda: GOOD[:5_000], "damaged"),
    "web page": (lambda: b"<html>sign in first</html>", "damaged"),
    "empty": (lambda: b"", "damaged"),
    "encrypted": (encrypted, "encrypted"),
    "no file": (lambda: zip_of({"mini/": b""}), "contains no file"),
    "tar dots": (lambda: tar_of({"../escaped.jpg": b""}), "an unsafe name"),
    "tar absolute": (lambda: tar_of({OUTSIDE: b""}), "an unsafe name"),
    "tar link": (lambda: tar_with("mini/link", tarfile.SYMTYPE), "link or a device"),
    "tar hard link": (lambda: tar_with("mini/link", tarfile.LNKTYPE), "link or a device"),
    "tar device": (lambda: tar_with("mini/null", tarfile.CHRTYPE), "link or a device"),
    "tar cut in a member": (lambda: tar_of(IMAGES)[:5_000], "damaged"),
    "tar cut between members": (lambda: tar_of(IMAGES)[:SECOND], "damaged"),
    "tar bomb": (lambda: tar_with_size(b"77777777777\0"), "damaged"),
    "tar negative size": (lambda: tar_with_size(b"\xff" * 10 + b"\xfe\x00"), "damaged"),
}


Fetch = Callable[[bytes], subprocess.CompletedProcess[str]]


@pytest.fixture
def fetch(tmp_path: Path) -> Iterator[Fetch]:
    with ArchiveServer() as server:

        def fetch(data: bytes) -> subprocess.CompletedProcess[str]:
            server.files["/mini.zip"] = data
            places = {"CUT_DATASETS_URL": server.url, "CUT_DATASETS_DIR": tmp_path / "outer" / "datasets"}
            return run_script(SCRIPT, "mini", CUT_SIZE_LIMIT_GB="0.01", **places)

        yield fetch


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused_and_removed(case: str, fetch: Fetch, tmp_path: Path) -> None:
    make, reason = HOSTILE[case]
    run = fetch(make())
    assert run.returncode == 1, run.stderr
    said = run.stderr.splitlines()[-1]
    assert said.startswith("error: archive from http://")
    assert reason in said
    assert said.endswith("it was removed")
    assert "Traceback" not in run.stderr
    files = [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert [path.name for path in files] == ["lock"]
    assert not Path(OUTSIDE).exists()


def test_a_good_archive_is_accepted_after_a_bad_one(fetch: Fetch, tmp_path: Path) -> None:
    assert fetch(GOOD[:5_000]).returncode == 1
    assert fetch(GOOD).returncode == 0


def test_too_many_members_are_refused() -> None:
    empty = archive.ArchiveMember(PurePosixPath("mini/0.jpg"), size=0, is_dir=False, open=io.BytesIO)
    with pytest.raises(archive.ArchiveError, match="contains 200001 members"):
        archive.check_size([empty] * 200_001, size_limit=1)


@pytest.mark.parametrize("good", [zip_of(SMALL), tar_of(SMALL)], ids=["zip", "tar"])
def test_damage_of_any_kind_is_an_archive_error(good: bytes, tmp_path: Path) -> None:
    """Each damaged archive is read as whole or refused as an ArchiveError, and stays in its folder."""
    rng = random.Random(0)
    path = tmp_path / "inner" / "damaged"
    path.parent.mkdir()
    refused = 0
    for i in range(300):
        damaged = bytearray(good)
        for _ in range(rng.randint(1, 4)):  # more often at the ends, where the headers are
            place = rng.choice([rng.randrange(len(damaged)), rng.randrange(200), -rng.randint(1, 400)])
            damaged[place] = rng.randrange(256)
        if rng.random() < 0.2:
            del damaged[rng.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        try:
            with archive.open_archive(path, size_limit=10**7) as members:
                archive.unpack(members, path.parent / f"unpacked{i}")
        except archive.ArchiveError:
            refused += 1
    assert refused > 150
    assert [entry.name for entry in tmp_path.iterdir()] == ["inner"]
