"""``python -m hsiaug.cli``, as processes of a launched run start it."""

from . import main

if __name__ == '__main__':
    main()
