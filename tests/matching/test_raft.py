"""RAFT against torchvision's parts and whole network, loops from the definition, and the paper's numbers."""

import inspect
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tensors import assert_same_both_ways, leaf, normal
from torch import nn
from torch.testing import assert_close

from zhixing.matching.raft import (
    RAFT,
    ConvGRU,
    UpdateBlock,
    convex_upsample,
    correlation_pyramid,
    lookup,
    pixel_grid,
    sequence_loss,
)


@pytest.fixture(scope="module")
def vision():
    from torchvision.models.optical_flow import _utils, raft

    raft.upsample_flow, raft.make_coords_grid = _utils.upsample_flow, _utils.make_coords_grid
    return raft


def between_cells(*shape, spread=3.0, seed=5):
    """Positions of a grid, moved; none is close to a whole number or half of one, where derivatives jump."""
    b, _, h, w = shape
    coords = pixel_grid(b, h, w, dtype=torch.float64) + spread * normal(*shape, seed=seed)
    return 8 * ((coords / 8).floor()) + (coords % 8).floor() + 0.1 + 0.3 * (coords % 1)


# The correlations


@pytest.mark.torchvision
@pytest.mark.parametrize(
    ("shape", "levels", "radius"),
    [((2, 5, 9, 8), 2, 3), ((1, 3, 16, 19), 4, 4), ((1, 1, 4, 6), 2, 1)],
    ids=["two levels", "four levels, odd width", "one channel"],
)
def test_pyramid_and_lookup_equal_torchvision(shape, levels, radius, vision):
    """Values and the gradients of both features; RAFT passes none to the positions."""
    f, g = normal(*shape), normal(*shape, seed=1)
    coords = between_cells(shape[0], 2, *shape[2:])
    block = vision.CorrBlock(num_levels=levels, radius=radius)

    def theirs(f, g):
        block.build_pyramid(f, g)
        return block.index_pyramid(coords)

    def ours(f, g):
        return lookup(correlation_pyramid(f, g, levels=levels), coords, radius=radius)

    assert_same_both_ways(ours, theirs, f, g)


@pytest.mark.torchvision
def test_gradient_of_the_positions_equals_torchvision(vision):
    f, g, coords = normal(1, 4, 8, 9), normal(1, 4, 8, 9, seed=1), between_cells(1, 2, 8, 9)
    block = vision.CorrBlock(num_levels=2, radius=2)
    block.build_pyramid(f, g)
    pyramid = correlation_pyramid(f, g, levels=2)
    assert_same_both_ways(lambda c: lookup(pyramid, c, radius=2), block.index_pyramid, coords)


@pytest.mark.torchvision
def test_coarse_levels_are_read_off_centre_by_torchvision_too(vision):
    """With one matching cell each, the mean correlation is centred at -(2ˡ - 1) / 2ˡ⁺¹ cells of level l."""
    f = torch.eye(24 * 24).view(1, -1, 24, 24)
    block, pyramid = vision.CorrBlock(num_levels=4, radius=1), correlation_pyramid(f, f)
    block.build_pyramid(f, f)
    moves = torch.arange(-16, 16.5, 0.5)
    for read in (block.index_pyramid, lambda c: lookup(pyramid, c, radius=1)):
        moved = [pixel_grid(1, 24, 24) + torch.tensor([m, 0.0]).view(1, 2, 1, 1) for m in moves.tolist()]
        curves = torch.stack([read(c).unflatten(1, (4, 9))[0, :, 4, 8:16, 8:16].mean(dim=(1, 2)) for c in moved])
        centres = (curves * moves[:, None]).sum(dim=0) / curves.sum(dim=0) / 2.0 ** torch.arange(4)
        assert_close(centres, -torch.tensor([0, 1 / 4, 3 / 8, 7 / 16]), atol=1e-4, rtol=0)


def test_pooling_correlations_equals_correlating_with_pooled_features():
    """A maintainer of SEA-RAFT says so in issue 23; it needs only the linearity of the mean."""
    f, g = normal(2, 3, 8, 12), normal(2, 3, 8, 12, seed=1)
    for level, volume in enumerate(correlation_pyramid(f, g, levels=4)):
        pooled = F.avg_pool2d(g, 2**level)
        assert_close(volume, torch.einsum("bcyx,bcvu->byxvu", f, pooled) / math.sqrt(3))


def hat(distance):
    return max(0.0, 1 - abs(distance))


def test_lookup_equals_loops():
    f, g, coords = normal(1, 2, 4, 5), normal(1, 2, 4, 5, seed=1), between_cells(1, 2, 4, 5)
    ours = lookup(correlation_pyramid(f, g, levels=3), coords, radius=1)
    assert ours.shape == (1, 3 * 9, 4, 5)
    for y, x, level, i, j in itertools.product(range(4), range(5), range(3), range(3), range(3)):
        at_x = coords[0, 0, y, x].item() / 2**level + i - 1
        at_y = coords[0, 1, y, x].item() / 2**level + j - 1
        expected = 0.0
        for row, column in itertools.product(range(4 >> level), range(5 >> level)):
            square = g[0, :, row << level : (row + 1) << level, column << level : (column + 1) << level]
            mean = square.mean(dim=(1, 2)) @ f[0, :, y, x] / math.sqrt(2)
            expected += hat(at_x - column) * hat(at_y - row) * mean.item()
        assert_close(ours[0, 9 * level + 3 * i + j, y, x].item(), expected)


def test_channels_run_over_dx_then_dy():
    """The commonest misuse reads them row by row."""
    f = torch.eye(81).view(1, 81, 9, 9)
    pyramid = correlation_pyramid(f, f.roll((1, 3), dims=(2, 3)), levels=1)
    windows = lookup(pyramid, pixel_grid(1, 9, 9))
    assert windows[0, :, 4, 4].argmax() == (4 + 3) * 9 + (4 + 1)


def test_four_levels_of_radius_four_are_324_channels_and_also_fit_one_cell():
    """torchvision needs two cells on the last level, since it divides by their number minus one."""
    f = normal(1, 3, 8, 8)
    pyramid = correlation_pyramid(f, f)
    assert pyramid[3].shape[3:] == (1, 1)
    windows = lookup(pyramid, pixel_grid(1, 8, 8, dtype=f.dtype))
    assert windows.shape == (1, 324, 8, 8)
    assert windows.isfinite().all()
    assert_close(windows[0, 3 * 81 + 40, 0, 0], (f[0, :, 0, 0] @ f.mean(dim=(0, 2, 3))) / math.sqrt(3))


def test_what_is_outside_counts_as_zero():
    f = torch.ones(1, 1, 4, 4)
    far = pixel_grid(1, 4, 4) + 100
    assert not lookup(correlation_pyramid(f, f, levels=2), far).any()
    half = pixel_grid(1, 4, 4) + torch.tensor([2.5, 0.0]).view(1, 2, 1, 1)
    assert_close(lookup(correlation_pyramid(f, f, levels=1), half, radius=1)[0, 4, 0].tolist(), [1.0, 0.5, 0.0, 0.0])


def test_correlations_pass_gradcheck():
    f, g = normal(1, 2, 2, 3).requires_grad_(), normal(1, 2, 2, 3, seed=1).requires_grad_()
    coords = between_cells(1, 2, 2, 3, spread=1.0).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, g, c: lookup(correlation_pyramid(f, g, levels=2), c, radius=1), (f, g, coords)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_is_compared_in_float32(dtype):
    """Sums of 128 products of 24 are beyond float16."""
    f = (24 * normal(1, 128, 4, 4)).to(dtype)
    (volume,) = correlation_pyramid(f, f, levels=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (under_autocast,) = correlation_pyramid(f.float(), f.float(), levels=1)
    (exact,) = correlation_pyramid(f.double(), f.double(), levels=1)
    assert volume.dtype == under_autocast.dtype == torch.float32
    assert_close(volume, exact.float(), rtol=1e-4, atol=0.1)
    assert_close(under_autocast, volume)
    assert lookup([volume], pixel_grid(1, 4, 4, dtype=dtype)).dtype == torch.float32


def test_any_memory_layout_and_no_image():
    f, g = normal(2, 3, 4, 6), normal(2, 3, 4, 6, seed=1)
    plain = lookup(correlation_pyramid(f, g, levels=2), between_cells(2, 2, 4, 6), radius=1)
    last = [x.to(memory_format=torch.channels_last) for x in (f, g, between_cells(2, 2, 4, 6))]
    assert not last[0].is_contiguous()
    assert_close(lookup(correlation_pyramid(*last[:2], levels=2), last[2], radius=1), plain)
    none = torch.zeros(0, 3, 4, 6)
    assert lookup(correlation_pyramid(none, none, levels=2), pixel_grid(0, 4, 6)).shape == (0, 162, 4, 6)


@pytest.mark.torchvision
def test_pixel_grid_equals_torchvision(vision):
    assert_close(pixel_grid(2, 3, 5), vision.make_coords_grid(2, 3, 5))
    assert pixel_grid(1, 2, 2, dtype=torch.float64).dtype == torch.float64


# Upsampling


@pytest.mark.torchvision
@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_convex_upsampling_equals_torchvision(factor, vision):
    flow, mask = normal(2, 2, 3, 4), 3 * normal(2, 9 * factor**2, 3, 4, seed=1)
    assert_same_both_ways(
        lambda flow, mask: convex_upsample(flow, mask, factor=factor),
        lambda flow, mask: vision.upsample_flow(flow, mask, factor),
        *(flow, mask),
    )


def test_convex_upsampling_equals_loops():
    flow, mask = normal(1, 2, 3, 4), normal(1, 9 * 4, 3, 4, seed=1)
    ours = convex_upsample(flow, mask, factor=2)
    for y, x, i, j in itertools.product(range(3), range(4), range(2), range(2)):
        weights = mask[0, [4 * k + 2 * i + j for k in range(9)], y, x].softmax(dim=0)
        mean = torch.zeros(2, dtype=torch.float64)
        for k, (dy, dx) in enumerate(itertools.product((-1, 0, 1), repeat=2)):
            if 0 <= y + dy < 3 and 0 <= x + dx < 4:
                mean += weights[k] * flow[0, :, y + dy, x + dx]
        assert_close(ours[0, :, 2 * y + i, 2 * x + j], 2 * mean)


def test_a_constant_flow_loses_what_the_weights_give_to_the_border():
    fine = convex_upsample(torch.ones(1, 2, 3, 4), torch.zeros(1, 9 * 64, 3, 4))
    assert_close(fine[0, 0, ::8, ::8] / 8, torch.tensor([[4, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]]) / 9)


def test_upsampling_passes_gradcheck_and_takes_any_layout():
    flow, mask = normal(1, 2, 2, 3), normal(1, 36, 2, 3, seed=1)
    assert torch.autograd.gradcheck(lambda f, m: convex_upsample(f, m, factor=2), (leaf(flow), leaf(mask)))
    last = mask.to(memory_format=torch.channels_last)
    assert_close(convex_upsample(flow, last, factor=2), convex_upsample(flow, mask, factor=2))
    assert convex_upsample(flow[:0], mask[:0], factor=2).shape == (0, 2, 4, 6)


# The loss


def test_loss_equals_the_loops_of_the_definition():
    flows, target = [10 * normal(2, 2, 3, 4, seed=s) for s in range(3)], 10 * normal(2, 2, 3, 4, seed=7)
    valid = normal(2, 3, 4, seed=8) > 0
    total = 0.0
    for i, (b, c, y, x) in itertools.product(range(3), itertools.product(range(2), range(2), range(3), range(4))):
        if valid[b, y, x] and math.hypot(target[b, 0, y, x], target[b, 1, y, x]) < 12:
            error = abs(flows[i][b, c, y, x] - target[b, c, y, x]).item()
            total += 0.7 ** (2 - i) * error / (2 * 2 * 3 * 4)
    assert_close(sequence_loss(flows, target, valid, gamma=0.7, max_flow=12).item(), total)


def test_weights_are_those_of_the_paper():
    """γ = 0.8 and twelve updates, section 3.4: the last counts 1, the first 0.8 ** 11."""
    target, valid = torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1).bool()
    for i in (0, 11):
        flows = [torch.ones(1, 2, 1, 1) * (k == i) for k in range(12)]
        assert_close(sequence_loss(flows, target, valid).item(), 0.8 ** (11 - i), rtol=1e-6, atol=0)
    assert sequence_loss(flows, target, valid, gamma=0) == 1


def test_what_is_invalid_has_no_effect_even_if_it_is_nan():
    flow, target = normal(1, 2, 2, 2).requires_grad_(), normal(1, 2, 2, 2, seed=1)
    valid = torch.tensor([[[True, False], [True, True]]])
    target[0, :, 0, 1] = math.nan
    target[0, :, 1, 1] = torch.tensor([400.0, 0.0])
    loss = sequence_loss([flow], target, valid)
    assert loss.isfinite()
    (gradient,) = torch.autograd.grad(loss, flow)
    assert (gradient[0, :, [0, 1], [1, 1]] == 0).all()
    assert_close(gradient[0, :, :, 0].abs(), torch.full((2, 2), 1 / 8, dtype=torch.float64))


# The modules


def filled(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        nn.init.normal_(p, std=0.2, generator=generator)
    return module.double()


@pytest.mark.torchvision
@pytest.mark.parametrize("width", [4, 8])
def test_update_block_equals_torchvision(width, vision):
    """The state dict fits strictly in both directions."""
    wide = 3 * width // 2
    encoder = vision.MotionEncoder(
        in_channels_corr=18,
        corr_layers=(2 * width, wide),
        flow_layers=(width, width // 2),
        out_channels=width,
    )
    block = vision.RecurrentBlock(input_size=2 * width, hidden_size=width)
    head = vision.FlowHead(in_channels=width, hidden_size=2 * width)
    theirs = filled(vision.UpdateBlock(motion_encoder=encoder, recurrent_block=block, flow_head=head))
    ours = UpdateBlock(18, width=width).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    inputs = [normal(2, c, 4, 5, seed=c) for c in (width, width, 18, 2)]

    def joined(block):
        return lambda h, context, corr, flow: torch.cat(block(h, context, corr, flow), dim=1)

    assert_same_both_ways(joined(ours), joined(theirs), *inputs)
    ours(*inputs)[1].square().sum().backward()
    theirs(*inputs)[1].square().sum().backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(p.grad, q.grad)


def test_gru_with_kernels_of_one_is_torchs_gru_cell():
    """Torch's z is 1 - z of the paper, and its candidate multiplies r after the matrix instead of before."""
    gru, h, x = filled(ConvGRU(1, 2, (1, 1))), normal(3, 1, 1, 1), normal(3, 2, 1, 1, seed=1)
    cell = nn.GRUCell(2, 1).double()
    # One hidden number: r times h, then the weight, is the same in either order if there is no bias inside.
    parts = [gru.convr, gru.convz, gru.convq]
    sign = [1, -1, 1]
    with torch.no_grad():
        cell.weight_ih.copy_(torch.cat([s * p.weight[:, 1:, 0, 0] for s, p in zip(sign, parts, strict=True)]))
        cell.weight_hh.copy_(torch.cat([s * p.weight[:, :1, 0, 0] for s, p in zip(sign, parts, strict=True)]))
        cell.bias_ih.copy_(torch.cat([s * p.bias for s, p in zip(sign, parts, strict=True)]))
        cell.bias_hh.zero_()
    assert_close(gru(h, x)[:, :, 0, 0], cell(x[:, :, 0, 0], h[:, :, 0, 0]))


@pytest.mark.torchvision
def test_raft_equals_torchvisions_raft_large(vision):
    """Weights load strictly, and there are 5,257,536 of them, as in torchvision's table."""
    torch.manual_seed(0)
    theirs = vision.raft_large().eval()
    encoders = (
        vision.FeatureEncoder(norm_layer=nn.InstanceNorm2d),
        vision.FeatureEncoder(norm_layer=nn.BatchNorm2d),
    )
    ours = RAFT(*encoders).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    weights = vision.Raft_Large_Weights.DEFAULT
    assert sum(p.numel() for p in ours.parameters()) == weights.meta["num_params"] == 5_257_536
    image1, image2 = normal(2, 1, 3, 128, 136, dtype=torch.float32)
    with torch.no_grad():
        flows, expected = ours(image1, image2, updates=2), theirs(image1, image2, num_flow_updates=2)
    assert len(flows) == len(expected) == 2
    for flow, reference in zip(flows, expected, strict=True):
        assert_close(flow, reference, rtol=1e-3, atol=1e-3)


def small(stride=2, **options):
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, stride, stride=stride), nn.Conv2d(3, 8, stride, stride=stride)
    return RAFT(first, second, width=4, levels=2, radius=1, stride=stride, **options).double()


@pytest.mark.torchvision
def test_gradients_of_the_whole_network_equal_torchvision(vision, monkeypatch):
    """Torchvision's loop with our encoders; the flow is detached before each update."""
    ours = small(stride=8)

    class Mask(nn.Module):
        def forward(self, h):
            return 0.25 * ours.mask_predictor["conv"](ours.mask_predictor["convrelu"](h))

    ours.update_block.hidden_state_size = 4
    theirs = vision.RAFT(
        feature_encoder=ours.feature_encoder,
        context_encoder=ours.context_encoder,
        corr_block=vision.CorrBlock(num_levels=2, radius=1),
        update_block=ours.update_block,
        mask_predictor=Mask(),
    )
    monkeypatch.setattr(vision, "make_coords_grid", lambda b, h, w: pixel_grid(b, h, w, dtype=torch.float64))
    image1, image2 = normal(2, 1, 3, 32, 40)
    target = normal(1, 2, 32, 40, seed=3)
    results = []
    for net, name in ((ours, "updates"), (theirs, "num_flow_updates")):
        ours.zero_grad()
        loss = sequence_loss(net(image1, image2, **{name: 3}), target, torch.ones(1, 32, 40).bool())
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in ours.parameters())])
    assert_close(*results)
    assert all(g.abs().sum() > 0 for g in results[0][1:])


@pytest.mark.torchvision
def test_defaults_are_those_of_torchvision(vision):
    images = torch.zeros(2, 1, 3, 8, 8, dtype=torch.float64)
    wanted = inspect.signature(vision.RAFT.forward).parameters["num_flow_updates"].default
    assert len(small()(*images)) == wanted
    ours, theirs = UpdateBlock(), vision.MotionEncoder(in_channels_corr=vision.CorrBlock().out_channels)
    shapes = {name: weight.shape for name, weight in ours.motion_encoder.state_dict().items()}
    assert shapes == {name: weight.shape for name, weight in theirs.state_dict().items()}


def test_more_updates_repeat_the_first_ones():
    """The same weights at each update, so twelve begin like three."""
    net = small()
    images = normal(2, 1, 3, 8, 10)
    three, twelve = net(*images, updates=3), net(*images, updates=12)
    assert_close(three, twelve[:3])
    assert len(twelve) == 12
    assert twelve[0].shape == (1, 2, 8, 10)


def test_flow_leads_from_the_first_image_to_the_second():
    """The commonest misuse exchanges the images: the pyramid then pools over the wrong one."""
    f = torch.eye(36).view(1, 36, 6, 6)
    windows = lookup(correlation_pyramid(f, f.roll(2, dims=3), levels=1), pixel_grid(1, 6, 6), radius=2)
    assert windows[0, :, 3, 2].argmax() == 4 * 5 + 2


F4, G4 = torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
P4 = [torch.ones(2, 4, 4, 4, 4)]
FLOW, MASK, VALID = torch.zeros(2, 2, 4, 4), torch.zeros(2, 36, 4, 4), torch.ones(2, 4, 4).bool()


WRONG = {
    "features of a line": (lambda: correlation_pyramid(F4[0], G4), r"f must be \(B, C, H, W\).*\(3, 4, 4\)"),
    "other channels": (lambda: correlation_pyramid(F4, G4[:, :2]), r"g must be \(B, 3, 4, 4\)"),
    "other batch": (lambda: correlation_pyramid(F4, G4[:1], levels=1), "f holds 2 images, but g holds 1"),
    "too many levels": (lambda: correlation_pyramid(F4, G4), "4 levels need 8 × 8 cells, not 4 × 4"),
    "level 0": (lambda: correlation_pyramid(F4, G4, levels=0), "levels must be a positive integer, but is 0"),
    "whole features": (lambda: correlation_pyramid(F4.long(), G4), "int64"),
    "no pyramid": (lambda: lookup([], FLOW), "needs the pyramid"),
    "a volume without batch": (lambda: lookup([P4[0][0]], FLOW), "needs the pyramid"),
    "positions last": (lambda: lookup(P4, FLOW.movedim(1, -1)), r"coords must be \(B, 2, 4, 4\)"),
    "positions of one image": (lambda: lookup(P4, FLOW[:1]), "2 images, but coords holds 1"),
    "radius": (lambda: lookup(P4, FLOW, radius=-1), "radius must be a positive integer, but is -1"),
    "grid of no row": (lambda: pixel_grid(1, 0, 3), "h must be a positive integer, but is 0"),
    "mask of another factor": (lambda: convex_upsample(FLOW, MASK), r"mask must be \(B, 576, 4, 4\)"),
    "mask of one image": (lambda: convex_upsample(FLOW, MASK[:1], factor=2), "2 images, but mask holds 1"),
    "three components": (lambda: convex_upsample(F4, MASK, factor=2), r"flow must be \(B, 2, H, W\)"),
    "factor": (lambda: convex_upsample(FLOW, MASK, factor=0), "factor must be a positive integer, but is 0"),
    "no flow": (lambda: sequence_loss([], FLOW, VALID), r"flows of the target's shape \(2, 2, 4, 4\)"),
    "coarse flow": (lambda: sequence_loss([FLOW[..., :2]], FLOW, VALID), "flows of the target's shape"),
    "valid as numbers": (lambda: sequence_loss([FLOW], FLOW, VALID.float()), "torch.bool"),
    "valid of one image": (lambda: sequence_loss([FLOW], FLOW, VALID[:1]), r"valid must be a tensor \(2, 4, 4\)"),
    "valid with channels": (lambda: sequence_loss([FLOW], FLOW, FLOW == 0), r"valid must be a tensor \(2, 4, 4\)"),
    "valid of three images": (lambda: sequence_loss([FLOW], FLOW, VALID[[0, 1, 0]]), r"valid must be a tensor"),
    "gamma": (lambda: sequence_loss([FLOW], FLOW, VALID, gamma=1.25), "gamma must be.*1.25"),
    "gamma nan": (lambda: sequence_loss([FLOW], FLOW, VALID, gamma=math.nan), "gamma must be.*nan"),
    "max_flow": (lambda: sequence_loss([FLOW], FLOW, VALID, max_flow=0), "max_flow must be positive, but is 0"),
    "odd width": (lambda: UpdateBlock(18, width=5), "width must be even and at least 4, but is 5"),
    "sides": (lambda: small()(*torch.ones(2, 1, 3, 8, 9).double()), "multiples of 2, but are 8 × 9"),
    "grey images": (lambda: small()(*torch.ones(2, 1, 1, 8, 8).double()), r"image1 must be \(B, 3, H, W\)"),
    "other size": (
        lambda: small()(torch.ones(1, 3, 8, 8).double(), torch.ones(1, 3, 8, 6).double()),
        r"image2 must have the shape of image1, \(1, 3, 8, 8\)",
    ),
    "no update": (
        lambda: small()(*torch.ones(2, 1, 3, 8, 8).double(), updates=0),
        "updates must be a positive integer, but is 0",
    ),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_says_what_is_wanted(call, message):
    with pytest.raises(ValueError, match=message):
        call()
