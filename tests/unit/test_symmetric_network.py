"""What the symmetric pyramid promises by construction, to float precision."""

import numpy as np
import torch

from warpwise import ops
from warpwise.grid import Grid
from warpwise.networks import NETWORKS
from warpwise.networks.base import initialise
from warpwise.networks.heads import Head
from warpwise.networks.symmetric import bounded
from warpwise.ops.reference import features as reference
from warpwise.transforms.displacement import DisplacementField


def moving_network(dim: int = 3) -> torch.nn.Module:
    """A network whose heads were never small, so that it deforms as far as it may."""
    options = {"features": (6, 8, 8), "hidden": 8, "iterations": (2, 2, 3)}
    net = initialise(NETWORKS["symmetric"].parse(options).build(dim=dim, channels=1), torch.Generator().manual_seed(1))
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, Head):
                module.conv.weight.mul_(2e4)
    return net.eval()


def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    noise = torch.rand(2, 1, 22, 24, 20, generator=generator)
    smooth = ops.gaussian(noise, sigma_voxels=2.0)
    return smooth[:1] * 3, smooth[1:] * 3


def test_exchanging_the_images_exchanges_the_map_and_its_inverse():
    net = moving_network()
    a, b = images()
    with torch.no_grad():
        forth, back = net(a, b), net(b, a)
    assert float(forth.displacement.abs().max()) > 2  # voxels: it does deform
    assert float((forth.displacement - back.inverse).abs().max()) < 1e-5
    assert float((forth.inverse - back.displacement).abs().max()) < 1e-5


def test_forth_and_back_is_the_identity_to_float_precision():
    net = moving_network()
    a, b = images()
    with torch.no_grad():
        forth, back = net.halves(net.encoder(a, b), None)[:2], net.halves(net.encoder(b, a), None)[:2]
    grid = Grid(tuple(forth[0].shape[2:]), np.eye(4))
    to_a, to_b = (DisplacementField(f[0].numpy(), grid) for f in forth)
    again_b, again_a = (DisplacementField(f[0].numpy(), grid) for f in back)
    rng = np.random.default_rng(0)
    points = rng.uniform(3, np.array(grid.shape) - 4, (400, 3))
    # a → b with the maps of (a, b), b → a with those of (b, a)
    there = to_b.points(to_a.inverse().points(points))
    back = again_a.points(again_b.inverse().points(there))
    assert np.abs(there - points).max() > 1
    inside = ((there > 1) & (there < np.array(grid.shape) - 2)).all(1)
    assert np.abs(back - points)[inside].max() < 2e-4  # voxels: float32, and Newton's tolerance of 1e-4


def test_no_update_folds_however_large_its_raw_values():
    for dim in (2, 3):
        raw = 100 * torch.randn(4, dim, *[12] * dim, generator=torch.Generator().manual_seed(dim))
        determinants = ops.digital_determinants(bounded(raw))
        assert float(determinants.min()) > 0


def test_the_composed_map_has_no_folded_cell_on_smooth_images():
    net = moving_network()
    with torch.no_grad():
        field = net(*images()).displacement
    share = float((ops.digital_determinants(field) <= 0).float().mean())
    assert share < 1e-3  # composition is sampled on the grid, which the construction does not cover


def test_the_cost_volume_of_one_slice_has_nothing_beside_it():
    both = torch.rand(2, 1, 4, 7, 6, generator=torch.Generator().manual_seed(0))
    whole = ops.cost_volume(both[0].unsqueeze(-1), both[1].unsqueeze(-1))[..., 0].unflatten(1, (3, 3, 3))
    assert torch.equal(whole[:, :, :, 1].flatten(1, 2), ops.cost_volume(both[0], both[1]))
    assert not whole[:, :, :, ::2].any()
    slices = [x.unsqueeze(-1).requires_grad_() for x in both]
    weight = torch.rand(1, 27, 7, 6, 1, generator=torch.Generator().manual_seed(1))
    found, wanted = (
        torch.autograd.grad((weight * volume).sum(), slices)
        for volume in (ops.cost_volume(*slices), reference.cost_volume(*slices, radius=[1, 1, 1]))
    )
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, wanted, strict=True))


def test_the_cost_volume_is_highest_at_the_shift():
    features = torch.randn(1, 64, 14, 12, 13, generator=torch.Generator().manual_seed(0))
    shifted = torch.roll(features, (1, 0, -1), (2, 3, 4))
    inner = ops.cost_volume(features, shifted, radius=1)[..., 2:-2, 2:-2, 2:-2]
    wanted = (1 + 1) * 9 + (0 + 1) * 3 + (-1 + 1)
    assert bool((inner.argmax(1) == wanted).float().mean() > 0.99)
    assert torch.allclose(inner[:, wanted], (features**2).mean(1)[..., 2:-2, 2:-2, 2:-2], atol=1e-5)
