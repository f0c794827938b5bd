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
    """Reproduce a paper's tables and figures, next to the published numbers. Repeat the command to resume.

    Args:
        paper: name of the paper.
        data: folder with its public files, as downloaded; sub-folders are searched too.
        out: run folder; its page is index.html.
        table: number of the only table to reproduce; if null, all tables and figures.
        scale: paper uses the published settings and takes days on a GPU; small takes minutes to hours, and uses other
            data if the paper's are missing; demo trains for a few steps, to check that everything runs.
        seeds: number of seeds; that of the scale if null. You can add more to a run later.
        classes: names of the classes shown in figures; those of the paper by default.
        workers: number of parallel processes.
        device: device to train on; auto uses a GPU if there is one.
        inception: safetensors file with weights of torchvision's Inception v3, by whose features specdm and
            unmixing_fusion compare images, or cache for the cache of torch.hub; if null, a network trained on the data.
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
        raise SystemExit(f'\ninterrupted; finished work is in {out}; repeat the command to continue') from None
    page = write_page(done)
    print(text_table(done))
    print(f'page: {page}')
