"""Data sets by name, from every kind of file that people have, and from arrays."""

import gzip
import struct

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from thermorun import datasets
from thermorun.errors import InputError

DIGITS = load_digits()
GREY, BITS, LABELS = DIGITS.images.astype(np.uint8), (DIGITS.data > 7).astype(np.uint8), DIGITS.target
WORDS = np.array(["nil", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


def idx(path, array, packed=False):
    """Writes an array of bytes as IDX."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if packed else content)


def pngs(folder, images, labels):
    """Writes pictures, a folder a class."""
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(folder / str(label) / f"{k:05d}.png")


def csv(path, table, head=""):
    np.savetxt(path, table, fmt="%s", delimiter=",", header=head, comments="")


def hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values


def upper(path, **arrays):
    with open(path, "wb") as stream:
        np.savez(stream, **arrays)


# How a file of the digits is written; its name; the threshold that gives back their bits.
KINDS = {
    "npz": (lambda p: np.savez(p, x=BITS, labels=LABELS), "a.npz", None),
    "npz, upper case": (lambda p: upper(p, x=BITS, labels=LABELS), "UPPER.NPZ", None),
    "X, y": (lambda p: np.savez(p, X=GREY, y=LABELS), "a.npz", 7),
    "data, target": (lambda p: np.savez(p, data=DIGITS.data, target=LABELS), "a.npz", 7),
    "images, float labels": (lambda p: np.savez(p, images=GREY[..., None], labels=LABELS.astype(float)), "a.npz", 7),
    "channel first, column of labels": (lambda p: np.savez(p, x=GREY[:, None], y=LABELS[:, None]), "a.npz", 7),
    "strings of numbers": (lambda p: np.savez(p, x=BITS > 0, y=LABELS.astype(str)), "a.npz", None),
    "one-hot labels": (lambda p: np.savez(p, x=BITS, y=np.eye(10)[LABELS]), "a.npz", None),
    "hdf5": (lambda p: hdf5(p, data=GREY, labels=LABELS), "a.h5", 7),
    "hdf5, strings": (lambda p: hdf5(p, x=BITS, y=[str(k) for k in LABELS]), "a.hdf5", None),
    "csv, label first": (lambda p: csv(p, np.column_stack([LABELS, GREY.reshape(-1, 64)])), "a.csv", 7),
    "csv, label last": (lambda p: csv(p, np.column_stack([GREY.reshape(-1, 64), LABELS])), "a.csv", 7),
    "csv, named": (
        lambda p: csv(p, np.column_stack([GREY.reshape(-1, 64), LABELS]), "p," * 64 + "class"),
        "a.csv", 7,
    ),
    "csv, quoted words": (lambda p: csv(p, np.column_stack([[f'"{k}"' for k in LABELS], BITS])), "a.csv", None),
    "csv, packed": (lambda p: csv(p, np.column_stack([LABELS, BITS])), "a.csv.gz", None),
    "spaces": (lambda p: np.savetxt(p, np.column_stack([LABELS, BITS]), fmt="%d"), "a.txt", None),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_every_kind_hold_the_same_data(tmp_path, kind):
    write, name, threshold = KINDS[kind]
    write(tmp_path / name)
    data = datasets.load(str(tmp_path / name), None, threshold)
    np.testing.assert_array_equal(data.x, BITS)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.shape == (8, 8)
    assert data.source == str(tmp_path / name)
    grey = datasets.load_images(str(tmp_path / name))
    np.testing.assert_array_equal(grey.labels, LABELS[np.arange(len(LABELS)) % 3 != 2])
    assert grey.x.dtype == np.float32


@pytest.mark.parametrize("names", [("x_train", "y_train", "x_test", "y_test"),
                                   ("train_images", "train_labels", "test_images", "test_labels"),
                                   ("x", "labels", "x_test", "labels_test")])  # fmt: skip
def test_parts_held_out(tmp_path, names):
    np.savez(
        tmp_path / "a.npz", **dict(zip(names, (GREY[:1000], LABELS[:1000], GREY[1000:], LABELS[1000:]), strict=True))
    )
    data = datasets.load(str(tmp_path / "a"), None, 7)
    np.testing.assert_array_equal(data.x, BITS[:1000])
    np.testing.assert_array_equal(data.test_x, BITS[1000:])
    np.testing.assert_array_equal(data.test_labels, LABELS[1000:])
    grey = datasets.load_images(str(tmp_path / "a.npz"), (3, 4))
    np.testing.assert_array_equal(grey.test_labels, LABELS[1000:][np.isin(LABELS[1000:], (3, 4))] - 3)
    part = data.only((3, 4))
    assert set(part.labels) == set(part.test_labels) == {3, 4}


def test_classes_with_names(tmp_path):
    np.savez(tmp_path / "a.npz", x=BITS, y=WORDS[LABELS])
    data = datasets.load(str(tmp_path / "a.npz"), ("two", "one"))
    assert [data.class_name(k) for k in data.classes] == ["one", "two"]
    np.testing.assert_array_equal(data.x, BITS[np.isin(LABELS, (1, 2))])
    grey = datasets.load_images(str(tmp_path / "a.npz"), ("two", "one"))
    assert [grey.names[k] for k in grey.classes] == ["one", "two"]
    with pytest.raises(InputError, match=r"classes asks for ten, which .* it has eight, five,"):
        datasets.load(str(tmp_path / "a.npz"), ("ten",))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_idx_by_folder_and_by_file(tmp_path, packed, below):
    end = ".gz" if packed else ""
    for part, rows in (("train", slice(0, 1000)), ("t10k", slice(1000, None))):
        idx(tmp_path / below / f"{part}-images-idx3-ubyte{end}", GREY[rows], packed)
        idx(tmp_path / below / f"{part}-labels-idx1-ubyte{end}", LABELS[rows], packed)
    data = datasets.load(str(tmp_path), None, 7)
    np.testing.assert_array_equal(data.x, BITS[:1000])
    np.testing.assert_array_equal(data.test_labels, LABELS[1000:])
    alone = datasets.load(str(tmp_path / below / f"train-images-idx3-ubyte{end}"), None, 7)
    np.testing.assert_array_equal(alone.labels, LABELS[:1000])
    assert alone.test_x is None


def test_pictures_by_class(tmp_path):
    pngs(tmp_path / "flat", GREY[:60], WORDS[LABELS[:60]])
    data = datasets.load(str(tmp_path / "flat"), None, 7 * 15)
    order = np.argsort(WORDS[LABELS[:60]], kind="stable")
    np.testing.assert_array_equal(data.x, BITS[:60][order])
    assert [data.class_name(k) for k in data.labels] == WORDS[LABELS[:60]][order].tolist()
    pngs(tmp_path / "parts" / "train", GREY[:60], LABELS[:60])
    pngs(tmp_path / "parts" / "test", GREY[60:90], LABELS[60:90])
    grey = datasets.load_images(str(tmp_path / "parts"))
    assert (len(grey.x), len(grey.test_x)) == (60, 30)
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "flat" / "one" / "z.png")
    with pytest.raises(InputError, match="all pictures must be of one size"):
        datasets.load(str(tmp_path / "flat"), None, 7)


def test_deep_grey_pictures_are_not_cut(tmp_path):
    """16 bits, as microscopes write them: read as 8, all above 255 would be white."""
    for k, image in enumerate(GREY[:6].astype(np.uint16) // 15 * 4000):
        place = tmp_path / str(k % 2)
        place.mkdir(exist_ok=True)
        Image.fromarray(image).save(place / f"{k}.png")
    images = datasets.load_images(str(tmp_path))
    stored = np.concatenate([images.x, images.test_x])
    assert stored.sum() == 4000 * (GREY[:6].astype(int) // 15).sum()


def test_images_that_nobody_has_to_tell_apart():
    """One class, no labels, and as many of each class as are wanted, wherever they stand."""
    x, y = np.random.default_rng(0).random((12, 4)), np.arange(12) % 3
    with pytest.raises(InputError, match="1 class to tell apart"):
        datasets.images_from_arrays(x, y, classes=(1,))
    with pytest.raises(InputError, match="no point to hold out"):
        datasets.images_from_arrays(x, y, classes=(0, 1))
    one = datasets.images_from_arrays(x, y, classes=(1,), each=4)
    assert np.array_equal(one.x, np.float32(x[1::3]))
    assert len(one.test_x) == 0
    last = datasets.images_from_arrays(x, y, each=1)  # every third point is all of class 2
    assert np.bincount(last.labels).tolist() == [4, 4, 4]
    held = datasets.images_from_arrays(np.vstack([x, x]), np.repeat([0, 1], 12), each=8)
    assert (len(held.x), len(held.test_x)) == (16, 8)
    alone = datasets.images_from_arrays(x, None, classes=(2, 5), each=1)
    assert np.array_equal(alone.x, np.float32(x[[2, 5]]))


def test_arrays_that_are_packed_alone(tmp_path):
    with gzip.open(tmp_path / "a.npy.gz", "wb") as stream:
        np.save(stream, BITS)
    np.testing.assert_array_equal(datasets.load(str(tmp_path / "a.npy.gz")).x, BITS)


@pytest.mark.parametrize("place", [0, 64])
@pytest.mark.parametrize("index", [False, True])
def test_tables_as_pandas_writes_them(tmp_path, place, index):
    """Columns that are called by numbers, before or after the label; an index that has no name."""
    table = pd.DataFrame(BITS)
    table.insert(place, "label", LABELS)
    table.to_csv(tmp_path / "a.csv", index=index)
    data = datasets.load(str(tmp_path / "a.csv"))
    np.testing.assert_array_equal(data.x, BITS)
    np.testing.assert_array_equal(data.labels, LABELS)


def test_digits_are_bits():
    data = datasets.load("digits")
    np.testing.assert_array_equal(data.x, BITS)
    assert data.frequencies.sum() == pytest.approx(1)
    assert data.fingerprint == 2476630965  # in files of studies: never to change
    assert datasets.load("digits", None, 3.0).x.sum() > BITS.sum()


def written(make, name):
    """A function that writes a file and loads it."""

    def load(folder):
        make(folder / name)
        return datasets.load(str(folder / name))

    return load


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: datasets.load("digits", (3, 11)), "classes asks for 11, which digits does not have"),
        (lambda p: datasets.load("letters"), "dataset is 'letters'; it must be digits, mnist-012, mnist, or a file"),
        (lambda p: datasets.load(str(p / "missing.npy")), "or a file or folder that exists"),
        (lambda p: datasets.load("array"), "it was passed as an array; pass it again"),
        (lambda p: datasets.load(str(p)), "a folder that holds no pictures and no IDX files"),
        (lambda p: datasets.from_arrays([[0, 2]]), "from 0 to 2; give a threshold above which they are"),
        (lambda p: datasets.from_arrays([[0.0, np.nan]]), "not finite"),
        (lambda p: datasets.from_arrays(np.ma.masked_array([[0, 1]], [[True, False]])), "array is masked in 1 places"),
        (lambda p: datasets.images_from_arrays(np.full((9, 4), 1e30), np.arange(9) % 2), "pixels of size 1e"),
        (lambda p: datasets.from_arrays(np.zeros((0, 4))), "shape"),
        (lambda p: datasets.from_arrays(np.zeros((2, 4, 4, 3))), "colour images"),
        (lambda p: datasets.from_arrays(np.zeros((3, 4)), [1, 2]), "there must be one for each of 3 points"),
        (lambda p: datasets.from_arrays(np.zeros((2, 4)), [1.5, 2]), "not all whole; they must be classes"),
        (written(lambda p: p.write_text("not,a\ntable,\n"), "a.csv"), "cannot be read as a table"),
        (written(lambda p: p.write_text(""), "a.npz"), "cannot be read as a NumPy file"),
        (written(lambda p: np.save(p, np.array([{}])), "a.npy"), "it holds Python objects"),
        (written(lambda p: p.write_text("hello"), "a.npz"), "it is none, whatever its name says"),
        (written(lambda p: p.write_text("a,b,label\n"), "a.csv"), "cannot be read as a table .*it has no rows"),
        (written(lambda p: p.write_text("1,,0,1,5\n1,1,0,1,6\n"), "a.csv"), "cannot be read as a table"),
        (written(lambda p: p.write_text("label,a,b\n1,0\n0,1\n"), "a.csv"), "names 3 columns, and rows have 2"),
        (written(lambda p: np.savez(p, a=BITS, b=BITS), "a.npz"), "has no array 'x' .*; it has a, b"),
        (written(lambda p: p.write_text("x"), "a.mat"), "is of no kind that is read here"),
        (written(lambda p: p.write_bytes(b"\0\0\x08\x01\0\0\0\x09"), "a-ubyte"), "it is cut"),
        (written(lambda p: p.write_text("x"), "a.h5"), "cannot be read as HDF5"),
        (written(lambda p: Image.fromarray(GREY[0]).save(p), "a.png"), "a single picture"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used_are_refused_in_one_sentence(tmp_path, make, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        make(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_classifier_needs_labels(tmp_path):
    np.save(tmp_path / "a.npy", GREY)
    with pytest.raises(InputError, match="holds no labels"):
        datasets.load_images(str(tmp_path / "a.npy"))


# ------------------------------------------------------------------------------------------------ MNIST


@pytest.mark.parametrize("place", ["", "MNIST/raw"])
def test_mnist_012_is_the_papers(mnist, tmp_path, monkeypatch, place):
    """Packed where it is, and unpacked where torchvision keeps it."""
    if place:
        (tmp_path / place).mkdir(parents=True)
        for file in mnist.glob("*ubyte.gz"):
            (tmp_path / place / file.name.removesuffix(".gz")).write_bytes(gzip.decompress(file.read_bytes()))
        monkeypatch.setenv("THERMORUN_DATA", str(tmp_path))
    data = datasets.load("mnist-012")
    assert data.x.shape == (3000, 784)
    assert data.test_x.shape == (980 + 1135 + 1032, 784)  # LeCun's table of the test set
    np.testing.assert_allclose(data.frequencies, 1 / 3)


def test_a_folder_of_data_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("THERMORUN_DATA", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"THERMORUN_DATA is .*none, which is no folder"):
        datasets.load("mnist")


def test_another_set_in_the_place_of_mnist(monkeypatch, tmp_path):
    monkeypatch.setenv("THERMORUN_DATA", str(tmp_path))
    for kind, array in (("images-idx3", GREY), ("labels-idx1", LABELS)):
        idx(tmp_path / f"train-{kind}-ubyte", array)
    with pytest.raises(InputError, match=f"such as Fashion-MNIST, is read by its folder: --dataset {tmp_path}"):
        datasets.load("mnist")
