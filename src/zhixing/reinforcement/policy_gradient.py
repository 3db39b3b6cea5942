"""Policy gradients: returns, advantages, and the losses of REINFORCE and PPO.

Sources: Schulman, Wolski, Dhariwal, Radford & Klimov, Proximal Policy Optimization Algorithms,
arXiv 1707.06347; Schulman, Moritz, Levine, Jordan & Abbeel, High-Dimensional Continuous Control
Using Generalized Advantage Estimation, arXiv 1506.02438.

Left out: the loop that collects rollouts; the losses of the value network and of the entropy;
steps that are padding.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zhixing.convolution.arguments import check_floats, probability


def returns(
    r: Float[Tensor, "b t"], done: Bool[Tensor, "b t"], *, gamma: int | float = 0.99
) -> Float[Tensor, "b t"]:
    """The discounted sum of the rewards from each step to the end of its episode, the reward to go.

    Nothing is added for what would follow the last column or a time limit. If episodes are cut
    off, use `gae` with lam=1, plus v.

    Args:
        r: The reward of each of T steps in B environments.
        done: Whether the step ended its episode. The next column belongs to another episode.
        gamma: The discount γ, from 0 to 1.

    Raises:
        ValueError: Shapes or types differ from these, or gamma is out of range.

    Examples:
        >>> import torch
        >>> r = torch.tensor([[0.0, 1.0, 0.0, 4.0]])
        >>> done = torch.tensor([[False, True, False, False]])
        >>> returns(r, done, gamma=0.5)
        tensor([[0.5000, 1.0000, 2.0000, 4.0000]])
    """
    check_floats(r, "r", "B", "T")
    _check_flags(done, "done", r)
    return _backwards(r, done, probability(gamma, "gamma"))


def gae(
    r: Float[Tensor, "b t"],
    v: Float[Tensor, "b t"],
    v_next: Float[Tensor, "b t"],
    terminated: Bool[Tensor, "b t"],
    truncated: Bool[Tensor, "b t"],
    *,
    gamma: int | float = 0.99,
    lam: int | float = 0.95,
) -> Float[Tensor, "b t"]:
    """The generalised advantage estimate: the sum of (γλ)^l δ over the later steps of the episode.

    Equation 16 of arXiv 1506.02438, with δ = r + γ v_next - v. After termination, v_next counts as
    0. After truncation it counts, but no further δ is added; the last column is treated the same.
    The value network's target is the estimate plus v. Call it under `torch.no_grad`.

    Args:
        r: The reward of each of T steps in B environments.
        v: The value of the state in which the action was taken.
        v_next: The value of the state that the action led to, before the environment is reset.
            Within an episode it is the next column of v. After termination it is not used, and
            may even be NaN.
        terminated: Whether the state that was reached ends the task: there is no future reward.
        truncated: Whether the episode was cut off, for example by a time limit.
        gamma: The discount γ, from 0 to 1.
        lam: λ from 0 (relies on v, with little noise) to 1 (relies on the rewards).

    Raises:
        ValueError: Shapes or types differ from these, or gamma or lam is out of range.

    Examples:
        >>> import torch
        >>> r, v = torch.ones(1, 3), torch.tensor([[4.0, 3.0, 2.0]])
        >>> v_next = torch.tensor([[3.0, 2.0, 8.0]])
        >>> no, end = torch.zeros(1, 3, dtype=torch.bool), torch.tensor([[False, False, True]])
        >>> gae(r, v, v_next, terminated=end, truncated=no, gamma=0.5, lam=1.0)
        tensor([[-2.2500, -1.5000, -1.0000]])
        >>> gae(r, v, v_next, terminated=no, truncated=end, gamma=0.5, lam=1.0)
        tensor([[-1.2500,  0.5000,  3.0000]])
    """
    check_floats(r, "r", "B", "T")
    _check_like(v, "v", r, "r")
    _check_like(v_next, "v_next", r, "r")
    _check_flags(terminated, "terminated", r)
    _check_flags(truncated, "truncated", r)
    gamma, lam = probability(gamma, "gamma"), probability(lam, "lam")
    delta = r + gamma * v_next.masked_fill(terminated, 0.0) - v
    return _backwards(delta, terminated | truncated, gamma * lam)


def policy_loss(
    logp: Float[Tensor, "*shape"], advantage: Float[Tensor, "*shape"]
) -> Float[Tensor, ""]:
    """The loss of REINFORCE: the mean of -advantage · log π(a|s), a loss in its gradient only.

    The value says nothing about the policy. The gradient is right only for actions drawn from the
    policy as it is, so for one step of the optimiser.

    Args:
        logp: log π(a|s) of the actions that were drawn, with gradient; a sum over the components
            of an action that has several.
        advantage: How much better than usual each action was: its return or any estimate of the
            advantage. It is a constant here: no gradient flows into it.

    Raises:
        ValueError: The two are not floating-point tensors of one shape.

    Examples:
        >>> import torch
        >>> logits = torch.zeros(2, requires_grad=True)
        >>> logp = logits.log_softmax(0)[torch.tensor([0, 0, 1])]
        >>> policy_loss(logp, torch.tensor([1.0, 1.0, -1.0])).backward()
        >>> logits.grad  # the descent raises the probability of action 0
        tensor([-0.5000,  0.5000])
    """
    _check_like(logp, "logp")
    _check_like(advantage, "advantage", logp, "logp")
    return -(advantage.detach() * logp).mean()


def ppo_loss(
    logp: Float[Tensor, "*shape"],
    logp_old: Float[Tensor, "*shape"],
    advantage: Float[Tensor, "*shape"],
    *,
    clip: int | float = 0.2,
) -> Float[Tensor, ""]:
    """The loss of PPO: the mean of -min(ρA, clip(ρ, 1 - ε, 1 + ε) A), with ρ = π(a|s) / π_old(a|s).

    Equation 7 of arXiv 1707.06347, with the sign of a loss. A step adds nothing to the gradient if
    its advantage is positive and ρ > 1 + ε, or negative and ρ < 1 - ε. At ρ = 1, the gradient is
    that of `policy_loss`.

    Args:
        logp: log π(a|s) of the actions that were drawn, with gradient, in float32 or better; a sum
            over the components of an action that has several.
        logp_old: The same of the policy that drew the actions. No gradient flows into it.
        advantage: The estimates of the advantage A, constants too. Normalise them before.
        clip: ε, positive. `math.inf` never clips.

    Raises:
        ValueError: The tensors are not floating-point or not of one shape, or clip is not positive.

    Examples:
        >>> import torch
        >>> logp = torch.tensor([1.5, 0.5, 1.5, 0.5]).log().requires_grad_()
        >>> loss = ppo_loss(logp, torch.zeros(4), torch.tensor([1.0, 1.0, -1.0, -1.0]))
        >>> round(loss.item(), 4)
        0.15
        >>> loss.backward()
        >>> logp.grad.abs()  # the first and last have gone far enough
        tensor([0.0000, 0.1250, 0.3750, 0.0000])
    """
    _check_like(logp, "logp")
    _check_like(logp_old, "logp_old", logp, "logp")
    _check_like(advantage, "advantage", logp, "logp")
    if not clip > 0:
        raise ValueError(f"clip must be positive, but is {clip!r}")
    ratio = torch.exp(logp - logp_old.detach())
    clipped = ratio.clamp(1 - clip, 1 + clip)
    advantage = advantage.detach()
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()


def _backwards(
    x: Float[Tensor, "b t"], done: Bool[Tensor, "b t"], factor: int | float
) -> Float[Tensor, "b t"]:
    """y[t] = x[t] + factor · y[t + 1], where nothing is added after the end of an episode."""
    # unbound once, as indexing in each step takes longer than the sum
    weights = (factor * (~done).to(x.dtype)).unbind(1)
    total, sums = torch.zeros_like(x[:, 0]), []
    for now, weight in zip(x.unbind(1)[::-1], weights[::-1], strict=True):
        total = now + weight * total
        sums.append(total)
    return torch.stack(sums[::-1], 1)


def _check_flags(flags: Tensor, name: str, r: Tensor) -> None:
    if not isinstance(flags, Tensor) or flags.dtype != torch.bool:
        kind = flags.dtype if isinstance(flags, Tensor) else f"a {type(flags).__name__}"
        raise ValueError(f"{name} must be a tensor of bool, but is {kind}")
    if flags.shape != r.shape:
        raise ValueError(f"{name} has shape {(*flags.shape,)}, but r {(*r.shape,)}")


def _check_like(x: Tensor, name: str, other: Tensor | None = None, like: str = "") -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"{name} must be a floating-point tensor, but is {kind}")
    if other is not None and x.shape != other.shape:
        raise ValueError(f"{name} has shape {(*x.shape,)}, but {like} {(*other.shape,)}")
