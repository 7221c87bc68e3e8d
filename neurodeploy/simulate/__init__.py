"""Running an integer network: the plain reference, tiling, observers; and the float interpreter of NIR graphs."""
