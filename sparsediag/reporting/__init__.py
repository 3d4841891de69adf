"""The report: what is known of one or several nets, in one page that needs no network."""
