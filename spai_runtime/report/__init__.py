"""The report shows rows as pages of HTML for people, with a picture of each image.

A page is one file that loads nothing else, so it can be sent and kept. What it says of images comes from rows, so the
rows of an earlier run make the same page, except for heat maps, which no row holds.
"""
