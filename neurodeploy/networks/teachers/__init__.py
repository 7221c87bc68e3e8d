"""Teachers: the restoration networks that students are distilled from, under their published key names."""
