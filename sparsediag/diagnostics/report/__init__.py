"""One page of all diagnostics, for one network or several."""
