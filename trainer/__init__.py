"""The Keras trainer: reads the shards that the pipelines write, writes experiments.

Nothing here imports Apache Beam, and TensorFlow is imported only when a model is built or loaded.
"""
