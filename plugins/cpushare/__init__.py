"""TODO cpushare."""
