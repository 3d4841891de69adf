"""A figure of the user's own: a file outside this package, drawn by its name."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from figures import registry
from figures.__main__ import main
from figures.page import html
from figures.scales import SCALES
from figures.verdicts import collect

OWN = '''
"""A line: from zero to one.

It needs no training.
"""
import matplotlib.pyplot as plt

def draw(results, scale):
    fig, ax = plt.subplots()
    ax.plot([0, SHOWN])
    return fig

SHOWN = 1
'''


@pytest.mark.usefixtures("plugins_are_removed")
def test_a_figure_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "line.py", tmp_path / "out"
    words = ["--scale", "smoke", "--jobs", "1", "--quiet", "--out", str(out)]
    assert main(["own/line", *words]) == 2
    assert "unknown figure 'own/line'" in capsys.readouterr().err
    drawn = []
    for text, up_to_date in ((OWN, 0), (OWN, 1), (OWN.replace("SHOWN = 1", "SHOWN = 20"), 0)):
        file.write_text(text)
        assert main(["own/line", *words, "--plugin", str(file)]) == 0
        assert f"{1 - up_to_date} drawn, {up_to_date} up to date" in capsys.readouterr().out
        with Image.open(out / "figures" / "own" / "line.png") as image:
            drawn.append(image.tobytes())
            assert "from zero to one" in image.info["Description"]
    plt.close("all")
    assert drawn[0] == drawn[1] != drawn[2]
    assert registry.names()[-1] == "own/line"
    page = html(collect(SCALES["smoke"], out), [], SCALES["smoke"], out, "")
    assert "<h2>Your own figures</h2>" in page
    assert "A line: from zero to one." in page
