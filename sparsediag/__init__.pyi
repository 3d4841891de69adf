# The names of the package and the modules that they come from, for type checkers and __init__.py.

from sparsediag import data as data
from sparsediag import models as models
from sparsediag.checkpoint import mask_file as _mask_file
from sparsediag.checkpoint.checkpoint import Checkpoint as Checkpoint
from sparsediag.checkpoint.strip_pruning import plain as plain
from sparsediag.core.errors import CheckpointError as CheckpointError
from sparsediag.core.errors import ConfigError as ConfigError
from sparsediag.core.mask import Mask as Mask
from sparsediag.core.problem import Problem as Problem
from sparsediag.core.prunable import prunable as prunable
from sparsediag.core.version import __version__ as __version__
from sparsediag.curvature.operator import Curvature as Curvature
from sparsediag.diagnostics.activations import Activations as Activations
from sparsediag.diagnostics.activations import activations as activations
from sparsediag.diagnostics.blocks import Blocks as Blocks
from sparsediag.diagnostics.blocks import blocks as blocks
from sparsediag.diagnostics.census import Census as Census
from sparsediag.diagnostics.census import census as census
from sparsediag.diagnostics.comparison import Comparison as Comparison
from sparsediag.diagnostics.comparison import compare as compare
from sparsediag.diagnostics.course import Course as Course
from sparsediag.diagnostics.course import course as course
from sparsediag.diagnostics.gradflow import Gradflow as Gradflow
from sparsediag.diagnostics.gradflow import gradflow as gradflow
from sparsediag.diagnostics.inputscape import Inputscape as Inputscape
from sparsediag.diagnostics.inputscape import inputscape as inputscape
from sparsediag.diagnostics.landscape import Landscape as Landscape
from sparsediag.diagnostics.landscape import landscape as landscape
from sparsediag.diagnostics.perturbation import Perturbation as Perturbation
from sparsediag.diagnostics.perturbation import perturbation as perturbation
from sparsediag.diagnostics.recording import Recording as Recording
from sparsediag.diagnostics.recording import read_watch as read_watch
from sparsediag.diagnostics.report.report import report as report
from sparsediag.diagnostics.result import Result as Result
from sparsediag.diagnostics.runs import Runs as Runs
from sparsediag.diagnostics.runs import runs as runs
from sparsediag.diagnostics.signal import Signal as Signal
from sparsediag.diagnostics.signal import signal as signal
from sparsediag.diagnostics.spectrum import Spectrum as Spectrum
from sparsediag.diagnostics.spectrum import spectrum as spectrum
from sparsediag.diagnostics.subspace import overlap as overlap
from sparsediag.diagnostics.trace import Trace as Trace
from sparsediag.diagnostics.trace import trace as trace
from sparsediag.diagnostics.trajectory import Trajectory as Trajectory
from sparsediag.diagnostics.trajectory import trajectory as trajectory
from sparsediag.surfaces.interpolation import interpolate as interpolate
from sparsediag.surfaces.interpolation import pca_plane as pca_plane
from sparsediag.surfaces.plane import Plane as Plane
from sparsediag.surfaces.plane import plane as plane
from sparsediag.watch.watch import Watch as Watch

# second names of the same objects
block_spectrum = blocks
layer_history = course
mask_statistics = census
maskfile = _mask_file
principal = pca_plane
prunable_weights = prunable
spectrum_history = trajectory
strip_pruning = plain
subspace_overlap = overlap
through = interpolate
