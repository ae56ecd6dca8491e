"""Apache Beam pipelines from a head-CT archive to hemorrhage probabilities.

Left without imports, so that the trainer can import the schema without importing Beam.
"""
