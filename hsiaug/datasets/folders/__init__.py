"""Folders of image files, as public data sets come: of one date and of two."""
