"""Draw a landscape as a surface: `python docs/images/surface.py RESULT.npz PICTURE.png`."""

import sys

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from scipy.interpolate import RectBivariateSpline

from sparsediag.diagnostics.landscape import Landscape

POINTS = 500  # along each side, interpolated
LINES = 26  # of equal loss


def draw(landscape: Landscape, path: str) -> None:
    """Draw the logarithm of the loss on a plane, with lines of equal loss and the networks."""
    x, y = landscape.axes
    spline = RectBivariateSpline(x, y, np.log10(landscape.loss))
    fine = [np.linspace(axis[0], axis[-1], POINTS) for axis in (x, y)]
    right, up = np.meshgrid(*fine, indexing="ij")
    height = spline(*fine)

    light = LightSource(azdeg=250, altdeg=50)
    colours = light.shade(height, mpl.colormaps["viridis"], blend_mode="soft", vert_exag=0.01)
    step = np.ptp(height) / LINES
    slope = np.hypot(*np.gradient(height))
    distance = np.abs((height / step + 0.5) % 1 - 0.5) * step / (slope + 1e-12)  # in points
    line = np.clip(1.1 - distance, 0, 1) * np.clip(4 * slope / slope.max(), 0, 1)
    colours[..., :3] += 0.3 * line[..., None] * (1 - colours[..., :3])

    figure = Figure(figsize=(10, 10))
    axes = figure.add_axes((0, 0, 1, 1), projection="3d", computed_zorder=False)
    axes.plot_surface(
        right, up, height, facecolors=colours, rcount=POINTS, ccount=POINTS, shade=False
    )
    for a, b in landscape.places:
        axes.plot(a, b, spline(a, b).item(), "o", color="white", mec="black", ms=6)
    axes.view_init(elev=57, azim=-134)
    axes.set_box_aspect((1, 1, 0.25))
    axes.set_axis_off()
    figure.savefig(path, dpi=100)
    picture = Image.open(path).convert("RGB")
    content = ImageOps.invert(picture).getbbox()
    picture.crop(content).quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    draw(Landscape.load(sys.argv[1]), sys.argv[2])
