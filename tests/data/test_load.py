import bz2
import gzip
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from dynjax import data

RNG = np.random.default_rng(5)
IDX_DTYPES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}
PIXELS = RNG.integers(0, 256, (7, 3072), dtype=np.uint8)
LABELS = [int(label) for label in RNG.integers(0, 10, 7)]


def idx_bytes(array, dtype="u1"):
    head = bytes([0, 0, IDX_DTYPES[dtype], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(dtype).tobytes()


def write_mnist(folder, images, labels, suffix="", pack=lambda content: content):
    path = folder / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(idx_bytes(images)))
    (folder / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(labels)))
    return path


def python2_batch(pixels=PIXELS, labels=LABELS):
    """What cPickle of Python 2 wrote at protocol 2: byte strings everywhere."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    shape = b"K" + bytes([len(pixels)]) + b"M" + struct.pack("<H", 3072) + b"\x86"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85" + text(b"b") + b"\x87Rq\x03(K\x01"
        + shape + b"cnumpy\ndtype\nq\x04" + text(b"u1") + b"K\x00K\x01\x87Rq\x05(K\x03" + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", pixels.size)
        + pixels.tobytes() + b"tb"
    )  # fmt: skip
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    names = b"](" + b"".join(text(f"image_{i}.png".encode()) for i in range(len(labels))) + b"e"
    parts = text(b"batch_label") + text(b"training batch 1 of 5") + text(b"labels") + listed
    return b"\x80\x02}q\x00(" + parts + text(b"data") + array + text(b"filenames") + names + b"u."


def batch(keys=bytes, order="C", **changes):
    entries = {"batch_label": b"training batch 1 of 5", "labels": LABELS, "data": np.asarray(PIXELS, order=order)}
    entries |= {"filenames": [f"image_{i}.png".encode() for i in range(7)]} | changes
    return {key.encode() if keys is bytes else key: value for key, value in entries.items()}


# Round trips


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keys", [("x", "y"), ("x_train", "y_train"), ("images", "labels")])
def test_npz_comes_back(tmp_path, save, keys):
    x, y = RNG.normal(size=(5, 2, 3)), RNG.integers(0, 4, 5)
    save(tmp_path / "a.npz", **dict(zip(keys, (x, y), strict=True)), other=np.zeros(3))
    got_x, got_y = data.load(tmp_path / "a.npz")
    assert got_x.dtype == np.float32
    assert got_y.dtype == np.int32
    np.testing.assert_array_equal(got_x, x.astype(np.float32))
    np.testing.assert_array_equal(got_y, y)


def test_npz_keeps_fortran_order_big_endian_and_regression_targets(tmp_path):
    x, y = np.asfortranarray(RNG.normal(size=(5, 3)).astype(">f8")), RNG.normal(size=(5, 2)).astype(np.float16)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    got_x, got_y = data.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(got_x, x.astype(np.float32))
    np.testing.assert_array_equal(got_y, y.astype(np.float32))
    assert got_y.dtype == np.float32


def test_columns_of_labels_and_flat_inputs_get_their_usual_shape(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(4), y=np.arange(4)[:, None])
    x, y = data.load(tmp_path / "a.npz")
    assert x.shape == (4, 1)
    assert y.shape == (4,)
    assert y.dtype == np.int32


@pytest.mark.parametrize("dtype", IDX_DTYPES)
def test_idx_of_every_type_comes_back(tmp_path, dtype):
    images = RNG.integers(-100 if "u" not in dtype else 0, 100, (6, 4, 3))
    (tmp_path / "images.idx3").write_bytes(idx_bytes(images, dtype))
    (tmp_path / "labels.idx1").write_bytes(idx_bytes(np.arange(6)))
    x, y = data.load(tmp_path / "images.idx3")
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(y, np.arange(6))


@pytest.mark.parametrize(("suffix", "pack"), [("", lambda content: content), (".gz", gzip.compress)])
def test_idx_pair_is_found_from_either_file_or_the_folder(tmp_path, suffix, pack):
    images, labels = RNG.integers(0, 256, (9, 5, 5)), RNG.integers(0, 10, 9)
    path = write_mnist(tmp_path, images, labels, suffix, pack)
    for given in (path, tmp_path / f"train-labels-idx1-ubyte{suffix}", tmp_path, str(path)):
        x, y = data.load(given)
        np.testing.assert_array_equal(x, images)
        np.testing.assert_array_equal(y, labels)


def test_cifar_binary_comes_back(tmp_path):
    rows = np.column_stack([np.array(LABELS, np.uint8), PIXELS])
    (tmp_path / "data_batch_1.bin").write_bytes(rows.tobytes())
    x, y = data.load(tmp_path / "data_batch_1.bin")
    np.testing.assert_array_equal(x, PIXELS)
    np.testing.assert_array_equal(y, LABELS)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("keys", [bytes, str])
@pytest.mark.parametrize("order", ["C", "F"])
def test_cifar_pickles_of_python3_come_back(tmp_path, protocol, keys, order):
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(batch(keys, order), protocol=protocol))
    x, y = data.load(path)
    np.testing.assert_array_equal(x, PIXELS)
    np.testing.assert_array_equal(y, LABELS)


def test_cifar_pickles_of_python2_come_back(tmp_path):
    content = python2_batch()
    assert pickle.loads(content, encoding="bytes")[b"labels"] == LABELS  # the hand-written stream is a right pickle
    (tmp_path / "data_batch_1").write_bytes(content)
    x, y = data.load(tmp_path / "data_batch_1")
    np.testing.assert_array_equal(x, PIXELS)
    np.testing.assert_array_equal(y, LABELS)


def test_cifar_folder_joins_its_batches_in_order(tmp_path):
    for number in (2, 1):
        (tmp_path / f"data_batch_{number}").write_bytes(python2_batch(labels=[number] * 7))
    (tmp_path / "batches.meta").write_bytes(b"anything")
    x, y = data.load(tmp_path)
    np.testing.assert_array_equal(y, [1] * 7 + [2] * 7)
    np.testing.assert_array_equal(x, np.concatenate([PIXELS, PIXELS]))


# Refusals: one sentence, naming file and sizes


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npz_of(header, content=b"", name="x.npy", **options):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        text = header.encode() + b"\n"
        archive.writestr(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content)
        archive.writestr("y.npy", npz_member(np.zeros(4)))
    return stream.getvalue()


def npz_member(array):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


GOOD = {"x": np.zeros((4, 2)), "y": np.zeros(4, int)}
HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 99999), }"
BAD_NPZ = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "cut": (npz(**GOOD)[:-30], "is damaged"),
    "not a zip": (b"PK\x03\x04 nothing", "is damaged"),
    "other names": (npz(a=np.zeros(3)), "holds 'a'"),
    "objects": (npz(x=np.array([{}, {}]), y=np.zeros(2)), "Python objects"),
    "text": (npz(x=np.array(["a", "b"]), y=np.zeros(2)), "has dtype <U1"),
    "complex": (npz(x=np.zeros((2, 2)) * 1j, y=np.zeros(2)), "has dtype complex128"),
    "records": (npz(x=np.zeros(2, "i4,f4"), y=np.zeros(2)), "has dtype"),
    "lengths": (npz(x=np.zeros((4, 2)), y=np.zeros(3)), "4 inputs and 3 targets"),
    "no samples": (npz(x=np.zeros((0, 2)), y=np.zeros(0)), "at least one sample"),
    "scalar": (npz(x=np.zeros(()), y=np.zeros(())), "at least one sample"),
    "nan": (npz(x=np.array([[np.nan], [1.0]]), y=np.zeros(2)), "1 of 2 inputs that are not"),
    "inf target": (npz(x=np.zeros((2, 1)), y=np.array([np.inf, 0])), "1 of 2 targets that are not"),
    "beyond float32": (npz(x=np.array([[1e300], [1.0]]), y=np.zeros(2)), "1 of 2 inputs that are not"),
    "beyond int32": (npz(x=np.zeros((2, 1)), y=np.array([0, 2**40])), "labels from 0 to 1099511627776"),
    "huge header": (npz_of(HUGE), "promises 79999199200008"),
    "short": (npz_of("{'descr': '<f8', 'fortran_order': False, 'shape': (4, 2), }", b"abc"), "64 bytes .* holds 3"),
    "long": (npz_of("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", bytes(9)), "8 bytes .* holds 9"),
    "negative": (npz_of("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 2), }"), "possible shape"),
    "code in header": (npz_of("__import__('os').system('true')"), "sound arrays"),
    "bzip2": (npz_of(HUGE, compression=zipfile.ZIP_BZIP2), "compresses 'x.npy' in another way"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz_is_refused(tmp_path, case):
    content, sentence = BAD_NPZ[case]
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        data.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


IMAGES = idx_bytes(np.ones((4, 3, 3)))
BAD_IDX = {
    "cut": (IMAGES[:-1], "36 bytes .* holds 35"),
    "longer": (IMAGES + b"\0", "36 bytes .* holds 37"),
    "cut header": (IMAGES[:9], "header of 16 bytes.* ends after 9"),
    "huge header": (IMAGES[:4] + b"\xff" * 12, "promises 316912649835696421541200789500"),
    "one axis": (idx_bytes(np.ones(4)), "at least one axis"),
    "more images": (idx_bytes(np.ones((5, 2, 2))), "5 inputs and 4 targets"),
    "nan": (idx_bytes(np.full((4, 2), np.nan), ">f4"), "8 of 8 inputs"),
    "cut gzip": (gzip.compress(IMAGES)[:-12], "is damaged"),
    "gzip of text": (gzip.compress(b"hello, world"), "starts with 68 65 6c 6c"),
    "gzip checksum": (gzip.compress(IMAGES)[:-8] + bytes(8), "is damaged"),
    "gzip bomb": (gzip.compress(IMAGES + bytes(10**7)), "unpacks to more"),
    "gzip of huge header": (gzip.compress(IMAGES[:4] + b"\x7f" * 12 + bytes(10**6)), "promises"),
}


@pytest.mark.parametrize("case", BAD_IDX)
def test_bad_idx_is_refused(tmp_path, case):
    content, sentence = BAD_IDX[case]
    path = write_mnist(tmp_path, np.ones((4, 3, 3)), np.ones(4))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        data.load(path)
    assert str(path) in str(error.value)


BAD_PICKLES = {
    "no labels": (pickle.dumps({b"data": PIXELS}, protocol=2), "holds data"),
    "a list": (pickle.dumps([1, 2], protocol=2), "no dictionary"),
    "protocol 5": (pickle.dumps(batch(), protocol=5), "protocol 5. Load it where you trust it"),
    "float pixels": (pickle.dumps(batch(data=PIXELS.astype(float)), protocol=2), "unsigned bytes"),
    "other shape": (pickle.dumps(batch(data=PIXELS[:, :100].copy()), protocol=2), r"promises \(7, 100\)"),
    "few labels": (pickle.dumps(batch(labels=LABELS[:-1]), protocol=2), "7 inputs and 6 targets"),
    "text labels": (pickle.dumps(batch(labels=["cat"] * 7), protocol=2), "integers from 0 to 99"),
    "cut": (python2_batch()[:-40], "cannot be read|damaged|complete"),
    "not numpy": (pickle.dumps(batch(data=list(range(10))), protocol=2), "as a NumPy array"),
    "number as key": (pickle.dumps({1: 2}, protocol=2), "as keys"),
    "wrong escape": (b"(S'\\q'\nS'a'\nd.", "invalid escape|damaged|cannot be read"),
    "loop": (b"\x80\x02" + b"]" * 1_000_001 + b".", "at most 1000000 opcodes"),
}


@pytest.mark.parametrize("case", BAD_PICKLES)
def test_bad_pickle_is_refused(tmp_path, case):
    content, sentence = BAD_PICKLES[case]
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        data.load(path)
    assert str(path) in str(error.value)


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_hostile_pickle_runs_nothing(tmp_path, protocol):
    marker, path = tmp_path / "ran", tmp_path / "data_batch_1"
    content = pickle.dumps(batch(extra=Hostile(marker)), protocol=protocol)
    pickle.loads(content)
    assert marker.exists()  # the file is dangerous indeed
    marker.unlink()
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match="protocol 5" if protocol == 5 else "asks for 'posix system'; nothing was executed"
    ):
        data.load(path)
    assert not marker.exists()


def test_bad_cifar_binary_is_refused(tmp_path):
    path = tmp_path / "data_batch_1.bin"
    for content, sentence in [
        (bytes(3074), "rows of 3073 bytes.* has 3074"),
        (b"\x0b" + bytes(3072), "has a label 11"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            data.load(path)


def test_unknown_and_missing_files_are_named(tmp_path):
    (tmp_path / "notes").write_text("just text")
    with pytest.raises(ValueError, match=r"\(9 bytes\) starts with 6a 75 73 74"):
        data.load(tmp_path / "notes")
    with pytest.raises(ValueError, match="holds 'notes'"):
        data.load(tmp_path)
    for name in ("nothing", "nothing.npz", "nothing.bin"):
        with pytest.raises(FileNotFoundError, match=f"{name}' does not exist"):
            data.load(tmp_path / name)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(IMAGES)
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte' does not exist"):
        data.load(tmp_path / "t10k-images-idx3-ubyte")
    with pytest.raises(ValueError, match="is neither"):
        data.load("/dev/null")


def test_limit_on_bytes_holds_for_files_and_for_what_they_unpack_to(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros((1000, 1000), np.uint8), y=np.zeros(1000))
    assert path.stat().st_size < 10_000
    assert data.load(path)[0].shape == (1000, 1000)
    with pytest.raises(ValueError, match=r"at most 3000000 bytes .* promises 4000000"):
        data.load(path, max_bytes=3_000_000)
    with pytest.raises(ValueError, match="at most 10000 bytes"):
        data.load(path, max_bytes=10_000)
    with pytest.raises(ValueError, match=r"at most 100 bytes .* holds"):
        data.load(path, max_bytes=100)


def test_deflate_bomb_is_not_unpacked(tmp_path):
    # The directory of the archive says 100 bytes; the member unpacks to 50 MB.
    content = bytearray(npz_of(HUGE, bytes(50_000_000), compression=zipfile.ZIP_DEFLATED))
    (tmp_path / "bomb.npz").write_bytes(content)
    with pytest.raises(ValueError, match="at most 1000000 bytes"):
        data.load(tmp_path / "bomb.npz", max_bytes=1_000_000)


# Fuzzing: whatever happens to a file, the answer is a ValueError or a sound pair of arrays


def mutate(random, content):
    content = bytearray(content)
    for _ in range(random.integers(1, 6)):
        kind, where = random.integers(0, 4), int(random.integers(0, len(content)))
        where = where if random.random() < 0.5 else where % 200  # headers are at the front
        where = min(where, len(content) - 1)
        if kind == 0:
            content[where] = random.integers(0, 256)
        elif kind == 1:
            content[where] ^= 1 << int(random.integers(0, 8))
        elif kind == 2:
            del content[where : where + int(random.integers(1, 9))]
        else:
            content[where:where] = random.bytes(int(random.integers(1, 9)))
        if not content:
            return b"\0"
    return bytes(content[: random.integers(1, len(content) + 1)] if random.random() < 0.1 else content)


SMALL = RNG.integers(0, 256, (2, 3072), dtype=np.uint8)
SEEDS = {
    "idx": ("t-images-idx3-ubyte", IMAGES),
    "gzip": ("t-images-idx3-ubyte", gzip.compress(IMAGES)),
    "npz": ("a.npz", npz(**GOOD)),
    "npz without suffix": ("a", npz(**GOOD)),
    "cifar binary": ("a.bin", bytes(6146)),
    "python 2 pickle": ("a", python2_batch(SMALL, [1, 2])),
    **{
        f"pickle {protocol}": ("a", pickle.dumps(batch(data=SMALL, labels=[1, 2], filenames=[]), protocol=protocol))
        for protocol in (0, 2, 3, 4)
    },
}


@pytest.mark.parametrize("case", SEEDS)
def test_mutated_files_give_a_value_error_or_sound_arrays(tmp_path, case):
    name, content = SEEDS[case]
    random = np.random.default_rng(99)
    path = tmp_path / name
    (tmp_path / "t-labels-idx1-ubyte").write_bytes(idx_bytes(np.ones(4)))
    path.write_bytes(content)
    data.load(path)
    refused = 0
    for _ in range(1500):
        path.write_bytes(mutate(random, content))
        try:
            x, y = data.load(path)
        except ValueError:
            refused += 1
        else:
            assert len(x) == len(y) > 0
            assert x.dtype == np.float32
            assert np.isfinite(x).all()
            assert y.dtype in (np.int32, np.float32)
    assert refused > 100


def test_other_compressions_never_raise_anything_else(tmp_path):
    for name in ("a", "images.gz"):
        (tmp_path / name).write_bytes(bz2.compress(IMAGES))
        with pytest.raises(ValueError, match="none of these"):
            data.load(tmp_path / name)
