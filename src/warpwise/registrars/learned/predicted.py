"""Registration by a trained network, alone or as the start of a solver."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.events import OnEvent, ignore
from warpwise.grid import Grid
from warpwise.image import DARK
from warpwise.networks.model import Model, ModelCard
from warpwise.pair import Pair
from warpwise.prediction import Stage
from warpwise.registrars.base import PREDICTED, Passed, Registrar, Solution
from warpwise.registrars.crop import foreground
from warpwise.registrars.deformable import fold
from warpwise.registrars.learned.certainty import certainty, deviation
from warpwise.registrars.learned.working import array, scalar, tensor, working_pair
from warpwise.shapes import Array, VectorField
from warpwise.spacing import embedded_spacing, finer, on_all_voxels

THICK = 1.6  # voxels this many times as large as the network's hold less than it was trained on
SMALL, LARGE = 0.5, 1.4  # of the training images' extent
UNLIKE = 0.25  # of the intensity range: deciles that differ more are of another contrast


@dataclass(frozen=True)
class Predicted:
    """One pass of a network over both objects, whole, at its own spacing; then on every voxel."""

    model: Model
    samples: int = 12
    seed: int = 0
    stage: str = PREDICTED

    def fits(self, pair: Pair) -> tuple[str, ...]:
        """How a pair differs from what the network was trained on.

        Raises:
            InputError: the network is for images of other axes or channels.
        """
        self.model.card.fits(len(pair.fixed.data), dim=2 if pair.planar else 3)
        return mismatches(self.model.card, pair)

    def solve(self, pair: Pair, *, start: Solution | None = None, on_step: OnEvent = ignore) -> Solution:  # noqa: ARG002
        """The displacement that the network predicts, and its uncertainty where it knows.

        Raises:
            InputError: the network is for images of other axes or channels, or predicts what is not finite.
        """
        card = self.model.card
        box = foreground(pair)
        part = pair.cropped(box.start, box.shape)
        working = working_pair(part, card)
        fixed, moving = (tensor(image, card.dim) for image in (working.fixed, working.moving))
        prediction = self.model(fixed, moving)
        x, y, z = pair.fixed.shape
        taper = box.taper(box.shape, (1, 1, 1))

        def whole(displacement: torch.Tensor) -> VectorField:
            # Before it is made finer: an eighth of the nodes, and the same folds.
            nodes = array(displacement[0])
            nodes, _ = fold.repair(nodes, (1, 1, 1), (nodes.shape[1], nodes.shape[2], nodes.shape[3]))
            field = on_all_voxels(nodes, working.step, box.shape)
            field *= taper[0][:, None, None] * taper[1][:, None] * taper[2]
            return box.embed(field, (x, y, z))

        if not torch.isfinite(prediction.displacement).all():
            raise InputError(f"The model {card.name or self.model.path} predicts values that are not finite.")
        field = whole(prediction.displacement)

        def embedded(values: Array) -> Array:
            # Nothing is known beyond what was looked at.
            return box.embed(finer(values, working.step, box.shape), (x, y, z), outside=float(values.max()))[0]

        uncertainty = features = None
        if prediction.posterior is not None and self.samples:
            voxel_mm = working.step * np.array(pair.fixed.grid.spacing_mm)
            uncertainty = embedded(
                deviation(self.model, fixed, moving, prediction, voxel_mm=voxel_mm, samples=self.samples, seed=self.seed)
            )
        elif self.samples and (sure := certainty(prediction, samples=self.samples)) is not None:
            mm = float(np.mean(card.spacing_mm)) if card.dim == 3 else card.spacing_mm[0]
            uncertainty = embedded(mm * scalar(sure.match))
            features = None if sure.features is None else embedded(scalar(sure.features))
        passed = tuple(known(stage, n, part.fixed.grid, working.step) for n, stage in enumerate(prediction.stages))
        return Solution(
            field, uncertainty=uncertainty, feature_uncertainty=features, stops=("one pass",), passed=passed[:-1]
        )


def known(stage: Stage, number: int, grid: Grid, step: NDArray[np.float64]) -> Passed:
    """What a network knew after a stage; step: voxels of the grid a working voxel."""
    return Passed.between(f"stage {number + 1}", array(stage.displacement[0]), grid, (step * 2**stage.octave).tolist())


@dataclass(frozen=True)
class RefinedPrediction:
    """A network's answer as the start of a solver that goes on at fine scales."""

    predicted: Registrar
    solver: Registrar

    @property
    def stage(self) -> str:
        """The solver's."""
        return self.solver.stage

    def fits(self, pair: Pair) -> tuple[str, ...]:
        """What the network says of the pair."""
        return self.predicted.fits(pair)

    def solve(self, pair: Pair, *, start: Solution | None = None, on_step: OnEvent = ignore) -> Solution:  # noqa: ARG002
        """The solver's displacement, begun at the network's."""
        return self.solver.solve(pair, start=self.predicted.solve(pair), on_step=on_step)


def mismatches(card: ModelCard, pair: Pair) -> tuple[str, ...]:
    """In what the images differ from those a model was trained on, with numbers."""
    out: list[str] = []
    spacing = embedded_spacing(card.spacing_mm)
    for what, volume in (("fixed", pair.fixed), ("moving", pair.moving)):
        image, grid = volume.shown, volume.grid
        axes = [n for n in range(3) if grid.shape[n] > 1]
        if any(grid.spacing_mm[n] > THICK * spacing[n] for n in axes):
            have = "×".join(f"{grid.spacing_mm[n]:.3g}" for n in axes)
            want = "×".join(f"{spacing[n]:.3g}" for n in axes)
            out.append(f"The {what} image has voxels of {have} mm; the model was trained at {want} mm.")
        bright = volume.object
        if card.field_mm and bright.any():
            at = np.nonzero(bright)
            extent = [(int(at[n].max() - at[n].min()) + 1) * grid.spacing_mm[n] for n in axes]
            field = [card.field_mm[n] for n in axes] if card.dim == 3 else card.field_mm
            shares = [e / f for e, f in zip(extent, field, strict=True)]
            if max(shares) > LARGE or max(shares) < SMALL:
                have, want = ("×".join(f"{v:.0f}" for v in values) for values in (extent, field))
                out.append(f"The {what} object measures {have} mm; the model was trained on fields of {want} mm.")
        if card.intensities and not card.any_contrast:
            deciles = np.percentile(image[image > DARK], range(10, 100, 10)) if bright.any() else np.zeros(9)
            gap = np.abs(deciles - np.array(card.intensities))
            if gap.max() > UNLIKE:
                n = int(gap.argmax())
                out.append(
                    f"The {what} image's contrast is not the model's ({card.contrast or 'unknown'}): its decile {n + 1} of "
                    f"intensity is {deciles[n]:.2f}, {card.intensities[n]:.2f} in training."
                )
    return tuple(out)
