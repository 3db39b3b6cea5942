"""Biases: starts against torch.distributions and scikit-learn, idle ones against a Jacobian, folds against torch's."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from tensors import assert_same_both_ways, leaf, normal
from torch import nn
from torch.nn.utils import fusion
from torch.testing import assert_close

from zhixing.foundations.bias import fold_batch_norm, idle_biases, prior_bias

# Where a bias starts

COUNTS = {
    "three classes": [80, 15, 5],
    "two": [99, 1],
    "one": [7],
    "equal": [4, 4, 4, 4],
    "huge": [10**12, 1, 10**6],
}


@pytest.mark.parametrize("name", COUNTS)
def test_prior_and_its_gradient_equal_the_logits_of_categorical(name):
    counts = torch.tensor(COUNTS[name], dtype=torch.float64)

    def categorical(counts):
        return torch.distributions.Categorical(probs=counts).logits

    ours, theirs = leaf(counts), leaf(counts)
    value, expected = prior_bias(ours), categorical(theirs)
    # Categorical keeps probabilities above 2e-16.
    assert_close(value, expected, rtol=1e-7, atol=1e-7)
    weights = normal(len(counts))
    assert_close(torch.autograd.grad(value, ours, weights), torch.autograd.grad(expected, theirs, weights))


def test_prior_is_what_scikit_learns_dummy_classifier_predicts():
    from sklearn.dummy import DummyClassifier

    labels = torch.tensor([0] * 17 + [1] * 2 + [2] * 31)
    dummy = DummyClassifier(strategy="prior").fit(torch.zeros(50, 1).numpy(), labels.numpy())
    expected = torch.from_numpy(dummy.predict_log_proba([[0.0]])[0])
    assert_close(prior_bias(torch.bincount(labels)).double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", COUNTS)
def test_prior_minimises_the_cross_entropy_and_reaches_the_entropy(name):
    from scipy.stats import entropy

    counts = torch.tensor(COUNTS[name], dtype=torch.float64)
    share = counts / counts.sum()
    b = leaf(prior_bias(counts))
    loss = F.cross_entropy(b[None], share[None])
    assert_close(loss.item(), float(entropy(counts.numpy())))
    (gradient,) = torch.autograd.grad(loss, b)  # the loss is convex, so this is its minimum
    assert gradient.abs().max() < 1e-12


def test_prior_with_one_positive_in_a_hundred_is_that_of_retinanet():
    b = prior_bias(torch.tensor([99.0, 1.0], dtype=torch.float64))
    pi = 0.01
    assert_close((b[1] - b[0]).item(), -math.log((1 - pi) / pi))
    assert round((b[1] - b[0]).item(), 3) == -4.595
    assert_close((b[1] - b[0]).item(), torch.logit(torch.tensor(pi, dtype=torch.float64)).item())


def test_many_labels_take_the_logit_of_each_share():
    positives, total = torch.tensor([3.0, 50.0, 900.0], dtype=torch.float64), 1000
    pairs = [prior_bias(torch.stack([total - n, n])) for n in positives]
    assert_close(torch.stack([b[1] - b[0] for b in pairs]), torch.logit(positives / total))


def test_weighted_loss_needs_weighted_counts():
    counts, weights = torch.tensor([970.0, 20, 10]).double(), torch.tensor([1.0, 5, 10]).double()
    labels = torch.repeat_interleave(torch.arange(3), counts.long())

    def gradient(b):
        b = leaf(b)
        loss = F.cross_entropy(b.expand(1000, 3), labels, weight=weights)
        return torch.autograd.grad(loss, b)[0].abs().max()

    assert gradient(prior_bias(counts * weights)) < 1e-12
    assert gradient(prior_bias(counts)) > 0.05
    # Subtracting the logarithm of the weights undoes them.
    assert_close((prior_bias(counts * weights) - weights.log()).softmax(0), counts / 1000)


def test_prior_passes_gradcheck():
    assert torch.autograd.gradcheck(prior_bias, leaf(normal(5).exp()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_prior_in_half_precision_rounds_the_exact_one(dtype):
    counts = torch.tensor([60000.0, 60000, 4, 1]).to(dtype)  # whose sum overflows in float16
    assert prior_bias(counts).dtype == dtype
    assert torch.equal(prior_bias(counts), prior_bias(counts.float()).to(dtype))


def test_prior_of_integers_and_strided_counts():
    counts = torch.tensor([[8, 1], [1, 1], [1, 1]])
    assert prior_bias(counts[:, 0]).dtype == torch.float32
    assert_close(prior_bias(counts[:, 0]).exp(), torch.tensor([0.8, 0.1, 0.1]))
    assert counts.tolist() == [[8, 1], [1, 1], [1, 1]]
    assert torch.equal(prior_bias(torch.tensor([5])), torch.zeros(1))


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (torch.tensor([3, 0]), "torch.bincount counts labels"),
        (torch.tensor([0, 1, 2, 1]), "must be positive"),  # labels for counts
        (torch.tensor([3.0, -1.0]), "must be positive"),
        (torch.tensor([3.0, math.nan]), "must be positive"),
        (torch.tensor([3.0, math.inf]), "must be positive"),
        (torch.ones(2, 2), r"vector \(C,\), but its shape is \(2, 2\)"),
        (torch.ones(()), r"its shape is \(\)"),
        (torch.ones(0), r"its shape is \(0,\)"),
        (torch.ones(2, dtype=torch.bool), "real numbers, but is torch.bool"),
        (torch.ones(2, dtype=torch.complex64), "real numbers, but is torch.complex64"),
        ([3, 1], "real numbers, but is a list"),
        (None, "real numbers, but is a NoneType"),
    ],
    ids=str,
)
def test_what_is_no_counts_is_an_error(counts, message):
    with pytest.raises(ValueError, match=message):
        prior_bias(counts)


# Which biases are idle


def jacobian_rank_gap(model, name, *inputs):
    """Return the size of a bias minus the rank of its whole Jacobian, by torch's function."""
    model = copy.deepcopy(model).double()
    fixed = {n: p.detach() for n, p in model.named_parameters()}
    buffers = {n: b.clone() for n, b in model.named_buffers()}

    def outputs(bias):
        state = {**fixed, **{n: b.clone() for n, b in buffers.items()}, name: bias}
        y = torch.func.functional_call(model, state, tuple(x.double() for x in inputs))
        return (y[0] if isinstance(y, tuple) else y).flatten()

    jacobian = torch.autograd.functional.jacobian(outputs, fixed[name]).flatten(1)
    rank = torch.linalg.matrix_rank(jacobian, rtol=1e-10, atol=1e-10 * float(fixed[name].numel()))
    return fixed[name].numel() - rank.item()


C = 12
FOLLOWERS = {
    "nothing": (lambda: nn.Identity(), 0),
    "batch norm": (lambda: nn.BatchNorm2d(C), C),
    "batch norm, not affine": (lambda: nn.BatchNorm2d(C, affine=False), C),
    "frozen batch norm": (lambda: nn.BatchNorm2d(C).eval(), 0),
    "batch norm without statistics, eval": (lambda: nn.BatchNorm2d(C, track_running_stats=False).eval(), C),
    "instance norm": (lambda: nn.InstanceNorm2d(C), C),
    "group norm 1": (lambda: nn.GroupNorm(1, C), 1),
    "group norm 3": (lambda: nn.GroupNorm(3, C), 3),
    "group norm 12": (lambda: nn.GroupNorm(C, C), C),
    "layer norm": (lambda: nn.LayerNorm([C, 4, 4]), 1),
    "RMSNorm": (lambda: nn.RMSNorm([C, 4, 4]), 0),
    "softmax": (lambda: nn.Softmax(1), 1),
    "log-softmax": (lambda: nn.LogSoftmax(1), 1),
    "sigmoid": (lambda: nn.Sigmoid(), 0),
    "pooling, batch norm": (lambda: nn.Sequential(nn.AvgPool2d(2), nn.BatchNorm2d(C)), C),
    "padded pooling, batch norm": (lambda: nn.Sequential(nn.AvgPool2d(3, 1, padding=1), nn.BatchNorm2d(C)), 0),
    "pooling without the zeros, batch norm": (
        lambda: nn.Sequential(nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), nn.BatchNorm2d(C)),
        C,
    ),
    "max pooling, batch norm": (lambda: nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(C)), C),
    "ReLU, batch norm": (lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(C)), 0),
    "batch norm, ReLU": (lambda: nn.Sequential(nn.BatchNorm2d(C), nn.ReLU()), C),
    "1 × 1 conv, batch norm": (lambda: nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C)), C),
    "3 × 3 conv, batch norm": (lambda: nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C)), C),
    "padded conv, batch norm": (
        lambda: nn.Sequential(nn.Conv2d(C, C, 3, padding=1), nn.BatchNorm2d(C)),
        0,
    ),
}


@pytest.mark.parametrize("name", FOLLOWERS)
def test_idle_directions_are_those_of_the_jacobian(name):
    make, idle = FOLLOWERS[name]
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(4, C, 3), make()), normal(4, 4, 6, 6)
    assert idle_biases(model, x)["0.bias"] == idle
    assert jacobian_rank_gap(model, "0.bias", x) == idle


@pytest.mark.parametrize("options", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["full", "causal"])
def test_key_biases_are_idle_unless_a_key_without_them_is_added(options, masked):
    torch.manual_seed(0)
    attention, x = nn.MultiheadAttention(C, 3, batch_first=True, **options), normal(4, 7, C)
    nn.init.normal_(attention.in_proj_bias)

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, x):
            mask = nn.Transformer.generate_square_subsequent_mask(7, dtype=x.dtype) if masked else None
            return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]

    idle = 0 if options else C
    assert idle_biases(Masked(), x)["attention.in_proj_bias"] == idle
    assert jacobian_rank_gap(Masked(), "attention.in_proj_bias", x) == idle


def test_shifting_a_key_bias_changes_nothing_and_shifting_a_query_bias_does():
    torch.manual_seed(0)
    attention, x = nn.MultiheadAttention(C, 3, batch_first=True).double(), normal(2, 5, C)
    before = attention(x, x, x)[0].detach()
    changes = []
    for part in range(3):  # queries, keys, values
        moved = copy.deepcopy(attention)
        with torch.no_grad():
            moved.in_proj_bias[part * C : part * C + C] += 10 * normal(C, seed=part)
        changes.append((moved(x, x, x)[0] - before).abs().max().item())
    assert changes[1] < 1e-12
    assert min(changes[0], changes[2]) > 1e-3


class CosineAttention(nn.Module):
    """One head of Swin Transformer V2: queries and keys are normalised."""

    def __init__(self, size):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))

    def forward(self, x):
        cosine = F.normalize(self.query(x), dim=-1) @ F.normalize(self.key(x), dim=-1).transpose(-2, -1)
        return (10 * cosine).softmax(-1) @ self.value(x)


def test_normalised_keys_put_their_bias_to_work():
    torch.manual_seed(0)
    model, x = CosineAttention(4), normal(3, 6, 4)
    assert idle_biases(model, x) == {"query.bias": 0, "key.bias": 0, "value.bias": 0}
    assert jacobian_rank_gap(model, "key.bias", x) == 0


class RotaryAttention(nn.Module):
    """One head, whose queries and keys are turned by an angle that grows with the position."""

    def __init__(self, size, *, rotary=True):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.rotary = rotary

    def turned(self, x):
        if not self.rotary:
            return x
        angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.1], dtype=x.dtype)
        a, b = x.chunk(2, -1)
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

    def forward(self, x):
        return F.scaled_dot_product_attention(self.turned(self.query(x)), self.turned(self.key(x)), self.value(x))


@pytest.mark.parametrize("rotary", [False, True], ids=["plain", "rotary"])
def test_rotary_positions_put_the_key_bias_to_work(rotary):
    torch.manual_seed(0)
    model, x = RotaryAttention(4, rotary=rotary), normal(3, 6, 4)
    assert idle_biases(model, x) == {"query.bias": 0, "key.bias": 0 if rotary else 4, "value.bias": 0}
    assert jacobian_rank_gap(model, "key.bias", x) == (0 if rotary else 4)


def test_constant_along_a_residual_connection_is_removed_by_the_norm_after_the_sum():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.norm = nn.Linear(5, 5), nn.BatchNorm1d(5)

        def forward(self, x):
            return self.norm(x + self.inner(x))

    torch.manual_seed(0)
    assert idle_biases(Block(), normal(9, 5)) == {"inner.bias": 5, "norm.bias": 0}


def test_biases_of_a_depthwise_convolution_are_idle_before_a_pointwise_one():
    torch.manual_seed(0)
    depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    model = nn.Sequential(depthwise, nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8))
    assert idle_biases(model, normal(4, 6, 5, 5)) == {"0.bias": 6, "2.bias": 0}


def test_of_two_biases_that_are_added_neither_is_idle_alone():
    torch.manual_seed(0)
    lstm, x = nn.LSTM(3, 4).double(), normal(5, 2, 3)
    assert idle_biases(lstm, x) == {"bias_ih_l0": 0, "bias_hh_l0": 0}
    before = lstm(x)[0].detach()
    with torch.no_grad():
        shift = normal(16)
        lstm.bias_ih_l0.add_(shift)
        lstm.bias_hh_l0.sub_(shift)
    assert_close(lstm(x)[0], before)


def test_vanishing_gradients_are_not_taken_for_idle_ones():
    torch.manual_seed(0)
    layers = [layer for _ in range(12) for layer in (nn.Linear(4, 4), nn.Sigmoid())]
    model, x = nn.Sequential(*layers), normal(40, 4)
    reach = torch.autograd.grad(model(x.float()).sum(), model[0].bias)[0].abs().max()
    assert reach < 1e-6
    assert set(idle_biases(model, x).values()) == {0}


@pytest.mark.parametrize("seed", [0, 1])
def test_rounding_with_small_inputs_is_not_taken_for_a_gradient(seed):
    # The gradient of the idle bias is a sum of numbers a hundred times as large as their products with the inputs.
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert idle_biases(model, normal(40, 3) / 100) == {"0.bias": 4, "1.bias": 0}


def test_units_that_are_off_for_all_inputs_count_as_idle():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), normal(20, 3)
    with torch.no_grad():
        model[0].bias[:2] = -100
    assert idle_biases(model, x) == {"0.bias": 2, "2.bias": 0}


def test_layer_that_is_not_used_is_idle():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(2, 3), nn.Linear(2, 3)

        def forward(self, x):
            return self.used(x)

    assert idle_biases(Unused(), normal(5, 2)) == {"used.bias": 0, "unused.bias": 3}


def test_bias_that_is_the_only_parameter_of_its_module():
    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(4))

        def forward(self, x):
            return x + self.bias

    model = nn.Sequential(nn.Linear(3, 4, bias=False), Shift(), nn.BatchNorm1d(4))
    assert idle_biases(model, normal(9, 3)) == {"1.bias": 4, "2.bias": 0}
    assert idle_biases(model[:2], normal(9, 3)) == {"1.bias": 0}


def test_backward_passes_are_as_many_as_stated(monkeypatch):
    calls, grad = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: calls.append(args) or grad(*args, **kwargs))
    idle_biases(nn.Linear(3, 4), normal(9, 3))
    assert len(calls) == 4 + 9


def test_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[0].bias.requires_grad_(False)
    x = normal(8, 3, dtype=torch.float32)
    model(x).sum().backward()
    before, kept = copy.deepcopy(model.state_dict()), model[3].weight.grad.clone()
    assert idle_biases(model, x) == {"0.bias": 4, "1.bias": 0, "3.bias": 0}  # frozen ones, too
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model[3].weight.grad, kept)
    assert model.training
    assert not model[0].bias.requires_grad
    assert model[0].bias.grad is None
    assert model[0].weight.dtype == torch.float32
    assert not x.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference"])
def test_answer_does_not_depend_on_the_gradient_mode(mode):
    model, x = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), normal(8, 3, dtype=torch.float32)
    with mode():
        assert idle_biases(model, x * 1) == {"0.bias": 1, "1.bias": 0}


def test_autocast_does_not_add_noise():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), normal(8, 3, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert idle_biases(model, x) == {"0.bias": 4, "1.bias": 0}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_model_of_any_precision_is_judged_in_float64(dtype):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(dtype)
    assert idle_biases(model, normal(8, 3, dtype=dtype)) == {"0.bias": 4, "1.bias": 0}


def test_tokens_dictionaries_tuples_and_strided_inputs():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

        def forward(self, tokens, scale):
            logits = self.head(self.embedding(tokens)) * scale
            return {"loss": logits.softmax(-1), "more": (tokens, [logits.log_softmax(-1)], None, "text")}

    torch.manual_seed(0)
    tokens = torch.arange(9).repeat(2, 2)[:, ::2]
    assert idle_biases(Model(), tokens, 2) == {"head.bias": 1}


def test_model_without_biases_and_empty_ones():
    assert idle_biases(nn.Linear(3, 4, bias=False), normal(2, 3)) == {}
    model = nn.Sequential(nn.Linear(3, 4), nn.Flatten())
    model.register_parameter("bias", nn.Parameter(torch.zeros(0)))
    assert idle_biases(model, normal(2, 3)) == {"bias": 0, "0.bias": 0}


@pytest.mark.wrong_input
def test_too_few_outputs_and_none_are_errors():
    with pytest.raises(ValueError, match=r"outputs are 6 numbers, too few .* of a bias of 64: pass more"):
        idle_biases(nn.Sequential(nn.Linear(3, 64), nn.Linear(64, 2)), normal(3, 3))
    with pytest.raises(ValueError, match="no floating-point tensor"):
        idle_biases(nn.Sequential(nn.Linear(3, 4), nn.Flatten(), _Argmax()), normal(3, 3))


class _Argmax(nn.Module):
    def forward(self, x):
        return x.argmax(1)


# Folding


def shaken(module, seed=0):
    """Return the module in eval mode and double precision, with random parameters and statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.double().state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(values.abs() + 0.3 if "running_var" in name else values)
    return module.eval()


FOLDS = {
    "conv2d": (lambda: nn.Conv2d(3, 4, 3), lambda: nn.BatchNorm2d(4), (2, 3, 7, 6)),
    "without bias": (lambda: nn.Conv2d(3, 4, 3, bias=False), lambda: nn.BatchNorm2d(4), (2, 3, 7, 6)),
    "grouped, strided": (
        lambda: nn.Conv2d(6, 4, (3, 1), stride=2, padding=1, groups=2),
        lambda: nn.BatchNorm2d(4, eps=0.1),
        (2, 6, 7, 6),
    ),
    "circular, dilated": (
        lambda: nn.Conv2d(3, 4, 3, padding=2, dilation=2, padding_mode="circular"),
        lambda: nn.BatchNorm2d(4),
        (2, 3, 7, 6),
    ),
    "not affine": (lambda: nn.Conv2d(3, 4, 1), lambda: nn.BatchNorm2d(4, affine=False), (2, 3, 5, 5)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3), lambda: nn.BatchNorm1d(4), (2, 3, 9)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), lambda: nn.BatchNorm3d(3), (1, 2, 3, 4, 3)),
    "linear": (lambda: nn.Linear(5, 4), lambda: nn.BatchNorm1d(4), (6, 5)),
    "many channels": (lambda: nn.Linear(2, 300), lambda: nn.BatchNorm1d(300), (3, 2)),
    "empty batch": (lambda: nn.Linear(5, 4, bias=False), lambda: nn.BatchNorm1d(4), (0, 5)),
}


@pytest.mark.parametrize("name", FOLDS)
def test_folded_layer_equals_both_layers_with_the_gradient_of_the_input(name):
    make, make_norm, shape = FOLDS[name]
    layer, norm = shaken(make()), shaken(make_norm(), seed=1)
    folded = fold_batch_norm(layer, norm)
    assert_same_both_ways(folded, nn.Sequential(layer, norm), normal(*shape, seed=2))
    assert type(folded) is type(layer)


@pytest.mark.parametrize("name", [name for name in FOLDS if "affine" not in name])
def test_folded_parameters_equal_torchs(name):
    make, make_norm, _ = FOLDS[name]
    layer, norm = shaken(make()), shaken(make_norm(), seed=1)
    fuse = fusion.fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fusion.fuse_conv_bn_eval
    expected, folded = fuse(layer, norm), fold_batch_norm(layer, norm)
    assert_close(folded.weight, expected.weight)
    assert_close(folded.bias, expected.bias)


def test_unscaled_bias_and_dropped_mean_are_not_the_fold():
    layer, norm = shaken(nn.Linear(5, 4)), shaken(nn.BatchNorm1d(4), seed=1)
    bias = fold_batch_norm(layer, norm).bias.detach()
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    assert_close(bias, (norm.bias + scale * (layer.bias - norm.running_mean)).detach())
    assert (bias - (norm.bias + layer.bias - scale * norm.running_mean)).abs().max() > 0.1
    assert (bias - (norm.bias + scale * layer.bias)).abs().max() > 0.1


def test_idle_bias_is_missed_by_statistics_that_were_recorded_with_it():
    # Removing the bias of a trained layer needs a correction of the running mean.
    torch.manual_seed(0)
    layer, norm, x = nn.Linear(5, 4).double(), nn.BatchNorm1d(4, momentum=1.0).double(), normal(50, 5)
    training = norm(layer(x)).detach()
    plain = nn.Linear(5, 4, bias=False).double()
    plain.weight = layer.weight
    assert_close(copy.deepcopy(norm)(plain(x)), training)
    norm.eval()
    expected = norm(layer(x))
    assert (norm(plain(x)) - expected).abs().max() > 0.1
    norm.running_mean -= layer.bias.detach()
    assert_close(norm(plain(x)), expected)


def test_bias_before_a_pointwise_convolution_is_removed_through_its_weight():
    torch.manual_seed(0)
    layer, pointwise = nn.Conv2d(3, 5, 3).double(), nn.Conv2d(5, 4, 1, bias=False).double()
    norm, x = nn.BatchNorm2d(4, momentum=1.0).double(), normal(6, 3, 5, 5)
    norm(pointwise(layer(x)))
    norm.eval()
    expected, bias = norm(pointwise(layer(x))), layer.bias.detach().clone()
    with torch.no_grad():
        layer.bias.zero_()
        norm.running_mean -= pointwise.weight[:, :, 0, 0] @ bias
    assert_close(norm(pointwise(layer(x))), expected)


def test_fold_changes_neither_argument_and_keeps_what_is_trained():
    layer, norm = shaken(nn.Conv2d(3, 4, 3, bias=False)), shaken(nn.BatchNorm2d(4), seed=1)
    before = copy.deepcopy((layer.state_dict(), norm.state_dict()))
    folded = fold_batch_norm(layer, norm)
    with torch.no_grad():
        folded.weight.zero_()
    for old, module in zip(before, (layer, norm), strict=True):
        assert all(torch.equal(value, old[name]) for name, value in module.state_dict().items())
    assert layer.bias is None
    assert folded.weight.requires_grad
    assert not fold_batch_norm(layer.requires_grad_(False), norm).bias.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_fold_in_half_precision_is_as_exact_as_two_layers(dtype):
    layer, norm = shaken(nn.Linear(50, 40)), shaken(nn.BatchNorm1d(40), seed=1)
    x = normal(30, 50, seed=2)
    exact = norm(layer(x))
    low, low_norm = copy.deepcopy(layer).to(dtype), copy.deepcopy(norm).float()
    folded = fold_batch_norm(low, low_norm)
    assert folded.weight.dtype == folded.bias.dtype == dtype
    eager = (low_norm.to(dtype)(low(x.to(dtype))).double() - exact).norm()
    assert (folded(x.to(dtype)).double() - exact).norm() < 2 * eager


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("layer", "norm", "message"),
    [
        (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), "training mode"),
        (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(3).eval(), "norm has 3 channels, but layer makes 4"),
        (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False).eval(), "no running statistics"),
        (nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4).eval(), "but is InstanceNorm2d"),
        (nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4).eval(), "but is GroupNorm"),
        (nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4).eval(), "but is ConvTranspose2d"),
        (nn.BatchNorm2d(4).eval(), nn.Conv2d(3, 4, 3), "but is BatchNorm2d"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.BatchNorm1d(4).eval(), "reparametrised"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_folded_is_an_error(layer, norm, message):
    with pytest.raises(ValueError, match=message):
        fold_batch_norm(layer, norm)


# What the page proves


def test_bias_equals_the_weight_of_a_constant_feature():
    x, weight, bias = normal(5, 3), normal(4, 3, seed=1), normal(4, seed=2)

    def extended(x, weight, bias):
        return F.linear(torch.cat([x, x.new_ones(5, 1)], 1), torch.cat([weight, bias[:, None]], 1))

    assert_same_both_ways(F.linear, extended, x, weight, bias)


def test_and_needs_a_bias_and_or_does_not():
    from sklearn.linear_model import Perceptron

    x = [[0, 0], [0, 1], [1, 0], [1, 1]]
    targets = {"and": [0, 0, 0, 1], "or": [0, 1, 1, 1], "nand": [1, 1, 1, 0]}
    scores = {
        (name, bias): Perceptron(fit_intercept=bias, max_iter=1000, tol=None).fit(x, y).score(x, y)
        for name, y in targets.items()
        for bias in (False, True)
    }
    learned = {key for key, score in scores.items() if score == 1}
    assert learned == {("and", True), ("or", True), ("nand", True), ("or", False)}


def network(bias, activation):
    torch.manual_seed(3)
    layers = (
        nn.Linear(3, 8, bias=bias),
        activation(),
        nn.Linear(8, 8, bias=bias),
        activation(),
        nn.Linear(8, 4, bias=bias),
    )
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Identity])
def test_relu_network_without_biases_is_homogeneous_for_positive_factors(activation):
    f, x = network(False, activation), normal(10, 3)
    for a in (0.0, 0.1, 3.0, 1e6):
        assert_close(f(a * x), a * f(x))
    assert torch.equal(f(7 * x).argmax(1), f(x).argmax(1))
    # … but not if a mean is subtracted first, as is usual with images.
    assert not torch.equal(f(7 * x - 1).argmax(1), f(x - 1).argmax(1))
    if activation is not nn.Identity:
        assert (f(-x) + f(x)).abs().max() > 0.01


@pytest.mark.parametrize(("bias", "activation"), [(True, nn.ReLU), (False, nn.Tanh), (False, nn.GELU)])
def test_biases_and_other_activations_break_homogeneity(bias, activation):
    f, x = network(bias, activation), normal(10, 3)
    assert (f(3 * x) - 3 * f(x)).abs().max() > 0.01


@pytest.mark.parametrize("weight", [0.3, 0.0])
def test_units_that_start_equal_stay_equal_and_random_biases_alone_separate_them(weight):
    x, y = normal(20, 3), normal(20, 1, seed=1)
    for random_bias in (False, True):
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(weight)
            if random_bias:
                model[0].bias.copy_(normal(4, seed=2))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(100):
            optimizer.zero_grad()
            F.mse_loss(model(x), y).backward()
            optimizer.step()
        spread = (model[0].weight - model[0].weight[0]).abs().max().item()
        assert (spread > 1e-3) if random_bias else (spread < 1e-12)


def test_biases_of_bert_base_are_less_than_a_thousandth():
    with torch.device("meta"):  # shapes without numbers
        layer = nn.TransformerEncoderLayer(768, 12, 3072, activation="gelu")
        embeddings = [nn.Embedding(size, 768) for size in (30522, 512, 2)]
        ends = [nn.LayerNorm(768), nn.Linear(768, 768)]  # of the embeddings, and the pooler
    sizes = []
    for module, times in ((layer, 12), *((module, 1) for module in embeddings + ends)):
        sizes += times * [(name, parameter.numel()) for name, parameter in module.named_parameters()]
    assert sum(size for _, size in sizes) == 109_482_240
    assert sum(size for name, size in sizes if name.endswith("bias")) == 102_912
