"""The operators: pure functions of tensors, 2-D and 3-D, batched, differentiable, twice.

Images are (B, C, *space), displacements (B, D, *space) in voxels with components along the grid's axes. float32
tensors on a CPU run numba kernels; everything else, and every second derivative, runs the reference in plain PyTorch.
"""

from collections.abc import Sequence

from torch import Tensor

from warpwise.errors import InputError
from warpwise.ops.cpu import bridges
from warpwise.ops.operation import Operation
from warpwise.ops.reference import energies, features, filters, matching, sampling, similarity

_warp = Operation(sampling.warp, forward=bridges.Warp.forward, backward=bridges.Warp.backward)
_warp_exact = Operation(sampling.warp, forward=bridges.Warp.forward)
_warp_with_gradient = Operation(sampling.warp_with_gradient, forward=bridges.WarpWithGradient.forward)
_inverse = Operation(sampling.inverse, forward=bridges.Inverse.forward, backward=bridges.Inverse.backward)
_gaussian = Operation(filters.gaussian, forward=bridges.Gaussian.forward, backward=bridges.Gaussian.backward)
_gaussian_strided = Operation(filters.gaussian, forward=bridges.Gaussian.forward)
_box = Operation(filters.box, forward=bridges.Box.forward, backward=bridges.Box.backward)
_lncc = Operation(similarity.lncc, forward=bridges.LNCC.forward, backward=bridges.LNCC.backward)
_ncc = Operation(similarity.ncc, forward=bridges.NCC.forward, backward=bridges.NCC.backward)
_mse = Operation(similarity.mse, forward=bridges.MSE.forward, backward=bridges.MSE.backward)
_mutual_information = Operation(
    similarity.mutual_information, forward=bridges.MutualInformation.forward, backward=bridges.MutualInformation.backward
)
_symmetric_kl = Operation(matching.symmetric_kl, forward=bridges.SymmetricKL.forward, backward=bridges.SymmetricKL.backward)
_cost_volume = Operation(features.cost_volume, forward=bridges.CostVolume.forward, backward=bridges.CostVolume.backward)
_jacobian_determinant = Operation(energies.jacobian_determinant, forward=bridges.JacobianDeterminant.forward)

INTERPOLATIONS = ("linear", "nearest", "cubic")


def warp(image: Tensor, displacement: Tensor, *, interpolation: str = "linear") -> Tensor:
    """image (B, C, *shape) at x + u(x), the border replicated: (B, C, *space of u).

    Cubic is the interpolating B-spline, mirrored at the border, whose second derivatives are continuous; linear has
    kinks at voxel centres, where Hessian products are meaningless.

    Raises:
        InputError: image and field do not fit, or the interpolation is not known.

    >>> import torch
    >>> ramp = torch.arange(4.0).reshape(1, 1, 1, 4)
    >>> warp(ramp, torch.full((1, 2, 1, 4), 0.5)).flatten().tolist()
    [0.5, 1.5, 2.5, 3.0]
    """
    check_field(image, displacement)
    if interpolation not in INTERPOLATIONS:
        raise InputError(f"Unknown interpolation {interpolation!r}.", hint=f"Known: {', '.join(INTERPOLATIONS)}.")
    operation = _warp if interpolation == "linear" else _warp_exact
    return operation(image, displacement, interpolation=interpolation)


def warp_with_gradient(image: Tensor, displacement: Tensor) -> tuple[Tensor, Tensor]:
    """Linear warp, and the image's spatial gradient at x + u(x) (B, C, D, *space), 0 beyond the border.

    Raises:
        InputError: image and field do not fit.

    >>> import torch
    >>> ramp = torch.arange(4.0).reshape(1, 1, 1, 4)
    >>> value, slopes = warp_with_gradient(3 * ramp, torch.zeros(1, 2, 1, 4))
    >>> slopes[0, 0, 1, 0].tolist()
    [3.0, 3.0, 3.0, 3.0]
    """
    check_field(image, displacement)
    return _warp_with_gradient(image, displacement)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Displacement of (id + outer)∘(id + inner).

    Raises:
        InputError: the fields do not fit.

    >>> import torch
    >>> one, two = torch.full((1, 2, 4, 4), 1.0), torch.full((1, 2, 4, 4), 2.0)
    >>> bool((compose(one, two) == 3).all())
    True
    """
    return inner + warp(outer, inner)


def exponential(velocity: Tensor, *, squarings: int = 7) -> Tensor:
    """Displacement of exp(v) by scaling and squaring, v in voxels.

    Raises:
        InputError: velocity is not a field (B, D, *space).

    >>> import torch
    >>> v = torch.full((1, 2, 4, 4), 0.5)
    >>> bool((exponential(v) == v).all())  # of a constant velocity: itself
    True

    Source: Arsigny et al., MICCAI 2006.
    """
    out = velocity / 2**squarings
    for _ in range(squarings):
        out = compose(out, out)
    return out


def inverse(displacement: Tensor, *, iterations: int = 50) -> Tensor:
    """w with w(x) + u(x + w(x)) = 0; `iterations` of the fixed point where no kernel solves it by Newton steps.

    Source: Chen et al., Medical Physics 2008. First and second derivatives are those of the implicit function.

    >>> import torch
    >>> u = 0.3 * torch.sin(torch.arange(128.0)).reshape(1, 2, 8, 8)
    >>> float(compose(u, inverse(u)).abs().max()) < 1e-4
    True
    """
    return _inverse(displacement, iterations=iterations)


def gaussian(image: Tensor, *, sigma_voxels: float | Sequence[float], stride: int | Sequence[int] = 1) -> Tensor:
    """Gaussian to three standard deviations, renormalised at the border, every stride-th voxel kept.

    Raises:
        InputError: a σ is negative, a stride less than 1, or there is not one for each axis.

    >>> import torch
    >>> gaussian(torch.ones(1, 1, 6, 9), sigma_voxels=1.0, stride=(2, 3)).shape
    torch.Size([1, 1, 3, 3])
    """
    dim = image.dim() - 2
    sigma = per_axis(sigma_voxels, dim, "sigma_voxels")
    steps = [int(s) for s in per_axis(stride, dim, "stride")]
    if min(sigma) < 0 or min(steps) < 1:
        raise InputError(f"gaussian: σ {sigma} must not be negative, stride {steps} must be at least 1.")
    operation = _gaussian if max(steps) == 1 else _gaussian_strided
    return operation(image, sigma=sigma, stride=steps)


def box(image: Tensor, *, radius: int | Sequence[int]) -> Tensor:
    """Mean over windows of 2·radius + 1 voxels, clipped at the border.

    Raises:
        InputError: a radius is negative, or there is not one for each axis.

    >>> import torch
    >>> box(torch.arange(4.0).reshape(1, 1, 1, 4), radius=1).flatten().tolist()
    [0.5, 1.0, 2.0, 2.5]
    """
    return _box(image, radius=whole_radius(image, radius))


def pyramid(image: Tensor, *, octaves: int) -> list[Tensor]:
    """The image and `octaves − 1` halvings of it (σ 0.7 voxel before each), fine to coarse; voxel 0 stays in place.

    >>> import torch
    >>> [tuple(octave.shape[2:]) for octave in pyramid(torch.ones(1, 1, 9, 6), octaves=3)]
    [(9, 6), (5, 3), (3, 2)]
    """
    out = [image]
    for _ in range(octaves - 1):
        halve = [n > 1 for n in out[-1].shape[2:]]
        out.append(gaussian(out[-1], sigma_voxels=[0.7 * h for h in halve], stride=[1 + h for h in halve]))
    return out


def lncc(
    fixed: Tensor,
    warped: Tensor,
    *,
    radius: int | Sequence[int] = 2,
    weight: Tensor | None = None,
    signed: bool = False,
    epsilon: float = 5e-3,
) -> Tensor:
    """Local correlation (B, C), squared or signed, averaged over space by `weight` (B or 1, 1, *space).

    Variances p, q and covariance s over a window give (s + ε)²/((p + ε)(q + ε)), or its signed root: the correlation of
    windows that share noise of variance ε. Equal images have 1 everywhere, also where they are flat, and nothing is
    higher; the usual s²/(pq + ε) rewards stretching faint structure instead.

    Raises:
        InputError: images, weight or radius do not fit.

    >>> import torch
    >>> image = torch.arange(16.0).reshape(1, 1, 4, 4)
    >>> round(float(lncc(image, image)), 6), round(float(lncc(image, -image, signed=True)), 1)
    (1.0, -1.0)
    """
    check_images(fixed, warped, weight)
    return _lncc(fixed, warped, weight, radius=whole_radius(fixed, radius), signed=signed, epsilon=float(epsilon))


def ncc(fixed: Tensor, warped: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Correlation coefficient (B, C).

    Raises:
        InputError: images or weight do not fit.

    >>> import torch
    >>> image = torch.arange(16.0).reshape(1, 1, 4, 4)
    >>> round(float(ncc(image, 3 - 2 * image)), 6)
    -1.0
    """
    check_images(fixed, warped, weight)
    return _ncc(fixed, warped, weight)


def mse(fixed: Tensor, warped: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference (B, C).

    Raises:
        InputError: images or weight do not fit.

    >>> import torch
    >>> mse(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 2.0)).item()
    4.0
    """
    check_images(fixed, warped, weight)
    return _mse(fixed, warped, weight)


def symmetric_kl(fixed: Tensor, warped: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Symmetrised KL divergence (B, C), nats, ½·(KL(f‖w) + KL(w‖f)) of diagonal Gaussians, averaged over space.

    Both are (B, 2C, *space): C means, then C log-variances.

    Raises:
        InputError: images or weight do not fit, or the channels do not come in pairs.

    >>> import torch
    >>> rest, moved = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    >>> moved[:, 0] = 2.0  # standard deviations
    >>> symmetric_kl(rest, moved).item()
    2.0
    """
    check_images(fixed, warped, weight)
    if fixed.shape[1] % 2:
        raise InputError(f"symmetric_kl: {fixed.shape[1]} channels; half of them are means, half log-variances.")
    return _symmetric_kl(fixed, warped, weight)


def mutual_information(
    fixed: Tensor, warped: Tensor, *, bins: int = 32, upper: float = 1.2, weight: Tensor | None = None
) -> Tensor:
    """Mutual information (B, C), nats, with cubic B-spline windows; intensities 0 … upper fill the inner bins.

    Raises:
        InputError: images or weight do not fit.

    >>> import torch
    >>> image = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
    >>> bool(mutual_information(image, 1 - image) > mutual_information(image, torch.zeros_like(image)) + 1)
    True

    Source: Mattes et al., IEEE TMI 2003.
    """
    check_images(fixed, warped, weight)
    return _mutual_information(fixed, warped, weight, bins=bins, upper=float(upper))


def mind_ssc(image: Tensor, *, radius: int = 1, dilation: int = 2) -> Tensor:
    """Self-similarity descriptors (B, C·12, *space), C·4 in 2-D (Heinrich et al., MICCAI 2013).

    >>> import torch
    >>> mind_ssc(torch.arange(64.0).reshape(1, 1, 8, 8)).shape
    torch.Size([1, 4, 8, 8])
    """
    return similarity.mind_ssc(image, radius=radius, dilation=dilation, mean_filter=box)


def cost_volume(fixed: Tensor, moving: Tensor, *, radius: int = 1) -> Tensor:
    """Cost volume of features (B, C, *space): the mean over channels of fixed(x)·moving(x + d), for every d of at
    most `radius` voxels an axis, as channels (B, (2·radius + 1)^D, *space), d's last axis running fastest; 0 beyond the
    border.

    Raises:
        InputError: features or radius do not fit.

    >>> import torch
    >>> features = torch.ones(1, 5, 3, 3)
    >>> cost_volume(features, features)[0, :, 0, 0].tolist()  # the first row and column lie beyond the border
    [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]

    Source: Dosovitskiy et al. (FlowNet), ICCV 2015.
    """
    check_images(fixed, moving, None)
    return _cost_volume(fixed, moving, radius=radius_per_axis(fixed, radius))


def diffusion(displacement: Tensor) -> Tensor:
    """Mean of ‖∇u‖² (B,), forward differences, voxels.

    >>> import torch
    >>> float(diffusion(torch.full((1, 2, 4, 4), 3.0)))  # a shift costs nothing
    0.0
    """
    return energies.diffusion(displacement)


def bending(displacement: Tensor) -> Tensor:
    """Mean of the squared second derivatives of u (B,), voxels (Rueckert et al., IEEE TMI 1999).

    >>> import torch
    >>> float(bending(torch.arange(32.0).reshape(1, 2, 4, 4)))  # nor does a linear map
    0.0
    """
    return energies.bending(displacement)


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """det of the Jacobian of x + u (B, *space), central differences, one-sided at the border.

    >>> import torch
    >>> jacobian_determinant(torch.zeros(1, 2, 2, 2)).tolist()
    [[[1.0, 1.0], [1.0, 1.0]]]
    """
    return _jacobian_determinant(displacement)


def digital_determinants(displacement: Tensor) -> Tensor:
    """The ten determinants of every cell (B, 10, *(space − 1)), four in 2-D (Liu et al., IJCV 2024).

    >>> import torch
    >>> digital_determinants(torch.zeros(1, 2, 2, 2)).flatten().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    return energies.digital_determinants(displacement)


def per_axis(value: float | Sequence[float], dim: int, name: str) -> list[float]:
    """A number for each axis.

    Raises:
        InputError: there are more or fewer.
    """
    out = [float(value)] * dim if isinstance(value, int | float) else [float(v) for v in value]
    if len(out) != dim:
        raise InputError(f"{name}: {len(out)} values for {dim} axes.")
    return out


def whole_radius(image: Tensor, radius: int | Sequence[int]) -> list[int]:
    """Window radius per axis; 0 along an axis of one voxel.

    Raises:
        InputError: one is negative, or there is not one for each axis.
    """
    return [r if n > 1 else 0 for r, n in zip(radius_per_axis(image, radius), image.shape[2:], strict=True)]


def radius_per_axis(image: Tensor, radius: int | Sequence[int]) -> list[int]:
    """Radius per axis, however short the axis is.

    Raises:
        InputError: one is negative, or there is not one for each axis.
    """
    values = per_axis(radius, image.dim() - 2, "radius")
    if min(values) < 0:
        raise InputError(f"radius {values} must not be negative.")
    return [int(r) for r in values]


def check_field(image: Tensor, displacement: Tensor) -> None:
    """Batch, dimension, dtype and device agree.

    Raises:
        InputError: they do not.
    """
    dim = image.dim() - 2
    if dim not in (2, 3) or displacement.dim() != dim + 2 or displacement.shape[1] != dim:
        raise InputError(f"A field {tuple(displacement.shape)} cannot warp an image {tuple(image.shape)}.")
    if image.shape[0] != displacement.shape[0] or image.dtype != displacement.dtype:
        raise InputError(
            f"Image and field differ in batch or type: {image.shape[0]} {image.dtype}, "
            f"{displacement.shape[0]} {displacement.dtype}."
        )


def check_images(fixed: Tensor, warped: Tensor, weight: Tensor | None) -> None:
    """Shapes agree.

    Raises:
        InputError: they do not.
    """
    if fixed.shape != warped.shape or fixed.dim() not in (4, 5):
        raise InputError(f"Images of shapes {tuple(fixed.shape)} and {tuple(warped.shape)} cannot be compared.")
    if weight is not None and (weight.shape[1:] != (1, *fixed.shape[2:]) or weight.shape[0] not in (1, len(fixed))):
        raise InputError(f"A weight {tuple(weight.shape)} does not fit images {tuple(fixed.shape)}.")
