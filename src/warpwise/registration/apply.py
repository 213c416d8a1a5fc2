"""Move an image, or labels, through a transform."""

from warpwise.image import Image
from warpwise.io.adapt import ImageLike, TransformLike, as_image, as_transform
from warpwise.resampling import resample


def apply_transform(
    transform: TransformLike, image: ImageLike, *, like: ImageLike, interpolation: str = "linear", inverse: bool = False
) -> Image:
    """`image` on the grid of `like`.

    Args:
        transform: a `Transform`, its file, or a matrix: maps points of `like` to points of `image`.
        image: what is moved.
        like: gives the grid only.
        interpolation: linear, nearest, cubic, or label (for label maps).
        inverse: go the other way, exactly.

    Raises:
        InputError: something given cannot be used.
    """
    chain = as_transform(transform)
    source = as_image(image, kind="labels" if interpolation == "label" else "intensity")
    grid = as_image(like, name="like").grid
    return resample(source, grid, chain.inverse() if inverse else chain, interpolation=interpolation)
