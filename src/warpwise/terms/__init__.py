"""Terms: what an objective is a sum of. One table for solvers and networks; each row is a `term.Term`, a Settings."""

from warpwise.tables import Table

_SIMILARITIES = {
    "auto": "warpwise.similarity.auto:Auto",
    "lncc": "warpwise.similarity.local:LNCC",
    "ncc": "warpwise.similarity.intensity:NCC",
    "mse": "warpwise.similarity.intensity:MSE",
    "mi": "warpwise.similarity.information:MutualInformation",
    "mind": "warpwise.similarity.descriptor:MIND",
}
_GUIDES = {
    "features": "warpwise.similarity.learned:LearnedFeatures",
    "labels": "warpwise.similarity.label:LabelOverlap",
    "landmarks": "warpwise.similarity.landmarks:Landmarks",
    "dice": "warpwise.similarity.label:SoftDice",
    "segmentation": "warpwise.similarity.label:Segmentation",
    "endpoint": "warpwise.similarity.label:EndpointError",
    "feature-match": "warpwise.similarity.posterior:FeatureMatch",
    "feature-energy": "warpwise.similarity.posterior:FeatureEnergy",
    "reconstruction": "warpwise.similarity.posterior:Reconstruction",
    "feature-prior": "warpwise.similarity.posterior:FeaturePrior",
}
_REGULARIZERS = {
    "gaussian": "warpwise.regularizers.gaussian:Gaussian",
    "diffusion": "warpwise.regularizers.smoothness:Diffusion",
    "bending": "warpwise.regularizers.smoothness:Bending",
    "folding": "warpwise.regularizers.folding:Folding",
    "inverse-consistency": "warpwise.regularizers.folding:InverseConsistency",
    "kl": "warpwise.regularizers.posterior:KullbackLeibler",
    "budget": "warpwise.regularizers.budget:Budget",
}

SIMILARITIES = Table("similarity", _SIMILARITIES)
REGULARIZERS = Table("regularizer", _REGULARIZERS)
TERMS = Table("term", {**_SIMILARITIES, **_GUIDES, **_REGULARIZERS})
"""Name → class."""
