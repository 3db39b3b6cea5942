"""What attention of features takes: shapes, types and devices that fit, and what is said of others."""

import pytest
import torch

from zhixing.attention.arguments import check_features, widened

RIGHT = {"q": (2, 3, 5, 4), "k": (2, 3, 6, 4), "v": (2, 3, 6, 7)}


@pytest.mark.parametrize(
    "shapes",
    [RIGHT, RIGHT | {"q": (2, 3, 0, 4)}, RIGHT | {"k": (2, 3, 0, 4), "v": (2, 3, 0, 7)}, RIGHT | {"v": (2, 3, 6, 0)}],
    ids=["of different lengths", "no queries", "no keys", "empty values"],
)
def test_fitting_shapes_are_accepted(shapes):
    check_features(*map(torch.zeros, shapes.values()))


WRONG = {
    "q of 3 dimensions": {"q": (2, 3, 4)},
    "q of 5 dimensions": {"q": (2, 3, 5, 4, 1)},
    "q and k of 3 dimensions": {"q": (2, 3, 4), "k": (2, 3, 6)},
    "q and k of 5 dimensions": {"q": (2, 3, 5, 4, 1), "k": (2, 3, 6, 4, 1)},
    "v of 3 dimensions": {"v": (2, 3, 6)},
    "v of 5 dimensions": {"v": (2, 3, 6, 7, 1)},
    "all of 5 dimensions": {name: (*shape, 1) for name, shape in RIGHT.items()},
    "fewer heads of q": {"q": (2, 1, 5, 4)},
    "more heads of q": {"q": (2, 6, 5, 4)},
    "fewer keys than values": {"v": (2, 3, 7, 7)},
    "more keys than values": {"v": (2, 3, 5, 7)},
    "narrower k": {"k": (2, 3, 6, 3)},
    "wider k": {"k": (2, 3, 6, 5)},
}


@pytest.mark.wrong_input
@pytest.mark.parametrize("changed", WRONG.values(), ids=WRONG)
def test_shapes_that_do_not_fit_are_refused(changed):
    with pytest.raises(ValueError, match=r"must be \(B, H, N, D\), \(B, H, M, D\) and \(B, H, M, E\), but are q"):
        check_features(*map(torch.zeros, (RIGHT | changed).values()))


@pytest.mark.wrong_input
@pytest.mark.parametrize("name", RIGHT)
def test_other_types_and_devices_are_refused(name):
    for other, said in {"dtype": torch.float64, "device": "meta"}.items():
        tensors = {each: torch.zeros(shape, **({other: said} if each == name else {})) for each, shape in RIGHT.items()}
        with pytest.raises(ValueError, match=rf"q, k and v must be (of|on) one .*{said}"):
            check_features(**tensors)
    with pytest.raises(ValueError, match="of one floating-point type"):
        check_features(*(torch.zeros(shape, dtype=torch.long) for shape in RIGHT.values()))


@pytest.mark.wrong_input
def test_empty_features_are_refused():
    with pytest.raises(ValueError, match="the head size must be positive"):
        check_features(torch.zeros(2, 3, 5, 0), torch.zeros(2, 3, 6, 0), torch.zeros(2, 3, 6, 7))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_widened_to_32_bits_at_least(dtype):
    (x,) = widened(torch.tensor([1.5], dtype=dtype))
    assert x.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert x.item() == 1.5
