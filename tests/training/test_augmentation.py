"""Random changes of images before a discriminator sees them."""

import torch

from diffnca.training.augmentation import augmented, moved, shifted

from .conftest import stripes


def test_an_image_moves_by_whole_pixels_and_zeros_come_in() -> None:
    image = torch.arange(1.0, 65.0).reshape(1, 1, 8, 8)
    moved = shifted(image, torch.tensor([1 / 8, -1 / 8]).reshape(2, 1, 1, 1, 1))
    assert torch.equal(moved[0, 0, 1:, :-1], image[0, 0, :-1, 1:])
    assert not moved[0, 0, 0].any()
    assert not moved[0, 0, :, -1].any()


def test_the_changes_of_images_pass_gradients() -> None:
    images = stripes(0).requires_grad_()
    augmented(images, torch.Generator().manual_seed(0)).square().sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert images.grad.flatten(1).any(dim=1).all()


def test_each_image_is_changed_in_its_own_way() -> None:
    changed = augmented(stripes(0)[:1].expand(2, -1, -1, -1), torch.Generator().manual_seed(0))
    assert not torch.equal(changed[0], changed[1])


def test_a_moved_image_keeps_its_colours() -> None:
    image = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    once, again = (moved(image, torch.Generator().manual_seed(seed)) for seed in (0, 2))
    assert not torch.equal(once, again)
    assert torch.isin(once[..., 1:-1, 1:-1], image).all()
