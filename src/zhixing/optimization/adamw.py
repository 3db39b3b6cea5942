"""Adam, whose weight decay is L2 regularisation, and AdamW, which decouples the two.

Source: Kingma & Ba, Adam: A Method for Stochastic Optimization, arXiv 1412.6980, algorithm 1;
Loshchilov & Hutter, Decoupled Weight Decay Regularization, arXiv 1711.05101, algorithm 2.
"""

from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Number = int | float | Tensor
_SETTINGS = ("lr", "betas", "eps", "weight_decay")


def adam_update(
    theta: Float[Tensor, "*shape"],
    g: Float[Tensor, "*shape"],
    m: Float[Tensor, "*shape"],
    v: Float[Tensor, "*shape"],
    *,
    t: Number,
    lr: Number = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: Number = 0.0,
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """One step of Adam, with L2 regularisation: the decay enters the gradient.

    Differentiable in all tensors where v is positive. In float16, as in torch, v overflows where
    |g| exceeds about 8000. There ε rounds to 0, and so does v where |g| is small: a gradient of
    0.001 makes θ infinite, and one of 0 makes it NaN.

    Args:
        theta: θ, the parameter, of any shape, in a floating-point type.
        g: Its gradient.
        m: The running mean of gradients from the last step; zeros before the first.
        v: The running mean of squared gradients from the last step; zeros before the first.
        t: The number of this step, from 1; a float64 tensor in code that is compiled.
        lr: α, a number or a tensor that broadcasts to theta.
        betas: β1 and β2, each in [0, 1).
        eps: ε, added outside of the root.
        weight_decay: λ, a number or a tensor that broadcasts to theta.

    Returns:
        The new theta, m and v.

    Raises:
        ValueError: t is not a tensor, and not a number from 1 on; or theta, g, m and v are not
            dense tensors of real numbers, of one shape.

    Examples:
        >>> import torch
        >>> theta, g, zero = torch.tensor([2.0]), torch.tensor([3.0]), torch.zeros(1)
        >>> theta, m, v = adam_update(theta, g, zero, zero, t=1, lr=0.1, weight_decay=0.5)
        >>> [round(x.item(), 4) for x in (theta, m, v)]
        [1.9, 0.4, 0.016]
    """
    _check_tensors(parameter=theta, gradient=g, m=m, v=v)
    _check_step(t)
    beta1, beta2 = betas
    g = g + weight_decay * theta
    m = beta1 * m + (1 - beta1) * g
    # Neither g² nor v / (1 - β2^t) is formed: in half precision they overflow long before v.
    v = beta2 * v + (1 - beta2) * g * g
    m_hat = m / (1 - beta1**t)
    root = v.sqrt() / (1 - beta2**t) ** 0.5
    theta = theta - lr * m_hat / (root + eps)
    return theta, m, v


def adamw_update(
    theta: Float[Tensor, "*shape"],
    g: Float[Tensor, "*shape"],
    m: Float[Tensor, "*shape"],
    v: Float[Tensor, "*shape"],
    *,
    t: Number,
    lr: Number = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: Number = 1e-2,
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """One step of AdamW: the decay bypasses the moments and acts on the parameter itself.

    As in torch the decay is multiplied by the learning rate; algorithm 2 of the paper multiplies
    it by the schedule alone, so its λ is `lr * weight_decay` here.

    Args, Returns, Raises: those of `adam_update`.

    Examples:
        >>> import torch
        >>> theta, g, zero = torch.tensor([2.0]), torch.tensor([3.0]), torch.zeros(1)
        >>> theta, m, v = adamw_update(theta, g, zero, zero, t=1, lr=0.1, weight_decay=0.5)
        >>> [round(x.item(), 4) for x in (theta, m, v)]
        [1.8, 0.3, 0.009]
    """
    _check_tensors(parameter=theta, gradient=g, m=m, v=v)
    _check_step(t)
    beta1, beta2 = betas
    m = beta1 * m + (1 - beta1) * g
    # Neither g² nor v / (1 - β2^t) is formed: in half precision they overflow long before v.
    v = beta2 * v + (1 - beta2) * g * g
    m_hat = m / (1 - beta1**t)
    root = v.sqrt() / (1 - beta2**t) ** 0.5
    theta = theta - lr * (m_hat / (root + eps) + weight_decay * theta)
    return theta, m, v


class Adam(torch.optim.Optimizer):
    """`adam_update` for the parameters of a model, with the arguments of `torch.optim.Adam`.

    Groups of parameters and schedulers work as with torch's, `torch.compile(optimizer.step)` too,
    and each can load a `state_dict` of the other. Left to torch are `amsgrad`, `maximize` and
    `differentiable`, sparse gradients and complex parameters, all refused; `foreach`, `fused` and
    `capturable`, which change speed alone, have no effect.

    Args:
        params: Tensors, or groups of them as dicts with separate settings.
        lr: α, not negative: a number, or a tensor with one element.
        betas: β1 and β2, each in [0, 1).
        eps: ε, not negative.
        weight_decay: λ, not negative.

    Raises:
        ValueError: A setting is out of its range, or asks for what is left to torch; a state is
            that of another algorithm or model; a parameter or its gradient is not dense and real,
            in which case no parameter has moved.
        TypeError: As in torch: params is a single tensor, or an added group is not a dict.

    Examples:
        >>> import torch
        >>> theta = torch.tensor([2.0], requires_grad=True)
        >>> optimizer = Adam([theta], lr=0.1, weight_decay=0.5)
        >>> (3 * theta).sum().backward()
        >>> optimizer.step()
        >>> round(theta.item(), 4)
        1.9
    """

    update = staticmethod(adam_update)
    left_to_torch = ("amsgrad", "maximize", "differentiable", "decoupled_weight_decay")

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: Number = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return the result of `closure`."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        moving = [
            (theta, group)
            for group in self.param_groups
            for theta in group["params"]
            if theta.grad is not None
        ]
        for theta, _ in moving:
            _check_tensors(parameter=theta, gradient=theta.grad)
        for theta, group in moving:
            self._move(theta, group)
        return loss

    def _move(self, theta: Tensor, group: dict[str, Any]) -> None:
        state = self.state[theta]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(theta)
            state["exp_avg_sq"] = torch.zeros_like(theta)
        step = torch.as_tensor(state["step"]) + 1.0  # a number in old states of torch
        m, v = state["exp_avg"], state["exp_avg_sq"]
        # A compiler would take a number for a constant.
        t = step.double() if torch.compiler.is_compiling() else step.item()
        settings = {name: _without_shape(group[name]) for name in _SETTINGS}
        moved, m, v = self.update(theta, theta.grad, m, v, t=t, **settings)
        state |= {"step": step, "exp_avg": m, "exp_avg_sq": v}
        theta.copy_(moved)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if isinstance(param_group, dict):
            _check_settings(self.defaults | param_group, self.left_to_torch)
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not isinstance(state_dict, dict) or not {"state", "param_groups"} <= set(state_dict):
            raise ValueError("a state of an optimiser has state and param_groups; is it a model's?")
        for group in state_dict["param_groups"]:
            _check_settings(group, self.left_to_torch)
        own = [theta for group in self.param_groups for theta in group["params"]]
        theirs = [number for group in state_dict["param_groups"] for number in group["params"]]
        shapes = {number: theta.shape for number, theta in zip(theirs, own, strict=False)}
        for number, state in state_dict["state"].items():
            if set(state) != {"step", "exp_avg", "exp_avg_sq"}:
                found = ", ".join(sorted(state))
                raise ValueError(f"a state of Adam has step, exp_avg and exp_avg_sq, not {found}")
            shape = shapes.get(number, state["exp_avg"].shape)
            if not state["exp_avg"].shape == state["exp_avg_sq"].shape == shape:
                wanted = f"{(*shape,)}, but the state {(*state['exp_avg'].shape,)}"
                raise ValueError(f"parameter {number} has shape {wanted}: it is another model's")
        super().load_state_dict(state_dict)


class AdamW(Adam):
    """`adamw_update` for the parameters of a model, with the arguments of `torch.optim.AdamW`.

    All else is as for `Adam`.

    Examples:
        >>> import torch
        >>> theta = torch.tensor([2.0], requires_grad=True)
        >>> optimizer = AdamW([theta], lr=0.1, weight_decay=0.5)
        >>> (3 * theta).sum().backward()
        >>> optimizer.step()
        >>> round(theta.item(), 4)
        1.8
    """

    update = staticmethod(adamw_update)
    left_to_torch = ("amsgrad", "maximize", "differentiable")

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: Number = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


def decay_groups(module: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimiser: tensors of two or more dimensions, which decay, and the rest.

    In most networks, a tensor of fewer dimensions is a bias, or the scale or shift of a
    normalisation layer. A scale of shape (C, 1, 1) lands in the wrong group: move it by hand.
    Frozen parameters are left out, and one that is used twice is named once.

    Args:
        module: The model.
        weight_decay: λ of the first group.

    Returns:
        The groups, each in the order of `module.parameters()`; either may be empty.

    Examples:
        >>> from torch import nn
        >>> decayed, spared = decay_groups(nn.Linear(3, 2), weight_decay=0.1)
        >>> [tuple(theta.shape) for theta in decayed["params"]], decayed["weight_decay"]
        ([(2, 3)], 0.1)
        >>> [tuple(theta.shape) for theta in spared["params"]], spared["weight_decay"]
        ([(2,)], 0.0)
    """
    trained = [theta for theta in module.parameters() if theta.requires_grad]
    return [
        {"params": [theta for theta in trained if theta.ndim >= 2], "weight_decay": weight_decay},
        {"params": [theta for theta in trained if theta.ndim < 2], "weight_decay": 0.0},
    ]


def _check_tensors(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            what = f"a {type(tensor).__name__}"
            raise ValueError(f"Adam needs dense tensors of real numbers, but {name} is {what}")
        shape = tensors["parameter"].shape
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            what = f"{tensor.layout} of {tensor.dtype}"
            raise ValueError(f"Adam needs dense tensors of real numbers, but {name} is {what}")
        if tensor.shape != shape:
            shapes = f"{(*shape,)}, {name} {(*tensor.shape,)}"
            raise ValueError(f"all tensors must have one shape, but the parameter has {shapes}")


def _check_step(t: Number) -> None:
    if not isinstance(t, Tensor) and not (isinstance(t, Real) and t >= 1):
        raise ValueError(f"steps are counted from 1, but t is {t}")


def _check_settings(group: dict[str, Any], left_to_torch: tuple[str, ...]) -> None:
    if missing := [name for name in _SETTINGS if name not in group]:
        raise ValueError(f"a group of Adam needs {', '.join(_SETTINGS)}, but lacks {missing}")
    for name in ("lr", "eps", "weight_decay"):
        value = group[name]
        if not _is_number(value):
            what = repr(value)
            if isinstance(value, Tensor):
                what = f"a tensor of shape {(*value.shape,)}"
            raise ValueError(f"{name} must be one number, but is {what}")
        if not value >= 0:
            raise ValueError(f"{name} must not be negative, but is {value}")
    betas = group["betas"]
    pair = isinstance(betas, tuple | list) and len(betas) == 2
    if not (pair and all(_is_number(b) and 0 <= b < 1 for b in betas)):
        raise ValueError(f"betas must be two numbers in [0, 1), but are {betas}")
    for name in left_to_torch:
        if group.get(name):
            raise ValueError(f"{name} is left to torch.optim, but a group asks for it")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)


def _without_shape(setting: Any) -> Any:
    """A tensor with one element as one without dimensions, which broadcasts to any shape."""
    return setting.reshape(()) if isinstance(setting, Tensor) else setting
