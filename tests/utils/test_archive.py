import errno
import os
import struct
import threading

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from skfdan.utils.archive import (
    ArchiveError,
    archive_digest,
    read_archive,
    replacing,
    write_archive,
)

FACTS = {"epoch": 3, "name": "jö\n", "loss": 0.1 + 0.2, "none": None, "list": [1, [2.5, "x"]]}


def example():
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(3, 4, generator=generator),
        "half": torch.randn(5, generator=generator).to(torch.bfloat16),
        "double": torch.randn(2, generator=generator, dtype=torch.float64),
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False, True]),
        "bytes": torch.arange(9, dtype=torch.uint8),
        "empty": torch.empty(0, dtype=torch.int64),
        "none": torch.empty(2, 0),
        "empty of NumPy": torch.from_numpy(np.random.RandomState(0).permutation(0)),
        "odd values": torch.tensor([float("nan"), float("inf"), -0.0]),
    }


def same_bits(a, b):
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    if not a.numel():
        return True
    a, b = (t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(a, b)


def same_archive(found, tensors, facts):
    return (
        found[0].keys() == tensors.keys()
        and all(same_bits(found[0][k], tensors[k]) for k in tensors)
        and found[1] == facts
    )


def test_what_is_written_is_read(tmp_path):
    file = tmp_path / "a.safetensors"
    digest = write_archive(file, example(), FACTS)
    assert same_archive(read_archive(file), example(), FACTS)
    assert write_archive(str(file), example(), FACTS) == digest
    assert list(tmp_path.iterdir()) == [file]


def test_no_tensor_and_no_fact(tmp_path):
    write_archive(tmp_path / "a", {}, {})
    assert read_archive(tmp_path / "a") == ({}, {})


def test_tensors_of_one_memory_and_views(tmp_path):
    memory = torch.arange(12.0).reshape(3, 4)
    tensors = {"a": memory, "b": memory, "columns": memory.T, "part": memory[1:, ::2]}
    parameter = torch.nn.Parameter(memory)
    write_archive(tmp_path / "a", tensors | {"parameter": parameter}, {})
    found, _ = read_archive(tmp_path / "a")
    assert all(same_bits(found[k], t) for k, t in tensors.items())
    assert same_bits(found["parameter"], memory)


def test_the_digest_tells_contents_apart(tmp_path):
    tensors = {"a": torch.zeros(4), "b": torch.ones(2)}
    others = [
        (tensors | {"a": torch.tensor([0.0, 0, 0, -0.0])}, {}),
        (tensors | {"a": torch.zeros(2, 2)}, {}),
        (tensors | {"a": torch.zeros(4, dtype=torch.int32)}, {}),
        ({"a": tensors["b"], "b": tensors["a"]}, {}),
        ({"c": tensors["a"], "b": tensors["b"]}, {}),
        (tensors | {"c": torch.zeros(0)}, {}),
        (tensors, {"x": 1}),
        (tensors, {"x": 1.0}),
    ]
    digests = [write_archive(tmp_path / "a", *content) for content in [(tensors, {}), *others]]
    assert len(set(digests)) == len(digests)


# ---------------------------------------------------------------------- damage


@pytest.fixture
def archive(tmp_path):
    tensors = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(5), "e": torch.empty(0)}
    facts = {"epoch": 3, "names": ['a"\\', "é"]}
    file = tmp_path / "a.safetensors"
    write_archive(file, tensors, facts)
    return file, tensors, facts


def read_or_refuse(file):
    try:
        return read_archive(file)
    except ArchiveError:
        return None


@pytest.mark.parametrize(
    "n_changes",
    [2, pytest.param(255, marks=(pytest.mark.slow, pytest.mark.long))],
    ids=["some", "all"],
)
def test_no_altered_byte_goes_unnoticed(archive, n_changes):
    file, tensors, facts = archive
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    unnoticed = []
    for position in range(len(content)):
        for change in 1 + rng.permutation(255)[:n_changes]:
            altered = bytearray(content)
            altered[position] ^= change
            file.write_bytes(altered)
            found = read_or_refuse(file)
            if found is not None:
                # Only what says the same in other words may be read: blanks of the header.
                assert same_archive(found, tensors, facts), (position, change)
                unnoticed.append(content[position : position + 1])
    assert set(unnoticed) <= {b" "}


def test_no_shortened_or_lengthened_file_is_read(archive):
    file, _, _ = archive
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        assert read_or_refuse(file) is None, length
    for more in (b"\0", b" ", b"x" * 100, content):
        file.write_bytes(content + more)
        assert read_or_refuse(file) is None, more
    file.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    assert read_or_refuse(file) is None


def test_no_altered_region_goes_unnoticed(archive):
    file, tensors, facts = archive
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(500):
        altered = bytearray(content)
        start, length = rng.integers(len(content)), rng.integers(1, 40)
        if rng.random() < 0.5:
            altered[start : start + length] = rng.bytes(length)[: len(content) - start]
        else:  # a piece moved
            source = rng.integers(len(content))
            altered[start : start + length] = content[source : source + length]
        file.write_bytes(altered)
        found = read_or_refuse(file)
        assert found is None or same_archive(found, tensors, facts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or no safetensors file"),
        (b"not a file of tensors" * 10, "damaged or no safetensors file"),
        (struct.pack("<Q", 2**63) + b"{}", "damaged or no safetensors file"),
        (struct.pack("<Q", 2**40) + b"{}", "damaged or no safetensors file"),
        (struct.pack("<Q", 5000) + b"[" * 5000, "damaged or no safetensors file"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, content, message):
    file = tmp_path / "other.bin"
    file.write_bytes(content)
    with pytest.raises(ArchiveError, match=message) as caught:
        read_archive(file)
    assert str(file) in str(caught.value)


def test_tensors_of_another_program_are_refused(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "a")
    with pytest.raises(ArchiveError, match="none that skfdan wrote"):
        read_archive(tmp_path / "a")
    save_file({"w": torch.ones(2)}, tmp_path / "a", metadata={"facts": "{}"})
    with pytest.raises(ArchiveError, match="none that skfdan wrote"):
        read_archive(tmp_path / "a")
    save_file({"w": torch.ones(2)}, tmp_path / "a", metadata={"facts": "{}", "sha256": "0" * 64})
    with pytest.raises(ArchiveError, match="checksum"):
        read_archive(tmp_path / "a")


@pytest.mark.parametrize("facts", ["", "{", "[" * 100_000, "[1]", "3", "null", '"text"'])
def test_facts_that_are_no_object_are_refused(tmp_path, facts):
    from skfdan.utils.archive import _digest

    tensors = {"w": torch.ones(2)}
    metadata = {"facts": facts, "sha256": _digest(tensors, facts)}
    save_file(tensors, tmp_path / "a", metadata=metadata)
    with pytest.raises(ArchiveError, match="facts"):
        read_archive(tmp_path / "a")


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_archive(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        read_archive(tmp_path)


# ---------------------------------------------------------------------- replacing


def test_a_failure_leaves_the_old_file(tmp_path):
    file = tmp_path / "a"
    file.write_text("old")

    def write_half():
        with replacing(file) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(TypeError):
        write_archive(file, {}, {"not json": object()})
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_old_file_is_there_until_the_new_one_is_complete(tmp_path):
    file = tmp_path / "a"
    file.write_text("old")
    with replacing(file) as temporary:
        temporary.write_text("new")
        assert temporary.parent == file.parent
        assert file.read_text() == "old"
    assert file.read_text() == "new"


def test_what_is_written_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    write_archive(tmp_path / "a", {"w": torch.ones(2)}, {})
    assert calls[:2] == ["fsync", "replace"]


def test_a_reader_sees_one_version_or_the_other(tmp_path):
    file = tmp_path / "a"
    versions = [{"w": torch.full((2000,), float(k))} for k in range(2)]
    write_archive(file, versions[0], {"k": 0})
    done = threading.Event()

    def write():
        for i in range(60):
            write_archive(file, versions[i % 2], {"k": i % 2})
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        tensors, facts = read_archive(file)
        assert same_bits(tensors["w"], versions[facts["k"]]["w"])
    writer.join()


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_archive(tmp_path / "a", example(), FACTS)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_the_digest_is_known_before_anything_is_written(tmp_path):
    turned = {"turned": torch.arange(6.0).reshape(2, 3).T}
    for tensors in (example(), turned, {}):
        assert archive_digest(tensors, FACTS) == write_archive(tmp_path / "a", tensors, FACTS)
    digests = {archive_digest(t, f) for t in (example(), turned) for f in (FACTS, {})}
    assert len(digests) == 4
