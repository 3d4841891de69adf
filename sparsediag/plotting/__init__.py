"""Drawing from arrays: pictures, tables in a terminal, and SVG for pages."""
