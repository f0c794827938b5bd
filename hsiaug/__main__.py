"""``python -m hsiaug`` is the command ``hsiaug``."""

from .cli import main

if __name__ == '__main__':
    main()
