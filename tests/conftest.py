"""What every test needs: one thread, since the nets are small, and profiles for hypothesis."""

import os

import torch
from hypothesis import settings

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for what the tests start
settings.register_profile("fast", max_examples=25, deadline=None, database=None)
settings.register_profile("thorough", max_examples=500, deadline=None, database=None)
settings.load_profile("fast")
