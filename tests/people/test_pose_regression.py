"""Heat maps, the flow and RLE against kornia, torch's distributions, autograd, integrals and loops."""

import math

import pytest
import torch
from tensors import assert_same_both_ways, leaf, normal
from torch import distributions as D
from torch import nn
from torch.testing import assert_close

from zhixing.people.pose_regression import RealNVP, decode_heatmap, rle_loss

METHODS = ["argmax", "quarter", "dark", "expectation"]


def trained_like(seed=0, layers=6, hidden=16, size=0.5, dtype=torch.float64):
    """A flow that is far from the standard normal."""
    flow = RealNVP(layers=layers, hidden=hidden).to(dtype)
    for i, p in enumerate(flow.parameters()):
        p.data = (size * normal(*p.shape, seed=100 * seed + i) / math.sqrt(p.shape[-1])).to(dtype)
    return flow


def grid(reach, n):
    axis = torch.linspace(-reach, reach, n, dtype=torch.float64)
    at = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    return at, (2 * reach / (n - 1)) ** 2


def blob(cx, cy, h=64, w=48, size=2.0, tilt=0.0, dtype=torch.float64):
    y, x = torch.meshgrid(torch.arange(h, dtype=dtype), torch.arange(w, dtype=dtype), indexing="ij")
    dx, dy = x - cx, y - cy
    return torch.exp(-(dx**2 + dy**2 + 2 * tilt * dx * dy) / (2 * size**2))[None, None]


class Coupling(D.Transform):
    """One coupling of the flow as a transform of torch, with the Jacobian of autograd."""

    bijective = True
    domain = codomain = D.constraints.real_vector

    def __init__(self, s, t, kept):
        super().__init__()
        self.s, self.t, self.kept = s, t, kept

    def maps(self, v):
        a = torch.zeros_like(v)
        a[..., self.kept] = v[..., self.kept]
        other = 1 - self.kept
        return self.s(a)[..., other], self.t(a)[..., other], other

    def _call(self, z):
        s, t, other = self.maps(z)
        kept = z[..., self.kept]
        moved = z[..., other] * s.exp() + t
        return torch.stack([kept, moved] if other else [moved, kept], -1)

    def _inverse(self, x):
        s, t, other = self.maps(x)
        kept = x[..., self.kept]
        moved = (x[..., other] - t) / s.exp()
        return torch.stack([kept, moved] if other else [moved, kept], -1)

    def log_abs_det_jacobian(self, z, x):
        return self.maps(z)[0]


def reference(flow):
    couplings = [Coupling(s, t, 1 - i % 2) for i, (s, t) in enumerate(zip(flow.s, flow.t, strict=True))]
    base = D.MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    return D.TransformedDistribution(base, couplings)


# The flow


@pytest.mark.parametrize("layers", [1, 2, 5, 6])
def test_log_prob_and_gradients_equal_those_of_torch_distributions(layers):
    flow = trained_like(layers=layers)
    parameters = dict(flow.named_parameters())

    def ours(x, *values):
        return torch.func.functional_call(flow, dict(zip(parameters, values, strict=True)), (x,))

    def theirs(x, *values):
        copy = RealNVP(layers=layers, hidden=16).double()
        for name, value in zip(parameters, values, strict=True):
            module, _, last = name.rpartition(".")
            owner = copy.get_submodule(module)
            del owner._parameters[last]
            setattr(owner, last, value)
        return reference(copy).log_prob(x)

    assert_same_both_ways(ours, theirs, normal(11, 2, seed=7), *parameters.values())


def test_log_determinant_is_that_of_the_jacobian():
    flow, x = trained_like(), normal(9, 2)

    def inverse(point):
        for transform in reversed(reference(flow).transforms):
            point = transform.inv(point)
        return point

    jacobian = torch.func.vmap(torch.func.jacrev(inverse))(x)
    log_normal = D.Normal(0.0, 1.0).log_prob(torch.stack([inverse(point) for point in x])).sum(1)
    assert_close(flow.log_prob(x), log_normal + torch.linalg.slogdet(jacobian)[1])


def test_flow_is_a_density():
    at, cell = grid(12, 241)
    with torch.no_grad():
        total = trained_like(size=1.0).log_prob(at).exp().sum() * cell
    assert abs(total - 1) < 1e-3


def test_flow_starts_as_the_standard_normal():
    x = normal(50, 2, dtype=torch.float32)
    assert_close(RealNVP().log_prob(x), D.Normal(0.0, 1.0).log_prob(x).sum(1))


def test_samples_have_the_moments_of_the_density():
    flow = trained_like(size=1.0)
    drawn = flow.sample(40_000, generator=torch.Generator().manual_seed(0))
    at, cell = grid(12, 241)
    with torch.no_grad():
        p = flow.log_prob(at).exp()[..., None] * cell
    mean = (p * at).sum((0, 1))
    spread = (p * (at - mean) ** 2).sum((0, 1)).sqrt()
    assert (abs(drawn.mean(0) - mean) < 0.03 * spread).all()
    assert (abs(drawn.std(0) / spread - 1) < 0.03).all()


def test_samples_are_the_forward_map_of_normal_ones():
    flow = trained_like()
    drawn = flow.sample(5, generator=torch.Generator().manual_seed(3))
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = D.ComposeTransform(reference(flow).transforms)(z)
    assert_close(drawn, expected.detach())
    assert not drawn.requires_grad
    assert flow.sample(0).shape == (0, 2)


def test_parameters_of_the_released_flow():
    """rlepose/models/regression_nf.py: six couplings, s and t of widths 2, 64, 64, 2, tanh after s."""
    flow = RealNVP()
    shapes = {name: tuple(value.shape) for name, value in flow.state_dict().items()}
    expected = {"mask": (6, 2)}
    for net in "st":
        for i in range(6):
            for layer, (m, n) in zip((0, 2, 4), ((2, 64), (64, 64), (64, 2)), strict=True):
                expected |= {f"{net}.{i}.{layer}.weight": (n, m), f"{net}.{i}.{layer}.bias": (n,)}
    assert shapes == expected
    assert flow.mask.tolist() == [[0, 1], [1, 0]] * 3
    kinds = [[type(layer).__name__ for layer in net] for net in (flow.s[0], flow.t[0])]
    assert kinds[1] == ["Linear", "LeakyReLU", "Linear", "LeakyReLU", "Linear"]
    assert kinds[0] == [*kinds[1], "Tanh"]


def test_flow_passes_gradcheck():
    flow = trained_like(hidden=3, layers=3)
    assert torch.autograd.gradcheck(flow.log_prob, leaf(normal(4, 2)))


# The loss


def test_loss_and_gradients_equal_two_likelihoods():
    flow = trained_like()
    density = reference(flow)

    def theirs(mean, r, target):
        sigma = r.exp()
        laplace = D.Laplace(mean, sigma).log_prob(target).sum(-1)
        affine = [D.AffineTransform(mean, sigma, event_dim=1)]
        of_flow = D.TransformedDistribution(density.expand(mean.shape[:-1]), affine).log_prob(target)
        return -laplace - of_flow

    inputs = normal(4, 3, 2), normal(4, 3, 2, seed=1), normal(4, 3, 2, seed=2)
    assert_same_both_ways(lambda mean, r, target: rle_loss(mean, r.exp(), target, flow), theirs, *inputs)


def test_loss_without_residual_leaves_the_laplace_term_out():
    flow, sigma = trained_like(), normal(5, 2, seed=1).exp()

    def theirs(mean, target):
        laplace = D.Laplace(mean, sigma).log_prob(target).sum(-1)
        return rle_loss(mean, sigma, target, flow) + laplace

    def ours(mean, target):
        return rle_loss(mean, sigma, target, flow, residual=False)

    assert_same_both_ways(ours, theirs, normal(5, 2), normal(5, 2, seed=2))


def test_gradients_of_the_flow_are_those_of_its_likelihood_alone():
    """Without log s the loss separates: the Laplace term does not reach the flow."""
    flow = trained_like(hidden=4)
    mean, sigma, target = normal(6, 2), normal(6, 2, seed=1).exp(), normal(6, 2, seed=2)
    found = torch.autograd.grad(rle_loss(mean, sigma, target, flow).sum(), [*flow.parameters()])
    likelihood = -flow.log_prob((target - mean) / sigma).sum()
    assert_close(found, torch.autograd.grad(likelihood, [*flow.parameters()]))


def shifted(flow, c):
    """A flow with the density G(x - c): each coordinate moves in the last layer that changes it."""
    copy = RealNVP(layers=len(flow.mask), hidden=flow.s[0][0].out_features).double()
    copy.load_state_dict(flow.state_dict())
    last = len(flow.mask) - 1
    for net in (copy.s[last], copy.t[last]):
        net[0].bias.data -= net[0].weight @ (c * copy.mask[last])
    copy.t[last][4].bias.data += (1 - copy.mask[last]) * c
    copy.t[last - 1][4].bias.data += (1 - copy.mask[last - 1]) * c
    return copy


def test_flow_absorbs_a_shift_of_the_mean_and_the_laplace_density_does_not():
    flow, c = trained_like(), torch.tensor([0.7, -1.3], dtype=torch.float64)
    mean, sigma, target = normal(6, 2), torch.full((6, 2), 0.5, dtype=torch.float64), normal(6, 2, seed=2)
    other, moved = shifted(flow, c), mean - c * sigma
    before = rle_loss(mean, sigma, target, flow, residual=False)
    assert_close(rle_loss(moved, sigma, target, other, residual=False), before)
    assert (rle_loss(moved, sigma, target, other) - rle_loss(mean, sigma, target, flow)).abs().min() > 0.01


def test_flow_absorbs_a_common_factor_of_sigma_and_the_laplace_density_does_not():
    mean, sigma, target = normal(6, 2), normal(6, 2, seed=1).exp(), normal(6, 2, seed=2)
    flow = trained_like(layers=2)
    c = 1.7

    class Narrow(nn.Module):  # x̄ is c times as small
        def log_prob(self, x):
            return flow.log_prob(c * x) + 2 * math.log(c)

    before = rle_loss(mean, sigma, target, flow, residual=False)
    assert_close(rle_loss(mean, c * sigma, target, Narrow(), residual=False), before)
    laplace = [D.Laplace(mean, k * sigma).log_prob(target).sum(-1) for k in (1, c)]
    found = rle_loss(mean, c * sigma, target, Narrow()) - rle_loss(mean, sigma, target, flow)
    assert_close(found, laplace[0] - laplace[1])


def test_product_of_laplace_and_flow_is_no_density():
    """It integrates to 1 / s, not to 1."""
    flow = trained_like()
    at, cell = grid(12, 241)
    with torch.no_grad():
        q = D.Laplace(0.0, 1.0).log_prob(at).sum(-1)
        product = (q + flow.log_prob(at)).exp().sum() * cell
    assert product < 0.5


def test_product_of_laplace_and_standard_normal_integrates_to_a_closed_form():
    at, cell = grid(12, 241)
    with torch.no_grad():
        log_product = D.Laplace(0.0, 1.0).log_prob(at).sum(-1) + RealNVP(hidden=4).double().log_prob(at)
    expected = (math.exp(0.5) * 0.5 * math.erfc(1 / math.sqrt(2))) ** 2
    assert abs(log_product.exp().sum() * cell - expected) < 1e-3


def test_released_laplace_term_integrates_to_two_over_the_root_of_pi():
    """rlepose/models/criterion.py: log(σ √(2π)) + |e| / (√2 σ)."""
    e = torch.linspace(-60, 60, 240_001, dtype=torch.float64)
    term = math.log(math.sqrt(2 * math.pi)) + e.abs() / math.sqrt(2)
    assert abs(torch.exp(-term).sum() * 0.0005 - 2 / math.sqrt(math.pi)) < 1e-4


def test_a_broadcast_flow_counts_twice():
    flow = trained_like()
    mean, sigma, target = normal(6, 2), normal(6, 2, seed=1).exp(), normal(6, 2, seed=2)
    x = (target - mean) / sigma
    log_g = flow.log_prob(x)
    released = (sigma.log() - log_g[:, None] + (2 * sigma).log() + x.abs()).sum(1)
    assert_close(released, rle_loss(mean, sigma, target, flow) - log_g)


def test_a_flow_that_counts_twice_does_not_fix_the_scale():
    """A wider sigma with a narrower flow changes |x̄| only, which falls."""
    flow, c = trained_like(layers=2), 1.7
    mean, sigma, target = normal(6, 2), normal(6, 2, seed=1).exp(), normal(6, 2, seed=2)
    x = (target - mean) / sigma
    before = rle_loss(mean, sigma, target, flow) - flow.log_prob(x)

    class Narrow(nn.Module):
        def log_prob(self, x):
            return flow.log_prob(c * x) + 2 * math.log(c)

    after = rle_loss(mean, c * sigma, target, Narrow()) - Narrow().log_prob(x / c)
    assert_close(after - before, (1 / c - 1) * x.abs().sum(1))


def test_a_clamped_loss_has_no_gradient_once_it_is_negative():
    mean, sigma = leaf(torch.zeros(4, 2)), torch.full((4, 2), 0.01)
    loss = rle_loss(mean, sigma, torch.full((4, 2), 0.001), RealNVP()).mean()
    assert loss < 0
    assert torch.autograd.grad(loss, mean, retain_graph=True)[0].abs().min() > 0
    assert torch.autograd.grad(loss.clamp(min=0), mean)[0].abs().max() == 0


def test_sigma_without_a_positive_map_gives_nan():
    loss = rle_loss(torch.zeros(1, 2), torch.tensor([[-1.0, 1.0]]), torch.ones(1, 2), RealNVP())
    assert loss.isnan().all()


def test_loss_passes_gradcheck():
    flow = trained_like(hidden=3, layers=2)
    inputs = leaf(normal(3, 2)), leaf(normal(3, 2, seed=1).exp()), leaf(normal(3, 2, seed=2))
    assert torch.autograd.gradcheck(lambda *x: rle_loss(*x, flow), inputs)


@pytest.mark.parametrize("shape", [(2,), (0, 2), (3, 0, 2), (2, 3, 4, 2)], ids=str)
def test_shapes_of_points(shape):
    flow = RealNVP(layers=2, hidden=4).double()
    mean, target = normal(*shape), normal(*shape, seed=1)
    loss = rle_loss(mean, torch.ones_like(mean), target, flow)
    assert loss.shape == shape[:-1]
    assert flow(mean).shape == shape[:-1]


def test_strided_points():
    flow = trained_like()
    wide = normal(3, 4, 5, seed=4)
    mean, target, sigma = wide[..., 1::2], normal(2, 4, 3).transpose(0, 2), normal(3, 2, 4).exp().mT
    assert not mean.is_contiguous()
    expected = rle_loss(mean.clone(), sigma.contiguous(), target.contiguous(), flow)
    assert_close(rle_loss(mean, sigma, target, flow), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_points_in_low_precision_are_compared_in_float32(dtype):
    flow = trained_like(dtype=torch.float32)
    mean, target = normal(8, 2).to(dtype), normal(8, 2, seed=1).to(dtype)
    sigma = (normal(8, 2, seed=2) / 2).exp().to(dtype)
    loss = rle_loss(mean, sigma, target, flow)
    assert loss.dtype == torch.float32
    assert_close(loss, rle_loss(mean.float(), sigma.float(), target.float(), flow))
    assert flow.log_prob(mean).dtype == dtype


def test_arguments_are_not_changed():
    flow = trained_like()
    inputs = normal(3, 2), normal(3, 2, seed=1).exp(), normal(3, 2, seed=2)
    heat = blob(20.3, 30.1)
    before = [x.clone() for x in (*inputs, heat)]
    rle_loss(*inputs, flow)
    for method in METHODS:
        decode_heatmap(heat, method=method)
    assert all(torch.equal(x, y) for x, y in zip((*inputs, heat), before, strict=True))


def test_large_errors_are_finite():
    mean, target = leaf(torch.zeros(2, 2)), torch.tensor([[1e4, -1e4], [0.0, 1e3]])
    loss = rle_loss(mean, torch.full((2, 2), 0.5), target, trained_like(dtype=torch.float32))
    assert loss.isfinite().all()
    assert torch.autograd.grad(loss.sum(), mean)[0].isfinite().all()


# Heat maps


def test_expectation_and_gradients_equal_kornia():
    from kornia.geometry.subpix import spatial_expectation2d

    def theirs(heat):
        p = heat / heat.sum((2, 3), keepdim=True)
        return spatial_expectation2d(p, normalized_coordinates=False)

    heat = normal(2, 3, 7, 10).exp()
    assert_same_both_ways(lambda x: decode_heatmap(x, method="expectation"), theirs, heat)


def decode_loop(heat, method):
    """Each map by itself, with numbers of Python."""
    b, k, h, w = heat.shape
    result = torch.zeros(b, k, 2, dtype=torch.float64)
    for i in range(b):
        for j in range(k):
            m = heat[i, j].tolist()
            y, x = max(((y, x) for y in range(h) for x in range(w)), key=lambda at, m=m: m[at[0]][at[1]])
            px, py = float(x), float(y)
            if 0 < x < w - 1 and 0 < y < h - 1 and method != "argmax":
                right, left, down, up = m[y][x + 1], m[y][x - 1], m[y + 1][x], m[y - 1][x]
                if method == "quarter":
                    px += 0.25 * ((right > left) - (right < left))
                    py += 0.25 * ((down > up) - (down < up))
                else:
                    a = [[math.log(m[y + v][x + u]) for u in (-1, 0, 1)] for v in (-1, 0, 1)]
                    g = torch.tensor([a[1][2] - a[1][0], a[2][1] - a[0][1]], dtype=torch.float64) / 2
                    xy = (a[2][2] - a[2][0] - a[0][2] + a[0][0]) / 4
                    hessian = [[a[1][2] + a[1][0] - 2 * a[1][1], xy], [xy, a[2][1] + a[0][1] - 2 * a[1][1]]]
                    hessian = torch.tensor(hessian, dtype=torch.float64)
                    if torch.linalg.eigvalsh(hessian).max() < 0:
                        step = -torch.linalg.solve(hessian, g)
                        px, py = px + step[0].item(), py + step[1].item()
            result[i, j] = torch.tensor([px, py], dtype=torch.float64)
    return result


@pytest.mark.parametrize("method", ["argmax", "quarter", "dark"])
def test_decoding_equals_a_loop(method):
    heat = normal(6, 20, 5, 7).exp()
    assert_close(decode_heatmap(heat, method=method), decode_loop(heat, method))


@pytest.mark.parametrize("centre", [(20.3, 30.4), (20.5, 30.0), (1.2, 1.4), (44.2, 60.4)], ids=str)
@pytest.mark.parametrize("tilt", [0.0, 0.6, -0.6], ids=str)
def test_logarithm_is_exact_for_a_gaussian(centre, tilt):
    found = decode_heatmap(blob(*centre, tilt=tilt), method="dark")
    assert_close(found[0, 0], torch.tensor(centre, dtype=torch.float64))


def test_mean_errors_on_perfect_maps_are_the_closed_forms():
    """Points spread evenly over a pixel: (√2 + log(1 + √2)) / 6 pixels, and half of it with quarters."""
    offsets = (torch.arange(40, dtype=torch.float64) + 0.5) / 40 - 0.5
    points = 8 + torch.cartesian_prod(offsets, offsets)
    heat = torch.cat([blob(x, y, h=17, w=17) for x, y in points.tolist()])
    closed = (math.sqrt(2) + math.log(1 + math.sqrt(2))) / 6
    for method, expected in (("argmax", closed), ("quarter", closed / 2), ("dark", 0.0)):
        error = (decode_heatmap(heat, method=method)[:, 0] - points).norm(dim=1).mean()
        assert abs(error - expected) < 1e-3
    assert abs(4 * closed - 1.53) < 0.001


def test_dark_passes_gradcheck():
    heat = leaf(blob(3.3, 4.4, h=8, w=8))
    assert torch.autograd.gradcheck(lambda x: decode_heatmap(x, method="dark"), heat)
    assert torch.autograd.gradcheck(lambda x: decode_heatmap(x, method="expectation"), heat)


@pytest.mark.parametrize("method", ["quarter", "dark"])
@pytest.mark.parametrize("at", [(0, 3), (6, 3), (3, 0), (3, 4)], ids=str)
def test_peaks_on_the_border_are_not_shifted(method, at):
    heat = torch.full((1, 1, 5, 7), 0.1)
    heat[0, 0, at[1], at[0]] = 1.0
    heat[0, 0, 2, 2] = 0.3
    assert decode_heatmap(heat, method=method)[0, 0].tolist() == list(at)


def test_dark_returns_the_peak_of_a_plateau():
    heat = torch.ones(1, 1, 5, 5)
    heat[0, 0, 0, 0] = 0.5
    assert decode_heatmap(heat, method="dark").tolist() == decode_heatmap(heat, method="argmax").tolist()
    saddle = torch.zeros(1, 1, 5, 5)
    saddle[0, 0, 1:4, 1:4] = torch.tensor([[0.99, 0.1, 1e-6], [0.1, 1.0, 0.2], [1e-6, 0.1, 0.99]])
    assert decode_heatmap(saddle, method="dark").tolist() == [[[2.0, 2.0]]]


def test_dark_takes_zeros_and_negative_numbers_around_the_peak():
    heat = torch.full((1, 1, 5, 5), -0.1)
    heat[0, 0, 2, 2] = 1.0
    found = leaf(heat)
    position = decode_heatmap(found, method="dark")
    assert position.tolist() == [[[2.0, 2.0]]]
    assert torch.autograd.grad(position.sum(), found)[0].isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_a_map_of_one_pixel_and_an_empty_batch(method):
    assert decode_heatmap(torch.ones(2, 3, 1, 1), method=method).tolist() == [[[0.0, 0.0]] * 3] * 2
    assert decode_heatmap(torch.ones(0, 3, 4, 5), method=method).shape == (0, 3, 2)


@pytest.mark.parametrize("method", METHODS)
def test_strided_maps(method):
    heat = normal(2, 3, 9, 6).exp().transpose(2, 3)
    assert_close(decode_heatmap(heat, method=method), decode_heatmap(heat.contiguous(), method=method))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_positions_of_low_precision_maps_are_in_float32(method, dtype):
    heat = blob(200.3, 9.6, h=20, w=300).to(dtype)
    found = decode_heatmap(heat, method=method)
    assert found.dtype == torch.float32
    assert_close(found, decode_heatmap(heat.float(), method=method))


def test_background_pulls_the_mean_to_the_middle_and_powers_do_not():
    heat = blob(10.3, 20.6)
    noisy = heat + 0.02 * torch.rand(heat.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = torch.tensor([10.3, 20.6], dtype=torch.float64)
    plain, sharp = (decode_heatmap(h, method="expectation")[0, 0] for h in (noisy, noisy**4))
    assert (plain - truth).norm() > 5
    assert (sharp - truth).norm() < 0.1


# Wrong input


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": torch.ones(4, 1)}, "sigma must be"),
        ({"sigma": torch.ones(2)}, "sigma must be"),
        ({"target": torch.ones(3, 2)}, "target must be"),
        ({"mean": torch.ones(4, 3)}, "mean must be"),
        ({"mean": torch.ones(4, 2, dtype=torch.long)}, "mean must be"),
        ({"target": [[0.0, 1.0]]}, "target must be"),
    ],
    ids=["sigma_4_1", "sigma_2", "fewer_targets", "three_coordinates", "integers", "list"],
)
def test_loss_says_what_is_wrong(change, message):
    arguments = {"mean": torch.ones(4, 2), "sigma": torch.ones(4, 2), "target": torch.ones(4, 2)} | change
    with pytest.raises(ValueError, match=message):
        rle_loss(**arguments, flow=RealNVP(layers=1, hidden=2))


@pytest.mark.wrong_input
def test_flow_says_what_is_wrong():
    flow = RealNVP(layers=1, hidden=2)
    for x in (torch.ones(3), torch.ones(2, 3), torch.ones(2, dtype=torch.int32), None):
        with pytest.raises(ValueError, match="x must be floating-point points"):
            flow.log_prob(x)
    for arguments in ({"layers": 0}, {"hidden": 0}, {"layers": 1.5}):
        with pytest.raises(ValueError, match="must be a positive integer"):
            RealNVP(**arguments)
    with pytest.raises(ValueError, match="n must be an integer of at least 0"):
        flow.sample(-1)


@pytest.mark.wrong_input
def test_decoding_says_what_is_wrong():
    for heat in (torch.ones(3, 4, 5), torch.ones(1, 1, 4, 5, dtype=torch.long), torch.ones(1, 1, 0, 5), None):
        with pytest.raises(ValueError, match="heat"):
            decode_heatmap(heat)
    with pytest.raises(ValueError, match="method must be one of"):
        decode_heatmap(torch.ones(1, 1, 4, 5), method="mean")
    for heat in (torch.zeros(1, 1, 4, 5), normal(1, 1, 4, 5)):
        with pytest.raises(ValueError, match="heat must be at least 0"):
            decode_heatmap(heat, method="expectation")
