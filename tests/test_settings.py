import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pytest
import torch

from hsiaug.samples import SampleSpec
from hsiaug.settings import COUNT, Range, check_value, checked_arguments
from hsiaug.systems import TrainingData, generator_class
from hsiaug.systems.change_editing.train import ChangeEditingConfig
from hsiaug.systems.msrresgan.train import SuperResolutionConfig
from hsiaug.systems.patch_gan.train import PatchGANConfig
from hsiaug.systems.spectral_gan.train import SpectralGANConfig
from hsiaug.systems.two_stream_diffusion.config import TwoStreamConfig
from hsiaug.systems.unmixing_fusion.abundances.config import AbundanceConfig
from hsiaug.systems.unmixing_fusion.train import UnmixingFusionConfig
from hsiaug.systems.unmixing_fusion.unmixing.train import UnmixingConfig
from hsiaug.trainers import ClassifierConfig, SegmenterConfig, fit_generator
from hsiaug.trainers.change_detection import ChangeDetectorConfig
from hsiaug.trainers.scene_classifier import SceneClassifierConfig

CONFIGS: tuple[type[Any], ...] = (
    AbundanceConfig, ChangeDetectorConfig, ChangeEditingConfig, ClassifierConfig, PatchGANConfig, SceneClassifierConfig,
    SegmenterConfig, SpectralGANConfig, SuperResolutionConfig, TwoStreamConfig, UnmixingConfig, UnmixingFusionConfig,
)  # fmt: skip
FIELDS = [
    pytest.param(config, field.name, getattr(config(), field.name), id=f'{config.__name__}.{field.name}')
    for config in CONFIGS
    for field in dataclasses.fields(config)
]


@pytest.mark.parametrize(('config', 'name', 'default'), FIELDS)
def test_no_setting_of_any_training_takes_what_it_cannot_mean(config: type[Any], name: str, default: Any) -> None:
    wrong: list[Any] = [[[None]], math.nan]
    if not (isinstance(default, dict) or dataclasses.is_dataclass(default)):
        wrong.append({'a': object()})
    if isinstance(default, bool):
        wrong += ['yes', 1, 0, None]
    elif isinstance(default, (int, float)):
        wrong += ['3', -1, -0.5, math.inf, -math.inf, True, False, [1]]
    elif isinstance(default, str):
        wrong += [3, True, 'nonsense']
    elif isinstance(default, tuple):
        wrong += ['abc', 3, (1, 'b', 3, 4, 5), (0.5, math.nan, 1), [-1, -1, -1, -1, -1], None]
    for value in wrong:
        with pytest.raises(ValueError, match=rf'{name}\b') as raised:
            config(**{name: value})
        assert 'found' in str(raised.value) or 'choose from' in str(raised.value) or 'cannot be' in str(raised.value)


@pytest.mark.parametrize('config', CONFIGS)
def test_numbers_of_numpy_and_lists_of_yaml_are_settings(config: type[Any]) -> None:
    given: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        default = getattr(config(), field.name)
        if isinstance(default, tuple):
            given[field.name] = list(default)
        elif isinstance(default, bool):
            given[field.name] = np.bool_(default)
        elif isinstance(default, int):
            given[field.name] = np.int64(default)
        elif isinstance(default, float):
            given[field.name] = np.float32(default)
    made = config(**given)
    assert all(getattr(made, name) == getattr(config(), name) for name, value in given.items() if type(value) is list)


@pytest.mark.parametrize(
    ('config', 'settings', 'message'),
    [
        (SpectralGANConfig, {'iterations': math.nan}, 'iterations must be a whole number of at least 1, found nan'),
        (SpectralGANConfig, {'lr': '2e-4'}, "lr must be a finite number above 0, found '2e-4'"),
        (SpectralGANConfig, {'lr': 0}, 'lr must be above 0, found 0'),
        (SpectralGANConfig, {'ema': 1.0}, r'ema must be in \[0, 1\), found 1.0'),
        (SpectralGANConfig, {'conditional': 'no'}, "conditional must be true or false, found 'no'"),
        (SpectralGANConfig, {'space': None}, 'unknown space None; choose from'),
        (
            TwoStreamConfig,
            {'unet_channels': '32'},
            "unet_channels must be a list of a whole number of at least 1, found '",
        ),
        (TwoStreamConfig, {'min_snr_gamma': math.inf}, 'min_snr_gamma must be a finite number above 0 or None'),
        (AbundanceConfig, {'network': {'layers': math.nan}}, 'AbundanceDiffusion: layers must be a whole number'),
        (AbundanceConfig, {'network': {'layer': 1}}, "AbundanceDiffusion: unknown field 'layer'; choose from"),
        (AbundanceConfig, {'kind': 'vae', 'network': {'counts': '1'}}, 'HierarchicalVAE: counts must be a finite'),
        (UnmixingFusionConfig, {'unmixing': 'small'}, "unmixing must be UnmixingConfig or a mapping.*found 'small'"),
        (UnmixingFusionConfig, {'unmixing': {'steps': True}}, 'UnmixingConfig: steps must be a whole number'),
        (ChangeEditingConfig, {'painter': {'batch_size': 0}}, 'TwoStreamConfig: batch_size must be at least 1'),
    ],
)
def test_messages_say_what_was_expected(config: type[Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)


@pytest.mark.parametrize(
    ('kind', 'settings', 'message'),
    [
        ('noise', {'level': math.nan}, 'Noise: level must be a finite number of at least 0, found nan'),
        ('noise', {'level': '0.1'}, 'Noise: level must be a finite number'),
        ('noise', {'level': True}, 'Noise: level must be a finite number'),
        ('gain_offset', {'gain': -1.0}, 'GainOffset: gain must be at least 0, found -1.0'),
        ('relighting', {'direct': math.inf}, 'Relighting: direct must be a finite number'),
        ('mixup', {'alpha': 0}, 'Mixup: alpha must be above 0, found 0'),
        ('variability', {'neighbours': 0}, 'SpectralVariability: neighbours must be at least 1, found 0'),
        ('variability', {'neighbours': None}, 'neighbours must be a whole number of at least 1, found None'),
        ('gaussian', {'components': 'two'}, "ClassGaussian: components must be a whole number.*found 'two'"),
        ('spectral_gan', {'members': 0}, 'SpectralGANConfig: members must be at least 1, found 0'),
        ('spectral_gan', {'members': '2'}, "members must be a whole number, found '2'"),
        ('spectral_gan', {'semi_supervised': 'yes'}, "semi_supervised must be true or false, found 'yes'"),
        ('spectral_gan', {'iterations': None}, 'iterations must be a whole number, found None'),
    ],
)
def test_settings_of_generators(data: TrainingData, kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_generator(kind, data, settings)


def test_a_generator_checks_what_it_is_made_of_without_a_trainer() -> None:
    with pytest.raises(ValueError, match='level must be a finite number of at least 0, found nan'):
        generator_class('noise')(SampleSpec('spectrum', 4, ('a', 'b')), level=math.nan)


def test_ranges() -> None:
    for value in (0, 0.5, 0.999):
        check_value('who', 'share', value, float, Range(0, 1, open_high=True))
    for value in (1, -1e-9, math.nan):
        with pytest.raises(ValueError, match='share must be'):
            check_value('who', 'share', value, float, Range(0, 1, open_high=True))
    check_value('who', 'any', -3.0, float, Range(-math.inf))
    with pytest.raises(ValueError, match='any must be a finite number, found inf'):
        check_value('who', 'any', math.inf, float, Range(-math.inf))
    check_value('who', 'rows', None, int | None, COUNT)
    with pytest.raises(ValueError, match='rows must be at least 1 or None, found 0'):
        check_value('who', 'rows', 0, int | None, COUNT)


@dataclasses.dataclass
class Inner:
    width: int = 3


class Maker:
    def __init__(self, n: int, inner: Inner | None = None, rates: tuple[float, ...] = (), more: Any = None) -> None: ...


@pytest.mark.parametrize(
    ('value', 'hint', 'message'),
    [
        ({1, 2}, tuple[int, ...], 'x must be a list of a whole number'),
        ((1, 2, 3), tuple[int, int], 'x must be a list of 2, each a whole number'),
        ((1, None), Sequence[float], 'x must be a list of a finite number'),
        (np.array([1.0, math.nan]), list[float], 'x must be a list of a finite number'),
        (1.0, int, 'x must be a whole number of at least 1, found 1.0'),
        (np.float32('nan'), float, 'x must be a finite number of at least 0, found'),
        (np.bool_(True), int, 'x must be a whole number'),
        (1, bool, 'x must be true or false, found 1'),
        (True, Literal[1, 2], 'unknown x True; choose from'),
        ([1], Path, r'x must be a path, found \[1\]'),
        ([], Mapping[str, int], r'x must be a mapping of settings, found \[\]'),
        ([3], Inner, r'x must be Inner, found \[3\]'),
        ({'width': 3}, Inner | None, 'x must be Inner or None, found'),
    ],
)
def test_one_way_to_check_a_type(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f'who: {message}'):
        check_value('who', 'x', value, hint)


@pytest.mark.parametrize(
    ('value', 'hint'),
    [
        ([1, 2], tuple[int, int]), (np.arange(1, 4), Sequence[int]), (2, float), (10**30, int), ('here', Path),
        (Path('here'), os.PathLike[str]), (Inner(0), Inner), ((1, None), tuple[int | None, ...]), (object(), Any),
        (np.str_('a'), Literal['a', 'b']), (MappingProxyType({'a': 1}), Mapping[str, Any]),
        (torch.ones(2), torch.Tensor),
    ],
)  # fmt: skip
def test_what_means_the_same_is_taken(value: Any, hint: Any) -> None:
    assert check_value('who', 'x', value, hint) is value or isinstance(value, np.generic)


def test_numbers_of_numpy_become_plain_ones() -> None:
    assert type(check_value('who', 'x', np.int64(3), int)) is int
    assert {type(v) for v in checked_arguments(Maker, {'n': np.int32(1), 'more': np.float64(1)}, 'file').values()} == {
        int,
        float,
    }


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'n': '1', 'rates': [True]}, "n must be a whole number, found '1'; rates must be a list of a finite number"),
        ({'n': 1, 'more': {'a': [0.0, math.nan]}}, r'more\.a\.1 must be finite, found NaN or infinity'),
        ({'n': 1, 'inner': {'width': math.inf}}, r'inner\.width must be finite'),
        ({'n': 1, 'wide': 2}, r"unknown field 'wide'; choose from \['inner', 'more', 'n', 'rates'\]"),
        ({'inner': None}, 'n must be given'),
        ([1], 'settings by name were expected'),
    ],
)
def test_arguments_from_a_file(settings: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=f'file: {message}'):
        checked_arguments(Maker, settings, 'file', RuntimeError)
    assert checked_arguments(Maker, {'n': -1, 'inner': {'width': 1}}, 'file') == {'n': -1, 'inner': {'width': 1}}
