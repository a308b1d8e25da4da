"""The benchmark of the review grid: `make bench`. Figures of the issue, measured through the real app over HTTP."""
