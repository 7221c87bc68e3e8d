"""From a NIR graph to the integer network of one arithmetic, and back to a NIR graph on its grid."""
