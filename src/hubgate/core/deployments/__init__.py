"""When Inference Endpoints run, and what that costs: pure, the clock is an argument."""
