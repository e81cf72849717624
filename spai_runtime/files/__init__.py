"""Files and lists in, rows out."""
