"""Sliders in a deck: what `alive` puts into the page is what a kernel draws of the same state."""

import base64
import gzip
import itertools
import json

import alive
import ipywidgets
import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from ddpm_edu import schedules, widgets
from ddpm_edu.widgets import prefetch


def unpacked(panel):
    return json.loads(gzip.decompress(base64.b64decode(alive.pack(panel))))


def test_the_states_are_those_of_all_places_in_order():
    got = unpacked(widgets.posterior_slider())
    t, x0, xt = got["controls"]
    assert [control["label"] for control in got["controls"]] == ["t", "x₀", "xₜ"]
    assert [control["shown"][control["at"]] for control in got["controls"]] == ["5", "0.8", "−0.6"]
    assert got["trait"] == "data"
    assert len(got["states"]) == len(t["shown"]) * len(x0["shown"]) * len(xt["shown"]) <= alive.MOST
    for k, place in enumerate(itertools.product(t["shown"], x0["shown"], xt["shown"])):
        values = [float(text.replace("−", "-")) for text in place]
        if k % 97 == 0:
            expected = prefetch.short(widgets.posterior_curves(int(values[0]), *values[1:]))
            assert got["states"][k] == json.loads(json.dumps(expected))


def test_choices_are_shown_by_their_labels_and_keep_all_options():
    schedule, T, variance, ruler = unpacked(widgets.weight_slider())["controls"]
    assert schedule["shown"] == list(widgets.weights.FAMILIES)
    assert (variance["shown"], ruler["shown"]) == (list(widgets.weights.VARIANCES), list(widgets.weights.RULERS))
    assert (T["shown"][0], T["shown"][-1]) == ("50", "1000")


def test_a_precomputed_picture_is_chosen_by_what_the_link_carries():
    torch.manual_seed(0)
    panel = widgets.noise_slider(schedules.linear(), torch.zeros(3, 4, 4), torch.randn(3, 4, 4), frames=5)
    got = unpacked(panel)
    assert got["controls"] == [
        {
            "label": "t",
            "at": 0,
            "shown": ["0", "200", "400", "600", "800", "1000"],
            "sets": [{"trait": "value", "values": [0, 200, 400, 600, 800, 1000]}],
        }
    ]
    assert got["states"] is None
    assert [base64.b64decode(png) for png in got["traits"]["frames"]] == panel.children[-1].frames
    assert got["traits"]["alt"] == panel.alt and got["pictures"] == ["frames"]


def test_a_link_from_the_index_of_a_choice_carries_the_index():
    choice, view = ipywidgets.SelectionSlider(options=["a", "b"], description="c"), widgets.panels.Frames()
    ipywidgets.jslink((choice, "index"), (view, "value"))
    [control] = unpacked(widgets.panels.Panel([choice], view, b"", ""))["controls"]
    assert control["sets"] == [{"trait": "value", "values": [0, 1]}]


@pytest.mark.parametrize(
    ("lines", "starts", "choices", "most", "expected"),
    [
        ([[0, 1, 2], [0, 1]], [0, 0], [False, True], 6, [[0, 1, 2], [0, 1]]),
        ([list(range(8)), [0, 1]], [3, 0], [False, True], 12, [[0, 1, 3, 5, 7], [0, 1]]),
        ([list(range(10)), list(range(4))], [4, 2], [False, False], 16, [[0, 4, 8, 9], [0, 1, 2, 3]]),
    ],
)
def test_thinned_lines_keep_the_start_both_ends_and_every_option(lines, starts, choices, most, expected):
    assert alive.thinned(lines, starts, choices, most) == expected


@pytest.mark.parametrize(("lines", "choices"), [([[0, 1, 2, 3]], [True]), ([list(range(9)), [0, 1]], [False, True])])
def test_too_many_choices_are_refused(lines, choices):
    with pytest.raises(ValueError, match="choices: expected at most 3 states together"):
        alive.thinned(lines, [line[0] for line in lines], choices, 3)


def test_only_what_the_sliders_need_is_run(tmp_path):
    path = tmp_path / "09_toy.ipynb"
    cells = [
        new_code_cell("from ddpm_edu import widgets", id="a"),
        new_code_cell("raise RuntimeError", id="b"),
        new_code_cell("widgets.elbo_slider()", id="c", metadata={"tags": ["slider"]}),
        new_code_cell("widgets.schedule_laboratory()", id="d", metadata={"tags": ["slider"]}),
    ]
    nbformat.write(new_notebook(cells=cells), path)
    panels = alive.panels(path)
    assert list(panels) == ["c"]  # the laboratory has controls that a page cannot hold
    assert panels["c"].children[-1].name == "elbo"
