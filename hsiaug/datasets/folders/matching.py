"""Which files make a sample: found by usual names, by the stem that they share, and by the list of a split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from unicodedata import normalize

from ...scenes.files import FilesNotFoundError
from .image_files import IMAGE_SUFFIXES, SUFFIXES, image_files, subfolders


def root_of(owner: str, root: str | os.PathLike[str], split: str | None, holds: str) -> tuple[Path, str | None]:
    """The folder of a split in the root, or the root itself and the split, which is then to be looked for in there.

    Raises:
        DatasetNotFoundError: if there is no root, saying what it should hold.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise FilesNotFoundError(f'{owner}: no folder {folder}; it should hold {holds}')
    return (folder / split, None) if split is not None and (folder / split).is_dir() else (folder, split)


def entries(
    folder: Path, name: str | None, usual: Sequence[str] = (), suffixes: Sequence[str] = SUFFIXES
) -> list[Path]:
    """Files and folders in a folder by their name, whose suffix may be omitted, or by any of the usual ones."""
    if name is not None and (folder / name).exists():
        return [folder / name]
    held = {path: path.name for path in subfolders(folder)} | {
        path: path.stem for path in image_files(folder, suffixes)
    }
    return [path for path, called in held.items() if (called.lower() in usual if name is None else called == name)]


def only_one(owner: str, what: str, found: Sequence[Path], folder: Path, wanted: str, hint: str = '') -> Path:
    """The one of some entries of a folder.

    Raises:
        DatasetNotFoundError: if there is none.
        ValueError: if there are several.
    """
    if len(found) == 1:
        return found[0]
    if found:
        names = [path.name for path in found[:8]]
        raise ValueError(f'{owner}: {names} in {folder} could all be the {what}; name one with {what}={hint}')
    raise FilesNotFoundError(
        f'{owner}: {folder} has no {what}, {wanted}; it holds {held_in(folder)}; name it with {what}={hint}'
    )


def held_in(folder: Path) -> list[str]:
    """The first names of what is in a folder, for messages."""
    return sorted(path.name for path in folder.iterdir())[:12]


def names_of(
    owner: str, root: Path, split: str | None, names: Iterable[str], only: Sequence[str] | None, separators: str = '\n'
) -> list[str]:
    """The names of samples, or ``only`` some, or those in ``root/<split>.txt`` or ``root/list/<split>.txt``.

    There, files may have folder and suffix.

    Raises:
        DatasetNotFoundError: if there is no such list.
    """
    if split is None:
        return list(names if only is None else only)
    listing = root / f'{split}.txt'
    found = next((file for file in (listing, root / 'list' / listing.name) if file.is_file()), None)
    if found is None:
        raise FilesNotFoundError(
            f'{owner}: no split {split!r}: neither a list {listing}, nor folders of that name in {root} or in each of '
            'its folders'
        )
    try:
        text = normalize('NFC', found.read_text('utf-8-sig'))
    except UnicodeDecodeError as error:
        raise ValueError(f'{owner}: {found} is not a text in UTF-8; save it as that') from error
    files = [Path(name.strip()) for name in re.split(f'[{separators}]', text) if name.strip()]
    listed = [file.stem if file.suffix.lower() in IMAGE_SUFFIXES else file.name for file in files]
    return [name for name in listed if only is None or name in only]


def matched(
    owner: str,
    root: Path,
    images: Sequence[Path],
    masks: Sequence[Path],
    split: str | None,
    only: Sequence[str] | None = None,
) -> list[tuple[str, list[Path]]]:
    """Stems, and their file in each folder of images and of masks: of a split, ``only`` some, or all.

    Raises:
        DatasetNotFoundError: if there is no such split.
        ValueError: naming a file that lacks its partners, or if there are none.
    """
    folders = [*images, *masks]
    if split is not None and all((folder / split).is_dir() for folder in folders):
        folders, split = [folder / split for folder in folders], None
    held = [
        _by_stem(owner, folder, IMAGE_SUFFIXES if k < len(images) else SUFFIXES) for k, folder in enumerate(folders)
    ]
    stems = names_of(owner, root, split, sorted(set().union(*held)), only)
    for stem in stems:
        if lacking := [k for k, files in enumerate(held) if stem not in files]:
            wanted = f'{stem!r}' if split is None else f'{stem!r} of the split {split!r}'
            partner = next((files[stem] for files in held if stem in files), wanted)
            raise ValueError(
                f'{owner}: {partner} has no file of that stem in {" and ".join(str(folders[k]) for k in lacking)}, '
                f'which holds {held_in(folders[lacking[0]])}; give all files of a sample the same stem, and masks not '
                'as JPEG'
            )
    if not stems:
        raise ValueError(
            f'{owner}: no image files in {folders[0]}, which holds {held_in(folders[0])}, or none named in the split; '
            'if there are several splits, give split='
        )
    return [(stem, [files[stem] for files in held]) for stem in stems]


def _by_stem(owner: str, folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Readable files by stem, composed: macOS may store accents as characters of their own."""
    files: dict[str, Path] = {}
    for path in image_files(folder, suffixes):
        if (stem := normalize('NFC', path.stem)) in files:
            raise ValueError(f'{owner}: {files[stem]} and {path} have the same stem; keep one of them')
        files[stem] = path
    return files
