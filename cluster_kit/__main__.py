"""``python -m cluster_kit``: the command line."""

from __future__ import annotations

from cluster_kit.cli import main

if __name__ == "__main__":
    main()
