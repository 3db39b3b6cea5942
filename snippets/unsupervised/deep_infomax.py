# %% quick_start
import torch
import torch.nn.functional as F

from zhixing.unsupervised.deep_infomax import info_nce

torch.manual_seed(0)
encoder = torch.nn.Linear(32, 16)  # stands for yours
one = torch.randn(64, 32)
other = one + 0.5 * torch.randn(64, 32)  # in training: another view of the same samples

x, y = F.normalize(encoder(one)), F.normalize(encoder(other))
estimate = info_nce(x @ y.T / 0.1)  # temperature 0.1
loss = -estimate
print(f"{estimate:.1f} nats; no batch of 64 gives more than 4.16")

# %% quick_start_holds tags=["hidden"]
loss.backward()
assert encoder.weight.grad.abs().max() > 0
assert 1 < estimate < 4.1589

# %% setup
import math

from zhixing.unsupervised.deep_infomax import (
    donsker_varadhan,
    gaussian_mi,
    info_nce,
    jsd,
    local_info_nce,
    nwj,
)

torch.set_default_dtype(torch.float64)  # so that other processors print the same
torch.set_num_threads(1)

# %% batches
N, d = 64, 20


def draw(rho, generator):
    x, noise = torch.randn(2, N, d, generator=generator)
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def log_r(x, y, rho):  # log p(y_j | x_i) / p(y_j)
    v = 1 - rho**2  # the variance of y, once x is known
    distance = (y - rho * x[:, None]).square().sum(2)
    return (y.square().sum(1) - distance / v - d * math.log(v)) / 2


def estimates(nats, batches=200, seed=0):
    rho = math.sqrt(1 - math.exp(-2 * nats / d))
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(batches):
        t = log_r(*draw(rho, generator), rho)
        found.append([info_nce(t), donsker_varadhan(t), nwj(1 + t), jsd(t)])
    return torch.tensor(found)


# %% run
names = "InfoNCE", "Donsker-Varadhan", "NWJ", "JSD"
levels = 1.0, 2.0, 4.0, 6.0, 8.0, 10.0
runs = {nats: estimates(nats) for nats in levels}
print("true      " + "".join(f"{name:>18}" for name in names))
for nats in (2.0, 6.0, 10.0):
    mean, std = runs[nats].mean(0), runs[nats].std(0)
    cells = (f"{m:.2f} ± {s:.2f}" for m, s in zip(mean, std, strict=True))
    print(f"{nats:4} nats " + "".join(f"{cell:>18}" for cell in cells))

# %% run_holds tags=["hidden"]
for seed in range(3):
    two, eight, ten = (estimates(nats, 100, seed) for nats in (2.0, 8.0, 10.0))
    assert eight[:, 1:3].median(0).values.min() > 8.1
    rho = math.sqrt(1 - math.exp(-2 * 10 / d))
    assert math.isclose(gaussian_mi(rho, d), 10)
    assert (two[:, :3].mean(0) - 2).abs().max() < 0.4
    assert ten[:, 0].max() < math.log(N)
    assert ten[:, 0].mean() > math.log(N) - 0.1
    assert ten[:, 1].mean() > 10.5  # Donsker-Varadhan is above the truth
    assert ten[:, 2].median() > 10.2  # and so is a typical batch of NWJ
    assert (ten[:, 3] < 0).all()
    assert ten[:, 3].mean() > -0.1
    assert two[:, 3].mean() < -0.5
    assert ten[:, 1].std() > 8 * ten[:, 0].std()
dv_ten = runs[10.0][:, 1].mean().item()
nce_ten = runs[10.0][:, 0].mean().item()
nwj_median = runs[10.0][:, 2].median().item()
assert runs[10.0][:, 2].mean() < nwj_median  # a few batches pull it down
nwj_percent = 100 * (runs[10.0][:, 2] > 10).double().mean().item()
assert nwj_percent > 65
nwj_std = math.sqrt((math.exp(20) - 1) / (N * (N - 1)))
assert 300 < nwj_std < 400
assert 4 * runs[10.0][:, 2].std() < nwj_std

# %% picture
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(5.2, 3.6))
for k, colour in (1, "C1"), (2, "C2"), (0, "C0"):
    low, middle, high = (
        [runs[nats][:, k].quantile(q).item() for nats in levels]
        for q in (0.1, 0.5, 0.9)
    )
    axes.plot(levels, middle, "o-", color=colour, label=names[k])
    axes.fill_between(levels, low, high, color=colour, alpha=0.25, linewidth=0)
axes.plot(levels, levels, color="gray", label="truth")
axes.axhline(math.log(N), color="gray", linestyle="--", label="log 64")
axes.set(xlabel="true mutual information (nats)", ylabel="estimate (nats)")
axes.legend()


# %% images
def images(n, generator):
    signal = torch.randn(n, generator=generator)
    x = torch.randn(n, 8, 3, 3, generator=generator)
    x[:, 0] *= 4  # strong, and different at each place
    x[:, 1] += 0.7 * signal[:, None, None]  # weak, and the same at all places
    return x, signal


def train(local, seed=0, steps=200):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"whole": (1, 72), "rival": (1, 72), "place": (1, 8)}
    weights = {k: 0.05 * torch.randn(v, generator=generator) for k, v in shapes.items()}
    for weight in weights.values():
        weight.requires_grad_()
    optimizer = torch.optim.Adam(weights.values(), lr=0.02)

    def objective(x):
        y = x.flatten(1) @ weights["whole"].T
        if local:
            maps = torch.einsum("dc,nchw->ndhw", weights["place"], x)
            return local_info_nce(y, maps)
        return info_nce(y @ (x.flatten(1) @ weights["rival"].T).T)

    for _ in range(steps):
        loss = -objective(images(64, generator)[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        x, signal = images(64 * 60, generator)
        estimate = sum(objective(batch) for batch in x.split(64)) / 60
        y = x.flatten(1) @ weights["whole"].T
    return estimate.item(), explained(y, signal), weights["whole"].detach()


def explained(y, signal):  # R², the share of the signal's variance
    return torch.corrcoef(torch.stack([y[:, 0], signal]))[0, 1].square().item()


# %% locality
local, whole = ([train(flag, seed) for seed in (1, 2, 3)] for flag in (True, False))
for name, results in ("local ", local), ("global", whole):
    nats, shares, _ = zip(*results, strict=True)
    print(name, "estimate", *(f"{x:.2f}" for x in nats), "nats", end="   ")
    print("R²", *(f"{x:.2f}" for x in shares))


# %% contributions tags=["hidden"]
def contributions(weight):  # the standard deviation that each number of x adds to y
    scales = torch.ones(8, 9)
    scales[0], scales[1] = 4, math.sqrt(1 + 0.7**2)
    return scales * weight.view(8, 9).abs()


# %% locality_holds tags=["hidden"]
directions = [
    [F.normalize(contributions(w).flatten(), dim=0) for _, _, w in results]
    for results in (local, whole)
]
for near, far in zip(*directions, strict=True):
    signal_row = torch.zeros(8, 9)
    signal_row[1] = 1 / 3
    assert near @ signal_row.flatten() > 0.9
    assert far @ signal_row.flatten() < 0.6
energy = contributions(whole[0][2]).square().sum(1)
assert energy.argmax() == 0
assert energy[0] < 0.8 * energy.sum()  # it spreads
short = train(False, 1, 100)
assert abs(short[0] - whole[0][0]) < 0.1  # the estimate has long stopped to rise
turned = torch.cosine_similarity(short[2], whole[0][2]).item()  # but y has not settled
assert abs(turned) < 0.8
for near, far in zip(local, whole, strict=True):
    assert far[0] > 1.5 * near[0]  # the higher estimate
    assert near[1] > 0.7
    assert far[1] < 0.4
    assert near[0] < math.log(64)
    assert far[0] < math.log(64)
x, signal = images(4000, torch.Generator().manual_seed(9))
ceiling = 9 * 0.7**2 / (9 * 0.7**2 + 1)
best = explained(x[:, 1].mean((1, 2))[:, None], signal)
assert abs(best - ceiling) < 0.03
local_share = sum(share for _, share, _ in local) / 3
assert ceiling - local_share < 0.05
# the local bound of the best feature, exactly: the correlation of y and c
correlation = (0.49 + 1 / 9) / math.sqrt((0.49 + 1 / 9) * 1.49)
shared = gaussian_mi(correlation, 1)
assert local[0][0] < shared < 0.27
# a copy of one number, and a score that asks only whether two numbers are equal
x, _ = images(64, torch.Generator().manual_seed(0))
copy = x[:, 2, 0, 0]
places = [10.0 * (copy[:, None] == x[:, 2, i, j]) for i in range(3) for j in range(3)]
copied = sum(info_nce(scores) for scores in places).item() / 9
assert abs(copied - math.log(64) / 9) < 0.001
assert copied > 1.5 * shared

# %% weights
figure, panels = plt.subplots(
    1, 2, figsize=(6.4, 3.2), sharey=True, layout="constrained"
)
for panel, name, results in zip(
    panels, ("local objective", "global objective"), (local, whole), strict=True
):
    shares = contributions(results[0][2])
    shown = panel.imshow(shares / shares.max(), cmap="viridis", vmin=0, vmax=1)
    panel.set(title=name, xlabel="place", xticks=range(9), yticks=range(8))
    panel.grid(visible=False)
panels[0].set(ylabel="channel")
figure.colorbar(shown, ax=panels, label="contribution / largest")

# %% duplicates
coins = torch.randint(2, (64,), generator=torch.Generator().manual_seed(0))
same = coins[:, None] == coins
T = torch.full((64, 64), -math.inf).masked_fill(same, math.log(2))  # log r
print(f"all negatives kept:    {info_nce(T):.2f} nats")
T[same & ~torch.eye(64, dtype=torch.bool)] = -math.inf
print(f"duplicates taken out:  {info_nce(T):.2f} nats")

# %% duplicates_hold tags=["hidden"]
assert math.isclose(info_nce(T).item(), math.log(64))
for seed in range(4):
    coins = torch.randint(2, (64,), generator=torch.Generator().manual_seed(seed))
    same = coins[:, None] == coins
    kept = info_nce(torch.full((64, 64), -math.inf).masked_fill(same, math.log(2)))
    assert abs(kept - math.log(2)) < 0.05

# %% masks
rho = 0.5
scores = log_r(*draw(rho, torch.Generator().manual_seed(0)), rho)
pairs = torch.eye(N, dtype=torch.bool)
print("constant    right   times mask   filled with -10")
for constant in (0, -10, -20):
    T = scores + constant
    found = [donsker_varadhan(T)]
    for faulty in T * ~pairs, T.masked_fill(pairs, -10):
        log_mean = faulty.logsumexp((0, 1)) - math.log(N * (N - 1))
        found.append(T[pairs].mean() - log_mean)
    right, masked, filled = found
    print(f"{constant:8} {right:8.2f} {masked:12.2f} {filled:17.2f}")

# %% masks_hold tags=["hidden"]
for seed in range(4):
    scores = log_r(*draw(rho, torch.Generator().manual_seed(seed)), rho)
    right = donsker_varadhan(scores)
    assert torch.isclose(donsker_varadhan(scores - 20), right)
    T = scores - 20
    masked = T[pairs].mean() - (T * ~pairs).logsumexp((0, 1)) + math.log(N * (N - 1))
    filled = T.masked_fill(pairs, -10)
    filled = T[pairs].mean() - filled.logsumexp((0, 1)) + math.log(N * (N - 1))
    assert masked < right - 10
    assert filled < right - 2
    T = scores
    masked = T[pairs].mean() - (T * ~pairs).logsumexp((0, 1)) + math.log(N * (N - 1))
    assert abs(masked - right) < 0.1
