"""Kernels for the operators: arrays (B, C, *space) in, arrays out; 2-D becomes one slice (X, 1, Y)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.ops.cpu import launch
from warpwise.ops.statistics import correlation, information

Array = NDArray[np.float32]
Options = dict[str, Any]


def volumes(image: Array) -> Array:
    """(B, C, *space) as (B, C, X, Y, Z); a plane as (X, 1, Y), so that rows stay long."""
    return image if image.ndim == 5 else image[:, :, :, None]


def field3(field: Array) -> Array:
    """(B, D, *space) as (B, 3, X, Y, Z)."""
    if field.ndim == 5:
        return field
    return np.stack([field[:, 0], np.zeros_like(field[:, 0]), field[:, 1]], 1)[:, :, :, None]


def components(field: Array, shape: tuple[int, ...]) -> Array:
    """(B, 3, X, Y, Z) as (B, D, *space), the inverse of `field3`."""
    return (field if len(shape) == 5 else field[:, [0, 2]]).reshape(shape)


def stacked(image: Array) -> Array:
    """(B, C, *space) as (B·C, X, Y, Z)."""
    v = volumes(image)
    return v.reshape(-1, *v.shape[2:])


def triple(values: Any, fill: float) -> Any:
    """Per-axis numbers for three axes."""
    return tuple(values) if len(values) == 3 else (values[0], fill, values[1])


def unsound(field: Array) -> bool:
    """Whether a field is not finite everywhere: such a position must not reach a kernel, which would leave its arrays."""
    return not np.isfinite(field.sum(dtype=np.float32)) and not np.isfinite(field).all()


def nowhere(*shape: int) -> Array:
    """What is found at positions that are not finite."""
    return np.full(shape, np.nan, np.float32)


def warp(arrays: list[Any], options: Options) -> tuple[tuple[Array], None]:
    """Linear, nearest or cubic warp."""
    image, field = arrays
    if unsound(field):
        return (nowhere(*image.shape[:2], *field.shape[2:]),), None
    method = options["interpolation"]
    images, fields = volumes(image), field3(field)
    out = np.empty((*image.shape[:2], *fields.shape[2:]), np.float32)
    for b in range(len(out)):
        if method == "linear":
            launch.warp(images[b], fields[b], np.eye(4), out=out[b])
        else:
            out[b] = launch.resample(images[b], clamped(fields[b], images.shape[2:]), np.eye(4), method=method)
    return (out.reshape(*image.shape[:2], *field.shape[2:]),), None


def clamped(field: Array, shape: tuple[int, ...]) -> Array:
    """A displacement that never points beyond the image."""
    out = np.empty_like(field)
    for d, n in enumerate(shape):
        at = np.arange(field.shape[d + 1], dtype=np.float32).reshape([-1 if a == d else 1 for a in range(3)])
        out[d] = np.clip(field[d] + at, 0, n - 1) - at
    return out


def warp_backward(arrays: list[Any], kept: Any, gradients: list[Any], needs: list[bool], options: Options) -> list[Any]:  # noqa: ARG001
    """Gradients by image and field of a linear warp."""
    image, field = arrays
    if unsound(field):
        return [nowhere(*array.shape) if need else None for array, need in zip(arrays, needs, strict=True)]
    images, fields, derivative = volumes(image), field3(field), volumes(gradients[0])
    by_image = by_field = None
    if needs[0]:
        by_image = np.stack([launch.warp_adjoint(f, d, images.shape[2:]) for f, d in zip(fields, derivative, strict=True)])
        by_image = by_image.reshape(image.shape)
    if needs[1]:
        found = [launch.warp_gradient(i, f, d) for i, f, d in zip(images, fields, derivative, strict=True)]
        by_field = components(np.stack(found), field.shape)
    return [by_image, by_field]


def warp_with_gradient(arrays: list[Any], options: Options) -> tuple[tuple[Array, Array], None]:  # noqa: ARG001
    """Linear warp and its slopes."""
    image, field = arrays
    if unsound(field):
        shape = image.shape[:2], field.shape[2:]
        return (nowhere(*shape[0], *shape[1]), nowhere(*shape[0], field.shape[1], *shape[1])), None
    images, fields = volumes(image), field3(field)
    found = [launch.warp_with_gradient(i, f) for i, f in zip(images, fields, strict=True)]
    space, dim = field.shape[2:], field.shape[1]
    value = np.stack([value for value, _ in found]).reshape(*image.shape[:2], *space)
    slopes = np.stack([slopes for _, slopes in found]).reshape(-1, *found[0][1].shape[1:])
    return (value, components(slopes, (len(slopes), dim, *space)).reshape(*image.shape[:2], dim, *space)), None


def inverse(arrays: list[Any], options: Options) -> tuple[tuple[Array], Array]:  # noqa: ARG001
    """Inverse by Newton steps, a thousand times closer than the fixed point for the same time; kept for backward."""
    field = arrays[0]
    if unsound(field):
        return (nowhere(*field.shape),), field3(nowhere(*field.shape))
    fields = field3(field)
    x, y, z = fields.shape[2:]
    out = np.stack([launch.invert(f, factors=(1, 1, 1), shape=(x, y, z), tolerance=1e-5)[0] for f in fields])
    return (components(out, field.shape),), out


def inverse_backward(
    arrays: list[Any],
    kept: Array,
    gradients: list[Any],
    needs: list[bool],  # noqa: ARG001
    options: Options,  # noqa: ARG001
) -> list[Any]:
    """Gradient by the field, of the implicit function: (I + ∇u(x + w))·δw = −δu(x + w)."""
    field = arrays[0]
    if unsound(field):
        return [nowhere(*field.shape)]
    found: list[Array] = []
    for u, w, g in zip(field3(field), kept, field3(gradients[0]), strict=True):
        _, slopes = launch.warp_with_gradient(u, w)
        matrix = slopes.reshape(3, 3, -1).transpose(2, 1, 0) + np.eye(3, dtype=np.float32)
        pulled = -np.linalg.solve(matrix, g.reshape(3, -1).T[..., None])[..., 0].T.reshape(g.shape)
        found.append(launch.warp_adjoint(w, np.ascontiguousarray(pulled), u.shape[1:]))
    return [components(np.stack(found), field.shape)]


def cost_volume(arrays: list[Any], options: Options) -> tuple[tuple[Array], None]:
    """Products of features with those of neighbours."""
    fixed, moving = arrays
    radius = triple(options["radius"], 0)
    found = [launch.cost_volume(f, m, radius=radius) for f, m in zip(volumes(fixed), volumes(moving), strict=True)]
    return (np.stack(found).reshape(len(fixed), -1, *fixed.shape[2:]),), None


def cost_volume_backward(
    arrays: list[Any],
    kept: Any,  # noqa: ARG001
    gradients: list[Any],
    needs: list[bool],
    options: Options,
) -> list[Any]:
    """Gradients by the features of fixed and of moving."""
    radius = triple(options["radius"], 0)
    derivative = volumes(gradients[0])
    out: list[Any] = [None, None]
    for n, other in enumerate((arrays[1], arrays[0])):
        if needs[n]:
            found = [
                launch.cost_volume_gradient(d, o, radius=radius, by_fixed=n == 0)
                for d, o in zip(derivative, volumes(other), strict=True)
            ]
            out[n] = np.stack(found).reshape(other.shape)
    return out


def kinds(options: Options, fill: float = 0.0) -> list[tuple[str, float]]:
    """Filters of the three axes."""
    name = "gaussian" if "sigma" in options else "box"
    return [(name, float(v)) for v in triple(options["sigma" if name == "gaussian" else "radius"], fill)]


def smooth(arrays: list[Any], options: Options) -> tuple[tuple[Array], None]:
    """Gaussian or box filter."""
    image = arrays[0]
    stride = triple(options.get("stride", [1] * (image.ndim - 2)), 1)
    out = launch.separable(stacked(image), kinds(options), stride=stride)
    space = out.shape[1:] if image.ndim == 5 else (out.shape[1], out.shape[3])
    return (out.reshape(*image.shape[:2], *space),), None


def smooth_backward(arrays: list[Any], kept: Any, gradients: list[Any], needs: list[bool], options: Options) -> list[Any]:  # noqa: ARG001
    """The filter's adjoint."""
    return [launch.separable_adjoint(stacked(gradients[0]), kinds(options)).reshape(arrays[0].shape)]


def per_image(weight: Any, fixed: Array) -> Any:
    """Weight (B or 1, 1, *space) for each image of the stack, or one for all."""
    if weight is None:
        return None
    if len(weight) == 1:
        return stacked(weight)
    return stacked(np.ascontiguousarray(np.broadcast_to(weight, fixed.shape)))


def each(weight: Any, batch: int) -> list[Any]:
    """Weight (1, X, Y, Z), or None, of each item of a batch."""
    return [None] * batch if weight is None else [*volumes(np.broadcast_to(weight, (batch, *weight.shape[1:])))]


def totals(weight: Any, fixed: Array) -> NDArray[np.float64]:
    """Summed weight of each image (B·C,)."""
    n, c = fixed.shape[:2]
    if weight is None:
        return np.full(n * c, float(np.prod(fixed.shape[2:])))
    sums = weight.reshape(len(weight), -1).sum(1, dtype=np.float64)
    return np.maximum(np.repeat(np.broadcast_to(sums, (n,)), c), 1.0)


def lncc(arrays: list[Any], options: Options) -> tuple[tuple[Array], Array]:
    """Mean local correlation; keeps the coefficient maps."""
    fixed, warped, weight = arrays
    f, w = stacked(fixed), stacked(warped)
    radius = triple(options["radius"], 0)
    maps = np.empty((len(f), 3, *f.shape[1:]), np.float32)
    total = launch.lncc(
        f, w, radius=radius, weight=per_image(weight, fixed), signed=options["signed"], epsilon=options["epsilon"],
        scale=np.ones(len(f)), maps=maps, gradient=None,
    )  # fmt: skip
    return ((total / totals(weight, fixed)).astype(np.float32).reshape(fixed.shape[:2]),), maps


def lncc_backward(arrays: list[Any], kept: Array, gradients: list[Any], needs: list[bool], options: Options) -> list[Any]:
    """Gradients by fixed (the same with roles exchanged) and by warped."""
    fixed, warped, weight = arrays
    f, w = stacked(fixed), stacked(warped)
    radius = triple(options["radius"], 0)
    scale = gradients[0].reshape(-1) / totals(weight, fixed)
    by_fixed = by_warped = None
    if needs[1]:
        by_warped = launch.lncc_gradient(f, w, kept, radius=radius, scale=scale, gradient=np.empty_like(f)).reshape(
            fixed.shape
        )
    if needs[0]:
        maps, out = np.empty_like(kept), np.empty_like(f)
        launch.lncc(
            w, f, radius=radius, weight=per_image(weight, fixed), signed=options["signed"], epsilon=options["epsilon"],
            scale=scale, maps=maps, gradient=out,
        )  # fmt: skip
        by_fixed = out.reshape(fixed.shape)
    return [by_fixed, by_warped, None]


def mse(arrays: list[Any], options: Options) -> tuple[tuple[Array], Array]:  # noqa: ARG001
    """Mean squared difference; keeps its derivative by warped."""
    fixed, warped, weight = arrays
    f, w = stacked(fixed), stacked(warped)
    share = 1.0 / totals(weight, fixed)
    derivative = np.empty_like(f)
    total = launch.squared_difference(f, w, per_image(weight, fixed), scale=2 * share, gradient=derivative)
    return ((total * share).astype(np.float32).reshape(fixed.shape[:2]),), derivative


def symmetric_kl(arrays: list[Any], options: Options) -> tuple[tuple[Array], Array]:  # noqa: ARG001
    """Mean divergence of Gaussians; keeps its derivatives by fixed and by warped."""
    fixed, warped, weight = arrays
    shares = 1 / totals(weight, fixed[:, :1])
    value = np.empty((len(fixed), fixed.shape[1] // 2), np.float32)
    kept = np.empty((2, *volumes(fixed).shape), np.float32)
    given = zip(volumes(fixed), volumes(warped), each(weight, len(fixed)), shares, strict=True)
    for n, (f, w, g, share) in enumerate(given):
        sums, by_warped, _ = launch.symmetric_kl(f, w, g)
        _, by_fixed, _ = launch.symmetric_kl(w, f, g)
        value[n] = share * sums
        kept[0, n], kept[1, n] = share * by_fixed, share * by_warped
    return (value,), kept.reshape(2, -1, *kept.shape[3:])


def symmetric_kl_backward(
    arrays: list[Any],
    kept: Array,
    gradients: list[Any],
    needs: list[bool],
    options: Options,
) -> list[Any]:
    """Gradients by both Gaussians: a divergence is of a mean and of its log-variance."""
    return kept_backward(arrays, kept, [np.concatenate([gradients[0]] * 2, 1)], needs, options)


def ncc(arrays: list[Any], options: Options) -> tuple[tuple[Array], Array]:  # noqa: ARG001
    """Correlation; keeps its derivatives by fixed and by warped."""
    fixed, warped, weight = arrays
    f, w, g = stacked(fixed), stacked(warped), per_image(weight, fixed)
    value = np.empty(len(f), np.float32)
    by_warped, by_fixed = np.zeros((len(f), 3)), np.zeros((len(f), 3))
    for n, sums in enumerate(launch.moments(f, w, g)):
        value[n], by_warped[n] = correlation(sums)
        _, by_fixed[n] = correlation(sums[[0, 2, 1, 4, 3, 5]])
    kept = np.stack([
        launch.blend(w, f, g, by_fixed, out=np.empty_like(f)),
        launch.blend(f, w, g, by_warped, out=np.empty_like(f)),
    ])
    return (value.reshape(fixed.shape[:2]),), kept


def mutual_information(arrays: list[Any], options: Options) -> tuple[tuple[Array], Array]:
    """Mutual information; keeps its derivatives by fixed and by warped."""
    fixed, warped, weight = arrays
    f, w, g = stacked(fixed), stacked(warped), per_image(weight, fixed)
    bins = int(options["bins"])
    unit = (bins - 3) / options["upper"]
    ranges = np.array([0, unit, 0, unit], np.float32)
    value, kept = np.empty(len(f), np.float32), np.empty((2, *f.shape), np.float32)
    for n in range(len(f)):
        mask = None if g is None else g[n % len(g)]
        counts = launch.joint_histogram(f[n], w[n], mask, ranges=ranges, bins=bins)
        value[n], potential = information(counts)
        for k, (a, b, table) in enumerate(((w[n], f[n], potential.T), (f[n], w[n], potential))):
            launch.histogram_gradient(a, b, mask, ranges=ranges, potential=table, scale=unit, out=kept[k, n])
    return (value.reshape(fixed.shape[:2]),), kept


def kept_backward(arrays: list[Any], kept: Array, gradients: list[Any], needs: list[bool], options: Options) -> list[Any]:  # noqa: ARG001
    """Gradients of an operator whose forward kept both derivatives."""
    fixed = arrays[0]
    factor = gradients[0].reshape(-1, 1, 1, 1)
    return [*[(kept[k] * factor).reshape(fixed.shape) if needs[k] else None for k in range(2)], None]


def mse_backward(arrays: list[Any], kept: Array, gradients: list[Any], needs: list[bool], options: Options) -> list[Any]:  # noqa: ARG001
    """Opposite gradients by the two images."""
    fixed = arrays[0]
    by_warped = (kept * gradients[0].reshape(-1, 1, 1, 1)).reshape(fixed.shape)
    return [-by_warped if needs[0] else None, by_warped if needs[1] else None, None]


def jacobian_determinant(arrays: list[Any], options: Options) -> tuple[tuple[Array], None]:  # noqa: ARG001
    """Determinants at every voxel."""
    field = arrays[0]
    out = np.stack([launch.determinant(f) for f in field3(field)])
    return (out.reshape(len(field), *field.shape[2:]),), None
