"""The papers' figures on a page: made once, and said where one could not be."""

import json
from html.parser import HTMLParser

from helpers import refused, thermorun


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes)["src"])

    def handle_data(self, data):
        self.text += data


def figures(folder, *words):
    run = thermorun("figures", "--quick", "--folder", "page", *words, "--json", folder=folder)
    page = Page()
    page.feed((folder / "page" / "index.html").read_text())
    return run, json.loads(run.stdout)["results"], page


def test_a_page_of_figures(tmp_path):
    run, (one,), page = figures(tmp_path, "--only", "trap-discontinuous")
    assert (run.returncode, one["missing"]) == (0, None)
    work = one["run"]["results"][0]["excess_work"]
    assert abs(work["z"]) < 4
    assert work["exact"] > 0
    assert page.images == ["trap-discontinuous.png"]
    assert (tmp_path / "page" / "trap-discontinuous.png").stat().st_size > 10_000
    for words in ("Hnybida & Verret 2025, Fig. 4", "theta jumps at both ends", "Seed 0", "trap-discontinuous.h5"):
        assert words in page.text
    first = (tmp_path / "page" / "trap-discontinuous.h5").read_bytes()
    figures(tmp_path, "--only", "trap-discontinuous")
    assert (tmp_path / "page" / "trap-discontinuous.h5").read_bytes() == first


def test_what_could_not_be_made_is_said(tmp_path):
    run, (one,), page = figures(tmp_path, "--only", "computer-time")  # needs the file of another figure
    assert run.returncode == 1
    assert "computer-training.h5, which does not exist" in one["missing"]
    assert "Not made: " in page.text
    refused(thermorun("figures", "--only", "trap-work-7", folder=tmp_path), "--only is 'trap-work-7'")
