"""`python -m spai_runtime` is `spai-run`."""

from spai_runtime.cli.run import main

if __name__ == "__main__":
    raise SystemExit(main())
