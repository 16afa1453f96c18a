"""The console's Inference Endpoints: deploying a model, the list, and their verbs."""
