"""What a training tells the world, so that nothing waits for it and nothing is lost.

Records, plain values, are appended to a run's journal once they are committed; a shipper, a process of its own,
feeds them to the sinks: MLflow and TensorBoard. Each may be sent any number of times.
"""
