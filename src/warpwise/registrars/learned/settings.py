"""Registration by a network, as settings."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from warpwise.extras import need
from warpwise.objective import SolverTerms
from warpwise.registrars.base import Registrar
from warpwise.registrars.deformable.descent import SVF, Greedy, SymmetricSVF
from warpwise.registrars.deformable.energy import Energy
from warpwise.settings import AnyModel, Settings

if TYPE_CHECKING:
    from warpwise.networks.model import Model, ModelCard


class Network(Settings):
    """One pass of a trained network.

    Attributes:
        model: an installed model's name, the folder of one or of a training run; in memory a `Model`.
        samples: of its posterior, for the map of uncertainty; 0 leaves it out.
        seed: of those samples.
    """

    kind: Literal["network"] = "network"
    model: AnyModel
    samples: int = Field(default=12, ge=0)
    seed: int = 0

    def loaded(self) -> "Model":
        """The network, read if need be.

        Raises:
            InputError: there is none, or torch is not installed.
        """
        need("torch", "safetensors", what="A network")
        from warpwise.networks.model import Model  # noqa: PLC0415 - solvers must not pay for importing torch

        return self.model if isinstance(self.model, Model) else Model.load(self.model)

    def card(self) -> "ModelCard":
        """What is known of the network; its weights are not read.

        Raises:
            InputError: there is none, or torch is not installed.
        """
        need("torch", "safetensors", what="A network")
        from warpwise.networks.model import CARD, Model, find, read_card  # noqa: PLC0415 - likewise

        return self.model.card if isinstance(self.model, Model) else read_card(find(self.model) / CARD)

    def build(self, terms: SolverTerms) -> Registrar:  # noqa: ARG002 - a trained network minimises nothing any more
        """Ready for any pair."""
        model = self.loaded()
        from warpwise.registrars.learned.predicted import Predicted  # noqa: PLC0415 - imports torch

        return Predicted(model, self.samples, self.seed)


class Refined(Settings):
    """A network's answer, from which a solver goes on."""

    kind: Literal["refined"] = "refined"
    network: Network
    solver: Annotated[Greedy | SVF | SymmetricSVF | Energy, Field(discriminator="kind")]

    def build(self, terms: SolverTerms) -> Registrar:
        """Ready for any pair."""
        network = self.network.build(terms)
        from warpwise.registrars.learned.predicted import RefinedPrediction  # noqa: PLC0415 - imports torch

        return RefinedPrediction(network, self.solver.build(terms))
