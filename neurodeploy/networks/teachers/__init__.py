"""Teachers: the restoration networks that students are distilled from, under their published key names."""

from neurodeploy.networks.teachers.base import Teacher
from neurodeploy.networks.teachers.load import load_teacher

__all__ = ["Teacher", "load_teacher"]
