"""Deformations to learn from: what a method finds for training pairs, once, kept on disk."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from warpwise.data.volumes import Store
from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.io.scan import Scan, read_both
from warpwise.methods import Method
from warpwise.networks.model import Model
from warpwise.ops import kernels
from warpwise.registrars.learned.settings import Network, Refined
from warpwise.registration.deform import deform
from warpwise.registration.prepare import prepare
from warpwise.shapes import Matrix, VectorField
from warpwise.similarity.learned import LearnedFeatures


@dataclass(frozen=True)
class Teacher:
    """A method that deforms training pairs at their own resolution, under the linear maps of training.

    Attributes:
        method: which deforms.
        store: where fields are kept.
        labels: whether the label maps of the scans guide it, if its objective has such a term.
    """

    method: Method
    store: Store
    labels: bool = False

    @cached_property
    def name(self) -> str:
        """All that the method says, and what its models weigh: one that was trained again is another teacher."""
        return "\n".join([self.method.yaml(), *(digest(model) for model in models_of(self.method))])

    def field(self, fixed: Scan, moving: Scan, world: Matrix, grid: Grid) -> VectorField:
        """Displacement (3, X, Y, Z) on the nodes of the fixed volume's grid, in its voxels: x goes to world·(x + u(x)).

        Raises:
            InputError: the method deforms nothing, or cannot be used for the pair.
        """
        guides = [scan.labels for scan in (fixed, moving) if self.labels and scan.labels is not None]
        files = [fixed.image, moving.image, *guides]
        options = {"teacher": self.name, "world": np.round(world, 6).tolist(), "grid": grid.affine.tolist()}
        title = f"{moving.title}-to-{fixed.title}"
        return self.store.array(title, files, options, lambda: self.found(fixed, moving, world, grid))

    def found(self, fixed: Scan, moving: Scan, world: Matrix, grid: Grid) -> VectorField:
        """The same, found now."""
        scans = read_both(fixed, moving) if self.labels else read_both(fixed.image, moving.image)
        ready = prepare(scans, self.method.images, self.method.terms())
        native = ready.pair.fixed.grid
        pair = ready.pair.moved(ready.pair.moving.grid.inverse_affine @ world @ native.affine)
        solution = deform(pair, self.method).solution
        if solution is None:
            raise InputError("data.teacher: this method deforms nothing.", hint="Take for example accurate.")
        field = np.asarray(solution.field, np.float32)
        x, y, z = grid.shape
        out = np.empty((3, x, y, z), np.float32)
        kernels.warp_affine(field, (native.inverse_affine @ grid.affine)[:3], out=out)
        # From voxels of the image to those of the network's grid.
        return kernels.map_vectors(out, (grid.inverse_affine @ native.affine)[:3, :3])


def models_of(method: Method) -> list[Model]:
    """Every network that a method asks."""
    registrar = method.registrar
    named = [term.model for term in method.objective.values() if isinstance(term, LearnedFeatures)]
    if isinstance(registrar, Network | Refined):
        named.append((registrar if isinstance(registrar, Network) else registrar.network).model)
    return [model if isinstance(model, Model) else Model.load(model) for model in named]


def digest(model: Model) -> str:
    """A word for a model's card and weights."""
    made = hashlib.sha256(model.card.model_dump_json().encode())
    for name, tensor in sorted(model.network.state_dict().items()):
        made.update(name.encode())
        made.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return made.hexdigest()
