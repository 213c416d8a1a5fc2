"""Draw docs/registration.png: the synthetic pair before and after, and the deformation.

python benchmarks/figure.py
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

import warpwise as ww

pair = ww.brain_pair()
result = ww.register(pair.fixed, pair.moving)
z = pair.fixed.grid.shape[2] // 2
panels = {"fixed": pair.fixed, "moving": pair.moving, "moving, warped onto fixed": result.warped}
plt.rcParams.update({"font.size": 11, "font.family": "DejaVu Sans"})
figure, axes = plt.subplots(1, 4, figsize=(12, 3.9), facecolor="white")
for axis, (title, image) in zip(axes, panels.items(), strict=False):
    axis.imshow(image.data[0, :, :, z].T, cmap="gray", origin="lower", vmin=0, vmax=1150)
    axis.set_title(title)
axes[3].imshow(np.zeros_like(pair.fixed.data[0, :, :, z].T), cmap="gray", origin="lower", alpha=0)
spacing = np.array(pair.fixed.grid.spacing_mm)
x, y = np.meshgrid(*(np.arange(n) for n in pair.fixed.grid.shape[:2]), indexing="ij")
moved_x = x + result.displacement_mm[0, :, :, z] / spacing[0]
moved_y = y + result.displacement_mm[1, :, :, z] / spacing[1]
for k in range(0, x.shape[0], 5):
    axes[3].plot(moved_x[k], moved_y[k], color="#1f5fa8", linewidth=0.6)
for k in range(0, x.shape[1], 5):
    axes[3].plot(moved_x[:, k], moved_y[:, k], color="#1f5fa8", linewidth=0.6)
axes[3].set_title("where each point comes from")
axes[3].set_aspect("equal")
for axis in axes:
    axis.set_xlim(-2, x.shape[0] + 1)
    axis.set_ylim(-2, x.shape[1] + 1)
    axis.axis("off")
figure.tight_layout()
out = Path(__file__).resolve().parents[1] / "docs" / "registration.png"
figure.savefig(out, dpi=100)
