"""The torch side: teachers, spiking students and what is counted on them. Needs the extra ``train``."""
