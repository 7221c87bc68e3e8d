"""Counting operations, pricing them, baselines and the verdict. Counts are exact; prices are profiles."""
