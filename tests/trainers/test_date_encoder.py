import torch
from changes import make_changes

from hsiaug.models.patch_encoder import PatchEncoder
from hsiaug.trainers.patch_encoder import train_date_encoder


def trained(steps: int = 150, seed: int = 0) -> PatchEncoder:
    data = make_changes(40)
    return train_date_encoder(data.x, data.y, 255, seed, steps)


def test_it_tells_the_dates_apart_by_their_season() -> None:
    encoder, unseen = trained(), make_changes(20, seed=1)
    for date in range(2):
        logits = encoder.logits(unseen.x[:, date])
        assert logits.shape[1] == 4  # both dates, changed and not
        found = logits.argmax(dim=1) // 2
        assert float((found == date).float().mean()) > 0.9


def test_ignored_pixels_teach_nothing() -> None:
    data = make_changes(20)
    mask = data.y.clone()
    mask[:, :, 3:9] = 255
    image = data.x.clone()
    one = train_date_encoder(image, mask, 255, steps=5)
    mask[mask == 255] = 7  # another value for them, and the same encoder
    other = train_date_encoder(image, mask, 7, steps=5)
    states = one.state_dict(), other.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_seed_fixes_it() -> None:
    images = make_changes(8).x[:, 0]
    first, again, other = (trained(5, seed)(images) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
