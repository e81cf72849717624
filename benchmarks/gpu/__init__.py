"""The encoder on one NVIDIA GPU: every back end and precision that runs, beside upstream's formulation in fp32."""
