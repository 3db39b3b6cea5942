"""What all modules on convolution refuse alike."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zhixing.convolution.arguments import check_floats, factor, integer, pair, probability
from zhixing.convolution.channel_spatial_attention import CBAM, ChannelGate, SpatialGate, SqueezeExcite
from zhixing.convolution.deformable_convolution import DeformConv2d, sample_bilinear, sampling_points
from zhixing.convolution.dilated_convolution import ContextModule, causal_conv1d, dilated_conv2d
from zhixing.convolution.efficientnet import EfficientNet, MBConv, stochastic_depth
from zhixing.convolution.lightweight_networks import DepthwiseSeparable, InvertedResidual, mobilenet_v1
from zhixing.convolution.spatial_pyramid_pooling import ASPP, spatial_pyramid_pool, sppf
from zhixing.convolution.upsampling import conv_transpose2d, phase_sums, pixel_shuffle, resize_linear

TAKE_IMAGES = {
    "SqueezeExcite": SqueezeExcite(4, hidden=2),
    "ChannelGate": ChannelGate(4, hidden=2),
    "SpatialGate": SpatialGate(),
    "CBAM": CBAM(4, hidden=2),
    "DeformConv2d": DeformConv2d(4, 2),
    "sampling_points": lambda x: sampling_points(x, (1, 2)),
    "sample_bilinear": lambda x: sample_bilinear(x, torch.zeros(2, 3, 2)),
    "dilated_conv2d": lambda x: dilated_conv2d(x, torch.ones(2, 4, 3, 3), dilation=2),
    "its weight": lambda x: dilated_conv2d(torch.ones(2, 4, 5, 5), x, dilation=2),
    "ContextModule": ContextModule(4),
    "MBConv": MBConv(4, 4),
    "DepthwiseSeparable": DepthwiseSeparable(4, 2),
    "InvertedResidual": InvertedResidual(4, 4),
    "spatial_pyramid_pool": lambda x: spatial_pyramid_pool(x, levels=(2, 1)),
    "sppf": sppf,
    "ASPP": ASPP(4, out_channels=2),
    "resize_linear": lambda x: resize_linear(x, (3, 4)),
    "conv_transpose2d": lambda x: conv_transpose2d(x, torch.ones(4, 2, 3, 3)),
    "phase_sums": lambda x: phase_sums(x, 2),
    "pixel_shuffle": lambda x: pixel_shuffle(x, 2),
}
NO_IMAGES = {
    "list": [[1.0]],
    "number": 1.0,
    "nothing": None,
    "array": np.ones((2, 4, 5, 5)),
    "integers": torch.ones(2, 4, 5, 5, dtype=torch.int64),
    "truth values": torch.ones(2, 4, 5, 5, dtype=torch.bool),
    "complex": torch.ones(2, 4, 5, 5, dtype=torch.complex64),
    "video": torch.ones(2, 4, 5, 5, 5),
    "no batch": torch.ones(4, 5, 5),
    "vector": torch.ones(4),
    "scalar": torch.ones(()),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize("image", NO_IMAGES.values(), ids=NO_IMAGES)
@pytest.mark.parametrize("function", TAKE_IMAGES.values(), ids=TAKE_IMAGES)
def test_what_is_no_batch_of_real_images_is_a_value_error(function, image):
    with pytest.raises(ValueError, match=r"tensor|dimensions|but its shape is|four"):
        function(image)


@pytest.mark.wrong_input
@pytest.mark.parametrize("image", NO_IMAGES.values(), ids=NO_IMAGES)
def test_what_is_no_sequence_no_sample_and_no_photograph_is_a_value_error(image):
    if not isinstance(image, torch.Tensor) or image.ndim != 3:
        with pytest.raises(ValueError, match="x must be"):
            causal_conv1d(image, torch.ones(2, 5, 2))
    with pytest.raises(ValueError, match="x must be"):
        mobilenet_v1(width=0.1, num_classes=2)(image)
    if not isinstance(image, torch.Tensor) or image.ndim == 0 or not image.is_floating_point():
        with pytest.raises(ValueError, match="x must"):
            stochastic_depth(image, 0.5, training=True)
    with torch.device("meta"):
        net = EfficientNet(num_classes=2)
    with pytest.raises(ValueError, match="x must be"):
        net(image)


@pytest.mark.parametrize("function", TAKE_IMAGES.values(), ids=TAKE_IMAGES)
def test_a_batch_may_be_empty(function):
    if function not in (TAKE_IMAGES["its weight"], TAKE_IMAGES["sample_bilinear"]):
        assert len(function(torch.ones(0, 4, 6, 6))) == 0


@pytest.mark.wrong_input
@given(st.one_of(st.floats(), st.text(), st.none(), st.integers(max_value=0), st.lists(st.integers(), max_size=3)))
def test_only_positive_integers_count(number):
    with pytest.raises(ValueError, match="n must be a positive integer, but is"):
        integer(number, "n")
    with pytest.raises(ValueError, match=r"n must be (two|a) positive integer"):
        pair((2, number), "n")


@pytest.mark.wrong_input
@given(st.one_of(st.text(), st.none(), st.floats(max_value=0), st.sampled_from([torch.inf, torch.nan, 1j, [1.0]])))
def test_only_positive_finite_numbers_are_factors(number):
    with pytest.raises(ValueError, match="n must be positive and finite, but is"):
        factor(number, "n")


@pytest.mark.wrong_input
@given(st.one_of(st.text(), st.none(), st.floats().filter(lambda p: not 0 <= p <= 1), st.just([0.5])))
def test_only_numbers_from_0_to_1_are_probabilities(number):
    with pytest.raises(ValueError, match="n must be between 0 and 1, but is"):
        probability(number, "n")


@pytest.mark.wrong_input  # the hook would refuse NumPy's numbers
def test_integers_of_any_library_become_pythons():
    for three in (3, np.int64(3), np.uint8(3), torch.tensor(3), torch.tensor([3], dtype=torch.uint8)):
        assert type(integer(three, "n")) is int
        assert integer(three, "n") == 3
    assert pair(np.array([3, 5]), "n") == pair(torch.tensor([3, 5]), "n") == (3, 5)
    assert integer(-2, "n", least=-2) == -2


@pytest.mark.wrong_input
def test_integers_below_another_least_are_refused_by_its_name():
    for least in (-2, 0, 2):
        assert integer(least, "n", least=least) == least
        with pytest.raises(ValueError, match=f"n must be an integer of at least {least}, but is {least - 1}"):
            integer(least - 1, "n", least=least)


@pytest.mark.wrong_input
def test_sizes_that_are_numbers_must_be_met_exactly():
    check_floats(torch.ones(2, 3, 4, 5), "x", "B", 3, "H", 5)
    for shape in ((2, 2, 4, 5), (2, 4, 4, 5), (2, 3, 4, 4), (2, 3, 4, 6)):
        with pytest.raises(ValueError, match=re.escape(f"x must be (B, 3, H, 5), but its shape is {shape}")):
            check_floats(torch.ones(shape), "x", "B", 3, "H", 5)


@pytest.mark.wrong_input
def test_only_the_batch_may_be_empty():
    check_floats(torch.ones(0, 3, 4, 4), "x", "B", 3, "H", "W")
    check_floats(torch.ones(3, 0), "b", 3, "B")
    with pytest.raises(ValueError, match=r"only B may be 0 in x \(B, C, L\), but its shape is \(2, 3, 0\)"):
        check_floats(torch.ones(2, 3, 0), "x", "B", "C", "L")
