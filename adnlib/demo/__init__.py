"""Demo images for machines with no data set: drawn by the project, seeded, in MVTec AD's layout.

They show that the road works and look the part; numbers measured on them say nothing about the
paper's data sets.
"""

from adnlib.demo.files import DEMO_SETS, draw_sample, make_demo

__all__ = ["DEMO_SETS", "draw_sample", "make_demo"]
