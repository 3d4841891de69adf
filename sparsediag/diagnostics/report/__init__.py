"""The HTML report: all diagnostics of one or several networks on a page."""
