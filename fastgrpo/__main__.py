"""`python -m fastgrpo` is the same as `fastgrpo`."""

from fastgrpo.cli import main

if __name__ == "__main__":
    main()
