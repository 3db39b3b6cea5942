# %% quick_start
import torch

from zhixing.people.pose_regression import RealNVP, decode_heatmap, rle_loss

flow = RealNVP()  # of the loss alone: give its parameters to the optimiser too
mean, logits = torch.zeros(2, 8, 17, 2)  # stand for the outputs of your network
target = torch.full((8, 17, 2), 0.1)  # 17 keypoints, in units of the image size

loss = rle_loss(mean, logits.sigmoid(), target, flow)
print(f"RLE: {(*loss.shape,)}, mean {loss.mean():.2f}; at inference, use mean")

heat = torch.rand(8, 17, 64, 48)  # stands for the heat maps of another network
points = 4 * decode_heatmap(heat)  # if its targets were drawn at image / 4
print(f"heat maps: {(*points.shape,)}")

# %% setup
import math

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)  # so that other processors print the same

# %% decode
generator = torch.Generator().manual_seed(0)
within = (torch.arange(24) + 0.5) / 24 - 0.5  # evenly over a pixel
centre = torch.cartesian_prod(within, within)[:, None]
centre = centre + torch.randint(16, 48, centre.shape, generator=generator)
y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
dx, dy = (centre[..., i, None, None] - v for i, v in enumerate((x, y)))
heat = torch.exp(-(dx**2 + dy**2) / 8)
background = 0.02 * torch.rand(heat.shape, generator=generator)


def error(heat, method):  # mean distance in pixels of the image, at stride 4
    distance = (decode_heatmap(heat, method=method) - centre).norm(dim=2)
    return 4 * distance.mean().item()


print("mean error in pixels        perfect map   2% background")
for method in "argmax", "quarter", "dark", "expectation":
    perfect, noisy = (error(h, method) for h in (heat, heat + background))
    print(f"{method:28} {perfect:8.2f} {noisy:12.2f}")
sharpened = (error(h**4, "expectation") for h in (heat, heat + background))
print("expectation of heat⁴         {:8.2f} {:12.2f}".format(*sharpened))

# %% decode_holds tags=["hidden"]
mean_distance = (math.sqrt(2) + math.log(1 + math.sqrt(2))) / 6
assert abs(error(heat, "argmax") - 4 * mean_distance) < 0.01
assert abs(error(heat, "quarter") - 2 * mean_distance) < 0.01
assert error(heat, "dark") < 1e-6
assert error(heat, "expectation") < 0.01
for seed in range(3):
    generator = torch.Generator().manual_seed(seed)
    noisy = heat + 0.02 * torch.rand(heat.shape, generator=generator)
    expectation = error(noisy, "expectation")
    assert expectation > 14
    assert error(noisy, "dark") < 0.3 < 0.6 < error(noisy, "quarter")
    assert error(noisy**4, "expectation") < 0.1


# %% noise
def slipped(n, generator):
    """Labels that slip along the diagonal by an exponential length of median 0."""
    slip = torch.empty(n, 1).exponential_(generator=generator) - math.log(2)
    return 0.2 * slip + 0.02 * torch.randn(n, 2, generator=generator)


def outliers(n, generator):
    """Small errors, and large ones for 15% of the labels."""
    large = torch.rand(n, 1, generator=generator) < 0.15
    size = 0.05 + large * 0.95
    return size * torch.randn(n, 2, generator=generator)


# %% losses
def l2(mean, sigma, target, flow):
    return (target - mean).square().sum(1)


def l1(mean, sigma, target, flow):
    return (target - mean).abs().sum(1)


def flow_alone(mean, sigma, target, flow):
    return rle_loss(mean, sigma, target, flow, residual=False)


# %% train
def train(loss, noise, seed=2, steps=200, n=2048, inputs=16):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    features = torch.randn(n, inputs, generator=generator)
    truth = 0.3 * torch.randn(inputs, 2, generator=generator)
    target = features @ truth + noise(n, generator)
    weight = torch.zeros(inputs, 2, requires_grad=True)
    offset = torch.ones(2, requires_grad=True)  # the true one is 0
    logits = torch.zeros(2, requires_grad=True)
    flow = RealNVP(layers=4, hidden=32)
    groups = [
        {"params": [weight, offset], "lr": 0.03},
        {"params": [logits], "lr": 0.1},
        {"params": flow.parameters(), "lr": 0.004},
    ]
    optimizer = torch.optim.Adam(groups)
    decay = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, 2 - 2 * step / steps)
    )
    for _ in range(steps):
        batch = torch.randint(n, (256,), generator=generator)
        mean = features[batch] @ weight + offset
        sigma = logits.sigmoid().expand_as(mean)
        optimizer.zero_grad()
        loss(mean, sigma, target[batch], flow).mean().backward()
        optimizer.step()
        decay.step()
    of_weight = ((weight - truth).norm() / truth.norm()).item()
    return of_weight, offset.detach(), logits.detach().sigmoid(), flow


# %% run
print("labels   loss         error of weights   largest offset")
runs = {}
for noise in slipped, outliers:
    for loss in l2, l1, flow_alone, rle_loss:
        if noise is outliers and loss is flow_alone:
            continue
        run = runs[noise, loss] = train(loss, noise)
        row = f"{run[0]:12.3f} {run[1].abs().max():19.2f}"
        print(f"{noise.__name__:8} {loss.__name__:12}{row}")

# %% run_holds tags=["hidden"]
of_weight = {key: run[0] for key, run in runs.items()}
offset = {key: run[1].abs() for key, run in runs.items()}
assert of_weight[slipped, rle_loss] < 0.75 * of_weight[slipped, l1]
assert of_weight[slipped, flow_alone] < 0.7 * of_weight[slipped, l1]
assert of_weight[slipped, flow_alone] < 1.2 * of_weight[slipped, rle_loss]
assert (offset[slipped, flow_alone] > 0.2).all()
for loss in l1, rle_loss:
    assert (offset[slipped, loss] < 0.025).all()
assert (abs(offset[slipped, l2] - 0.2 * (1 - math.log(2))) < 0.025).all()
for loss in l1, rle_loss:
    assert of_weight[outliers, loss] < 0.6 * of_weight[outliers, l2]
    assert (offset[outliers, loss] < 0.03).all()
assert 0.5 < of_weight[outliers, rle_loss] / of_weight[outliers, l1] < 2
learned_sigma = runs[slipped, rle_loss][2]
expected_sigma = 0.2 * math.log(2)  # E|e|, without the normal noise
assert (abs(learned_sigma / expected_sigma - 1) < 0.3).all()
gain = of_weight[slipped, l1] / of_weight[slipped, rle_loss]

# %% density
import matplotlib.pyplot as plt

_, offset, sigma, flow = runs[slipped, rle_loss]
e = slipped(600, torch.Generator().manual_seed(1)) - offset
axis = torch.linspace(-0.4, 0.8, 121)
at = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), 2)
with torch.no_grad():
    log_g = flow.log_prob(at / sigma) - sigma.log().sum()
scale = e.abs().mean(0)  # of the Laplace density that fits best
log_q = -(at.abs() / scale + (2 * scale).log()).sum(2)
figure, axes = plt.subplots(1, 2, figsize=(5.2, 3), sharey=True, layout="constrained")
names = "Laplace: the L1 loss", "flow: learned by RLE"
for ax, name, log in zip(axes, names, (log_q, log_g), strict=True):
    ax.plot(*e.T, ".", color="gray", markersize=2)
    ax.contour(axis, axis, log.exp(), levels=[1, 3, 9], colors="C1")
    ax.set(title=name, xlabel="error of x / image width", aspect="equal")
    ax.set(xlim=(-0.4, 0.8), ylim=(-0.4, 0.8))
axes[0].set(ylabel="error of y / image height")

# %% density_holds tags=["hidden"]
cell = 0.01**2
assert abs(log_g.exp().sum() * cell - 1) < 0.15
with torch.no_grad():
    likelihood_flow = flow.log_prob(e / sigma).mean() - sigma.log().sum()
likelihood_laplace = -(e.abs() / scale + (2 * scale).log()).sum(1).mean()
assert likelihood_flow > likelihood_laplace + 0.5

# %% integral tags=["hidden"]
axis = torch.linspace(-12, 12, 193)
at = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), 2)
with torch.no_grad():
    log_product = flow.log_prob(at) - at.abs().sum(2) - 2 * math.log(2)
integral = (log_product.exp().sum() * 0.125**2).item()
assert 0.05 < integral < 0.4
with torch.no_grad():
    assert abs(flow.log_prob(at).exp().sum() * 0.125**2 - 1) < 0.05


# %% twice
def counted_twice(mean, sigma, target, flow):
    e = (target - mean) / sigma
    log_g = flow.log_prob(e)[:, None]  # (B, 1)
    flow_loss = sigma.log() - log_g  # (B, 2): the sum has log_g twice
    return (flow_loss + (2 * sigma).log() + e.abs()).sum(1)


runs[slipped, counted_twice] = train(counted_twice, slipped)
for loss in rle_loss, counted_twice:
    of_weight, offset, sigma, _ = runs[slipped, loss]
    print(
        f"{loss.__name__:14} σ = {sigma.mean():.2f}, error of weights {of_weight:.3f}"
    )

# %% twice_holds tags=["hidden"]
assert (sigma > 2 * expected_sigma).all()

# %% clamp
mean = torch.zeros(100, 2, requires_grad=True)
target = slipped(100, torch.Generator().manual_seed(2))
sigma, flow = runs[slipped, rle_loss][2:]
total = rle_loss(mean, sigma.expand_as(mean), target, flow).mean()
for name, value in ("as it is", total), ("clamped at 0", total.clamp(min=0)):
    (gradient,) = torch.autograd.grad(value, mean, retain_graph=True)
    print(f"{name:12}: loss {value:5.1f}, gradient {gradient.norm():.2f}")

# %% clamp_holds tags=["hidden"]
assert total < -1
assert (gradient == 0).all()
for seed in range(2, 6):
    target = slipped(100, torch.Generator().manual_seed(seed))
    total = rle_loss(mean, sigma.expand_as(mean), target, flow).mean()
    assert total < -1
    assert torch.autograd.grad(total, mean)[0].norm() > 1
