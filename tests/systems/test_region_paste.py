"""Regions of training pairs pasted into others."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from changes import make_changes
from toys import Toy, aligned, toy_spec, toy_training

from hsiaug import MixedDataset, fit_generator
from hsiaug.ablation import Arm, Segmenter, Setting, Study, run_study
from hsiaug.ablation.results import RESULTS_FILE, read_results
from hsiaug.datasets import PatchDataset
from hsiaug.functional.pasting import box_regions, class_regions, component_regions, shifted, smooth_regions, turned
from hsiaug.samples import SampleSpec
from hsiaug.scenes import PatchSplitter, SimulatedScene
from hsiaug.systems import TrainingData
from hsiaug.systems.region_paste import RegionPaste
from hsiaug.trainers import SegmenterConfig, train_segmenter

REGIONS = ('smooth', 'box', 'class', 'components')


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(n: int, size: tuple[int, int], dates: int = 1) -> TrainingData:
    """Pairs whose first band numbers the pixels of all masks, and whose masks follow from that number."""
    number = torch.arange(n * size[0] * size[1]).reshape(n, *size)
    mask = (number * 7 // 5) % 3
    image = torch.stack([number.float(), torch.rand(n, *size, generator=seeded())], dim=1)
    spec = SampleSpec('segmentation', 2, ('a', 'b', 'c'), size=size, ignore_index=255)
    if dates == 2:
        image, mask = torch.stack([image, -image], dim=1), mask.clamp(max=1)[:, None]
        spec = replace(spec, kind='change', classes=('same', 'changed'))
    mask[torch.rand(mask.shape, generator=seeded(1)) < 0.1] = 255
    return TrainingData(spec, image, mask, image[:0], image[:0], mask[:0])


@pytest.mark.parametrize('regions', REGIONS)
@pytest.mark.parametrize('size', [(16, 16), (8, 20)])
@pytest.mark.parametrize('dates', [1, 2])
def test_value_and_label_come_from_the_same_pixel(regions: Any, size: tuple[int, int], dates: int) -> None:
    data = numbered(6, size, dates)
    batch = fit_generator('region_paste', data, {'regions': regions}).sample(60, seed=3)
    number = batch['image'].reshape(60, -1, *size)[:, 0].long()
    assert torch.equal(data.y.reshape(-1)[number], batch['mask'].reshape(60, *size))
    if dates == 2:
        assert torch.equal(batch['image'][:, 1], -batch['image'][:, 0])  # one region for both dates
    pair = number // (size[0] * size[1])
    of_two = [len(p.unique()) for p in pair]
    assert max(of_two) == 2
    assert of_two.count(2) > 30
    # Host and donor are turned independently of each other: the step to the next pixel is now the same, now another.
    steps = []
    for i in (i for i in range(60) if of_two[i] == 2):
        step, within = number[i].diff(dim=1), pair[i].diff(dim=1) == 0
        parts = [step[within & (pair[i, :, 1:] == p)] for p in pair[i].unique()]
        steps.append(len({int(part.mode().values) for part in parts if len(part)}))  # less those across an edge
    assert {1, 2} == set(steps)


@pytest.mark.parametrize('kind', ['segmentation', 'change'])
@pytest.mark.parametrize('regions', REGIONS)
def test_masks_follow_images(kind: Any, regions: str) -> None:
    assert aligned(fit_generator('region_paste', toy_training(kind), {'regions': regions}).sample(20, seed=1))


@pytest.mark.parametrize('kind', ['segmentation', 'change'])
def test_a_batch_is_augmented_in_place(kind: Any) -> None:
    generator: Any = fit_generator('region_paste', toy_training(kind))
    batch = {**Toy(kind, 16, seed=5).data, 'index': torch.arange(16)}
    altered, again = generator.augment(batch, seed=4), generator.augment(batch, seed=4)
    assert aligned(altered)
    assert torch.equal(altered['image'], again['image'])
    assert torch.equal(altered['index'], batch['index'])
    values = torch.cat([batch['image'].flatten(), generator.image.flatten()]).unique()
    assert torch.isin(altered['image'], values).all()
    foreign = (~torch.isin(altered['image'], batch['image'].unique())).float().mean()
    assert 0.2 < foreign < 0.8
    assert len(generator.augment({key: value[:0] for key, value in batch.items()}, seed=0)['image']) == 0
    with pytest.raises(ValueError, match=r'images .* are needed, found \(16,'):
        generator.augment({**batch, 'image': batch['image'][..., 1:]})


@pytest.mark.parametrize('size', [(32, 32), (16, 40)])
def test_areas_of_smooth_regions_and_boxes_are_those_asked_for(size: tuple[int, int]) -> None:
    area = torch.rand(400, generator=seeded())
    found = smooth_regions(area, size, seeded(1)).float().mean(dim=(1, 2))
    assert torch.allclose(found, area, atol=1 / (size[0] * size[1]))
    boxes = box_regions(area, size, seeded(1))
    assert torch.allclose(boxes.float().mean(dim=(1, 2)), area, atol=0.06)
    rows, columns = boxes.any(dim=2), boxes.any(dim=1)
    assert torch.equal(boxes, rows[:, :, None] & columns[:, None, :])
    # Smooth: far fewer borders between neighbours than noise of that area has, and everywhere alike.
    region = smooth_regions(torch.full((400,), 0.5), size, seeded(2))
    assert (region[:, 1:] != region[:, :-1]).float().mean() < 0.2
    assert region.float().mean(dim=0).sub(0.5).abs().max() < 0.12


def test_areas_of_samples_are_uniform() -> None:
    data = numbered(40, (32, 32))
    for regions in ('smooth', 'box'):
        pair = fit_generator('region_paste', data, {'regions': regions}).sample(800, seed=0)['image'][:, 0] // 1024
        share = (pair == pair[:, :1, :1]).float().mean(dim=(1, 2))
        share = torch.stack([share, 1 - share]).min(dim=0).values  # host or donor, whichever is less
        quarters = torch.histc(share, 4, 0, 0.5) / len(share)
        assert quarters.sub(0.25).abs().max() < 0.1, regions  # sides of boxes are whole pixels


def test_class_regions_are_half_of_the_classes() -> None:
    mask = torch.randint(5, (300, 12, 12), generator=seeded())
    mask[:100] = mask[:100].clamp(max=1)
    mask[100:200] = mask[100:200].clamp(max=2)
    mask[:, :2] = 255
    region = class_regions(mask, 5, seeded(1))
    taken = torch.stack([region[mask == k].float().mean() for k in range(5)])
    assert taken.sub(0.5).abs().max() < 0.12
    assert not region[:, :2].any()
    for i, present in ((0, 2), (100, 3), (250, 5)):
        whole = [region[i][mask[i] == k] for k in range(present)]
        assert all(part.all() or not part.any() for part in whole)
        assert sum(bool(part.all()) for part in whole) in {present // 2, (present + 1) // 2}


def test_components_come_whole_or_not_at_all() -> None:
    mask = torch.zeros(200, 9, 9, dtype=torch.int64)
    mask[:, 1:3, 1:3], mask[:, 5:8, 5:8], mask[:, 0] = 1, 1, 255
    region = component_regions(mask, 2, seeded())
    boxes = ((1, 3), (5, 7), (3, 5))  # an object, a part of the other, and the background
    parts = torch.stack([region[:, a:b, a:b].flatten(1) for a, b in boxes])
    assert torch.equal(parts.any(dim=2), parts.all(dim=2))
    assert parts[..., 0].float().mean(dim=1).sub(0.5).abs().max() < 0.1
    assert len({tuple(row) for row in parts[..., 0].T.tolist()}) == 8  # each by itself
    assert not region[:, 0].any()


def test_all_eight_turns_of_a_square_and_four_of_others() -> None:
    for width, count in ((4, 8), (5, 4)):
        image = torch.arange(4.0 * width).reshape(1, 1, 4, width).repeat(400, 1, 1, 1)
        moved, mask = turned(image, image[:, 0].long(), seeded())
        assert torch.equal(moved[:, 0].long(), mask)
        shares = torch.unique(moved.flatten(1), dim=0, return_counts=True)[1] / 400
        assert len(shares) == count
        assert shares.sub(1 / count).abs().max() < 0.08


def test_all_shifts_of_an_image_and_none_where_it_is_not_wanted() -> None:
    image = torch.arange(12.0).reshape(1, 1, 3, 4).repeat(1200, 1, 1, 1)
    moved, mask = shifted(image, image[:, 0].long(), seeded())
    assert torch.equal(moved[:, 0].long(), mask)
    rolled = {tuple(image[0].roll((a, b), (-2, -1)).flatten().tolist()) for a in range(3) for b in range(4)}
    found, counts = torch.unique(moved.flatten(1), dim=0, return_counts=True)
    assert {tuple(one.tolist()) for one in found} == rolled
    assert counts.div(100).sub(1).abs().max() < 0.35
    data = numbered(1, (8, 8))
    number = fit_generator('region_paste', data, {'shift': False, 'regions': 'box'}).sample(50, seed=1)['image'][:, 0]
    corners = {0.0, 7.0, 56.0, 63.0}
    assert {float(corner) for corner in number[:, [0, 0, 7, 7], [0, 7, 0, 7]].flatten()} == corners


def rare(n: int = 20) -> TrainingData:
    """Pairs of which two hold a class that no other does, in a quarter of their pixels."""
    data = numbered(n, (16, 16))
    mask = data.y.clone()
    mask[mask == 2] = 1
    mask[3, :8, :8] = mask[11, 4:12, 4:12] = 2
    return replace(data, y=mask)


def test_uniform_labels_choose_donors_by_class() -> None:
    data = rare()
    generator = fit_generator('region_paste', data)
    assert generator.class_prior[2] < 0.03
    even = generator.sample(900, torch.arange(3).repeat(300), seed=1)['image'][:, 0].long() // 256
    usual = generator.sample(900, seed=1)['image'][:, 0].long() // 256
    # A third of the donors, on average in half of the pixels, and a tenth of the hosts in the other half.
    for pairs, expected in ((even, (1 / 3 + 2 / 3 * 0.08) / 2 + 0.05), (usual, 0.1)):
        share = torch.isin(pairs, torch.tensor([3, 11])).float().mean()
        assert share == pytest.approx(expected, abs=0.03)
    mixed = MixedDataset(PatchDataset(data.x, data.y, data.spec), generator, ratio=20.0, labels='uniform')
    held = torch.stack([sample['mask'] == 2 for sample in mixed if sample['synthetic']]).float().mean()
    assert held > 2 * generator.class_prior[2]


@pytest.mark.parametrize('regions', REGIONS)
def test_the_share_of_change_is_kept(regions: str) -> None:
    data = make_changes(60)
    generator = fit_generator('region_paste', data, {'regions': regions})
    share = (generator.sample(3000, seed=0)['mask'] == 1).float().mean()
    real = (data.y == 1).float().mean()
    assert share == pytest.approx(float(real), rel=0.08)


def test_mistakes() -> None:
    for kind in ('spectrum', 'scene'):
        with pytest.raises(ValueError, match=f"'segmentation' or 'change', found '{kind}'"):
            RegionPaste(toy_spec(kind))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'regions.*blob'):
        RegionPaste(toy_spec('segmentation'), regions='blob')  # type: ignore[arg-type]
    data = toy_training('segmentation')
    with pytest.raises(ValueError, match='no training pair'):
        fit_generator('region_paste', replace(data, x=data.x[:0], y=data.y[:0]))
    with pytest.raises(ValueError, match='class 2 occurs in none'):
        fit_generator('region_paste', replace(data, y=data.y.clamp(max=1))).sample(1, torch.tensor([2]))


def test_ablated_by_name(tmp_path: Path) -> None:
    segmenter = Segmenter('SegFormer', SegmenterConfig(encoder='mit_tiny', channels=8, steps=3, batch_size=4))
    study = Study(
        'paste',
        {'simulated': simulated},
        (Setting('simulated', '16 px', PatchSplitter(size=16)),),
        (
            Arm('fixed', 'region_paste', {'regions': 'smooth'}, 'real'),
            Arm('live', 'region_paste', {'regions': 'smooth'}, 'real', live=True),
        ),
        ratios=(1.0,),
        seeds=(0,),
        classifiers=(segmenter,),
        fidelity_seeds=0,
    )
    run_study(study, tmp_path, progress=False)
    rows = {row['arm']: row for row in read_results(tmp_path / RESULTS_FILE)}
    assert set(rows) == {'real', 'fixed', 'live'}
    assert rows['fixed']['train_synthetic'] == rows['live']['train_synthetic'] == rows['real']['train_real']
    assert rows['fixed']['cell'] != rows['live']['cell']


def simulated() -> SimulatedScene:
    return SimulatedScene(64, 64, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize('regions', REGIONS)
def test_drawing_costs_less_than_a_training_step(regions: str) -> None:
    mask = torch.arange(32).repeat_interleave(2).expand(40, 64, 64) % 4
    image = torch.randn(40, 12, 64, 64, generator=seeded())
    spec = SampleSpec('segmentation', 12, ('a', 'b', 'c', 'd'), size=(64, 64))
    generator = fit_generator('region_paste', TrainingData(spec, image, mask, image[:0], image[:0], mask[:0]))
    real = PatchDataset(image, mask.clone(), spec)

    def seconds(steps: int) -> float:
        start = time.process_time()
        train_segmenter(real, SegmenterConfig(encoder='mit_b0', steps=steps, batch_size=32))
        return time.process_time() - start

    step = (seconds(3) - seconds(1)) / 2
    start = time.process_time()
    for seed in range(3):
        generator.sample(32, seed=seed)
    assert (time.process_time() - start) / 3 < step
