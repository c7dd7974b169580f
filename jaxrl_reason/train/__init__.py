"""One way to run a training, whatever the model, the task and the method."""
