"""Advantages against stable-baselines3, losses against loops, and the policy gradient against linear equations."""

import itertools
import math

import pytest
import torch
from tensors import assert_same_both_ways, leaf, normal
from torch.testing import assert_close

from zhixing.reinforcement.policy_gradient import gae, policy_loss, ppo_loss, returns


def ends(b, t, *, rate=0.2, seed=0):
    """Random flags: whether each step terminated its episode, and whether it was truncated."""
    u = torch.rand(b, t, generator=torch.Generator().manual_seed(seed))
    return u < rate, (u > 1 - rate)


def rollout(b, t, *, seed=0, dtype=torch.float64):
    """Rewards, values, values of the next states, and ends; within an episode, v_next is the next v."""
    r, v, v_next = (normal(b, t, seed=10 * seed + i, dtype=dtype) for i in range(3))
    terminated, truncated = ends(b, t, seed=seed)
    inside = ~(terminated | truncated)[:, :-1]
    v_next[:, :-1] = torch.where(inside, v[:, 1:], v_next[:, :-1])
    return r, v, v_next, terminated, truncated


def advantage_by_the_sum(r, v, v_next, terminated, truncated, gamma, lam):
    """Equation 16 of the paper on GAE, for each step anew."""
    rows = []
    for i in range(r.shape[0]):
        row = []
        for t in range(r.shape[1]):
            total = 0.0
            for k in range(t, r.shape[1]):
                future = 0.0 if terminated[i, k] else gamma * v_next[i, k]
                total = total + (gamma * lam) ** (k - t) * (r[i, k] + future - v[i, k])
                if terminated[i, k] or truncated[i, k]:
                    break
            row.append(total)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def ppo_by_the_cases(logp, logp_old, advantage, clip):
    """One term a time, by the sign of the advantage and the side of the clip."""
    total = 0.0
    for new, old, a in zip(logp.flatten(), logp_old.flatten(), advantage.flatten(), strict=True):
        ratio = math.e ** (new - old)
        if a >= 0:
            total = total + a * (ratio if ratio < 1 + clip else 1 + clip)
        else:
            total = total + a * (ratio if ratio > 1 - clip else 1 - clip)
    return -total / logp.numel()


# Returns and advantages


@pytest.mark.parametrize("shape", [(3, 7), (1, 1), (2, 1), (1, 5)], ids=str)
@pytest.mark.parametrize("gamma", [0, 0.9, 1], ids=str)
def test_returns_and_gradients_equal_sums_to_the_end_of_the_episode(shape, gamma):
    done = ends(*shape)[0]

    def theirs(r):
        rows = []
        for i in range(shape[0]):
            row = []
            for t in range(shape[1]):
                last = next((k for k in range(t, shape[1]) if done[i, k]), shape[1] - 1)
                row.append(sum(gamma ** (k - t) * r[i, k] for k in range(t, last + 1)))
            rows.append(torch.stack(row))
        return torch.stack(rows)

    assert_same_both_ways(lambda r: returns(r, done, gamma=gamma), theirs, normal(*shape))


@pytest.mark.parametrize("shape", [(3, 9), (1, 1), (2, 1), (1, 6)], ids=str)
@pytest.mark.parametrize(("gamma", "lam"), [(0.9, 0.8), (0.99, 0.95), (1, 1), (0.9, 0), (0, 0.5)], ids=str)
def test_advantages_and_gradients_equal_equation_16(shape, gamma, lam):
    r, v, v_next, terminated, truncated = rollout(*shape, seed=1)

    def ours(r, v, v_next):
        return gae(r, v, v_next, terminated, truncated, gamma=gamma, lam=lam)

    def theirs(r, v, v_next):
        # the zeros keep tensors that have no influence in the graph
        nothing = 0 * (r + v + v_next)
        return nothing + advantage_by_the_sum(r, v, v_next, terminated, truncated, gamma, lam)

    assert_same_both_ways(ours, theirs, r, v, v_next)


def test_defaults_are_those_of_the_paper_on_ppo():
    """Table 3 there: γ = 0.99 and λ = 0.95; ε = 0.2 in section 3."""
    r, v, v_next, terminated, truncated = rollout(2, 20)
    explicit = gae(r, v, v_next, terminated, truncated, gamma=0.99, lam=0.95)
    assert_close(gae(r, v, v_next, terminated, truncated), explicit)
    assert_close(returns(r, terminated), returns(r, terminated, gamma=0.99))
    assert_close(ppo_loss(r, v, v_next), ppo_loss(r, v, v_next, clip=0.2))


def test_lambda_0_gives_the_temporal_difference_and_lambda_1_the_return_minus_the_value():
    r, v, v_next, terminated, truncated = rollout(4, 30)
    delta = r + 0.9 * torch.where(terminated, 0.0, v_next) - v
    assert_close(gae(r, v, v_next, terminated, truncated, gamma=0.9, lam=0), delta)
    done = terminated | truncated
    cut = done.clone()
    cut[:, -1] = True
    bootstrapped = r + 0.9 * v_next * (cut & ~terminated)
    full = gae(r, v, v_next, terminated, truncated, gamma=0.9, lam=1)
    assert_close(full, returns(bootstrapped, done, gamma=0.9) - v)


def test_advantage_is_a_mean_of_n_step_advantages_with_weights_that_fall_by_lambda():
    """(1 - λ) Σ λ^(n-1) A(n), the definition from which equation 16 is derived, in one episode that terminates."""
    r, v = normal(1, 12), normal(1, 12, seed=1)
    v_next = torch.cat([v[:, 1:], torch.zeros(1, 1, dtype=v.dtype)], 1)
    end = torch.arange(12)[None] == 11
    gamma, lam = 0.9, 0.7

    def n_step(n):
        n = min(n, 12)
        return sum(gamma**k * r[0, k] for k in range(n)) + gamma**n * (v[0, n] if n < 12 else 0.0) - v[0, 0]

    mean = (1 - lam) * sum(lam ** (n - 1) * n_step(n) for n in range(1, 200))
    assert_close(gae(r, v, v_next, end, torch.zeros_like(end), gamma=gamma, lam=lam)[0, 0], mean)


@pytest.fixture(scope="module")
def rollout_buffer():
    import gymnasium
    from stable_baselines3.common.buffers import RolloutBuffer

    def theirs(r, v, v_next, terminated, truncated, gamma, lam):
        """As its `collect_rollouts` does: the discounted value after a truncation is added to the reward."""
        b, t = r.shape
        box = gymnasium.spaces.Box(-1, 1, (1,))
        buffer = RolloutBuffer(t, box, gymnasium.spaces.Discrete(2), gamma=gamma, gae_lambda=lam, n_envs=b)
        starts, zeros = torch.ones(b), torch.zeros(b, 1)
        for k in range(t):
            reward = r[:, k] + gamma * v_next[:, k] * (truncated & ~terminated)[:, k]
            buffer.add(zeros.numpy(), zeros.numpy(), reward.numpy(), starts.numpy(), v[:, k], zeros[:, 0])
            starts = (terminated | truncated)[:, k].float()
        buffer.compute_returns_and_advantage(v_next[:, -1], starts.numpy())
        return torch.from_numpy(buffer.advantages.T), torch.from_numpy(buffer.returns.T)

    return theirs


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("gamma", "lam"), [(0.99, 0.95), (0.9, 0.5), (1.0, 1.0), (0.9, 0.0)], ids=str)
def test_advantages_and_targets_equal_those_of_stable_baselines3(rollout_buffer, seed, gamma, lam):
    data = rollout(5, 40, seed=seed, dtype=torch.float32)
    advantages, targets = rollout_buffer(*data, gamma, lam)
    ours = gae(*data, gamma=gamma, lam=lam)
    assert_close(ours, advantages)
    assert_close(ours + data[1], targets)
    assert data[3].any()
    assert data[4].any()


def test_advantages_equal_those_of_stable_baselines3_on_rollouts_of_cart_pole(rollout_buffer):
    import gymnasium

    weight = normal(4, seed=3, dtype=torch.float32)
    steps = []
    for copy in range(3):
        env = gymnasium.make("CartPole-v1", max_episode_steps=12)
        env.action_space.seed(copy)
        state, _ = env.reset(seed=copy)
        row = []
        for _ in range(60):
            reached, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            v, v_next = (torch.from_numpy(x) @ weight for x in (state, reached))
            row.append((torch.tensor(float(reward)), v, v_next, torch.tensor(terminated), torch.tensor(truncated)))
            state = env.reset()[0] if terminated or truncated else reached
        env.close()
        steps.append([torch.stack(x) for x in zip(*row, strict=True)])
    data = [torch.stack(x) for x in zip(*steps, strict=True)]
    assert data[3].any()
    assert (data[4] & ~data[3]).any()
    assert_close(gae(*data), rollout_buffer(*data, 0.99, 0.95)[0])


def test_values_after_termination_are_not_used_and_those_after_truncation_are():
    r, v, v_next, terminated, truncated = rollout(3, 12)
    truncated = truncated & ~terminated
    unknown = v_next.masked_fill(terminated, torch.nan)
    expected = gae(r, v, v_next, terminated, truncated)
    assert_close(gae(r, v, unknown, terminated, truncated), expected)
    nowhere = torch.zeros_like(truncated)
    assert (gae(r, v, v_next, terminated | truncated, nowhere) - expected)[truncated].abs().min() > 1e-3


def test_both_flags_at_once_count_as_termination():
    r, v, v_next, terminated, _ = rollout(3, 12)
    assert_close(gae(r, v, v_next, terminated, terminated), gae(r, v, v_next, terminated, torch.zeros_like(terminated)))


def test_nothing_leaks_from_one_episode_into_another_or_between_environments():
    r, v, v_next, terminated, truncated = rollout(4, 10)
    terminated[:, 4], truncated[:, 4] = torch.tensor([True, False] * 2), torch.tensor([False, True] * 2)
    halves = [gae(*(x[:, cut] for x in (r, v, v_next, terminated, truncated))) for cut in (slice(5), slice(5, None))]
    assert_close(gae(r, v, v_next, terminated, truncated), torch.cat(halves, 1))
    rows = [gae(*(x[i : i + 1] for x in (r, v, v_next, terminated, truncated))) for i in range(4)]
    assert_close(gae(r, v, v_next, terminated, truncated), torch.cat(rows))


# The gradient of the expected return


@pytest.fixture(scope="module")
def layered():
    """Three layers of two states and two actions, then the end: every episode has three steps."""
    s, steps, gamma = 2, 3, 0.9
    p = normal(steps, s, 2, s, seed=1).softmax(-1)
    reward = normal(steps, s, 2, s, seed=2)
    start = torch.tensor([0.3, 0.7], dtype=torch.float64)
    logits = normal(steps, s, 2, seed=3)

    def values(logits):
        """V of the 6 states from one system of linear equations."""
        pi = logits.softmax(-1)
        step = torch.einsum("nsa,nsat->nst", pi, p)
        to = torch.zeros(6, 6, dtype=torch.float64)
        for layer in range(steps - 1):
            to[2 * layer : 2 * layer + 2, 2 * layer + 2 : 2 * layer + 4] = step[layer]
        mean = torch.einsum("nsa,nsat,nsat->ns", pi, p, reward).flatten()
        return torch.linalg.solve(torch.eye(6, dtype=torch.float64) - gamma * to, mean).view(steps, s)

    paths = torch.tensor(list(itertools.product(range(2), repeat=2 * steps + 1)))
    states, actions = paths[:, 0::2], paths[:, 1::2]
    layer = torch.arange(steps)
    pi = logits.softmax(-1)
    here, there = states[:, :-1], states[:, 1:]
    probability = start[states[:, 0]] * (pi[layer, here, actions] * p[layer, here, actions, there]).prod(1)
    assert_close(probability.sum(), torch.ones((), dtype=torch.float64))
    v = torch.cat([values(logits), torch.zeros(1, s, dtype=torch.float64)])
    end = (layer == steps - 1).expand_as(here)
    data = reward[layer, here, actions, there], v[layer, here], v[layer + 1, there], end, end & False
    x = leaf(logits)
    (exact,) = torch.autograd.grad(start @ values(x)[0], x)

    def estimated(advantage):
        """The mean over all paths, from the gradient of the loss."""
        x = leaf(logits)
        logp = x.log_softmax(-1)[layer, here, actions]
        weight = gamma ** layer.double() * probability[:, None] * probability.numel() * steps
        return -torch.autograd.grad(policy_loss(logp, weight * advantage), x)[0]

    return data, gamma, exact, estimated


@pytest.mark.parametrize("lam", [0, 0.5, 1], ids=str)
def test_loss_with_exact_values_has_the_exact_gradient_for_each_lambda(layered, lam):
    data, gamma, exact, estimated = layered
    assert_close(estimated(gae(*data, gamma=gamma, lam=lam)), exact)


def test_rewards_to_go_and_whole_returns_and_any_baseline_have_the_exact_gradient(layered):
    data, gamma, exact, estimated = layered
    r, v, _, end, _ = data
    to_go = returns(r, end, gamma=gamma)
    discount = gamma ** torch.arange(3, dtype=torch.float64)
    baseline = (7 * v).sin()  # some function of the state
    for advantage in (to_go, to_go - baseline, to_go[:, :1] / discount):
        assert_close(estimated(advantage), exact)


def test_wrong_values_bias_the_gradient_unless_lambda_is_1(layered):
    data, gamma, exact, estimated = layered
    r, v, v_next, *flags = data
    for lam, biased in ((1, False), (0.5, True), (0, True)):
        off = (estimated(gae(r, 0 * v, 0 * v_next, *flags, gamma=gamma, lam=lam)) - exact).norm() / exact.norm()
        assert off > 0.01 if biased else off < 1e-12


def test_mean_of_log_probabilities_gives_all_actions_of_an_episode_one_weight(layered):
    """The misuse that a tutorial of Gymnasium had: it is the loss with the mean return."""
    (r, *_), _, _, _ = layered
    logp = leaf(normal(*r.shape, seed=5))
    misused = -(logp.mean(1, keepdim=True) * r).mean()
    (gradient,) = torch.autograd.grad(misused, logp)
    x = leaf(logp)
    (expected,) = torch.autograd.grad(policy_loss(x, r.mean(1, keepdim=True).expand_as(r)), x)
    assert_close(gradient, expected)


def test_mean_score_is_0_for_drawn_actions_but_not_for_clipped_ones():
    mu = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    pi = torch.distributions.Normal(mu, 0.5)
    u = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    drawn = pi.icdf(u).detach()
    for action, wanted in ((drawn, 0.0), (drawn.clamp(-1, 1), None)):
        (score,) = torch.autograd.grad(policy_loss(pi.log_prob(action), torch.ones_like(action)), mu)
        assert abs(score) < 1e-9 if wanted is not None else score > 0.3


# Losses


def test_policy_loss_and_gradient_equal_a_loop():
    advantage = normal(4, 5, seed=1)

    def theirs(logp):
        return -sum(advantage[i, t] * logp[i, t] for i in range(4) for t in range(5)) / 20

    assert_same_both_ways(lambda logp: policy_loss(logp, advantage), theirs, normal(4, 5))


@pytest.mark.parametrize("clip", [0.1, 0.2, 1, math.inf], ids=str)
def test_ppo_loss_and_gradient_equal_a_loop_over_the_cases(clip):
    logp_old, advantage = normal(6, 50, seed=1), normal(6, 50, seed=2)
    logp = logp_old + 0.5 * normal(6, 50)
    for sign in (1, -1):
        for side in (1, -1):
            for far in (True, False):
                outside = (side * ((logp - logp_old).exp() - 1) > 0.2) if far else (logp - logp_old).abs() < 0.1
                assert (outside & (sign * advantage > 0)).sum() > 5
    assert_same_both_ways(
        lambda logp: ppo_loss(logp, logp_old, advantage, clip=clip),
        lambda logp: ppo_by_the_cases(logp, logp_old, advantage, clip),
        logp,
    )


@pytest.mark.parametrize(
    ("advantage", "ratio", "value", "slope"),
    [
        (2, 1.5, 2.4, 0),
        (2, 1.1, 2.2, 2),
        (2, 0.5, 1.0, 2),
        (-2, 1.5, -3.0, -2),
        (-2, 0.9, -1.8, -2),
        (-2, 0.5, -1.6, 0),
    ],
    ids=str,
)
def test_one_term_has_the_values_and_slopes_of_figure_1(advantage, ratio, value, slope):
    logp = torch.tensor([ratio], dtype=torch.float64).log().requires_grad_()
    objective = -ppo_loss(logp, torch.zeros_like(logp), torch.tensor([float(advantage)], dtype=torch.float64))
    assert math.isclose(objective.item(), value)
    (gradient,) = torch.autograd.grad(objective, logp)
    assert math.isclose(gradient.item(), slope * ratio, abs_tol=1e-12)


def test_ppo_loss_equals_policy_loss_to_first_order_where_the_policy_is_the_old_one():
    logp, advantage = leaf(normal(30)), normal(30, seed=1)
    expected = torch.autograd.grad(policy_loss(logp, advantage), logp)
    loss = ppo_loss(logp, logp, advantage)
    assert_close(torch.autograd.grad(loss, logp), expected)
    assert_close(loss, -advantage.mean())


def test_clipped_objective_is_at_most_the_objective_that_is_not_clipped():
    logp, logp_old, advantage = normal(500), normal(500, seed=1), normal(500, seed=2)
    for i in range(500):
        cut = slice(i, i + 1)
        clipped = ppo_loss(logp[cut], logp_old[cut], advantage[cut])
        assert clipped >= ppo_loss(logp[cut], logp_old[cut], advantage[cut], clip=math.inf) - 1e-12


def test_gradcheck():
    logp_old, advantage = normal(12, seed=1), normal(12, seed=2)
    logp = leaf(logp_old + 0.4 * normal(12))
    assert torch.autograd.gradcheck(lambda x: ppo_loss(x, logp_old, advantage), logp)
    assert torch.autograd.gradcheck(lambda x: policy_loss(x, advantage), logp)
    r, v, v_next, terminated, truncated = rollout(2, 5)
    inputs = tuple(leaf(x) for x in (r, v, v_next))
    assert torch.autograd.gradcheck(lambda *x: gae(*x, terminated, truncated), inputs)
    assert torch.autograd.gradcheck(lambda x: returns(x, terminated), inputs[0])


def test_no_gradient_flows_into_advantages_or_the_old_policy():
    logp, logp_old, advantage = (leaf(normal(8, seed=i)) for i in range(3))
    (ppo_loss(logp, logp_old, advantage) + policy_loss(logp, advantage)).backward()
    assert logp.grad is not None
    assert logp_old.grad is None
    assert advantage.grad is None


# All of them


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_low_precision_stays_close_and_keeps_its_type(dtype):
    r, v, v_next, terminated, truncated = rollout(3, 9)
    low = [x.to(dtype) for x in (r, v, v_next)]
    wide = [x.double() for x in low]
    tolerance = {"atol": 30 * torch.finfo(dtype).eps, "rtol": 30 * torch.finfo(dtype).eps}
    for function in (
        lambda r, v, v_next: gae(r, v, v_next, terminated, truncated),
        lambda r, v, v_next: returns(r, terminated),
        lambda r, v, v_next: policy_loss(r, v),
        lambda r, v, v_next: ppo_loss(r / 4, v / 4, v_next),
    ):
        value = function(*low)
        assert value.dtype == dtype
        assert_close(value.double(), function(*wide), **tolerance)


def test_strided_inputs_give_the_same_and_are_not_changed():
    r, v, v_next, terminated, truncated = rollout(4, 6)
    data = [r, v, v_next, terminated, truncated]
    strided = [x.t().contiguous().t() for x in data]
    copies = [x.clone() for x in strided]
    assert not strided[0].is_contiguous()
    assert_close(gae(*strided), gae(*data))
    assert_close(returns(strided[0], strided[3]), returns(r, terminated))
    assert_close(ppo_loss(*strided[:3]), ppo_loss(*data[:3]))
    for x, copy in zip(strided, copies, strict=True):
        assert_close(x, copy)


def test_no_environments_give_no_advantages():
    none, flags = torch.zeros(0, 5), torch.zeros(0, 5, dtype=torch.bool)
    assert gae(none, none, none, flags, flags).shape == (0, 5)
    assert returns(none, flags).shape == (0, 5)


def test_a_single_number_is_a_shape_too():
    assert_close(policy_loss(torch.tensor(-0.5), torch.tensor(3.0)), torch.tensor(1.5))
    assert_close(ppo_loss(torch.tensor(0.0), torch.tensor(0.0), torch.tensor(3.0)), torch.tensor(-3.0))


# Wrong input


R, FLAGS = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"r": torch.zeros(3)}, r"r must be \(B, T\), but its shape is \(3,\)"),
        ({"r": torch.zeros(2, 0)}, r"only B may be 0 in r \(B, T\)"),
        ({"r": torch.zeros(2, 3, dtype=torch.int64)}, "r must be a floating-point tensor"),
        ({"r": [[1.0]]}, "r must be a floating-point tensor"),
        ({"v": torch.zeros(2, 4)}, r"v has shape \(2, 4\), but r \(2, 3\)"),
        ({"v": torch.zeros(2, 1)}, r"v has shape \(2, 1\), but r \(2, 3\)"),
        ({"v_next": torch.zeros(2)}, r"v_next has shape \(2,\), but r \(2, 3\)"),
        ({"v_next": 0.0}, "v_next must be a floating-point tensor, but is a float"),
        ({"terminated": torch.zeros(2, 3)}, "terminated must be a tensor of bool, but is torch.float32"),
        ({"truncated": torch.zeros(3, dtype=torch.bool)}, r"truncated has shape \(3,\), but r \(2, 3\)"),
        ({"truncated": None}, "truncated must be a tensor of bool, but is a NoneType"),
        ({"gamma": 1.01}, "gamma must be between 0 and 1, but is 1.01"),
        ({"gamma": math.nan}, "gamma must be between 0 and 1, but is nan"),
        ({"lam": -0.1}, "lam must be between 0 and 1, but is -0.1"),
    ],
    ids=[
        "vector",
        "no steps",
        "integers",
        "list",
        "one value more",
        "one column",
        "next value only",
        "number",
        "float flags",
        "vector of flags",
        "no flags",
        "gamma",
        "nan",
        "lambda",
    ],
)
def test_rollouts_that_do_not_fit_are_an_error(change, match):
    arguments = {"r": R, "v": R, "v_next": R, "terminated": FLAGS, "truncated": FLAGS} | change
    with pytest.raises(ValueError, match=match):
        gae(**arguments)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("r", "done", "gamma", "match"),
    [
        (torch.zeros(3), FLAGS, 0.9, r"r must be \(B, T\)"),
        (R, torch.zeros(2, 2, dtype=torch.bool), 0.9, r"done has shape \(2, 2\), but r \(2, 3\)"),
        (R, torch.zeros(2, 3, dtype=torch.uint8), 0.9, "done must be a tensor of bool, but is torch.uint8"),
        (R, FLAGS, "a", "gamma must be between 0 and 1, but is 'a'"),
    ],
    ids=["vector", "too few flags", "bytes", "text"],
)
def test_returns_of_what_does_not_fit_are_an_error(r, done, gamma, match):
    with pytest.raises(ValueError, match=match):
        returns(r, done, gamma=gamma)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("logp", "old", "advantage", "match"),
    [
        (R, R, torch.zeros(3), r"advantage has shape \(3,\), but logp \(2, 3\)"),
        (R, torch.zeros(2, 1), R, r"logp_old has shape \(2, 1\), but logp \(2, 3\)"),
        (R.long(), R, R, "logp must be a floating-point tensor, but is torch.int64"),
        (R, R, 1.0, "advantage must be a floating-point tensor, but is a float"),
        ([0.0], R, R, "logp must be a floating-point tensor, but is a list"),
    ],
    ids=["fewer advantages", "column", "integers", "number", "list"],
)
def test_losses_of_what_does_not_fit_are_an_error(logp, old, advantage, match):
    with pytest.raises(ValueError, match=match):
        ppo_loss(logp, old, advantage)
    if "old" not in match:
        with pytest.raises(ValueError, match=match):
            policy_loss(logp, advantage)


@pytest.mark.wrong_input
@pytest.mark.parametrize("clip", [0, -0.2, math.nan], ids=str)
def test_a_clip_that_is_not_positive_is_an_error(clip):
    with pytest.raises(ValueError, match="clip must be positive, but is"):
        ppo_loss(R, R, R, clip=clip)
