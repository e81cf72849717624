"""Files and lists as inputs, and rows as outputs."""
