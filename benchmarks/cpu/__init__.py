"""Detectors on this machine's CPU: every back end and precision that runs, beside upstream's formulation in fp32."""
