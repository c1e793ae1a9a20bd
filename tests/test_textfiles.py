"""Numbers in text files, whoever wrote them."""

import pytest

from thermorun import textfiles
from thermorun.errors import InputError

_ROWS = [[1.5, -0.25], [2.0, 3.0], [1e-3, 4.0]]


@pytest.mark.parametrize(
    "content",
    [
        b"1.5,-0.25\n2,3\n1e-3,4\n",
        b"1.5 -0.25\r\n2 3\r\n1e-3  4",
        b"\xef\xbb\xbfforward;reverse\r\n1.5;-0.25\r\n2;3\r\n1e-3;4\r\n",
        b"forward;reverse\n1,5;-0,25\n2;3\n0,001;4\n",
        b"w_f\tw_r\n1.5\t-0.25\n2\t3\n1e-3\t4\n",
        b'# of a simulation\n@ title "dH"\n! more\n% and more\n1.5 -0.25 # here\n\n2 3\n1e-3 4\n',
        b'"1.5","-0.25"\n"2","3"\n"1e-3","4"\n',
        "a,b\n1.5,-0.25\n2,3\n1e-3,4".encode("utf-16"),
    ],
)
def test_layouts(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    assert textfiles.read_rows("works", tmp_path / "a.csv") == _ROWS
    assert textfiles.read_table("works", tmp_path / "a.csv") == _ROWS


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "which holds no numbers."),
        (b"forward,reverse\n", "which holds no numbers."),
        (b"1,2\n3,x\n", "whose line 2 is '3,x', not numbers."),
        (b"1,x\n3,4\n", "whose line 1 is '1,x', not numbers."),
        (b"1,2\n3\n", "whose line 2 holds 1 numbers, not 2."),
        (b"1,2\n3,4,5\n", "whose line 2 holds 3 numbers, not 2."),
        (b"1,2,\n3,,4\n", "whose line 1 has an empty cell."),
        (bytes(range(128, 256)), "which is no text"),
    ],
)
def test_what_is_no_table_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"works is .*a\.csv, ") as caught:
        textfiles.read_table("works", tmp_path / "a.csv")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
