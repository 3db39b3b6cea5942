# %% quick_start
import torch
from torch import nn
from torch.distributions import Categorical

from zhixing.reinforcement.policy_gradient import gae, ppo_loss

torch.manual_seed(0)
policy, critic = nn.Linear(8, 4), nn.Linear(8, 1)  # stand for your networks
s, s_next = torch.randn(2, 16, 32, 8)  # 16 environments, 32 steps: states,
a, r = torch.randint(4, (16, 32)), torch.rand(16, 32)  # actions, rewards,
terminated, truncated = torch.rand(2, 16, 32) < 0.02  # and how episodes ended

with torch.no_grad():  # once for these steps
    logp_old = Categorical(logits=policy(s)).log_prob(a)
    v, v_next = critic(s)[..., 0], critic(s_next)[..., 0]  # s_next: before the reset
    advantage = gae(r, v, v_next, terminated, truncated)
    target = advantage + v
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)

pi = Categorical(logits=policy(s))  # in every step of the optimiser
loss = ppo_loss(pi.log_prob(a), logp_old, advantage)
loss = loss + 0.5 * (critic(s)[..., 0] - target).square().mean()
loss = loss - 0.01 * pi.entropy().mean()
loss.backward()

# %% quick_start_holds tags=["hidden"]
assert loss.isfinite()
assert policy.weight.grad.abs().max() > 0 < critic.weight.grad.abs().max()
assert abs(ppo_loss(logp_old, logp_old, advantage).item()) < 1e-5  # A has mean 0

# %% setup
import math

import matplotlib.pyplot as plt
import torch.nn.functional as F

from zhixing.reinforcement.policy_gradient import policy_loss, returns

torch.set_default_dtype(torch.float64)  # so that other processors print the same
torch.set_num_threads(1)  # tensors as small as here gain nothing from a second one

# %% clipped
ratio = torch.linspace(0, 2, 201)
figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.9), layout="constrained")
for panel, A in zip(axes, (1.0, -1.0), strict=True):
    objective = torch.minimum(ratio * A, ratio.clamp(0.8, 1.2) * A)
    panel.plot(ratio, ratio * A, ":", color="gray", label="not clipped")
    panel.plot(ratio, objective, color="C0", label="clipped, ε = 0.2")
    panel.plot(1, A, "o", color="C1", label="old policy")
    panel.set(title=f"A = {A:.0f}", xlabel="ratio ρ", ylabel="objective")
axes[0].legend(loc="upper left", fontsize="small")

# %% clipped_holds tags=["hidden"]
for A in 1.0, -1.0:
    x = ratio[1:].log().requires_grad_()
    for i in range(0, 200, 7):
        value_at = -ppo_loss(x[i : i + 1], torch.zeros(1), torch.tensor([A]))
        expected = min(ratio[i + 1] * A, ratio[i + 1].clamp(0.8, 1.2) * A)
        assert abs(value_at - expected) < 1e-12
        (slope,) = torch.autograd.grad(value_at, x)
        far = ratio[i + 1] > 1.2 + 1e-9 if A > 0 else ratio[i + 1] < 0.8 - 1e-9
        assert (slope.abs().max() < 1e-12) == bool(far)

# %% grid
MAP = "......", "......", "......", ".----G"
CELLS = "".join(MAP)
END = torch.tensor([cell in "-G" for cell in CELLS])  # the cliff and the goal
REWARD = torch.tensor([{"G": 1.0, "-": -1.0}.get(cell, -0.05) for cell in CELLS])
START = torch.nonzero(~END)[:, 0]  # every other cell, with equal probability
row, column = torch.arange(24) // 6, torch.arange(24) % 6
MOVES = torch.tensor([[-1, 0], [0, 1], [1, 0], [0, -1]])  # up, right, down, left
moved = torch.stack([row, column], 1)[:, None] + MOVES
NEXT = moved[..., 0].clamp(0, 3) * 6 + moved[..., 1].clamp(0, 5)  # (24, 4)
SLIP, GAMMA = 0.1, 0.95


class Grid:
    """Copies of the map; with probability SLIP, the agent makes a random move."""

    def __init__(self, copies, limit, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.limit = limit  # steps, after which an episode is truncated
        self.age = torch.zeros(copies, dtype=torch.int64)
        self.state = self.draw_start()

    def draw_start(self):
        drawn = torch.randint(len(START), self.age.shape, generator=self.generator)
        return START[drawn]

    def step(self, a):
        """Reward, next state (before any reset), terminated, truncated: (copies,)."""
        slips = torch.rand(a.shape, generator=self.generator) < SLIP
        other = torch.randint(4, a.shape, generator=self.generator)
        reached = NEXT[self.state, torch.where(slips, other, a)]
        self.age = self.age + 1
        terminated = END[reached]
        truncated = ~terminated & (self.age >= self.limit)
        done = terminated | truncated
        self.state = torch.where(done, self.draw_start(), reached)
        self.age = self.age.masked_fill(done, 0)
        return REWARD[reached], reached, terminated, truncated


def rollout(env, log_pi, steps):
    """States, actions, and what `step` returns: each (copies, steps)."""
    columns = []
    for _ in range(steps):
        s = env.state
        a = torch.multinomial(log_pi[s].exp(), 1, generator=env.generator)[:, 0]
        columns.append((s, a, *env.step(a)))
    return [torch.stack(x, 1) for x in zip(*columns, strict=True)]


# %% exact
P = F.one_hot(NEXT, 24).double()  # (24, 4, 24): state, action, next state
P = (1 - SLIP) * P + SLIP * P.mean(1, keepdim=True)


def values(pi):
    """The value of each cell, from the linear equation V = R + γ P V."""
    to = torch.einsum("sa,sat->st", pi, P)
    return torch.linalg.solve(torch.eye(24) - GAMMA * to * ~END, to @ REWARD)


def expected_return(pi):
    return values(pi)[START].mean()


logits = torch.zeros(24, 4, requires_grad=True)  # the uniform policy
(exact_gradient,) = torch.autograd.grad(expected_return(logits.softmax(1)), logits)
random_level = expected_return(logits.softmax(1)).item()

# %% exact_holds tags=["hidden"]
assert torch.allclose(P.sum(2), torch.ones(24, 4))
simulated = []
for seed in range(4):
    env = Grid(2000, 60, seed)
    s, a, r, s_next, terminated, truncated = rollout(env, torch.zeros(24, 4), 120)
    same = ~(terminated | truncated)[:, :-1]
    assert (s_next[:, :-1] == s[:, 1:])[same].all()
    assert not END[s].any()
    assert (terminated == END[s_next]).all()
    assert truncated.any()
    assert not (terminated & truncated).any()
    sums = returns(r, terminated | truncated, gamma=GAMMA)[:, 0]
    simulated.append(sums.mean().item())
    assert abs(simulated[-1] - random_level) < 0.08
assert abs(sum(simulated) / 4 - random_level) < 0.04

# %% estimators
episodes = 4000
pi = torch.full((24, 4), 0.25)
env = Grid(episodes, 150, seed=100)
s, a, r, s_next, terminated, truncated = rollout(env, pi.log(), 150)
done = terminated | truncated
first = (done.cumsum(1) - done.int()) == 0  # steps of the first episode of each copy
discount = GAMMA ** torch.arange(150)
V, nothing = values(pi), torch.zeros(24)


def advantages(lam, v):
    return gae(r, v[s], v[s_next], terminated, truncated, gamma=GAMMA, lam=lam)


to_go = returns(r, done, gamma=GAMMA)
estimates = {
    "return of the episode": to_go[:, :1] / discount,  # its γᵗ are in it already
    "reward to go": to_go,
    "reward to go - V": to_go - V[s],
    "GAE, λ = 0.95": advantages(0.95, V),
    "GAE, λ = 0": advantages(0.0, V),
    "GAE, λ = 0.95, V = 0": advantages(0.95, nothing),
    "GAE, λ = 0, V = 0": advantages(0.0, nothing),
}


def gradients(estimate):  # one for each episode: (episodes, 24 · 4)
    score = F.one_hot(a, 4) - pi[s]  # ∇ log π(a|s) in the logits of s
    terms = (first * discount * estimate)[..., None] * score
    sums = torch.zeros(episodes, 24, 4)
    return sums.scatter_add_(1, s[..., None].expand_as(terms), terms).flatten(1)


noise, error = {}, {}
print("                        noise   error of the mean   expected from noise alone")
for name, estimate in estimates.items():
    g = gradients(estimate)
    off = (g.mean(0) - exact_gradient.flatten()).norm() / exact_gradient.norm()
    error[name] = off.item()
    noise[name] = (g.var(0).sum() / exact_gradient.square().sum()).item()
    alone = math.sqrt(noise[name] / episodes)
    print(f"{name:22}  {noise[name]:5.1f}   {off:10.2f}   {alone:20.2f}")

# %% estimators_hold tags=["hidden"]
import itertools

assert first[:, -1].double().mean() < 0.01  # the limit cuts off next to nothing
ordered = [noise[name] for name in list(estimates)[:5]]
for larger, smaller in itertools.pairwise(ordered):
    assert larger > 1.2 * smaller
fewer = ordered[0] / ordered[-1]
assert fewer > 30
ratio = {name: error[name] / math.sqrt(noise[name] / episodes) for name in noise}
assert max(ratio[name] for name in list(estimates)[:5]) < 3
assert ratio["GAE, λ = 0.95, V = 0"] > 1.5
assert ratio["GAE, λ = 0, V = 0"] > 8


def expected_gradient(lam, along=GAMMA):  # GAE with V = 0: returns, discounted by γλ
    to = torch.einsum("sa,sat->st", pi, P)
    start = torch.zeros(24).index_fill(0, START, 1 / len(START))
    visits = torch.linalg.solve((torch.eye(24) - along * to * ~END).T, start)
    v = torch.linalg.solve(torch.eye(24) - GAMMA * lam * to * ~END, to @ REWARD)
    q = P @ (REWARD + GAMMA * lam * v * ~END)
    return visits[:, None] * pi * (q - (pi * q).sum(1, keepdim=True))


torch.testing.assert_close(expected_gradient(1.0), exact_gradient)
bias_gae, bias_td = (
    ((expected_gradient(lam) - exact_gradient).norm() / exact_gradient.norm()).item()
    for lam in (0.95, 0.0)
)
assert 0.2 < bias_gae < 0.6
assert bias_td > 0.8
again = logits.log_softmax(1)[s, a]  # the same from the loss, up to its mean
loss = policy_loss(again, first * discount * to_go) * s.numel() / episodes
(from_loss,) = torch.autograd.grad(loss, logits)
assert torch.allclose(-from_loss.flatten(), gradients(to_go).mean(0), atol=1e-9)
dropped = expected_gradient(1.0, along=1.0).flatten()  # without γᵗ
cosine_dropped = F.cosine_similarity(dropped, exact_gradient.flatten(), 0).item()
assert cosine_dropped > 0.99
sampled = gradients(advantages(0.0, V) / discount).mean(0)
assert F.cosine_similarity(sampled, dropped, 0) > 0.98


# %% train
def train(seed, *, clip=0.2, epochs=4, batches=2, rounds=30):
    logits = torch.zeros(24, 4, requires_grad=True)  # a table; may be a network
    v = torch.zeros(24, requires_grad=True)
    optimizer = torch.optim.Adam([logits, v], lr=0.1)
    env = Grid(32, limit=40, seed=seed)
    curve, moved = [], []
    for _ in range(rounds):
        with torch.no_grad():
            old = logits.log_softmax(1)
            s, a, r, s_next, terminated, truncated = rollout(env, old, 16)
            advantage = gae(r, v[s], v[s_next], terminated, truncated, gamma=GAMMA)
            target = advantage + v[s]
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        s, a, advantage, target = (x.flatten() for x in (s, a, advantage, target))
        for _ in range(epochs):
            for i in torch.randperm(512, generator=env.generator).chunk(batches):
                log_pi = logits.log_softmax(1)[s[i]]
                logp = log_pi.gather(1, a[i, None])[:, 0]
                loss = ppo_loss(logp, old[s[i], a[i]], advantage[i], clip=clip)
                loss = loss + 0.5 * (v[s[i]] - target[i]).square().mean()
                loss = loss + 0.01 * (log_pi.exp() * log_pi).sum(1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            new = logits.log_softmax(1)
            kl = (old.exp() * (old - new)).sum(1)
            moved.append(kl[s].mean().item())  # KL(old ‖ new) over these states
            curve.append(expected_return(new.exp()).item())
    return curve, moved, new.exp()


# %% best
V = torch.zeros(24)
for _ in range(600):  # value iteration
    V = (P @ (REWARD + GAMMA * V * ~END)).amax(1)
best_level = V[START].mean().item()

# %% run
runs = [train(seed) for seed in range(10, 18)]
print(f"random policy {random_level:5.2f}, best policy {best_level:.2f}")
for curve, moved, _ in runs:
    steps = "  ".join(f"{curve[i]:5.2f}" for i in (0, 4, 11, 29))
    print(f"after 1, 5, 12, 30 rounds: {steps}   largest KL {max(moved):.2f}")

# %% run_holds tags=["hidden"]
for curve, _moved, learned in runs:
    assert curve[-1] > random_level + 0.8
    assert best_level - 0.1 < curve[-1] < best_level
    assert learned[13:17, 2].max() < 0.2  # down, in the four cells above the cliff

# %% learned tags=["hidden"]
figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3), layout="constrained")
rounds = range(31)
for curve, _, _ in runs:
    left.plot(rounds, [random_level, *curve], color="C0", alpha=0.6)
left.axhline(best_level, color="gray", linestyle="--", label="best policy")
left.axhline(random_level, color="C1", linestyle=":", label="random policy")
left.set(xlabel="round", ylabel="expected return", ylim=(-1, 0.8))
left.legend(loc="center right")
pi = runs[0][2]
flow = pi @ MOVES.double()  # the mean move of each cell
right.quiver(
    column[START],
    row[START],
    flow[START, 1],
    flow[START, 0],
    angles="xy",
    scale_units="xy",
    scale=1.5,
    pivot="middle",
    color="C0",
    width=0.012,
)
for cell in torch.nonzero(END)[:, 0].tolist():
    color = "C1" if REWARD[cell] < 0 else "C2"
    corner = column[cell] - 0.5, row[cell] - 0.5
    right.add_patch(plt.Rectangle(corner, 1, 1, facecolor=color, alpha=0.4))
right.text(2.5, 3, "cliff, −1", ha="center", va="center")
right.text(5, 3, "+1", ha="center", va="center")
right.set(xlim=(-0.5, 5.5), ylim=(3.5, -0.5), aspect="equal", xticks=[], yticks=[])
right.set_title("learned policy")

# %% reuse
largest, ends = {}, {}
for clip in 0.2, math.inf:
    again = {"epochs": 20, "batches": 1, "rounds": 20}
    reused = [train(seed, clip=clip, **again) for seed in (10, 11, 12)]
    largest[clip] = [max(moved) for _, moved, _ in reused]
    kls = "  ".join(f"{kl:.2f}" for kl in largest[clip])
    ends[clip] = [curve[-1] for curve, _, _ in reused]
    final = "  ".join(f"{x:5.2f}" for x in ends[clip])
    print(f"ε = {clip}: largest KL {kls}   return at the end {final}")

# %% reuse_holds tags=["hidden"]
assert min(largest[math.inf]) > 4 * max(largest[0.2])
assert all(x < y for x, y in zip(ends[math.inf], ends[0.2], strict=True))

# %% time_limit
r = (torch.arange(20) >= 10).double()[None]  # cells 0 to 19 in turn, then 19 for ever
end = torch.arange(20)[None] == 19  # the limit: 20 steps
never = torch.zeros(1, 20, dtype=torch.bool)


def learn(terminated, truncated, after_reset=False):
    v = torch.zeros(1, 20)
    for _ in range(400):
        last = v[:, :1] if after_reset else v[:, -1:]
        v_next = torch.cat([v[:, 1:], last], 1)
        v = v + gae(r, v, v_next, terminated, truncated, gamma=GAMMA)
    return v[0]


learned = {
    "truncated": learn(never, end),
    "terminated": learn(end, never),
    "value after the reset": learn(never, end, after_reset=True),
}
for name, v in learned.items():
    print(f"{name:22} V(0) = {v[0]:4.1f}   V(19) = {v[19]:4.1f}")

# %% time_limit_holds tags=["hidden"]
true = 1 / (1 - GAMMA)
v = learned["truncated"]
assert abs(v[19] - true) < 1e-6 > abs(v[0] - GAMMA**10 * true)
assert abs(learned["terminated"][19] - 1) < 1e-6
for name in "terminated", "value after the reset":
    assert (learned[name] < v - 4).all()

# %% minima
print("  A    ρ    PPO   minimum first   clip alone")
for A, ratio in (1, 1.5), (1, 0.5), (-1, 1.5), (-1, 0.5):
    slopes = []
    for variant in range(3):
        rho = torch.tensor(ratio, requires_grad=True)
        clipped = rho.clamp(0.8, 1.2)
        objective = (
            torch.minimum(rho * A, clipped * A),
            torch.minimum(rho, clipped) * A,
            clipped * A,
        )[variant]
        slopes.append(torch.autograd.grad(objective, rho)[0].item())
    print(f"{A:3}  {ratio}  {slopes[0]:4.0f}  {slopes[1]:10.0f}  {slopes[2]:13.0f}")

# %% minima_hold tags=["hidden"]
A, rho = torch.randn(1000), torch.randn(1000).exp()
clipped = rho.clamp(0.8, 1.2)
absolute = A.sign() * torch.minimum(A.abs() * rho, A.abs() * clipped)
torch.testing.assert_close(absolute, torch.minimum(rho, clipped) * A)

# %% kl
theta = torch.tensor([1.0, 0.0, -1.0], requires_grad=True)
pi, ref = theta.softmax(0), torch.tensor([0.2, 0.3, 0.5])
kl = {
    "KL(π ‖ ref)": (pi * (pi / ref).log()).sum(),
    "KL(ref ‖ π)": (ref * (ref / pi).log()).sum(),
}
u = (ref / pi).log()
kl |= {"k1": -u, "k2": u.square() / 2, "k3": u.exp() - 1 - u}
for name, x in kl.items():
    # over draws from π, but with no gradient into which draws come
    mean = x if x.ndim == 0 else (pi.detach() * x).sum()
    (gradient,) = torch.autograd.grad(mean, theta, retain_graph=True)
    kl[name] = gradient
    print(f"{name:12}", "  ".join(f"{z + 0.0:6.3f}" for z in gradient.tolist()))

# %% kl_holds tags=["hidden"]
torch.testing.assert_close(kl["k2"], kl["KL(π ‖ ref)"])
torch.testing.assert_close(kl["k3"], kl["KL(ref ‖ π)"])
assert kl["k1"].abs().max() < 1e-12
