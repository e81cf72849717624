"""How well a detector does: scores → metrics with intervals, protocols, calibration, plots."""
