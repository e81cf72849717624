"""The commands of spai-train, one module each: `EPILOG` and `run`, whose options become one call."""
