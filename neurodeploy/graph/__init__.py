"""The network as a NIR graph: its description, its law, reading, writing, shapes and passes."""
