"""Reasons not to believe a result, each with its numbers."""

import numpy as np
from numpy.typing import NDArray

from warpwise.pair import Pair
from warpwise.registrars.linear import starts
from warpwise.registrars.linear.shading import STRONG
from warpwise.registrars.linear.stage import Aligned

SIZES = 1.3  # people differ by less


def suspicions(aligned: Aligned, whole: Pair, displacement_mm: NDArray[np.float32]) -> tuple[str, ...]:
    """Warnings about a finished registration.

    Args:
        aligned: the linear stage, which saw the two objects alone.
        whole: the images with all of their fields of view, under the affine that was found.
        displacement_mm: where it ended.
    """
    pair, start = aligned.objects.moved(aligned.solution.to_moving), aligned.start
    out: list[str] = []
    small = starts.coarsest(pair)
    information, _ = starts.ranking(small, small.to_moving[None])
    linear = pair.world
    turned = starts.rotation_degrees(linear[:3, :3])
    if turned > starts.TURNED:
        out.append(
            f"The images' axes do not agree: they match best after a rotation of {turned:.0f}° against the headers. "
            "Check both headers, left and right too."
        )
    size = starts.relative_size(small)
    if aligned.cut_out:
        size = float(np.abs(np.linalg.det(linear[:3, :3])) ** (1 / 3))  # the objects themselves do not tell
    if max(size, 1 / size) > SIZES:
        out.append(f"The moving object is {size:.2f} times as large as the fixed one; check both headers' voxel sizes.")
    stretch = np.linalg.svd(linear[:3, :3], compute_uv=False)
    if stretch.max() > 2 or stretch.min() < 0.5:
        out.append(f"The affine scales by {stretch.min():.2f} to {stretch.max():.2f}; such sizes rarely match.")
    if information[0] < 0.9 * start.information and aligned.agreement() < aligned.agreement(start.to_moving):
        out.append(
            f"The similarity after the affine stage is not better than before: mutual information "
            f"{information[0]:.3f}, {start.information:.3f} at the start."
        )
    if information[0] < 0.1:
        out.append(f"The images share little after the affine stage (mutual information {information[0]:.3f} nats).")
    if aligned.cut_out:
        name = (pair.fixed if aligned.cut_out == "fixed" else pair.moving).name
        out.append(f"{name} has a blank background where the other image goes on: only what it shows was compared.")
    inside = overlap_share(starts.coarsest(whole))
    if inside < 0.5:
        out.append(f"Only {100 * inside:.0f} % of the fixed foreground lies in the moving image's field of view.")
    if float(np.abs(displacement_mm).max()) > 1e4:
        out.append("The displacement exceeds 10 m.")
    return tuple(out)


def shading_words(aligned: Aligned, *, even: bool, corrected: bool) -> tuple[str, ...]:
    """A warning about shading that the images do not share, and what was done about it.

    Args:
        even: whether the deformable stage saw the images without it; corrected: whether each was corrected beforehand.
    """
    if not (even or aligned.shading > STRONG):
        return ()
    stages = [name for name, so in (("linear", aligned.flattened), ("deformable", even)) if so]
    done = f"the {' and the '.join(stages)} stage compared them without that" if stages else "nothing was done about it"
    advice = "" if corrected else " Removing it from both beforehand (--bias-field) may do better."
    percent = 100 * (np.exp(aligned.shading) - 1)
    return (f"Shading: brightness drifts across one image against the other, by {percent:.0f} % (SD); {done}.{advice}",)


def overlap_share(pair: Pair) -> float:
    """Share of the fixed foreground that `pair.to_moving` maps into the moving grid."""
    matrix = pair.to_moving
    at = np.argwhere(pair.fixed.data[0] > 0.1)
    if len(at) == 0:
        return 0.0
    moved = at @ matrix[:3, :3].T + matrix[:3, 3]
    return float(((moved >= -0.5) & (moved <= np.array(pair.moving.shape) - 0.5)).all(1).mean())
