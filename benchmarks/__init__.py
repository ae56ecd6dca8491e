"""Measurements that README and docs quote, for anyone to run again: `make bench`.

    run.py                     the command line
    lines.py                   what a line is, and which there are
    archive_lines.py ...       the lines, a module a stage
    three_scripts.py, bare_loop.py ...    what the stages are compared with, each a program
    slice_archive.py ...       the data, made by code, each a program
    measure.py, report.py      one run of one program; the table

Whatever is measured runs as a process of its own, so that its start, its memory and its caches are
those that a user would see. This process imports neither Beam nor TensorFlow.
"""
