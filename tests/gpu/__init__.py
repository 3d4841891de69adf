"""`make gpu`: everything that needs a GPU, in one command of eight minutes.

    make gpu                               # 440 seconds on this machine's GPU
    make gpu SECONDS=200 DATA=folder:PATH  # shorter; nets and trainings on class folders of images
    make gpu PYTHON=python3                # by the interpreter that has torch; makes no .venv
    make gpu DRY=1                         # all of it at tiny sizes, on a CPU: at most 3 minutes

`python -m tests.gpu [SECTION ...] [--seconds 440] [--data folder:PATH] [--dry] [--device cuda]`
is the same, and can do some sections alone; `--dry --device cuda` tries every line on a GPU at tiny
sizes. (`make --dry` is an option of make itself, so it is DRY=1 there.) Only what sparsediag itself
needs must be installed: no pytest, no network; tools to compare with are left out where they are
missing.

Every section is a process of its own with its share of the time, dearest first, so that what is
cut off is what is missed least, and a crash costs one section. Every row goes to
`out/gpu/results.jsonl` as soon as it is there; what a section writes on stderr lies beside it. Rows
are

    ok       measured
    wrong    a check that failed: other bytes, an error above its bound
    error    an exception, a crash, a limit of time that was passed
    skipped  not possible here, and why
    cut      not reached for want of time

The last section trains what `python -m figures --scale hour` needs on DATA, as far as time goes.
Histories and results of finished trainings are kept, without weights, in `out/gpu/kept.jsonl`.

    python -m tests.gpu.summary [FOLDER]   # of out/gpu, or a copy of it that was fetched

writes the rows into `tests/bench/RESULTS.md#gpu` and adds those trainings to
`tests/gpu/kept.jsonl`, which is part of the repository: later calls, on any machine, go on from
there.
"""
