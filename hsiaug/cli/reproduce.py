"""``hsiaug reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..settings import COUNT, check_value
from .guard import require_device, require_own, require_writable


def reproduce(
    paper: Literal['audebert2018', 'patch_gan', 'specdm', 'msrresgan', 'unmixing_fusion'],
    data: Path = Path(),
    out: Path = Path('runs/reproduction'),
    table: int | None = None,
    scale: Literal['paper', 'small', 'demo'] = 'small',
    seeds: int | None = None,
    classes: tuple[str, ...] = (),
    workers: int = 1,
    device: str = 'auto',
    inception: str | None = None,
) -> None:
    """Make a paper's tables and figures again, next to the published numbers. Run it again to resume it.

    Args:
        paper: which one.
        data: folder of its public files, as they are downloaded; they may lie in folders of it.
        out: folder of the run; its page is index.html.
        table: number of the only table that is wanted; all tables and figures if null.
        scale: paper, with the published settings, takes days on a GPU; small, minutes to hours, also on other data
            where the paper's are missing; demo, trainings of a few steps, to see that everything runs.
        seeds: how many; those of the scale if null. More may be added to a run later.
        classes: names of classes that figures show; the paper's own if none are given.
        workers: processes at once.
        device: where to train; auto takes a GPU where there is one.
        inception: safetensors file of torchvision's Inception v3, by whose features specdm and unmixing_fusion
            compare images, or cache for those in the cache of torch.hub; a network that learns from the data if null.
    """
    from ..reproduce import PAPERS, Work, find_files
    from ..reproduce import reproduce as run
    from ..reproduce.page import describe_files, text_table, write_page
    from ..reproduce.run import RUN_FILE
    from ..trainers.inception import weights_of

    require_own(out, RUN_FILE, 'reproduction')
    chosen = PAPERS[paper]
    found = find_files(chosen, data, scale)
    print('\n'.join(describe_files(chosen, found)), flush=True)
    device, weights = require_device(device), None if inception is None else weights_of(inception)
    if seeds is not None:
        check_value('reproduce', 'seeds', seeds, int, COUNT)
    require_writable(out)
    try:
        done = run(Work(chosen, scale, found, out, device, workers, classes, seeds, weights), table)
    except KeyboardInterrupt:
        raise SystemExit(f'\ninterrupted; what is done is in {out}, the same command continues from there') from None
    page = write_page(done)
    print(text_table(done))
    print(f'page: {page}')
