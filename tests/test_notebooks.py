"""Every notebook runs from top to bottom, is stored without outputs, and shows its results."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all of them: what one has trained, another finds."""
    return tmp_path_factory.mktemp("notebooks")


def test_there_are_four() -> None:
    names = [path.stem for path in NOTEBOOKS]
    assert names[:2] == ["01_train_and_prune", "02_diagnose"]
    assert names[2:] == ["03_your_own_model", "04_keep_it_sparse"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_notebook_runs(path: Path, place: Path) -> None:
    if path.stem == "04_keep_it_sparse":
        pytest.importorskip("peft")
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": place}}).execute()
    for cell in code:  # each result once, as HTML and as text
        data = [output["data"] for output in cell.outputs if "text/html" in output.get("data", {})]
        assert all(one["text/plain"].strip() for one in data)
        tables = [one for one in data if "<table>" in one["text/html"]]
        assert len(tables) <= 1
        assert not tables or len(data) == 1
    shown = [output.get("data", {}).get("text/html", "") for c in code for output in c.outputs]
    rich = [html for html in shown if "<table>" in html]
    assert len(rich) >= 2
    assert any("<svg" in html for html in rich)
    assert max(map(len, shown)) < 200_000
