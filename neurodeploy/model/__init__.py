"""A model as the verbs see it, whatever it was read from: what it is, its graph, its integers, and how it restores."""
