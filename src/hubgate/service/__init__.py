"""What the gate does, whoever asks and wherever a model runs."""
