"""`make gpu`: everything that needs a GPU, in one command of eight minutes.

    make gpu                               # 440 seconds on the GPU of this machine
    make gpu SECONDS=200 DATA=folder:PATH  # shorter; trains on class folders of images
    make gpu PYTHON=python3                # with the interpreter that has torch; makes no .venv
    make gpu DRY=1                         # tiny sizes on a CPU, at most 3 minutes

`python -m tests.gpu [SECTION ...] [--only GLOBS] [--seconds 440] [--data folder:PATH] [--dry]
[--device cuda]` does the same, for some sections or measurements if they are named. `--dry
--device cuda` runs every line once on a GPU at tiny sizes. (`make --dry` would be an option of
make itself, hence DRY=1.) Only the requirements of sparsediag must be installed: no pytest, no
network. Tools to compare with are skipped where they are missing.

Each section runs in its own process with its own time limit, the most important first. A crash ends
one section only, and a time limit loses what matters least. Rows are written to
`out/gpu/results.jsonl` as they come, stderr to `out/gpu/SECTION.log`. The status of a row is

    ok       measured
    wrong    a check failed: other bytes, an error above its bound
    error    an exception, a crash, or a time limit that was passed
    skipped  not possible here; the note says why
    cut      not started for lack of time

The last section trains runs of `python -m figures --scale hour` on DATA while time is left. History
and results of finished runs are kept, without weights, in `out/gpu/kept.jsonl`.

    python -m tests.gpu.summary [FOLDER]   # FOLDER: out/gpu, or a copy of it from another machine

writes the rows into the section "GPU" of `tests/bench/RESULTS.md`, and adds the finished runs to
`tests/gpu/kept.jsonl`, which belongs to the repository: later calls on any machine skip them.
"""
