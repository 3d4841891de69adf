"""The papers' figures and tables, one file each: what an item needs, and how it is drawn."""
