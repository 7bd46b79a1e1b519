"""Runs that chapters keep in their notebooks, and what is gathered from them."""

import nbformat
import numpy as np
import pandas as pd
import pytest
from threefactors.publishing.records import RUNS_MIME, gather, keep

RUNS = pd.DataFrame(
    {
        "protocol": "equal epochs",
        "arm": ["plain", "plain", "deep"],
        "lr": [0.1, 0.2, 0.1],
        "batch_size": 8,
        "seed": [0, 1, 0],
        "finished": [True, False, True],
        "diverged": [False, True, False],
        "train_loss": [1 / 3, np.nan, 2e-9],
        "sharpness_residual": 1e-4,
    }
)


def notebook(path, *shown):
    outputs = [nbformat.v4.new_output("display_data", data=one._repr_mimebundle_()) for one in shown]
    cells = [nbformat.v4.new_code_cell("keep(runs)", outputs=[output]) for output in outputs]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_what_is_kept_is_gathered_run_by_run(tmp_path):
    notebook(tmp_path / "20_width.ipynb", keep(RUNS))
    notebook(tmp_path / "24_cycles.ipynb", keep(RUNS.assign(trace=4.0).iloc[:1]), keep(RUNS.iloc[2:]))
    notebook(tmp_path / "30_none.ipynb")
    runs = gather(tmp_path)
    assert runs.chapter.tolist() == ["20_width"] * 3 + ["24_cycles"] * 2
    assert runs.train_loss.iloc[0] == 0.333333
    assert runs.train_loss.iloc[2] == 2e-9
    assert np.isnan(runs.train_loss.iloc[1])
    assert runs.diverged.tolist() == [False, True, False, False, False]
    assert runs.trace.notna().tolist() == [False] * 3 + [True, False]
    assert "sharpness_residual" not in runs


def test_a_table_that_cannot_be_told_apart_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no column protocol, arm; add"):
        keep(RUNS.drop(columns=["protocol", "arm"]))
    with pytest.raises(ValueError, match="keeps its runs; run `threefactors book`"):
        gather(tmp_path)


def test_a_reader_sees_no_table():
    shown = keep(RUNS)._repr_mimebundle_()
    assert shown["text/plain"] == "3 runs kept"
    assert shown.keys() == {"text/plain", RUNS_MIME}
