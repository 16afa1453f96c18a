"""Inference Endpoints: what a model fits on, when it runs, and what that costs. Pure: the clock is an argument."""
