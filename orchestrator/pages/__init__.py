"""HTML that needs nothing but its own file: no network, no server. Templates escape all text."""
