"""Gain from synthetic spectra, after Tables 1 and 2 of Audebert et al. 2018, on every real scene at hand.

    HSIAUG_DATA=folder python benchmarks/audebert2018.py --quick          # minutes, no basis for claims
    HSIAUG_DATA=folder python benchmarks/audebert2018.py --workers 2      # the study; repeat to resume

Settings: a random 3 % of the labelled pixels, and spatially disjoint parts with 10 and 30 labels per class and all
labels. Arms: a supervised and a semi-supervised GAN after the paper, in principal components, with Adam, averaged
weights and calibrated classes; our own generator, rivals and controls. ``hsiaug reproduce audebert2018`` trains the
GANs as published.
"""

from __future__ import annotations

from pathlib import Path

from real_scenes import DISJOINT, READERS
from studies import available, data_root, options, parsed, run_and_report

from hsiaug.ablation import Classifier, Setting, Study
from hsiaug.ablation.arms import quick, spectral_arms
from hsiaug.scenes import RandomSplit
from hsiaug.trainers import ClassifierConfig

BUDGETS: dict[str, int | None] = {'10 per class': 10, '30 per class': 30, 'all labels': None}
ORDER = ('30 per class', '10 per class', 'all labels', 'random 3 %')
MAX_TEST = 3000  # test pixels per split: enough for a standard error of 1 %, in a third of the time


def study(
    root: Path,
    seeds: int,
    gan_seeds: tuple[int, int],
    budgets: list[str],
    iterations: int,
    classifiers: list[str],
) -> Study:
    """The study on the scenes found."""
    scenes, settings = available(READERS, READERS, root), []
    for budget in budgets:
        for name in scenes:
            if budget == 'random 3 %':
                splitter = RandomSplit(fraction=0.03, on_rare='drop', max_test=MAX_TEST)
            else:
                splitter = DISJOINT[name](per_class=BUDGETS[budget], on_rare='drop', max_test=MAX_TEST)
            few = gan_seeds[0 if budget == '30 per class' else 1]
            settings.append(Setting(name, budget, splitter, dict.fromkeys(('GAN', 'ss-GAN'), few)))
    return Study(
        title='Gain from synthetic spectra on real scenes (after Audebert et al. 2018)',
        scenes=scenes,
        settings=tuple(settings),
        arms=spectral_arms({'iterations': iterations}),
        ratios=(0.5, 2.0, 5.0),
        seeds=tuple(range(seeds)),
        classifiers=tuple(Classifier(name, ClassifierConfig(), ('standard', 'minmax')) for name in classifiers),
        fidelity_seeds=1,
    )


def main() -> None:
    """Run the study and print its table."""
    parser = options(__doc__, 'audebert2018', quick='3 seeds, two ratios, short training', seeds=(20, 3), device='cpu')
    parser.add_argument(
        '--gan-seeds', type=int, nargs=2, default=(10, 3), help='of the GANs: at 30 per class, elsewhere'
    )
    parser.add_argument('--classifiers', nargs='+', choices=['nn1d', 'linear_svm'], default=['nn1d'])
    parser.add_argument('--iterations', type=int, default=1000, help='iterations of the GANs')
    parser.add_argument('--budgets', nargs='+', choices=ORDER, default=None)
    args = parsed(parser)
    gan_seeds = tuple(args.gan_seeds)
    budgets = args.budgets or [b for b in ORDER if not (args.quick and b == '10 per class')]
    plan = study(data_root(), args.seeds, gan_seeds, budgets, args.iterations, args.classifiers)
    run_and_report(quick(plan) if args.quick else plan, args.out, args)


if __name__ == '__main__':
    main()
