"""The report: rows as pages of HTML that a person looks at, with a picture of each image.

A page is one file that asks for nothing else, so it can be sent and kept. What it says of images comes from rows, so
rows of an earlier run make the same page, but for heat maps, which no row holds.
"""
