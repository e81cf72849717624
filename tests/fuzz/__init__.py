"""Fuzzing: files that are mutated at random never do more than raise a UserError, in bounded memory and time.

`make test` tries some thousands, the same ones each time; `SPAI_FUZZ=10 pytest tests/fuzz` ten times as many, others
each time. hypothesis shrinks what fails to few edits of a seed, prints them, and tries them first the next time.
"""
